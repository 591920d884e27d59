#include "lookup/source.h"

#include "base/log.h"
#include "conf/database_types.h"
#include "conf/lines.h"
#include "conf/main_cf.h"
#include "conf/master_cf.h"
#include "conf/params.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct entry {
    struct str name, value; /* both NUL-terminated */
    size_t line;
    bool asked;
};

struct source {
    struct table *t;
    struct str path;       /* empty: parameters of main.cf */
    struct buf text;       /* of the file; joined lines and values are in `secret` */
    struct buf *secret;    /* one buffer per value, each overwritten at the end */
    struct entry *entries; /* of the file; in `t->gen` */
    size_t count;
};

/* --- files read while root --- */

struct preloaded {
    char *path;
    struct file_id id;
    struct buf text;
};
static struct {
    struct preloaded files[SOURCE_PRELOAD_MAX]; /* written before the first thread starts, only read after */
    size_t count;
    atomic_bool restart;
} preload;

bool source_needs_restart(void) {
    return atomic_load(&preload.restart);
}

static const struct preloaded *preloaded_find(const char *path) {
    for (size_t i = 0; i < preload.count; i++)
        if (strcmp(preload.files[i].path, path) == 0)
            return &preload.files[i];
    return NULL;
}

/* As buf_read_file(), but the buffer never moves, so that no copy is left behind; and the identity is that of the
 * file that was read. */
static bool read_whole(const char *path, struct buf *b, struct file_id *ret_id) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not stop us */
    if (fd < 0)
        return false;
    struct stat st;
    int saved = 0;
    if (fstat(fd, &st) != 0)
        saved = errno;
    else if (!S_ISREG(st.st_mode))
        saved = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    else if (st.st_size > SOURCE_FILE_MAX)
        saved = EFBIG;
    if (!saved) {
        *ret_id = (struct file_id){ st.st_dev, st.st_ino, st.st_size, st.st_mtim };
        size_t want = (size_t)st.st_size;
        char *p = buf_reserve(b, want + 1);
        while (b->n < want) {
            ssize_t n = read(fd, p + b->n, want - b->n);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                saved = errno;
            if (n <= 0)
                break;
            b->n += (size_t)n;
        }
        p[b->n] = 0;
    }
    close(fd);
    errno = saved;
    return saved == 0;
}

static void preload_file(const char *path) {
    if (preload.count == SOURCE_PRELOAD_MAX || preloaded_find(path))
        return;
    struct preloaded *f = &preload.files[preload.count];
    *f = (struct preloaded){ 0 };
    if (!read_whole(path, &f->text, &f->id)) {
        buf_wipe(&f->text);
        return;
    }
    f->path = strdup(path);
    if (f->path)
        preload.count++;
}

void source_preload_clear(void) {
    for (size_t i = 0; i < preload.count; i++) {
        buf_wipe(&preload.files[i].text);
        free(preload.files[i].path);
    }
    preload.count = 0;
    atomic_store(&preload.restart, false);
}

/* Wherever "type:/path" stands, also inside proxy:, unionmap:{...}, { check_x_access mysql:/path }: a superfluous file
 * does no harm. */
void source_preload_text(struct str text) {
    for (size_t at = 0; at < text.n; at++) {
        if (at > 0 && byte_is_alnum(text.p[at - 1]))
            continue;
        struct str rest = str_from(text, at), path = STR("");
        for (const struct database_type *type = database_types(); type->prefix.n && !path.n; type++)
            if (str_starts(rest, type->prefix))
                path = str_from(rest, type->prefix.n);
        ptrdiff_t end = str_index_any(path, STR(", \t\r\n{}\"'"));
        path = str_sub(path, 0, end < 0 ? path.n : (size_t)end);
        if (path.n == 0 || path.p[0] != '/' || str_index(path, 0) >= 0)
            continue;
        char *name = strndup(path.p, path.n);
        if (name)
            preload_file(name);
        free(name);
    }
}

void source_preload(const struct conf *c, const struct master_cf *services) {
    for (int p = 0; p < PARAM_COUNT; p++)
        if (param_row((enum param)p)->type == TYPE_STRING || param_row((enum param)p)->type == TYPE_RAW)
            source_preload_text(conf_str(c, (enum param)p));
    /* Names of one's own: restriction classes, and what -o or $name will refer to. */
    struct arena *a = arena_new();
    struct str text;
    struct main_cf file;
    struct str path = arena_printf(a, "%.*s/main.cf", STR_ARG(conf_directory(c)));
    if (!conf_read_file(path, a, &text) && !main_cf_parse(text, path, a, &file))
        for (size_t i = 0; i < file.settings.n; i++) {
            struct str value;
            if (!conf_expand(c, file.settings.at[i].value, a, &value))
                source_preload_text(value);
        }
    for (size_t i = 0; services && i < services->count; i++) {
        const struct master_entry *entry = &services->entries[i];
        for (size_t k = 0; k < entry->override_count; k++) {
            struct str value;
            if (!conf_expand(c, entry->overrides[k].value, a, &value))
                source_preload_text(value);
        }
    }
    arena_free(a);
}

/* --- reading --- */

static error read_source(struct source *s) {
    struct table *t = s->t;
    char *path = arena_cstr(t->gen, s->path);
    struct file_id watched, id;
    table_watch(t, path, &watched);
    if (read_whole(path, &s->text, &id))
        return NULL;
    int saved = errno;
    buf_wipe(&s->text);
    const struct preloaded *kept = preloaded_find(path);
    if (kept && (saved == EACCES || saved == EPERM)) {
        struct file_id *now = &watched;
        bool hidden = now->ino == 0; /* nor may the folder be searched */
        if (hidden || (now->dev == kept->id.dev && now->ino == kept->id.ino && now->size == kept->id.size &&
                       now->mtime.tv_sec == kept->id.mtime.tv_sec && now->mtime.tv_nsec == kept->id.mtime.tv_nsec)) {
            buf_add(&s->text, buf_str(&kept->text));
            return NULL;
        }
        atomic_store(&preload.restart, true);
        return err_make(t->gen, ERR_TEMP, "%s has changed and cannot be read without root's rights: restarting", path);
    }
    if (saved == EFBIG)
        return err_make(t->gen, ERR_CONFIG, "%s: larger than %d bytes", path, SOURCE_FILE_MAX);
    return err_make(t->gen, ERR_TEMP, "open %s: %s", path, strerror(saved));
}

/* One logical line, its continuation lines joined: lines_next() would leave copies of a password behind. */
static bool next_line(struct str *rest, size_t *line_number, struct buf *b, size_t *ret_line) {
    struct str line;
    bool any = false;
    struct str before = *rest;
    size_t number_before = *line_number;
    while (str_next(rest, STR("\n"), &line)) {
        ++*line_number;
        struct str inside = str_trim_left(line);
        bool counts = inside.n && inside.p[0] != '#';
        if (counts && any && !byte_is_space(line.p[0])) {
            *rest = before;
            *line_number = number_before;
            return true;
        }
        if (counts) {
            if (!any)
                *ret_line = *line_number;
            any = true;
            buf_add(b, line);
        }
        before = *rest;
        number_before = *line_number;
    }
    return any;
}

static struct entry *entry_find(struct source *s, struct str name) {
    for (size_t i = 0; i < s->count; i++)
        if (str_eq(s->entries[i].name, name))
            return &s->entries[i];
    return NULL;
}

static error add_line(struct source *s, struct str text, size_t line) {
    struct str name, value;
    if (str_index(text, 0) >= 0)
        return err_make(s->t->gen, ERR_CONFIG, "%.*s, line %zu: NUL byte: this is not a text file", STR_ARG(s->path),
                        line);
    const char *fault = assignment_split(text, &name, &value);
    if (fault) { /* the text may be a password that has lost its name: it is not shown */
        return err_make(s->t->gen, ERR_CONFIG, "%.*s, line %zu: %s", STR_ARG(s->path), line, fault);
    }
    if (value.n > SOURCE_VALUE_MAX)
        return err_make(s->t->gen, ERR_CONFIG, "%.*s, line %zu: the value is longer than %d bytes", STR_ARG(s->path),
                        line, SOURCE_VALUE_MAX);
    struct entry *e = entry_find(s, name);
    if (e) {
        log_warn("%.*s, line %zu: overriding earlier entry: %.*s", STR_ARG(s->path), line, STR_ARG(name));
    } else {
        if (s->count == SOURCE_SETTINGS_MAX)
            return err_make(s->t->gen, ERR_CONFIG, "%.*s, line %zu: more than %d settings", STR_ARG(s->path), line,
                            SOURCE_SETTINGS_MAX);
        e = &s->entries[s->count++];
        e->name = arena_str(s->t->gen, name);
    }
    struct buf *keep = &s->secret[e - s->entries];
    buf_wipe(keep);
    buf_reserve(keep, value.n + 1);
    buf_add(keep, value);
    e->value = str_n(keep->p, keep->n);
    e->line = line;
    return NULL;
}

static error parse(struct source *s) {
    struct str rest = buf_str(&s->text);
    size_t number = 0, line = 0;
    struct buf b = { 0 };
    buf_reserve(&b, rest.n + 1); /* never moves */
    error e = NULL;
    while (!e && (buf_clear(&b), next_line(&rest, &number, &b, &line)))
        e = add_line(s, str_trim(buf_str(&b)), line);
    buf_wipe(&b);
    return e;
}

static bool is_path(struct str name) {
    return name.n && (name.p[0] == '/' || name.p[0] == '.');
}

error source_open(struct table *t, struct source **ret) {
    struct source *s = ARENA_NEW(t->gen, struct source);
    s->t = t;
    s->secret = arena_array(t->gen, SOURCE_SETTINGS_MAX, sizeof *s->secret);
    s->entries = arena_array(t->gen, SOURCE_SETTINGS_MAX, sizeof *s->entries);
    error e = NULL;
    if (is_path(t->name)) {
        s->path = t->name;
        e = read_source(s);
        if (!e)
            e = parse(s);
    }
    if (e)
        source_close(s);
    else
        *ret = s;
    return e;
}

void source_close(struct source *s) {
    if (!s)
        return;
    buf_wipe(&s->text);
    for (size_t i = 0; i < SOURCE_SETTINGS_MAX; i++)
        buf_wipe(&s->secret[i]);
    s->count = 0;
}

struct arena *source_arena(struct source *s) {
    return s->t->gen;
}

/* --- values --- */

/* A value of main.cf is kept like one of the file, so that it ends with the source. */
static struct entry *main_cf_entry(struct source *s, const char *name) {
    struct entry *e = entry_find(s, str_c(name));
    if (e)
        return e;
    struct arena *a = arena_new();
    struct str full = arena_printf(a, "%.*s_%s", STR_ARG(s->t->name), name), value;
    if (s->t->conf && s->count < SOURCE_SETTINGS_MAX && conf_lookup(s->t->conf, full, a, &value)) {
        struct buf *keep = &s->secret[s->count];
        buf_reserve(keep, value.n + 1);
        buf_add(keep, value);
        e = &s->entries[s->count++];
        *e = (struct entry){ arena_str(s->t->gen, str_c(name)), str_n(keep->p, keep->n), 0, true };
    }
    arena_free(a);
    return e;
}

static struct entry *ask(struct source *s, const char *name) {
    struct entry *e = s->path.n ? entry_find(s, str_c(name)) : main_cf_entry(s, name);
    if (e)
        e->asked = true;
    return e;
}

struct str source_where(struct source *s, const char *name) {
    if (!s->path.n)
        return arena_printf(s->t->gen, "main.cf: %.*s_%s", STR_ARG(s->t->name), name);
    const struct entry *e = entry_find(s, str_c(name));
    if (!e)
        return arena_printf(s->t->gen, "%.*s: %s", STR_ARG(s->path), name);
    return arena_printf(s->t->gen, "%.*s, line %zu: %s", STR_ARG(s->path), e->line, name);
}

struct str source_str(struct source *s, const char *name, struct str fallback) {
    const struct entry *e = ask(s, name);
    return e ? e->value : fallback;
}

error source_required(struct source *s, const char *name, struct str *ret) {
    *ret = source_str(s, name, STR(""));
    if (ret->n)
        return NULL;
    return err_make(s->t->gen, ERR_CONFIG, "%.*s must be set and must not be empty", STR_ARG(source_where(s, name)));
}

error source_int(struct source *s, const char *name, int64_t fallback, int64_t min, int64_t max, int64_t *ret) {
    const struct entry *e = ask(s, name);
    *ret = fallback;
    if (!e)
        return NULL;
    if (!str_to_i64(e->value, INT64_MIN, INT64_MAX, ret))
        return err_make(s->t->gen, ERR_CONFIG, "%.*s: bad numerical configuration: %.*s",
                        STR_ARG(source_where(s, name)), STR_ARG(e->value));
    if (*ret < min || *ret > max)
        return err_make(s->t->gen, ERR_CONFIG, "%.*s: invalid value %.*s: from %" PRId64 " to %" PRId64,
                        STR_ARG(source_where(s, name)), STR_ARG(e->value), min, max);
    return NULL;
}

error source_bool(struct source *s, const char *name, bool fallback, bool *ret) {
    const struct entry *e = ask(s, name);
    *ret = fallback;
    if (!e)
        return NULL;
    *ret = str_eq_icase(e->value, STR("yes"));
    if (*ret || str_eq_icase(e->value, STR("no")))
        return NULL;
    return err_make(s->t->gen, ERR_CONFIG, "%.*s: bad boolean configuration: %.*s: it is yes or no",
                    STR_ARG(source_where(s, name)), STR_ARG(e->value));
}

bool source_has(struct source *s, const char *name) {
    return ask(s, name) != NULL;
}

void source_warn_unused(struct source *s) {
    for (size_t i = 0; i < s->count; i++)
        if (!s->entries[i].asked)
            log_warn("%.*s, line %zu: unused parameter: %.*s", STR_ARG(s->path), s->entries[i].line,
                     STR_ARG(s->entries[i].name));
}
