#include "table/table.h"

#include "base/die.h"
#include "base/log.h"
#include "build_config.h"
#include "table/fold.h"
#include "table/table_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SETTLE_MS = 500,        /* a file that was written to so lately may be half written */
    OPEN_AGAIN_SECONDS = 5, /* a confined process lives so long with a table that it could not open */
};

static const struct table_type *const types[] = {
    &table_type_btree,
#if HAVE_CDB
    &table_type_cdb,
#endif
    &table_type_cidr,       &table_type_debug,    &table_type_environ, &table_type_fail,   &table_type_hash,
    &table_type_inline,     &table_type_internal, &table_type_lmdb,    &table_type_pcre,   &table_type_pipemap,
    &table_type_proxy_here, &table_type_randmap,  &table_type_regexp,  &table_type_static, &table_type_texthash,
    &table_type_unionmap,   &table_type_unix,
};
enum { TYPES = sizeof types / sizeof types[0], SERVER_TYPES_MAX = 16 };

static int by_name(const void *a, const void *b) {
    const struct str *x = a, *y = b;
    return str_cmp(*x, *y);
}

size_t table_types(const struct str **ret) {
    static struct str names[TYPES + SERVER_TYPES_MAX];
    size_t n = 0;
    for (; n < TYPES; n++)
        names[n] = types[n]->name;
    n += table_server_types(names + n, SERVER_TYPES_MAX);
    qsort(names, n, sizeof *names, by_name);
    *ret = names;
    return n;
}

/* What is asked elsewhere comes before what could be opened here. */
static const struct table_type *type_find(struct str name) {
    const struct table_type *type = table_type_elsewhere(name);
    for (size_t i = 0; i < TYPES && !type; i++)
        if (str_eq(name, types[i]->name))
            type = types[i];
    return type;
}

/* --- files under a table --- */

static struct {
    struct table *all;
    bool confined, paths; /* tables_confine() */
    struct timespec since;
    const struct table *outdated;
} process = { .paths = true };
/* Of `all` and `outdated`: the look-up process opens and closes tables in several threads. A table itself is one
 * thread's at a time. */
static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER;

static void list_add(struct table *t) {
    pthread_mutex_lock(&process_lock);
    t->next = process.all;
    t->back = &process.all;
    if (t->next)
        t->next->back = &t->next;
    process.all = t;
    pthread_mutex_unlock(&process_lock);
}

static void list_remove(struct table *t) {
    pthread_mutex_lock(&process_lock);
    *t->back = t->next;
    if (t->next)
        t->next->back = t->back;
    if (process.outdated == t)
        process.outdated = NULL;
    pthread_mutex_unlock(&process_lock);
}

static struct file_id file_id_from(const struct stat *st) {
    return (struct file_id){ st->st_dev, st->st_ino, st->st_size, st->st_mtim };
}

static struct file_id file_id_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? file_id_from(&st) : (struct file_id){ 0 };
}

/* By its descriptor: a file that has lost its name is another one too. */
static struct file_id file_id_by_fd(const struct table_file *f) {
    struct stat st;
    if (f->fd < 0)
        return f->id; /* there was none; whether there is one now cannot be seen from here */
    return fstat(f->fd, &st) == 0 && st.st_nlink ? file_id_from(&st) : (struct file_id){ 0 };
}

static struct file_id file_now(const struct table_file *f) {
    return process.paths ? file_id_of(f->path) : file_id_by_fd(f);
}

static bool file_is_same(const struct table_file *f) {
    const struct file_id now = file_now(f), *then = &f->id;
    if (now.dev != then->dev || now.ino != then->ino)
        return false;
    return !f->content || (now.size == then->size && now.mtime.tv_sec == then->mtime.tv_sec &&
                           now.mtime.tv_nsec == then->mtime.tv_nsec);
}

struct table_file *table_watch(struct table *t, const char *path, struct file_id *ret_id) {
    static _Thread_local struct table_file unused;
    struct table_file *f = t->file_count < TABLE_FILES_MAX ? &t->files[t->file_count++] : &unused;
    *f = (struct table_file){ .path = path, .id = file_id_of(path), .content = true, .fd = -1 };
    if (ret_id)
        *ret_id = f->id;
    return f;
}

bool table_changed(struct table *t) {
    if (t->flags & TABLE_FROZEN)
        return false;
    for (size_t i = 0; i < t->file_count && !t->stale; i++)
        t->stale = !file_is_same(&t->files[i]);
    return t->stale;
}

/* At most one stat() a second and file: look-ups are far more frequent than edits. */
static bool check_is_due(struct table *t) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    time_t seconds = now.tv_sec - t->checked.tv_sec;
    if (seconds < 1 || (seconds == 1 && now.tv_nsec < t->checked.tv_nsec))
        return false;
    t->checked = now;
    return true;
}

/* --- open, close --- */

static void type_close(struct table *t) {
    if (t->type && t->type->close)
        t->type->close(t);
    t->state = NULL;
    t->open = false;
    for (size_t i = 0; i < t->file_count; i++)
        if (t->files[i].fd >= 0)
            close(t->files[i].fd);
    t->file_count = 0;
    arena_reset(t->gen);
}

/* The nesting of a table that the type of another opens now, also by way of a list (match.h): a table may name itself
 * there. */
static _Thread_local unsigned nesting_now;

static void type_open(struct table *t) {
    const unsigned before = nesting_now;
    t->stale = t->broken = false;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t->checked);
    arena_reset(t->error_arena);
    nesting_now = t->nesting + 1;
    t->error = t->type->open(t);
    nesting_now = before;
    t->open = t->error == NULL;
    if (!t->open) { /* its text must outlive what the type leaves behind */
        struct str text = t->error->text;
        t->error = err_make(t->error_arena, t->error->kind, "%.*s", STR_ARG(text));
    }
    log_debug("open table %.*s: %.*s", STR_ARG(t->spec), STR_ARG(t->open ? STR("done") : t->error->text));
}

enum table_result table_fail(struct table *t, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    struct str text = arena_vprintf(t->error_arena, format, ap);
    va_end(ap);
    t->error = err_make(t->error_arena, ERR_TEMP, "%.*s", STR_ARG(text));
    return TABLE_ERROR;
}

/* The default type, unless what stands before the first ':' can be a type. */
static void split_spec(struct table *t, struct str spec) {
    ptrdiff_t colon = str_index(spec, ':');
    if (colon < 0) {
        struct str type = t->conf ? conf_str(t->conf, PARAM_default_database_type) : STR("lmdb");
        spec = arena_printf(t->arena, "%.*s:%.*s", STR_ARG(type), STR_ARG(spec));
        colon = str_index(spec, ':');
    }
    t->spec = arena_str(t->arena, spec);
    t->name = str_from(t->spec, colon < 0 ? t->spec.n : (size_t)colon + 1);
    struct str type = str_sub(t->spec, 0, colon < 0 ? t->spec.n : (size_t)colon);
    if (type.n == 0 || t->name.n == 0) {
        t->error = err_make(t->error_arena, ERR_CONFIG,
                            "open dictionary: expecting \"type:name\" form instead of \"%.*s\"", STR_ARG(t->spec));
        return;
    }
    t->type = type_find(type);
    if (!t->type)
        t->error = err_make(t->error_arena, ERR_CONFIG, "unsupported dictionary type: %.*s", STR_ARG(type));
}

/* alias_maps and alias_database name files in aliases(5) form, whichever other parameter mentions them too
 * (local_recipient_maps does). */
static bool is_alias_table(const struct conf *c, struct str spec) {
    if (!c)
        return false;
    const struct str lists[] = { conf_str(c, PARAM_alias_maps), conf_str(c, PARAM_alias_database) };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct str rest = lists[i], word;
        while (str_word_braced(&rest, STR_COMMA_SPACE, &word)) {
            if (str_starts(word, STR("proxy:")))
                word = str_from(word, 6);
            if (str_eq(word, spec))
                return true;
        }
    }
    return false;
}

struct table *table_open_nested(const struct conf *c, struct str spec, unsigned flags, unsigned nesting) {
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        die_no_memory(sizeof *t);
    list_add(t);
    t->conf = c;
    t->flags = flags | (c && !conf_bool(c, PARAM_smtputf8_enable) ? TABLE_ASCII : 0);
    t->nesting = nesting;
    t->arena = arena_new();
    t->gen = arena_new();
    t->error_arena = arena_new();
    split_spec(t, str_trim(spec));
    if (t->error)
        return t;
    if (nesting > TABLE_NESTING_MAX) {
        t->error = err_make(t->error_arena, ERR_CONFIG, "%.*s: tables nested too deeply", STR_ARG(t->spec));
        t->type = NULL;
        return t;
    }
    if (is_alias_table(c, t->spec))
        t->flags |= TABLE_ALIASES;
    type_open(t);
    return t;
}

struct table *table_open(const struct conf *c, struct str spec, unsigned flags) {
    struct table *t = table_open_nested(c, spec, flags, nesting_now);
    /* here, so that no daemon can forget it; a command has no service name, and says itself what is wrong */
    if (t->error && c && conf_bool(c, PARAM_daemon_table_open_error_is_fatal) && conf_str(c, PARAM_service_name).n)
        log_fatal("%.*s", STR_ARG(t->error->text));
    return t;
}

void table_close(struct table *t) {
    if (!t)
        return;
    type_close(t);
    buf_free(&t->spare);
    list_remove(t);
    buf_free(&t->folded);
    arena_free(t->gen);
    arena_free(t->error_arena);
    arena_free(t->arena);
    free(t);
}

error table_error(const struct table *t) {
    return t->error;
}

struct str table_name(const struct table *t) {
    return t->spec;
}

bool table_is_pattern(const struct table *t) {
    if (!t->type || !t->open)
        return false;
    return t->type->is_pattern ? t->type->is_pattern(t) : t->type->pattern;
}

bool table_is_listable(const struct table *t) {
    return t->type && t->type->listable;
}

bool table_can_delete(const struct table *t) {
    return t->type && t->type->del;
}

/* --- look-up --- */

/* A file that cannot be read may come back; a malformed specification stays one. */
static bool may_recover(const struct table *t) {
    return !t->open && t->error && t->error->kind != ERR_CONFIG;
}

/* Somebody is at work on one of the files: it could be half written. */
static bool is_unsettled(const struct table *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (size_t i = 0; i < t->file_count; i++) {
        const struct timespec m = file_now(&t->files[i]).mtime;
        int64_t age_ms = ((int64_t)now.tv_sec - m.tv_sec) * 1000 + (now.tv_nsec - m.tv_nsec) / 1000000;
        if (t->files[i].content && age_ms >= 0 && age_ms < SETTLE_MS)
            return true;
    }
    return false;
}

/* Of a process that gave up rights: the files are there and for others. */
static bool is_out_of_reach(const struct table *t) {
    if (!process.confined || t->file_count == 0 || t->type->kept || (process.paths && geteuid() == 0))
        return false;
    if (!process.paths)
        return true;
    for (size_t i = 0; i < t->file_count; i++)
        if (access(t->files[i].path, R_OK) != 0 && errno == EACCES)
            return true;
    return false;
}

/* A table whose new form cannot be read answers TABLE_ERROR until it can: old data must not outlive an edit. */
static void refresh(struct table *t) {
    if (t->busy) /* another coroutine waits in it */
        return;
    if ((t->flags & TABLE_FROZEN) || !(t->stale || (check_is_due(t) && (table_changed(t) || may_recover(t)))))
        return;
    bool was_open = t->open;
    if ((was_open && !t->broken && is_unsettled(t)) || is_out_of_reach(t))
        return; /* what we have is whole, and it is looked at again; tables_outdated() looks for itself */
    type_close(t);
    type_open(t);
    if (t->error && was_open)
        log_warn("%.*s: %.*s", STR_ARG(t->spec), STR_ARG(t->error->text));
    else if (!t->error)
        log_debug("table %.*s has changed -- reopened", STR_ARG(t->spec));
}

size_t tables_confine(bool paths) {
    size_t n = 0;
    process.confined = true;
    process.paths = paths;
    clock_gettime(CLOCK_MONOTONIC, &process.since);
    pthread_mutex_lock(&process_lock);
    for (struct table *t = process.all; t; t = t->next) {
        n += t->file_count > 0;
        for (size_t i = 0; i < t->file_count && !paths; i++)
            if (t->files[i].id.ino != 0 && t->files[i].fd < 0)
                t->files[i].fd = open(t->files[i].path, O_PATH | O_CLOEXEC);
    }
    pthread_mutex_unlock(&process_lock);
    return n;
}

const struct table *tables_outdated(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    pthread_mutex_lock(&process_lock);
    for (struct table *t = process.all; t && process.confined && !process.outdated; t = t->next) {
        if (t->flags & TABLE_FROZEN)
            continue;
        if (t->open ? table_changed(t) && !is_unsettled(t)
                    : may_recover(t) && now.tv_sec - process.since.tv_sec >= OPEN_AGAIN_SECONDS)
            if (is_out_of_reach(t))
                process.outdated = t;
    }
    const struct table *outdated = process.outdated;
    pthread_mutex_unlock(&process_lock);
    return outdated;
}

static bool usable(struct table *t) {
    if (!t->type)
        return false;
    refresh(t);
    if (!t->open)
        return false;
    arena_reset(t->error_arena);
    t->error = NULL;
    return true;
}

/* One look-up. Another coroutine may begin one on the same table while this one waits: what belongs to a look-up is
 * here and not in the table. */
struct call {
    struct table *t;
    struct buf folded;
};

/* `*inout_key` becomes what the type is asked. call_end() when that is over. */
static void call_begin(struct call *c, struct table *t, struct str *inout_key) {
    *c = (struct call){ .t = t, .folded = t->spare };
    t->spare = (struct buf){ 0 };
    t->busy++;
    if (!t->type->fixed || !(t->flags & TABLE_FOLD))
        return;
    fold_key(&c->folded, *inout_key, !(t->flags & TABLE_ASCII));
    *inout_key = buf_str(&c->folded);
}

static enum table_result call_end(struct call *c, enum table_result r) {
    buf_free(&c->t->spare); /* of one that has ended meanwhile */
    c->t->spare = c->folded;
    c->t->busy--;
    return r;
}

enum table_result table_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    *ret_value = STR("");
    if (!usable(t))
        return TABLE_ERROR;
    if (key.n > TABLE_KEY_MAX || (t->type->fixed && str_index(key, 0) >= 0))
        return TABLE_NOT_FOUND;
    struct call c;
    const struct str asked = key;
    call_begin(&c, t, &key);
    enum table_result r = call_end(&c, t->type->get(t, key, a, ret_value));
    if (r != TABLE_ERROR || !t->broken || !usable(t))
        return r;
    key = asked; /* its source, or a whole one that has taken its place */
    call_begin(&c, t, &key);
    return call_end(&c, t->type->get(t, key, a, ret_value));
}

void table_expect(struct table *t, const struct str *keys, size_t n) {
    enum { SHORT = 128 }; /* bytes of the keys that are worth it */
    if (!t->open || t->stale || !t->type->expect)
        return;
    char folded[TABLE_EXPECT_MAX][SHORT];
    struct str asked[TABLE_EXPECT_MAX];
    size_t count = 0;
    for (size_t i = 0; i < n && count < TABLE_EXPECT_MAX; i++) {
        if (keys[i].n == 0 || keys[i].n > SHORT)
            continue;
        asked[count] = keys[i];
        if (t->flags & TABLE_FOLD) { /* other letters than ASCII's are asked without having been expected */
            for (size_t k = 0; k < keys[i].n; k++)
                folded[count][k] = byte_lower(keys[i].p[k]);
            asked[count].p = folded[count];
        }
        count++;
    }
    t->type->expect(t, asked, count);
}

/* --- writing --- */

static bool writable(struct table *t, bool can) {
    if (!usable(t))
        return false;
    if (can && (t->flags & TABLE_WRITE || t->type == &table_type_internal))
        return true;
    table_fail(t, "%.*s: %s", STR_ARG(t->spec),
               can ? "the table is not opened for writing" : "this type of table cannot be written or listed");
    return false;
}

static bool key_is_usable(struct table *t, struct str key) {
    if (key.n && key.n <= TABLE_KEY_MAX && str_index(key, 0) < 0)
        return true;
    table_fail(t, "%.*s: a key is empty, longer than %d bytes or has a NUL byte in it", STR_ARG(t->spec),
               TABLE_KEY_MAX);
    return false;
}

enum table_result table_put(struct table *t, struct str key, struct str value) {
    if (!writable(t, t->type && t->type->put) || !key_is_usable(t, key))
        return TABLE_ERROR;
    struct call c;
    call_begin(&c, t, &key);
    return call_end(&c, t->type->put(t, key, value));
}

enum table_result table_delete(struct table *t, struct str key) {
    if (!writable(t, t->type && t->type->del) || !key_is_usable(t, key))
        return TABLE_ERROR;
    struct call c;
    call_begin(&c, t, &key);
    return call_end(&c, t->type->del(t, key));
}

enum table_result table_next(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                             struct str *ret_value) {
    *ret_key = *ret_value = STR("");
    if (!(table_is_listable(t) ? usable(t) : writable(t, t->type && t->type->next)))
        return TABLE_ERROR;
    t->busy++;
    enum table_result r = t->type->next(t, after, a, ret_key, ret_value); /* a key as it was given out: not folded */
    t->busy--;
    return r;
}

const char *braces_open(struct str s, struct str *ret_inside) {
    if (s.n == 0 || s.p[0] != '{')
        return "missing '{'";
    size_t depth = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '{')
            depth++;
        else if (s.p[i] == '}' && --depth == 0) {
            if (str_trim(str_from(s, i + 1)).n)
                return "syntax error after '}'";
            *ret_inside = str_trim(str_sub(s, 1, i - 1));
            return NULL;
        }
    }
    return "missing '}'";
}
