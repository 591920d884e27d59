/* Tables without a file: static:, inline:, randmap:, environ:, unix:, fail:. */
#include "base/die.h"
#include "base/log.h"
#include "table/file_values.h"
#include "table/fold.h"
#include "table/table_impl.h"
#include "table/text.h"
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>

/* --- static:text, static:{ text with blanks } --- */

static error static_open(struct table *t) {
    struct str *text = ARENA_NEW(t->gen, struct str);
    t->state = text;
    *text = t->name;
    if (t->name.p[0] == '{') {
        const char *fault = braces_open(t->name, text);
        if (fault)
            return err_make(t->gen, ERR_CONFIG, "bad static:name syntax: %s in \"%.*s\"", fault, STR_ARG(t->name));
    }
    if (t->flags & TABLE_FILES)
        return file_value_read(*text, t->gen, text);
    return NULL;
}

static enum table_result static_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    (void)key;
    *ret_value = arena_str(a, *(struct str *)t->state);
    return TABLE_FOUND;
}

const struct table_type table_type_static = { .name = STR_INIT("static"), .open = static_open, .get = static_get };

/* --- inline:{ key=value, { key = value with blanks } } --- */

struct inline_state {
    struct map map; /* to struct str */
};

static void inline_close(struct table *t) {
    if (t->state)
        map_free(&((struct inline_state *)t->state)->map);
}

static error inline_fault(struct table *t, const char *fault) {
    return err_make(t->gen, ERR_CONFIG, "%s: \"%.*s\"; need \"inline:{name=value...}\"", fault, STR_ARG(t->spec));
}

static error inline_open(struct table *t) {
    struct inline_state *s = ARENA_NEW(t->gen, struct inline_state);
    t->state = s;
    struct str rest, item;
    if (braces_open(t->name, &rest) || rest.n == 0)
        return inline_fault(t, "bad syntax");
    while (str_word_braced(&rest, STR_COMMA_SPACE, &item)) {
        bool braced = item.p[0] == '{';
        const char *fault = braced ? braces_open(item, &item) : NULL;
        if (fault)
            return inline_fault(t, arena_printf(t->gen, "%s in \"%.*s\"", fault, STR_ARG(item)).p);
        ptrdiff_t eq = str_index(item, '=');
        struct str key = str_trim(str_sub(item, 0, eq < 0 ? 0 : (size_t)eq));
        if (key.n == 0 || str_index_any(key, STR_SPACE) >= 0)
            return inline_fault(t, "missing '=' after attribute name");
        struct str *value = ARENA_NEW(t->gen, struct str);
        *value = arena_str(t->gen, str_trim(str_from(item, (size_t)eq + 1)));
        error e = t->flags & TABLE_FILES ? file_value_read(*value, t->gen, value) : NULL;
        if (e)
            return e;
        key = t->flags & TABLE_FOLD ? arena_fold(t->gen, key, !(t->flags & TABLE_ASCII)) : arena_str(t->gen, key);
        if (map_get(&s->map, key))
            log_warn("%.*s: duplicate entry: \"%.*s\"", STR_ARG(t->spec), STR_ARG(key));
        else
            map_put(&s->map, key, value);
    }
    return rest.n ? inline_fault(t, "syntax error") : NULL;
}

static enum table_result inline_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    const struct str *value = map_get(&((struct inline_state *)t->state)->map, key);
    if (!value)
        return TABLE_NOT_FOUND;
    *ret_value = arena_str(a, *value);
    return TABLE_FOUND;
}

const struct table_type table_type_inline = {
    .name = STR_INIT("inline"), .fixed = true, .open = inline_open, .get = inline_get, .close = inline_close
};

/* --- randmap:{ value, value ... }: any of them, each as likely as the others --- */

struct randmap_state {
    VEC(struct str) values;
};

static error randmap_open(struct table *t) {
    struct randmap_state *s = ARENA_NEW(t->gen, struct randmap_state);
    t->state = s;
    struct str rest = STR(""), item;
    const char *fault = braces_open(t->name, &rest);
    while (!fault && str_word_braced(&rest, STR_COMMA_SPACE, &item)) /* braces inside stay, as in Postfix */
        *vec_add(t->gen, &s->values) = item;
    if (fault || rest.n || s->values.n == 0)
        return err_make(t->gen, ERR_CONFIG, "bad syntax: \"%.*s\"; need \"randmap:{value...}\"", STR_ARG(t->spec));
    return NULL;
}

static enum table_result randmap_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    (void)key;
    const struct randmap_state *s = t->state;
    *ret_value = arena_str(a, s->values.at[arc4random_uniform((uint32_t)s->values.n)]);
    return TABLE_FOUND;
}

const struct table_type table_type_randmap = { .name = STR_INIT("randmap"), .open = randmap_open, .get = randmap_get };

/* --- environ: --- */

static error environ_open(struct table *t) {
    (void)t;
    return NULL;
}

static enum table_result environ_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    (void)t;
    if (str_index(key, 0) >= 0)
        return TABLE_NOT_FOUND;
    const char *value = getenv(arena_cstr(a, key));
    if (!value)
        return TABLE_NOT_FOUND;
    *ret_value = arena_str(a, str_c(value));
    return TABLE_FOUND;
}

const struct table_type table_type_environ = {
    .name = STR_INIT("environ"), .fixed = true, .open = environ_open, .get = environ_get
};

/* --- unix:passwd.byname, unix:group.byname --- */

enum { NSS_BUFFER_MAX = 1024 * 1024 };

static error unix_open(struct table *t) {
    if (str_eq(t->name, STR("passwd.byname")) || str_eq(t->name, STR("group.byname")))
        return NULL;
    return err_make(t->gen, ERR_CONFIG, "unknown table: %.*s", STR_ARG(t->spec));
}

static int passwd_line(const char *name, char *buffer, size_t room, struct arena *a, struct str *ret) {
    struct passwd pw, *found;
    int rc = getpwnam_r(name, &pw, buffer, room, &found);
    if (rc == 0 && found)
        *ret = arena_printf(a, "%s:%s:%ld:%ld:%s:%s:%s", pw.pw_name, pw.pw_passwd, (long)pw.pw_uid, (long)pw.pw_gid,
                            pw.pw_gecos ? pw.pw_gecos : "", pw.pw_dir, pw.pw_shell);
    return rc ? rc : found ? 0 : -1;
}

static int group_line(const char *name, char *buffer, size_t room, struct arena *a, struct str *ret) {
    struct group gr, *found;
    int rc = getgrnam_r(name, &gr, buffer, room, &found);
    if (rc || !found)
        return rc ? rc : -1;
    struct buf b = { 0 };
    buf_printf(&b, "%s:%s:%ld:", gr.gr_name, gr.gr_passwd, (long)gr.gr_gid);
    for (char **m = gr.gr_mem; *m; m++)
        buf_printf(&b, "%s%s", m == gr.gr_mem ? "" : ",", *m);
    *ret = arena_str(a, buf_str(&b));
    buf_free(&b);
    return 0;
}

/* Blocks for as long as the name service does (README.md). */
static enum table_result unix_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    if (key.n == 0 || str_index(key, 0) >= 0)
        return TABLE_NOT_FOUND;
    const char *name = arena_cstr(a, key);
    bool group = str_eq(t->name, STR("group.byname"));
    int rc = ERANGE;
    for (size_t room = 4096; rc == ERANGE && room <= NSS_BUFFER_MAX; room *= 4) {
        char *buffer = malloc(room);
        if (!buffer)
            die_no_memory(room);
        rc = group ? group_line(name, buffer, room, a, ret_value) : passwd_line(name, buffer, room, a, ret_value);
        free(buffer);
    }
    if (rc == 0)
        return TABLE_FOUND;
    /* glibc reports these for a name that is simply not there (getpwnam(3), "ERRORS") */
    if (rc == -1 || rc == ENOENT || rc == ESRCH || rc == EBADF || rc == EPERM)
        return TABLE_NOT_FOUND;
    return table_fail(t, "%.*s: %s", STR_ARG(t->spec), strerror(rc));
}

const struct table_type table_type_unix = {
    .name = STR_INIT("unix"), .fixed = true, .open = unix_open, .get = unix_get
};

/* --- fail: --- */

static error fail_open(struct table *t) {
    (void)t;
    return NULL;
}

static enum table_result fail_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    (void)key, (void)a, (void)ret_value;
    return table_fail(t, "%.*s: look-ups always fail", STR_ARG(t->spec));
}

const struct table_type table_type_fail = { .name = STR_INIT("fail"), .open = fail_open, .get = fail_get };
