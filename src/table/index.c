#include "table/index.h"

#include "base/die.h"
#include "build_config.h"
#include "table/lmdb_file.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#if HAVE_CDB
#include <cdb.h>
#endif

struct index_reader {
    enum index_kind kind;
    const char *fault;
    struct lmdb_file lmdb;
#if HAVE_CDB
    struct cdb cdb;
    struct filemap watched;
    int fd;
#endif
};

enum index_kind index_kind_of(struct str type) {
    if (str_eq(type, STR("hash")) || str_eq(type, STR("btree")) || str_eq(type, STR("lmdb")))
        return INDEX_LMDB;
    return HAVE_CDB && str_eq(type, STR("cdb")) ? INDEX_CDB : INDEX_NONE;
}

struct str index_path(struct arena *a, enum index_kind kind, struct str name) {
    return arena_cat(a, name, kind == INDEX_CDB ? STR(".cdb") : STR(".lmdb"));
}

struct str without_nul(struct str s) {
    return str_sub(s, 0, s.n && s.p[s.n - 1] == 0 ? s.n - 1 : s.n);
}

/* --- long keys --- */

void long_key(struct str key, char *ret) {
    uint64_t hash = str_hash(key);
    memcpy(ret, "\0long\0\0\0", 8);
    memcpy(ret + 8, &hash, sizeof hash);
}

bool is_long_key(struct str stored) {
    return stored.n == LONG_KEY_SIZE && memcmp(stored.p, "\0long\0\0\0", 8) == 0;
}

bool long_next(struct str row, size_t *at, struct str *ret_key, struct str *ret_value) {
    uint32_t sizes[2];
    struct str rest = str_from(row, *at);
    if (rest.n < sizeof sizes)
        return false;
    memcpy(sizes, rest.p, sizeof sizes);
    rest = str_from(rest, sizeof sizes);
    if (sizes[0] > rest.n || sizes[1] > rest.n - sizes[0])
        return false;
    *ret_key = str_sub(rest, 0, sizes[0]);
    *ret_value = str_sub(rest, sizes[0], sizes[1]);
    *at += sizeof sizes + sizes[0] + sizes[1];
    return true;
}

void long_add(struct buf *row, struct str key, struct str value) {
    uint32_t sizes[2] = { (uint32_t)key.n, (uint32_t)value.n };
    buf_add(row, str_n((const char *)sizes, sizeof sizes));
    buf_add(row, key);
    buf_add(row, value);
}

static enum table_result lmdb_result(struct index_reader *r, enum lmdb_file_result result) {
    if (result == LMDB_FILE_FAULT) {
        r->fault = r->lmdb.fault;
        return TABLE_ERROR;
    }
    return result == LMDB_FILE_FOUND ? TABLE_FOUND : TABLE_NOT_FOUND;
}

static enum table_result get_long(struct index_reader *r, struct str key, struct arena *a, struct str *ret_value) {
    char stored[LONG_KEY_SIZE];
    long_key(key, stored);
    struct str row, k, v;
    enum table_result result = lmdb_result(r, lmdb_file_get(&r->lmdb, str_n(stored, sizeof stored), a, &row));
    if (result != TABLE_FOUND)
        return result;
    for (size_t at = 0; long_next(row, &at, &k, &v);)
        if (str_eq(k, key)) {
            *ret_value = arena_str(a, v);
            return TABLE_FOUND;
        }
    return TABLE_NOT_FOUND;
}

/* --- lmdb --- */

static enum table_result get_lmdb(struct index_reader *r, struct str key, struct arena *a, struct str *ret_value) {
    if (key.n > INDEX_KEY_MAX)
        return get_long(r, key, a, ret_value);
    char with_nul[INDEX_KEY_MAX + 1];
    if (key.n)
        memcpy(with_nul, key.p, key.n);
    with_nul[key.n] = 0;
    enum lmdb_file_result result = lmdb_file_get(&r->lmdb, str_n(with_nul, key.n + 1), a, ret_value);
    if (result == LMDB_FILE_NOT_FOUND) /* as `postmap -n` wrote it */
        result = lmdb_file_get(&r->lmdb, key, a, ret_value);
    if (result == LMDB_FILE_FOUND)
        *ret_value = without_nul(*ret_value);
    return lmdb_result(r, result);
}

static enum table_result next_lmdb(struct index_reader *r, struct index_cursor *c, struct arena *a, struct str *ret_key,
                                   struct str *ret_value) {
    for (;;) {
        struct str key, value;
        if (c->item) { /* the entry again: others may have written meanwhile */
            enum lmdb_file_result again = lmdb_file_get(&r->lmdb, buf_str(&c->key), a, &value);
            if (again == LMDB_FILE_FAULT)
                return lmdb_result(r, again);
            size_t at = c->item;
            if (again == LMDB_FILE_FOUND && long_next(value, &at, ret_key, ret_value)) {
                c->item = at;
                return TABLE_FOUND;
            }
            c->item = 0;
        }
        enum lmdb_file_result result = lmdb_file_next(&r->lmdb, !c->started, buf_str(&c->key), a, &key, &value);
        if (result != LMDB_FILE_FOUND)
            return lmdb_result(r, result);
        c->started = true;
        buf_clear(&c->key);
        buf_add(&c->key, key);
        if (!is_long_key(key)) {
            *ret_key = without_nul(key);
            *ret_value = without_nul(value);
            return TABLE_FOUND;
        }
        size_t at = 0;
        if (long_next(value, &at, ret_key, ret_value)) {
            c->item = at;
            return TABLE_FOUND;
        }
    }
}

/* --- cdb: the library checks what it reads, and the map is watched --- */

#if HAVE_CDB
static const char *open_cdb(struct index_reader *r, int fd) {
    r->fd = fd;
    if (cdb_init(&r->cdb, fd) != 0)
        return errno == EPROTO ? "not a cdb file" : strerror(errno);
    filemap_watch(&r->watched, r->cdb.cdb_mem, r->cdb.cdb_fsize);
    return NULL;
}

static enum table_result cdb_part(struct index_reader *r, unsigned size, unsigned at, struct arena *a,
                                  struct str *ret) {
    const void *p = size ? cdb_get(&r->cdb, size, at) : "";
    if (p)
        *ret = without_nul(arena_str(a, str_n(p, size)));
    if (p && !filemap_broken(&r->watched))
        return TABLE_FOUND;
    r->fault = filemap_broken(&r->watched) ? "it was cut short while it was read" : "it is malformed";
    return TABLE_ERROR;
}

static enum table_result find_cdb(struct index_reader *r, struct str key) {
    int rc = cdb_find(&r->cdb, key.p, (unsigned)key.n);
    if (rc >= 0 && !filemap_broken(&r->watched))
        return rc > 0 ? TABLE_FOUND : TABLE_NOT_FOUND;
    r->fault = rc < 0 ? "it is malformed" : "it was cut short while it was read";
    return TABLE_ERROR;
}

static enum table_result get_cdb(struct index_reader *r, struct str key, struct arena *a, struct str *ret_value) {
    enum table_result result = find_cdb(r, key);
    if (result == TABLE_NOT_FOUND) { /* as `postmap -N` wrote it */
        char small[256];
        struct str with_nul = { key.n < sizeof small ? small : arena_cstr(a, key), key.n + 1 };
        if (key.n < sizeof small) {
            if (key.n)
                memcpy(small, key.p, key.n);
            small[key.n] = 0;
        }
        result = find_cdb(r, with_nul);
    }
    return result == TABLE_FOUND ? cdb_part(r, cdb_datalen(&r->cdb), cdb_datapos(&r->cdb), a, ret_value) : result;
}

static uint32_t cdb_number(const struct cdb *c, size_t at) {
    uint32_t v;
    memcpy(&v, c->cdb_mem + at, sizeof v);
    return le32toh(v);
}

/* The file: 256 pairs (position, slots) of hash tables, whose slots are pairs (hash, position of an entry). */
static void expect_cdb(struct index_reader *r, const struct str *keys, size_t n) {
    enum { PAIR = 8, LIST = 256 * PAIR, CACHE_LINE = 64 };
    const struct cdb *c = &r->cdb;
    uint32_t hashes[INDEX_EXPECT_MAX];
    size_t slots[INDEX_EXPECT_MAX];
    if (c->cdb_fsize < LIST + CACHE_LINE)
        return;
    const size_t last = c->cdb_fsize - CACHE_LINE;
    for (size_t i = 0; i < n; i++) {
        hashes[i] = cdb_hash(keys[i].p, (unsigned)keys[i].n);
        size_t pair = hashes[i] % 256 * PAIR;
        uint32_t size = cdb_number(c, pair + 4);
        slots[i] = size ? cdb_number(c, pair) + (uint64_t)(hashes[i] >> 8) % size * PAIR : SIZE_MAX;
        if (slots[i] <= last)
            __builtin_prefetch(c->cdb_mem + slots[i]);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t at = slots[i]; at <= last && at < slots[i] + CACHE_LINE; at += PAIR) {
            size_t entry = cdb_number(c, at + 4);
            if (entry == 0)
                break;
            if (cdb_number(c, at) == hashes[i] && entry <= last) {
                __builtin_prefetch(c->cdb_mem + entry);
                __builtin_prefetch(c->cdb_mem + entry + CACHE_LINE);
                break;
            }
        }
}

static enum table_result next_cdb(struct index_reader *r, struct index_cursor *c, struct arena *a, struct str *ret_key,
                                  struct str *ret_value) {
    if (!c->started)
        cdb_seqinit(&c->at, &r->cdb);
    c->started = true;
    int rc = cdb_seqnext(&c->at, &r->cdb);
    if (rc <= 0) {
        r->fault = filemap_broken(&r->watched) ? "it was cut short while it was read" : "it is malformed";
        return rc < 0 || filemap_broken(&r->watched) ? TABLE_ERROR : TABLE_NOT_FOUND;
    }
    enum table_result result = cdb_part(r, cdb_keylen(&r->cdb), cdb_keypos(&r->cdb), a, ret_key);
    return result == TABLE_FOUND ? cdb_part(r, cdb_datalen(&r->cdb), cdb_datapos(&r->cdb), a, ret_value) : result;
}

static void close_cdb(struct index_reader *r) {
    filemap_unwatch(&r->watched);
    if (r->cdb.cdb_mem)
        cdb_free(&r->cdb);
    close(r->fd);
}
#else
static const char *open_cdb(struct index_reader *r, int fd) {
    (void)r;
    close(fd);
    return "this build has no cdb";
}
static enum table_result get_cdb(struct index_reader *r, struct str key, struct arena *a, struct str *ret_value) {
    (void)r, (void)key, (void)a, (void)ret_value;
    return TABLE_ERROR;
}
static void expect_cdb(struct index_reader *r, const struct str *keys, size_t n) {
    (void)r, (void)keys, (void)n;
}
static enum table_result next_cdb(struct index_reader *r, struct index_cursor *c, struct arena *a, struct str *ret_key,
                                  struct str *ret_value) {
    (void)r, (void)c, (void)a, (void)ret_key, (void)ret_value;
    return TABLE_ERROR;
}
static void close_cdb(struct index_reader *r) {
    (void)r;
}
#endif

/* --- */

error index_open(enum index_kind kind, const char *path, struct arena *err_arena, struct index_reader **ret) {
    *ret = NULL;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    const char *fault = fd < 0 || fstat(fd, &st) != 0 ? strerror(errno)
                        : S_ISREG(st.st_mode)         ? NULL
                                                      : "not a regular file";
    if (fault) {
        if (fd >= 0)
            close(fd);
        return err_make(err_arena, ERR_SYS, "open database %s: %s", path, fault);
    }
    struct index_reader *r = calloc(1, sizeof *r);
    if (!r)
        die_no_memory(sizeof *r);
    r->kind = kind;
    fault = kind == INDEX_CDB ? open_cdb(r, fd) : lmdb_file_open(&r->lmdb, fd);
    if (fault) {
        error e = err_make(err_arena, ERR_SYS, "open database %s: %s", path, fault);
        index_close(r);
        return e;
    }
    *ret = r;
    return NULL;
}

void index_close(struct index_reader *r) {
    if (!r)
        return;
    if (r->kind == INDEX_CDB)
        close_cdb(r);
    else
        lmdb_file_close(&r->lmdb);
    free(r);
}

enum table_result index_get(struct index_reader *r, struct str key, struct arena *a, struct str *ret_value) {
    if (key.n == 0)
        return TABLE_NOT_FOUND;
    return r->kind == INDEX_CDB ? get_cdb(r, key, a, ret_value) : get_lmdb(r, key, a, ret_value);
}

void index_expect(struct index_reader *r, const struct str *keys, size_t n) {
    if (n > INDEX_EXPECT_MAX)
        n = INDEX_EXPECT_MAX;
    if (r->kind == INDEX_CDB)
        expect_cdb(r, keys, n);
    else
        lmdb_file_expect(&r->lmdb, keys, n);
}

enum table_result index_next(struct index_reader *r, struct index_cursor *c, struct arena *a, struct str *ret_key,
                             struct str *ret_value) {
    return r->kind == INDEX_CDB ? next_cdb(r, c, a, ret_key, ret_value) : next_lmdb(r, c, a, ret_key, ret_value);
}

/* Where the entry of long keys goes on behind `after`. */
static enum table_result item_behind(struct index_reader *r, struct str after, struct arena *a, size_t *ret) {
    char stored[LONG_KEY_SIZE];
    long_key(after, stored);
    struct str row, k, v;
    *ret = 0;
    enum table_result result = lmdb_result(r, lmdb_file_get(&r->lmdb, str_n(stored, sizeof stored), a, &row));
    for (size_t at = 0; result == TABLE_FOUND && *ret == 0 && long_next(row, &at, &k, &v);)
        if (str_eq(k, after))
            *ret = at;
    return result;
}

enum table_result index_next_after(struct index_reader *r, struct str after, struct arena *a, struct str *ret_key,
                                   struct str *ret_value) {
    struct index_cursor c = { .started = after.n > 0 };
    enum table_result result = TABLE_FOUND;
    if (after.n > INDEX_KEY_MAX) {
        char stored[LONG_KEY_SIZE];
        long_key(after, stored);
        buf_add(&c.key, str_n(stored, sizeof stored));
        result = item_behind(r, after, a, &c.item);
    } else if (after.n) {
        buf_add(&c.key, after);
        buf_byte(&c.key, 0);
    }
    if (result != TABLE_ERROR)
        result = index_next(r, &c, a, ret_key, ret_value);
    index_cursor_free(&c);
    return result;
}

void index_cursor_free(struct index_cursor *c) {
    buf_free(&c->key);
}

const char *index_fault(const struct index_reader *r) {
    return r->fault;
}
