/* Fuzz: index files. The first byte chooses the kind. Whatever the bytes are, look-ups and listing end and crash
 * nothing. */
#include "base/die.h"
#include "table/index.h"
#include "table/lmdb_file.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LISTED_MAX = 10000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    int fd = memfd_create("index", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data + 1, size - 1) != (ssize_t)(size - 1))
        die("memfd");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    enum index_kind kind = data[0] & 1 ? INDEX_CDB : INDEX_LMDB;
    struct arena *a = arena_new();
    struct index_reader *r;
    if (!index_open(kind, path, a, &r)) {
        struct str key, value;
        const struct str soon[] = { STR_INIT("key7"), STR_INIT("key199"), STR_INIT("x") };
        index_expect(r, soon, sizeof soon / sizeof soon[0]);
        index_get(r, STR("key7"), a, &value);
        struct index_cursor c = { 0 };
        for (int i = 0; i < LISTED_MAX && index_next(r, &c, a, &key, &value) == TABLE_FOUND; i++)
            index_get(r, arena_str(a, key), a, &value);
        index_cursor_free(&c);
        index_close(r);
    }
    struct lmdb_file f;
    if (kind == INDEX_LMDB) {
        if (!lmdb_file_open(&f, dup(fd)))
            lmdb_file_sound(&f);
        lmdb_file_close(&f);
    }
    arena_free(a);
    close(fd);
    return 0;
}
