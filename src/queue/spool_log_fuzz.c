/* Any bytes as a log of failures. A first byte of 1: the rest is the payload of one good record, followed by itself. */
#include "queue/crc32c.h"
#include "queue/spool_private.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink;

static void touch(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        sink += (unsigned char)s.p[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    struct str rest = str_n((const char *)data + 1, size - 1);
    struct buf b = { 0 };
    if (data[0] == 1) {
        buf_add(&b, STR("\nREC"));
        pack_u32(&b, (uint32_t)rest.n);
        pack_u32(&b, crc32c(0, rest));
        buf_add(&b, rest);
    }
    buf_add(&b, rest);
    char *exact = malloc(b.n ? b.n : 1);
    struct arena *a = arena_new();
    if (exact) {
        memcpy(exact, b.p ? b.p : "", b.n);
        struct spool_failure *f;
        size_t count;
        spool_log_parse(str_n(exact, b.n), a, &f, &count);
        for (size_t i = 0; i < count; i++) {
            touch(f[i].address);
            touch(f[i].reason);
            touch(f[i].remote_mta);
        }
    }
    arena_free(a);
    free(exact);
    buf_free(&b);
    return 0;
}
