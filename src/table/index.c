/* Writing and reading whole LMDB files for build.h. */
#include "table/build.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAP_SIZE_MIN = 64 * 1024,
    MAP_DOUBLINGS_MAX = 40, /* from 64 KiB to more than any disk */
    TEMP_TRIES = 100,
};

bool index_type_known(struct str type) {
    return str_eq(type, STR("hash")) || str_eq(type, STR("btree")) || str_eq(type, STR("lmdb"));
}

struct str index_path(struct arena *a, struct str name) {
    return arena_cat(a, name, STR(".lmdb"));
}

bool index_is_current(struct str index, struct str source) {
    struct arena *a = arena_new();
    struct stat i, s;
    bool have_index = stat(arena_cstr(a, index), &i) == 0, have_source = stat(arena_cstr(a, source), &s) == 0;
    arena_free(a);
    if (!have_index || !have_source)
        return have_index;
    return s.st_mtim.tv_sec < i.st_mtim.tv_sec ||
           (s.st_mtim.tv_sec == i.st_mtim.tv_sec && s.st_mtim.tv_nsec <= i.st_mtim.tv_nsec);
}

static int compare_entries(const void *a, const void *b) {
    const struct index_entry *x = a, *y = b;
    int order = str_cmp(x->key, y->key);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

/* One transaction with all entries. MDB_MAP_FULL: the caller tries again with twice the room. */
static int put_all(MDB_env *env, struct index_entries e, bool no_nul) {
    MDB_txn *txn;
    MDB_dbi dbi;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc)
        return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &dbi);
    size_t nul = no_nul ? 0 : 1;
    for (size_t i = 0; rc == 0 && i < e.n; i++) {
        MDB_val key = { e.at[i].key.n + nul, (void *)(uintptr_t)e.at[i].key.p };
        MDB_val value = { e.at[i].value.n + nul, (void *)(uintptr_t)e.at[i].value.p };
        rc = mdb_put(txn, dbi, &key, &value, MDB_APPEND);
    }
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int write_env(const char *path, struct index_entries e, const struct index_options *o, size_t map_size) {
    MDB_env *env;
    int rc = mdb_env_create(&env);
    if (rc)
        return rc;
    rc = mdb_env_set_mapsize(env, map_size);
    if (rc == 0) /* nobody else has the file: no lock; written once and synced at the end */
        rc = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0600);
    if (rc == 0)
        rc = put_all(env, e, o->no_nul);
    if (rc == 0)
        rc = mdb_env_sync(env, 1);
    mdb_env_close(env);
    return rc;
}

/* A name nobody else has, made here, so that LMDB does not follow a link somebody put in its way. */
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
    return rc == 0 && rename(temp, path) != 0 ? errno : rc;
}

error index_write(struct str path, struct index_entries e, const struct index_options *o) {
    size_t n = 0;
    for (size_t i = 0; i < e.n; i++)
        e.at[i].order = i;
    if (e.n)
        qsort(e.at, e.n, sizeof *e.at, compare_entries);
    for (size_t i = 0; i < e.n; i++) {
        if (e.at[i].key.n == 0 || e.at[i].key.n > INDEX_KEY_MAX)
            return err_make(o->arena, ERR_LIMIT, "key \"%.*s...\": empty or longer than %d bytes",
                            STR_ARG(str_sub(e.at[i].key, 0, 40)), INDEX_KEY_MAX);
        if (n == 0 || !str_eq(e.at[n - 1].key, e.at[i].key))
            e.at[n++] = e.at[i];
    }
    e.n = n;
    struct str temp;
    int rc = make_temp(o->arena, path, &temp);
    if (rc)
        return err_make(o->arena, ERR_SYS, "open database %.*s: %s", STR_ARG(path), strerror(rc));
    size_t map_size = o->map_size > MAP_SIZE_MIN ? (size_t)o->map_size : MAP_SIZE_MIN;
    rc = MDB_MAP_FULL;
    for (int i = 0; i < MAP_DOUBLINGS_MAX && rc == MDB_MAP_FULL; i++, map_size *= 2) {
        if (truncate(temp.p, 0) != 0) {
            rc = errno;
            break;
        }
        rc = write_env(temp.p, e, o, map_size);
    }
    if (rc == 0)
        rc = finish(temp.p, arena_cstr(o->arena, path), o);
    if (rc) {
        unlink(temp.p);
        return err_make(o->arena, ERR_SYS, "error writing %.*s: %s", STR_ARG(path), mdb_strerror(rc));
    }
    return NULL;
}

static struct str without_nul(MDB_val v) {
    struct str s = str_n(v.mv_data, v.mv_size);
    if (s.n && s.p[s.n - 1] == 0)
        s.n--;
    return s;
}

static int read_all(MDB_env *env, struct arena *a, struct index_entries *ret) {
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_cursor *cursor;
    int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc)
        return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &dbi);
    if (rc == 0)
        rc = mdb_cursor_open(txn, dbi, &cursor);
    if (rc == 0) {
        VEC(struct index_entry) all = { 0 };
        MDB_val key, value;
        while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
            *vec_add(a, &all) =
                (struct index_entry){ arena_str(a, without_nul(key)), arena_str(a, without_nul(value)), 0 };
        mdb_cursor_close(cursor);
        *ret = (struct index_entries){ all.at, all.n };
        if (rc == MDB_NOTFOUND)
            rc = 0;
    }
    mdb_txn_abort(txn);
    return rc;
}

error index_read(struct str path, struct arena *a, struct index_entries *ret) {
    MDB_env *env;
    *ret = (struct index_entries){ 0 };
    const char *name = arena_cstr(a, path);
    if (access(name, R_OK) != 0)
        return err_make(a, ERR_SYS, "open database %.*s: %s", STR_ARG(path), strerror(errno));
    int rc = mdb_env_create(&env);
    if (rc == 0) {
        rc = mdb_env_open(env, name, MDB_NOSUBDIR | MDB_NOLOCK | MDB_RDONLY, 0);
        if (rc == 0)
            rc = read_all(env, a, ret);
        mdb_env_close(env);
    }
    if (rc)
        return err_make(a, ERR_SYS, "open database %.*s: %s", STR_ARG(path), mdb_strerror(rc));
    return NULL;
}
