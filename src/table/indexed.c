/* hash:, btree:, lmdb:, cdb: and texthash:. The first four mean an index file and the text it was made from.
 *
 * table_freshness = source: the text is the truth. Where the index is missing, older or not readable, the text is read
 * into memory instead. table_freshness = index: the index is all there is, as with Postfix. */
#include "base/log.h"
#include "table/build.h"
#include "table/file_values.h"
#include "table/table_impl.h"
#include "table/text.h"
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_AGAIN_MAX = 10, READ_AGAIN_US = 20000 };

struct indexed {
    struct index_reader *reader; /* NULL: `text` */
    struct lmdb_writer *writer;  /* TABLE_WRITE */
    struct dictionary text;
    struct index_cursor cursor; /* behind `last`, which indexed_next() gave last */
    struct buf last;
    const char *note; /* why the text is used: logged once, at the first look-up */
    bool warn;        /* ... as a warning */
};

static void indexed_close(struct table *t) {
    struct indexed *s = t->state;
    if (!s)
        return;
    index_close(s->reader);
    index_cursor_free(&s->cursor);
    buf_free(&s->last);
    lmdb_writer_close(s->writer);
    dictionary_free(&s->text);
}

/* --- the text --- */

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* As it is at one moment. */
static const char *read_whole(const char *path, struct buf *ret) {
    struct stat before, after;
    for (int i = 0; i < READ_AGAIN_MAX; i++) {
        buf_clear(ret);
        if (stat(path, &before) != 0)
            return strerror(errno);
        if (!S_ISREG(before.st_mode))
            return S_ISDIR(before.st_mode) ? strerror(EISDIR) : "not a regular file";
        if (!buf_read_file(ret, path, TABLE_FILE_MAX) || stat(path, &after) != 0)
            return strerror(errno);
        if (same_file(&before, &after))
            return NULL;
        usleep(READ_AGAIN_US);
    }
    return "the file is being changed all the time";
}

/* Values are names of files: their contents take the place of the names. */
static void read_files(struct table *t, struct dictionary *d, const char *path) {
    for (size_t i = 0; i < d->n; i++) {
        error e = file_value_read(d->at[i].value, t->gen, &d->at[i].value);
        if (!e)
            continue;
        log_warn("%s, line %zu: %.*s: skipping this entry", path, d->at[i].line, STR_ARG(e->text));
        map_remove(&d->map, d->at[i].key);
    }
}

static error read_text(struct table *t, struct indexed *s, const char *path) {
    struct buf content = { 0 };
    const char *fault = read_whole(path, &content);
    if (fault) {
        buf_free(&content);
        return err_make(t->gen, ERR_SYS, "open database %s: %s", path, fault);
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
    if (t->flags & TABLE_FILES)
        read_files(t, &s->text, path);
    return NULL;
}

/* --- opening --- */

static bool newer(const struct file_id *a, const struct file_id *b) {
    return a->mtime.tv_sec > b->mtime.tv_sec ||
           (a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec > b->mtime.tv_nsec);
}

/* A cache: one file, which we make. */
static error open_cache(struct table *t, struct indexed *s, enum index_kind kind) {
    if (kind != INDEX_LMDB)
        return err_make(t->gen, ERR_CONFIG, "%.*s: this type of table cannot be written", STR_ARG(t->spec));
    const char *path = index_path(t->gen, kind, t->name).p;
    struct index_options o = {
        .kind = kind,
        .map_size = t->conf ? conf_int(t->conf, PARAM_lmdb_map_size) : 0,
        .mode = 0600,
        .arena = t->gen,
    };
    error e = lmdb_writer_open(path, &o, false, &s->writer);
    if (!e) {
        struct index_entries none = { 0 }; /* an empty file gets its header */
        e = lmdb_writer_put(s->writer, none, true, t->gen);
    }
    if (!e)
        e = index_open(kind, path, t->gen, &s->reader);
    if (!e)
        table_watch(t, path, NULL)->content = false;
    return e;
}

static error indexed_open(struct table *t) {
    struct indexed *s = ARENA_NEW(t->gen, struct indexed);
    t->state = s;
    enum index_kind kind = index_kind_of(t->type->name);
    if (t->flags & TABLE_WRITE)
        return open_cache(t, s, kind);
    const char *source = arena_cstr(t->gen, t->name);
    struct str index = index_path(t->gen, kind, t->name);
    struct file_id source_id, index_id;
    table_watch(t, source, &source_id);
    table_watch(t, index.p, &index_id);
    bool have_source = source_id.ino != 0, have_index = index_id.ino != 0;
    bool older = have_source && have_index && newer(&source_id, &index_id);
    bool index_only = t->conf && str_eq_icase(conf_str(t->conf, PARAM_table_freshness), STR("index"));
    if (index_only && older)
        log_warn("database %s is older than source file %s", index.p, source);
    if (!have_index && (!have_source || index_only))
        return err_make(t->gen, ERR_SYS, "open database %s: %s", index.p, strerror(ENOENT));
    error e = NULL;
    if (have_index && (!older || index_only)) {
        e = index_open(kind, index.p, t->gen, &s->reader);
        if (!e || !have_source || index_only)
            return e;
        s->warn = true; /* somebody should look at it */
        s->note = e->text.p;
    } else {
        s->note =
            arena_printf(t->gen, "index %s %s", index.p, have_index ? "is older than its source" : "is missing").p;
    }
    error text = read_text(t, s, source);
    if (!text || !older)
        return text;
    /* a source that is for root alone, and changed since: as Postfix, rather than no table at all */
    log_warn("%.*s; database %s is older than that and used", STR_ARG(text->text), index.p);
    s->note = NULL;
    return index_open(kind, index.p, t->gen, &s->reader);
}

static error texthash_open(struct table *t) {
    struct indexed *s = ARENA_NEW(t->gen, struct indexed);
    t->state = s;
    const char *path = arena_cstr(t->gen, t->name);
    table_watch(t, path, NULL);
    return read_text(t, s, path);
}

/* --- asking --- */

/* Once per opened table, and only where it is asked at all: a process opens more tables than it needs. */
static void log_note(struct table *t, struct indexed *s) {
    const char *note = s->note;
    s->note = NULL;
    if (note && s->warn)
        log_warn("table %.*s: using the text file: %s", STR_ARG(t->spec), note);
    else if (note)
        log_info("table %.*s: using the text file: %s", STR_ARG(t->spec), note);
}

static enum table_result fail(struct table *t, struct indexed *s) {
    t->stale = t->broken = true;
    return table_fail(t, "error reading %.*s: %s", STR_ARG(t->spec), index_fault(s->reader));
}

static enum table_result decode(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    if (!(t->flags & TABLE_FILES) || base64_decode(a, *ret_value, ret_value))
        return TABLE_FOUND;
    log_warn("table %.*s: key %.*s: malformed BASE64 value: %.*s", STR_ARG(t->spec), STR_ARG(key),
             STR_ARG(str_sub(*ret_value, 0, 100)));
    return table_fail(t, "table %.*s: key %.*s: malformed BASE64 value", STR_ARG(t->spec), STR_ARG(key));
}

static enum table_result indexed_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct indexed *s = t->state;
    if (s->note)
        log_note(t, s);
    if (!s->reader) {
        const struct text_entry *e = map_get(&s->text.map, key);
        if (!e)
            return TABLE_NOT_FOUND;
        *ret_value = arena_str(a, e->value);
        return TABLE_FOUND;
    }
    enum table_result r = index_get(s->reader, key, a, ret_value);
    if (r == TABLE_FOUND)
        return decode(t, key, a, ret_value);
    return r == TABLE_ERROR ? fail(t, s) : r;
}

static void indexed_expect(struct table *t, const struct str *keys, size_t n) {
    struct indexed *s = t->state;
    if (s->reader)
        index_expect(s->reader, keys, n);
}

/* --- writing, and going through --- */

static enum table_result write_failed(struct table *t, error e) {
    t->stale = true;
    return table_fail(t, "%.*s", STR_ARG(e->text));
}

static enum table_result indexed_put(struct table *t, struct str key, struct str value) {
    struct indexed *s = t->state;
    struct arena *a = arena_new(); /* a NUL byte behind both */
    struct index_entry entry = { .key = arena_str(a, key), .value = arena_str(a, value) };
    error e = lmdb_writer_put(s->writer, (struct index_entries){ &entry, 1 }, true, a);
    enum table_result r = e ? write_failed(t, e) : TABLE_FOUND;
    arena_free(a);
    return r;
}

static enum table_result indexed_delete(struct table *t, struct str key) {
    struct indexed *s = t->state;
    struct arena *a = arena_new();
    struct index_entry entry = { .key = arena_str(a, key) };
    size_t found;
    error e = lmdb_writer_delete(s->writer, (struct index_entries){ &entry, 1 }, &found, a);
    enum table_result r = e ? write_failed(t, e) : found ? TABLE_FOUND : TABLE_NOT_FOUND;
    arena_free(a);
    return r;
}

static enum table_result text_next(struct indexed *s, struct str after, struct arena *a, struct str *ret_key,
                                   struct str *ret_value) {
    const struct text_entry *e = after.n ? map_get(&s->text.map, after) : NULL;
    size_t i = after.n == 0 ? 0 : e ? (size_t)(e - s->text.at) + 1 : s->text.n;
    while (i < s->text.n && !map_get(&s->text.map, s->text.at[i].key)) /* read_files() left it out */
        i++;
    if (i >= s->text.n)
        return TABLE_NOT_FOUND;
    *ret_key = arena_str(a, s->text.at[i].key);
    *ret_value = arena_str(a, s->text.at[i].value);
    return TABLE_FOUND;
}

/* Going through in one go needs no search for each entry. cdb has nothing to search by: from its beginning again. */
static enum table_result go_on(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                               struct str *ret_value) {
    struct indexed *s = t->state;
    enum table_result r = TABLE_FOUND;
    if (after.n == 0 || !str_eq(after, buf_str(&s->last))) {
        index_cursor_free(&s->cursor);
        s->cursor = (struct index_cursor){ 0 };
        if (after.n && index_kind_of(t->type->name) == INDEX_LMDB)
            return index_next_after(s->reader, after, a, ret_key, ret_value);
        *ret_key = STR("");
        while (after.n && r == TABLE_FOUND && !str_eq(*ret_key, after))
            r = index_next(s->reader, &s->cursor, a, ret_key, ret_value);
    }
    if (r == TABLE_FOUND)
        r = index_next(s->reader, &s->cursor, a, ret_key, ret_value);
    buf_clear(&s->last);
    if (r == TABLE_FOUND)
        buf_add(&s->last, *ret_key);
    return r;
}

static enum table_result indexed_next(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                                      struct str *ret_value) {
    struct indexed *s = t->state;
    if (s->note)
        log_note(t, s);
    if (!s->reader)
        return text_next(s, after, a, ret_key, ret_value);
    enum table_result r = go_on(t, after, a, ret_key, ret_value);
    if (r == TABLE_FOUND)
        return decode(t, *ret_key, a, ret_value);
    return r == TABLE_ERROR ? fail(t, s) : r;
}

#define INDEXED(type_name)                                                                                             \
    {                                                                                                                  \
        .name = STR_INIT(type_name), .fixed = true, .listable = true, .open = indexed_open, .get = indexed_get,        \
        .close = indexed_close, .put = indexed_put, .del = indexed_delete, .next = indexed_next,                       \
        .expect = indexed_expect                                                                                       \
    }
const struct table_type table_type_lmdb = INDEXED("lmdb");
const struct table_type table_type_hash = INDEXED("hash");
const struct table_type table_type_btree = INDEXED("btree");
const struct table_type table_type_cdb = INDEXED("cdb");
const struct table_type table_type_texthash = {
    .name = STR_INIT("texthash"),
    .fixed = true,
    .listable = true,
    .open = texthash_open,
    .get = indexed_get,
    .close = indexed_close,
    .next = indexed_next,
};
