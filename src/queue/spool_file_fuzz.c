/* Any bytes as a queue file: the head, the envelope, every string in it. The checks would stop nearly every input, so a
 * first byte of 1 makes the sums fit before the file is read. */
#include "queue/crc32c.h"
#include "queue/spool_file.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink;

static void touch(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        sink += (unsigned char)s.p[i];
}

static void put_u32(char *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (char)(unsigned char)(v >> (8 * i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    size_t n = size - 1;
    char *file = malloc(n ? n : 1);
    if (!file)
        return 0;
    memcpy(file, data + 1, n);
    struct str all = str_n(file, n);
    if (data[0] == 1 && n >= SPOOL_HEAD_SIZE) {
        struct unpack u = unpack_from(str_sub(all, 12, 24));
        uint32_t count = unpack_u32(&u);
        (void)unpack_u64(&u);
        uint64_t at = unpack_u64(&u);
        uint64_t behind = (uint64_t)count + SPOOL_FLAGS + SPOOL_REASONS_HEAD;
        if (at < n && behind < n - at) { /* no reasons */
            put_u32(file + 32, (uint32_t)(n - at - behind));
            put_u32(file + 40, crc32c(0, str_sub(all, at, n - at - behind)));
        }
        put_u32(file + SPOOL_HEAD_SIZE - 4, crc32c(0, str_sub(all, 0, SPOOL_HEAD_SIZE - 4)));
    }
    struct spool_head h;
    if (spool_head_unpack(all, n, &h)) {
        struct arena *a = arena_new();
        size_t len = (size_t)(h.envelope_size + spool_mark_count(&h));
        /* where the loader's own copy would be: exactly as large */
        char *part = malloc(len ? len : 1);
        if (part)
            memcpy(part, file + h.envelope_at, len);
        struct envelope e;
        if (part && spool_envelope_unpack(str_n(part, len), &h, a, &e)) {
            touch(e.sender);
            touch(e.content_filter);
            touch(e.client.sasl_sender);
            for (size_t i = 0; i < e.rcpt_count; i++) {
                touch(e.rcpts[i].address);
                touch(e.rcpts[i].orig);
                touch(e.rcpts[i].dsn_orcpt);
            }
            /* what was read can be written, and reads back the same */
            struct buf b = { 0 };
            struct spool_head again = { .content_size = h.content_size };
            if (!spool_envelope_pack(&b, &again, &e) || again.rcpt_count != h.rcpt_count)
                abort();
            buf_free(&b);
        }
        free(part);
        arena_free(a);
    }
    free(file);
    return 0;
}
