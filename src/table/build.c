#include "table/build.h"

#include "base/die.h"
#include "build_config.h"
#include "table/lmdb_write.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#if HAVE_CDB
#include <cdb.h>
#endif

enum { TEMP_TRIES = 100, SMALL_RANGE = 32 };

/* --- sorting: eight bytes of the keys at a time, compared as one number --- */

struct sort_item {
    uint64_t piece; /* of the key, from the depth of the range on */
    uint32_t number;
};
struct sort_range {
    uint32_t from, to;
    uint32_t depth; /* bytes that all keys of the range share */
};

static uint64_t piece_of(struct str key, size_t depth) {
    unsigned char bytes[8] = { 0 };
    size_t n = key.n > depth ? key.n - depth : 0;
    if (n)
        memcpy(bytes, key.p + depth, n < sizeof bytes ? n : sizeof bytes);
    uint64_t v;
    memcpy(&v, bytes, sizeof v);
    return __builtin_bswap64(v);
}

static int compare_items(const void *a, const void *b) {
    const struct sort_item *x = a, *y = b;
    if (x->piece != y->piece)
        return x->piece < y->piece ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

static const struct index_entry *comparing; /* qsort() passes nothing on; one thread sorts */

static int compare_keys(const void *a, const void *b) {
    const struct sort_item *x = a, *y = b;
    int order = str_cmp(comparing[x->number].key, comparing[y->number].key);
    return order ? order : (x->number > y->number) - (x->number < y->number);
}

static bool is_sorted(struct index_entries e) {
    for (size_t i = 1; i < e.n; i++)
        if (str_cmp(e.at[i - 1].key, e.at[i].key) > 0)
            return false;
    return true;
}

/* Keys that end inside of the piece have zero bytes there, as no key of a text has: equal pieces with an end in them
 * are equal keys, if not for such keys (they are sorted by compare_keys()). */
static void sort(struct index_entries e, uint32_t *order) {
    struct sort_item *items = calloc(e.n, sizeof *items);
    struct sort_range *todo = calloc(e.n / SMALL_RANGE + 2, sizeof *todo); /* they do not overlap */
    if (!items || !todo)
        die_no_memory(e.n * sizeof *items);
    for (uint32_t i = 0; i < e.n; i++)
        items[i].number = i;
    size_t n = 0;
    todo[n++] = (struct sort_range){ 0, (uint32_t)e.n, 0 };
    comparing = e.at;
    while (n) {
        struct sort_range r = todo[--n];
        if (r.to - r.from < SMALL_RANGE) {
            qsort(items + r.from, r.to - r.from, sizeof *items, compare_keys);
            continue;
        }
        bool ended = true;
        for (uint32_t i = r.from; i < r.to; i++) {
            items[i].piece = piece_of(e.at[items[i].number].key, r.depth);
            ended = ended && e.at[items[i].number].key.n <= r.depth;
        }
        qsort(items + r.from, r.to - r.from, sizeof *items, compare_items);
        if (ended)
            continue;
        for (uint32_t i = r.from, j; i < r.to; i = j) {
            for (j = i + 1; j < r.to && items[j].piece == items[i].piece;)
                j++;
            if (j - i >= SMALL_RANGE)
                todo[n++] = (struct sort_range){ i, j, r.depth + 8 };
            else if (j - i > 1)
                qsort(items + i, j - i, sizeof *items, compare_keys);
        }
    }
    for (size_t i = 0; i < e.n; i++)
        order[i] = items[i].number;
    free(items);
    free(todo);
}

void index_settle(struct index_entries e, bool replace, uint32_t *order) {
    if (is_sorted(e)) {
        for (size_t i = 0; i < e.n; i++)
            order[i] = (uint32_t)i;
    } else {
        sort(e, order);
    }
    struct index_entry *first = NULL;
    for (size_t i = 0; i < e.n; i++) {
        index_prefetch(e, order, i);
        struct index_entry *at = &e.at[order[i]];
        at->dropped = first && str_eq(first->key, at->key);
        if (!at->dropped)
            first = at;
        else if (replace)
            first->value = at->value;
    }
}

/* --- cdb --- */

#if HAVE_CDB
static error write_cdb(const char *temp, struct index_entries e, const struct index_options *o) {
    uint64_t size = 2048;
    size_t nul = o->nul && !o->no_nul;
    for (size_t i = 0; i < e.n; i++)
        size += e.at[i].dropped ? 0 : 8 + 16 + e.at[i].key.n + e.at[i].value.n + 2 * nul;
    if (size > UINT32_MAX)
        return err_make(o->arena, ERR_LIMIT, "a cdb file holds up to 4 GB, not %llu bytes; use lmdb",
                        (unsigned long long)size);
    int fd = open(temp, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_errno(errno);
    struct cdb_make make;
    int rc = cdb_make_start(&make, fd);
    for (size_t i = 0; rc == 0 && i < e.n; i++)
        if (!e.at[i].dropped)
            rc = cdb_make_add(&make, e.at[i].key.p, (unsigned)(e.at[i].key.n + nul), e.at[i].value.p,
                              (unsigned)(e.at[i].value.n + nul));
    if (rc == 0)
        rc = cdb_make_finish(&make);
    error failed = rc == 0 ? NULL : err_errno(errno);
    close(fd);
    return failed;
}
#else
static error write_cdb(const char *temp, struct index_entries e, const struct index_options *o) {
    (void)temp, (void)e;
    return err_make(o->arena, ERR_CONFIG, "this build has no cdb");
}
#endif

/* --- files --- */

/* A name nobody else has, made here, so that no library follows a link somebody put in its way. */
static int make_temp(struct arena *a, struct str path, struct str *ret) {
    for (int i = 0; i < TEMP_TRIES; i++) {
        *ret = arena_printf(a, "%.*s.%d.%d.tmp", STR_ARG(path), (int)getpid(), i);
        int fd = open(ret->p, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0) {
            close(fd);
            return 0;
        }
        if (errno != EEXIST)
            return errno;
    }
    return EEXIST;
}

static int finish(const char *temp, const char *path, const struct index_options *o) {
    int fd = open(temp, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno;
    const struct timespec times[2] = { o->mtime, o->mtime };
    int rc = fchmod(fd, o->mode) != 0 || (o->mtime.tv_sec && futimens(fd, times) != 0) || fsync(fd) != 0 ? errno : 0;
    close(fd);
    struct stat st;
    if (rc == 0 && lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return EISDIR;
    return rc == 0 && rename(temp, path) != 0 ? errno : rc;
}

error index_write(struct str path, struct index_entries e, const uint32_t *order, const struct index_options *o) {
    struct str temp;
    int rc = make_temp(o->arena, path, &temp);
    if (rc)
        return err_make(o->arena, ERR_SYS, "open database %.*s: %s", STR_ARG(path), strerror(rc));
    error failed = o->kind == INDEX_CDB ? write_cdb(temp.p, e, o) : lmdb_build(temp.p, e, order, o);
    if (!failed && (rc = finish(temp.p, arena_cstr(o->arena, path), o)))
        failed = err_errno(rc);
    if (!failed)
        return NULL;
    unlink(temp.p);
    return err_make(o->arena, failed->kind, "error writing %.*s: %.*s", STR_ARG(path), STR_ARG(failed->text));
}
