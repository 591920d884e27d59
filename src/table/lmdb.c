/* hash:, btree:, lmdb: and texthash:. The first three mean an LMDB index with the text it was made from beside it; the
 * text is the truth: where the index is missing, older or unreadable, the text is read into memory instead. */
#include "base/log.h"
#include "table/build.h"
#include "table/table_impl.h"
#include "table/text.h"
#include <errno.h>
#include <lmdb.h>
#include <unistd.h>

struct lmdb_state {
    MDB_env *env; /* NULL: `text` */
    MDB_txn *txn; /* reset between look-ups */
    MDB_dbi dbi;
    struct dictionary text;
};

static void close_env(struct lmdb_state *s) {
    if (s->txn)
        mdb_txn_abort(s->txn);
    if (s->env)
        mdb_env_close(s->env);
    s->txn = NULL;
    s->env = NULL;
}

static void lmdb_close(struct table *t) {
    struct lmdb_state *s = t->state;
    if (!s)
        return;
    close_env(s);
    dictionary_free(&s->text);
}

/* No lock file: an index that is in use is replaced, not changed (build.h). */
static int open_env(struct lmdb_state *s, const char *path) {
    int rc = mdb_env_create(&s->env);
    if (rc)
        return rc;
    rc = mdb_env_open(s->env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_RDONLY | MDB_NOTLS, 0);
    if (rc == 0)
        rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->txn);
    if (rc == 0)
        rc = mdb_dbi_open(s->txn, NULL, 0, &s->dbi);
    if (rc)
        close_env(s);
    else
        mdb_txn_reset(s->txn);
    return rc;
}

static error read_text(struct table *t, struct lmdb_state *s, const char *path) {
    struct buf content = { 0 };
    if (!buf_read_file(&content, path, TABLE_FILE_MAX)) {
        int errnum = errno;
        buf_free(&content);
        return err_make(t->gen, ERR_SYS, "open database %s: %s", path, strerror(errnum));
    }
    struct text_reader r = {
        .file = str_c(path),
        .lines = { .rest = buf_str(&content) },
        .flags = (t->flags & TABLE_ALIASES ? TEXT_ALIASES : 0u) | (t->flags & TABLE_FOLD ? TEXT_FOLD : 0u) |
                 (t->flags & TABLE_ASCII ? TEXT_ASCII : 0u),
        .ignoring = " -- ignoring this line",
    };
    dictionary_read(&s->text, &r, t->gen);
    buf_free(&content);
    return NULL;
}

static bool newer(const struct file_id *a, const struct file_id *b) {
    return a->mtime.tv_sec > b->mtime.tv_sec ||
           (a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec > b->mtime.tv_nsec);
}

static error lmdb_open(struct table *t) {
    struct lmdb_state *s = ARENA_NEW(t->gen, struct lmdb_state);
    t->state = s;
    const char *source = arena_cstr(t->gen, t->name);
    struct str index = index_path(t->gen, t->name);
    struct file_id source_id, index_id;
    bool have_source = table_watch(t, source, &source_id);
    bool have_index = table_watch(t, index.p, &index_id);
    if (!have_index && !have_source)
        return err_make(t->gen, ERR_SYS, "open database %s: %s", index.p, strerror(ENOENT));
    const char *why = !have_index ? "is missing" : "is older than its source";
    if (have_index && !(have_source && newer(&source_id, &index_id))) {
        int rc = open_env(s, index.p);
        if (rc == 0)
            return NULL;
        if (!have_source)
            return err_make(t->gen, ERR_SYS, "open database %s: %s", index.p, mdb_strerror(rc));
        why = mdb_strerror(rc);
    }
    error e = read_text(t, s, source);
    if (!e)
        log_info("table %.*s: using the text file: index %s %s", STR_ARG(t->spec), index.p, why);
    return e;
}

static enum table_result text_get(struct lmdb_state *s, struct str key, struct arena *a, struct str *ret_value) {
    const struct text_entry *e = map_get(&s->text.map, key);
    if (!e)
        return TABLE_NOT_FOUND;
    *ret_value = arena_str(a, e->value);
    return TABLE_FOUND;
}

static enum table_result lmdb_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct lmdb_state *s = t->state;
    if (!s->env)
        return text_get(s, key, a, ret_value);
    if (key.n == 0 || key.n > INDEX_KEY_MAX)
        return TABLE_NOT_FOUND;
    int rc = mdb_txn_renew(s->txn);
    if (rc)
        return table_fail(t, "error reading %.*s: %s", STR_ARG(t->spec), mdb_strerror(rc));
    char with_nul[INDEX_KEY_MAX + 1];
    memcpy(with_nul, key.p, key.n);
    with_nul[key.n] = 0;
    MDB_val value;
    rc = MDB_NOTFOUND;
    for (size_t nul = 1; rc == MDB_NOTFOUND; nul--) { /* with the NUL, then as `postmap -n` wrote it */
        MDB_val k = { key.n + nul, with_nul };
        rc = mdb_get(s->txn, s->dbi, &k, &value);
        if (nul == 0)
            break;
    }
    if (rc == 0) {
        struct str v = str_n(value.mv_data, value.mv_size);
        if (v.n && v.p[v.n - 1] == 0)
            v.n--;
        *ret_value = arena_str(a, v);
    }
    mdb_txn_reset(s->txn);
    if (rc && rc != MDB_NOTFOUND)
        return table_fail(t, "error reading %.*s: %s", STR_ARG(t->spec), mdb_strerror(rc));
    return rc ? TABLE_NOT_FOUND : TABLE_FOUND;
}

const struct table_type table_type_lmdb = {
    .name = STR_INIT("lmdb"), .fixed = true, .open = lmdb_open, .get = lmdb_get, .close = lmdb_close
};
const struct table_type table_type_hash = {
    .name = STR_INIT("hash"), .fixed = true, .open = lmdb_open, .get = lmdb_get, .close = lmdb_close
};
const struct table_type table_type_btree = {
    .name = STR_INIT("btree"), .fixed = true, .open = lmdb_open, .get = lmdb_get, .close = lmdb_close
};

static error texthash_open(struct table *t) {
    struct lmdb_state *s = ARENA_NEW(t->gen, struct lmdb_state);
    t->state = s;
    const char *path = arena_cstr(t->gen, t->name);
    table_watch(t, path, NULL);
    return read_text(t, s, path);
}

const struct table_type table_type_texthash = {
    .name = STR_INIT("texthash"), .fixed = true, .open = texthash_open, .get = lmdb_get, .close = lmdb_close
};
