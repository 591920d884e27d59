/* Writing LMDB files with liblmdb: whole ones, and changes in place.
 *
 * LMDB's own lock file is not used, for the reasons Postfix has: who may lock must be who may write the file. A writer
 * holds a lock on the file itself (of the open file description: it lasts as long as the transaction whatever else the
 * process opens and closes), which Postfix's programs respect as they take theirs. Readers take none (lmdb_file.h). */
#include "table/lmdb_write.h"

#include "base/die.h"
#include "base/log.h"
#include "table/lmdb_file.h"
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    MAP_SIZE_MIN = 64 * 1024,
    MAP_DOUBLINGS_MAX = 40, /* from 64 KiB to more than any disk */
    LOCK_WAIT_MS = 10,
    LOCK_TRIES = 1000, /* ten seconds: a writer is done in far less */
    OPEN_TRIES = 10,   /* the file is replaced meanwhile */
};

static bool with_nul(const struct index_options *o) {
    return !o->no_nul;
}

static MDB_val val(struct str s, size_t nul) {
    return (MDB_val){ s.n + nul, (void *)(uintptr_t)s.p }; // NOLINT(performance-no-int-to-ptr)
}

static struct str str_of(MDB_val v) {
    return str_n(v.mv_data, v.mv_size);
}

/* --- whole files --- */

struct long_item {
    char stored[LONG_KEY_SIZE];
    uint32_t number;
};
static int compare_long(const void *a, const void *b) {
    const struct long_item *x = a, *y = b;
    int order = memcmp(x->stored, y->stored, LONG_KEY_SIZE);
    return order ? order : (x->number > y->number) - (x->number < y->number);
}

static int put_long_ones(MDB_txn *txn, MDB_dbi dbi, struct index_entries e) {
    size_t n = 0;
    for (size_t i = 0; i < e.n; i++)
        n += !e.at[i].dropped && e.at[i].key.n > INDEX_KEY_MAX;
    if (n == 0)
        return 0;
    struct long_item *items = calloc(n, sizeof *items);
    if (!items)
        die_no_memory(n * sizeof *items);
    n = 0;
    for (size_t i = 0; i < e.n; i++)
        if (!e.at[i].dropped && e.at[i].key.n > INDEX_KEY_MAX) {
            long_key(e.at[i].key, items[n].stored);
            items[n++].number = (uint32_t)i;
        }
    qsort(items, n, sizeof *items, compare_long);
    struct buf row = { 0 };
    int rc = 0;
    for (size_t i = 0, j; rc == 0 && i < n; i = j) {
        buf_clear(&row);
        for (j = i; j < n && memcmp(items[i].stored, items[j].stored, LONG_KEY_SIZE) == 0; j++)
            long_add(&row, e.at[items[j].number].key, e.at[items[j].number].value);
        MDB_val key = { LONG_KEY_SIZE, items[i].stored }, value = val(buf_str(&row), 0);
        rc = mdb_put(txn, dbi, &key, &value, MDB_APPEND);
    }
    buf_free(&row);
    free(items);
    return rc;
}

/* One transaction with all entries. MDB_MAP_FULL: the caller tries again with twice the room. */
static int put_all(MDB_env *env, struct index_entries e, const uint32_t *order, size_t nul) {
    MDB_txn *txn;
    MDB_dbi dbi;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc)
        return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &dbi);
    if (rc == 0) /* first: their keys begin with a NUL byte */
        rc = put_long_ones(txn, dbi, e);
    for (size_t i = 0; rc == 0 && i < e.n; i++) {
        index_prefetch(e, order, i);
        const struct index_entry *at = &e.at[order[i]];
        if (at->dropped || at->key.n > INDEX_KEY_MAX)
            continue;
        MDB_val key = val(at->key, nul), value = val(at->value, nul);
        rc = mdb_put(txn, dbi, &key, &value, MDB_APPEND);
    }
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static size_t first_map_size(struct index_entries e, const struct index_options *o) {
    size_t size = o->map_size > MAP_SIZE_MIN ? (size_t)o->map_size : MAP_SIZE_MIN, need = MAP_SIZE_MIN;
    for (size_t i = 0; i < e.n; i++)
        need += e.at[i].key.n + e.at[i].value.n + 32;
    while (size < need)
        size *= 2;
    return size;
}

static int build(const char *path, struct index_entries e, const uint32_t *order, const struct index_options *o,
                 size_t map_size) {
    MDB_env *env;
    int rc = mdb_env_create(&env);
    if (rc)
        return rc;
    rc = mdb_env_set_mapsize(env, map_size);
    if (rc == 0) /* written once and synced by the caller */
        rc = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0600);
    if (rc == 0)
        rc = put_all(env, e, order, with_nul(o));
    mdb_env_close(env);
    return rc;
}

error lmdb_build(const char *path, struct index_entries e, const uint32_t *order, const struct index_options *o) {
    size_t map_size = first_map_size(e, o);
    int rc = MDB_MAP_FULL;
    for (int i = 0; i < MAP_DOUBLINGS_MAX && rc == MDB_MAP_FULL; i++, map_size *= 2) {
        if (truncate(path, 0) != 0) {
            rc = errno;
            break;
        }
        rc = build(path, e, order, o, map_size);
    }
    return rc ? err_make(o->arena, ERR_SYS, "%s", mdb_strerror(rc)) : NULL;
}

/* --- in place --- */

struct lmdb_writer {
    int lock_fd;
    MDB_env *env;
    off_t size; /* of the file: liblmdb's map must not reach beyond it */
    size_t nul;
    bool durable;
    struct str path;
    struct arena *arena;
};

static int lock(int fd) {
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    for (int i = 0; fcntl(fd, F_OFD_SETLK, &l) != 0; i++) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return errno;
        if (i == LOCK_TRIES) /* not EAGAIN: the file is not to be opened again for this */
            return ETIMEDOUT;
        nanosleep(&(struct timespec){ .tv_nsec = LOCK_WAIT_MS * 1000000L }, NULL);
    }
    return 0;
}

static void unlock(int fd) {
    struct flock l = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
    fcntl(fd, F_OFD_SETLK, &l);
}

static bool file_is_sound(int fd) {
    struct lmdb_file f;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    bool sound = copy >= 0 && lmdb_file_open(&f, copy) == NULL && lmdb_file_sound(&f);
    if (copy >= 0)
        lmdb_file_close(&f);
    return sound;
}

/* The open file still has the name, and is one that liblmdb may be given. 0: yes; EAGAIN: open it again. */
static int check_file(struct lmdb_writer *w) {
    struct stat mine, named;
    if (fstat(w->lock_fd, &mine) != 0)
        return errno;
    if (!S_ISREG(mine.st_mode))
        return EINVAL;
    if (stat(w->path.p, &named) != 0 || named.st_ino != mine.st_ino || named.st_dev != mine.st_dev)
        return EAGAIN;
    if (mine.st_size == 0 || file_is_sound(w->lock_fd))
        return 0;
    if (w->durable)
        return MDB_CORRUPTED;
    log_warn("%.*s: not a sound LMDB file -- beginning with an empty one", STR_ARG(w->path));
    return unlink(w->path.p) == 0 ? EAGAIN : errno;
}

static int open_env(struct lmdb_writer *w, const struct index_options *o) {
    int rc = mdb_env_create(&w->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(w->env, o->map_size > MAP_SIZE_MIN ? (size_t)o->map_size : MAP_SIZE_MIN);
    if (rc == 0)
        rc = mdb_env_open(w->env, w->path.p,
                          MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | (w->durable ? 0u : (unsigned)MDB_NOSYNC), 0600);
    return rc;
}

error lmdb_writer_open(const char *path, const struct index_options *o, bool durable, struct lmdb_writer **ret) {
    struct lmdb_writer *w = calloc(1, sizeof *w);
    if (!w)
        die_no_memory(sizeof *w);
    w->arena = arena_new();
    w->path = arena_str(w->arena, str_c(path));
    w->nul = with_nul(o);
    w->durable = durable;
    int rc = EAGAIN;
    for (int i = 0; rc == EAGAIN && i < OPEN_TRIES; i++) {
        w->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, o->mode);
        if (w->lock_fd < 0) {
            rc = errno;
            break;
        }
        rc = lock(w->lock_fd);
        if (rc == 0)
            rc = check_file(w);
        if (rc == 0)
            rc = open_env(w, o);
        unlock(w->lock_fd);
        if (rc == EAGAIN) {
            close(w->lock_fd);
            w->lock_fd = -1;
        }
    }
    *ret = w;
    if (rc == 0)
        return NULL;
    *ret = NULL;
    error e = err_make(o->arena, ERR_SYS, "open database %s: %s", path, mdb_strerror(rc));
    lmdb_writer_close(w);
    return e;
}

void lmdb_writer_close(struct lmdb_writer *w) {
    if (!w)
        return;
    if (w->env)
        mdb_env_close(w->env);
    if (w->lock_fd >= 0)
        close(w->lock_fd);
    arena_free(w->arena);
    free(w);
}

int lmdb_writer_fd(const struct lmdb_writer *w) {
    return w->lock_fd;
}

struct change {
    struct lmdb_writer *w;
    struct index_entries e;
    bool replace, delete;
    size_t found;
};

/* The row of long keys with one entry put or deleted. */
static int change_long(MDB_txn *txn, MDB_dbi dbi, struct change *c, struct index_entry *entry) {
    char stored[LONG_KEY_SIZE];
    long_key(entry->key, stored);
    MDB_val key = { sizeof stored, stored }, old = { 0 };
    int rc = mdb_get(txn, dbi, &key, &old);
    if (rc && rc != MDB_NOTFOUND)
        return rc;
    struct buf row = { 0 };
    bool there = false;
    struct str k, v;
    for (size_t at = 0; long_next(str_of(old), &at, &k, &v);) {
        bool same = str_eq(k, entry->key);
        there = there || same;
        if (!same || (!c->delete &&!c->replace))
            long_add(&row, k, v);
    }
    c->found += there;
    entry->dropped = !c->delete &&there && !c->replace;
    if (!c->delete &&!entry->dropped)
        long_add(&row, entry->key, entry->value);
    MDB_val value = val(buf_str(&row), 0);
    if (row.n)
        rc = mdb_put(txn, dbi, &key, &value, 0);
    else
        rc = there ? mdb_del(txn, dbi, &key, NULL) : 0;
    buf_free(&row);
    return rc;
}

static int change_one(MDB_txn *txn, MDB_dbi dbi, struct change *c, struct index_entry *entry) {
    size_t nul = c->w->nul;
    if (entry->key.n > INDEX_KEY_MAX)
        return change_long(txn, dbi, c, entry);
    MDB_val key = val(entry->key, nul), other = val(entry->key, 1 - nul), value = val(entry->value, nul), unused;
    int rc = mdb_get(txn, dbi, &other, &unused); /* as it is with the other choice of postmap's -n and -N */
    if (rc && rc != MDB_NOTFOUND)
        return rc;
    bool there = rc == 0;
    if (c->delete) {
        rc = there ? mdb_del(txn, dbi, &other, NULL) : 0;
        if (rc == 0)
            rc = mdb_del(txn, dbi, &key, NULL);
        c->found += there || rc == 0;
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    if (there && c->replace && (rc = mdb_del(txn, dbi, &other, NULL)))
        return rc;
    if (there && !c->replace) {
        entry->dropped = true;
        return 0;
    }
    rc = mdb_put(txn, dbi, &key, &value, c->replace ? 0 : MDB_NOOVERWRITE);
    entry->dropped = rc == MDB_KEYEXIST;
    return entry->dropped ? 0 : rc;
}

static int change_once(struct lmdb_writer *w, struct change *c) {
    MDB_txn *txn;
    MDB_dbi dbi;
    int rc = mdb_txn_begin(w->env, NULL, 0, &txn);
    if (rc)
        return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &dbi);
    c->found = 0;
    for (size_t i = 0; rc == 0 && i < c->e.n; i++)
        rc = change_one(txn, dbi, c, &c->e.at[i]);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

/* Another file has the name now, or this one was cut short: it must be opened again. */
static int still_there(struct lmdb_writer *w) {
    struct stat mine, named;
    if (fstat(w->lock_fd, &mine) != 0 || stat(w->path.p, &named) != 0)
        return errno;
    if (mine.st_size < w->size)
        return MDB_CORRUPTED;
    return named.st_ino != mine.st_ino || named.st_dev != mine.st_dev ? ESTALE : 0;
}

static int change_locked(struct lmdb_writer *w, struct change *c) {
    int rc = still_there(w);
    for (int i = 0; rc == 0 && i < MAP_DOUBLINGS_MAX; i++) {
        MDB_envinfo info;
        rc = change_once(w, c);
        if (rc == MDB_MAP_RESIZED) /* by another process: take its size */
            rc = mdb_env_set_mapsize(w->env, 0);
        else if (rc == MDB_MAP_FULL)
            rc = mdb_env_info(w->env, &info) || mdb_env_set_mapsize(w->env, info.me_mapsize * 2) ? MDB_MAP_FULL : 0;
        else
            return rc;
    }
    return rc ? rc : MDB_MAP_FULL;
}

static error change(struct lmdb_writer *w, struct change *c, struct arena *err_arena) {
    int rc = lock(w->lock_fd);
    if (rc)
        return err_make(err_arena, ERR_TEMP, "lock %.*s: %s", STR_ARG(w->path), strerror(rc));
    rc = change_locked(w, c);
    struct stat st;
    if (rc == 0 && fstat(w->lock_fd, &st) == 0)
        w->size = st.st_size;
    unlock(w->lock_fd);
    if (rc)
        return err_make(err_arena, ERR_TEMP, "error writing %.*s: %s", STR_ARG(w->path), mdb_strerror(rc));
    return NULL;
}

error lmdb_writer_put(struct lmdb_writer *w, struct index_entries e, bool replace, struct arena *err_arena) {
    struct change c = { .w = w, .e = e, .replace = replace };
    return change(w, &c, err_arena);
}

error lmdb_writer_delete(struct lmdb_writer *w, struct index_entries e, size_t *ret_found, struct arena *err_arena) {
    struct change c = { .w = w, .e = e, .delete = true };
    error failed = change(w, &c, err_arena);
    *ret_found = c.found;
    return failed;
}
