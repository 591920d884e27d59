/* Tables made of tables: proxy:, unionmap:, pipemap:, debug:. Each holds its own inner tables, so that one that fails
 * to open makes the whole fail, and all are closed together. */
#include "base/log.h"
#include "table/table_impl.h"

enum { INNER_MAX = 100 };

struct combined_state {
    struct table *inner[INNER_MAX];
    size_t n;
};

static void combined_close(struct table *t) {
    struct combined_state *s = t->state;
    for (size_t i = 0; s && i < s->n; i++)
        table_close(s->inner[i]);
}

static bool combined_is_pattern(const struct table *t) {
    const struct combined_state *s = t->state;
    for (size_t i = 0; i < s->n; i++)
        if (table_is_pattern(s->inner[i]))
            return true;
    return false;
}

/* NULL, or the inner table's error. */
static error add_inner(struct table *t, struct combined_state *s, struct str spec) {
    if (s->n == INNER_MAX)
        return err_make(t->gen, ERR_LIMIT, "%.*s: more than %d tables", STR_ARG(t->spec), INNER_MAX);
    struct table *inner = table_open_nested(t->conf, spec, t->flags, t->nesting + 1);
    s->inner[s->n++] = inner;
    return inner->open ? NULL : table_error(inner);
}

/* Where there is nobody to ask: in the look-up process itself, and in programs that open their tables themselves. */
static error proxy_open(struct table *t) {
    t->state = ARENA_NEW(t->gen, struct combined_state);
    return add_inner(t, t->state, t->name);
}

static error list_fault(struct table *t) {
    return err_make(t->gen, ERR_CONFIG, "bad syntax: \"%.*s\"; need \"%.*s:{type:name...}\"", STR_ARG(t->spec),
                    STR_ARG(t->type->name));
}

static error list_open(struct table *t) {
    struct combined_state *s = ARENA_NEW(t->gen, struct combined_state);
    t->state = s;
    struct str rest, item;
    if (braces_open(t->name, &rest))
        return list_fault(t);
    while (str_word_braced(&rest, STR_COMMA_SPACE, &item)) {
        error e = str_index(item, ':') < 0 ? list_fault(t) : add_inner(t, s, item);
        if (e)
            return e;
    }
    return rest.n || s->n == 0 ? list_fault(t) : NULL;
}

static enum table_result inner_error(struct table *t, struct table *inner) {
    error e = table_error(inner);
    return table_fail(t, "%.*s", STR_ARG(e ? e->text : table_name(inner)));
}

static enum table_result inner_get(struct table *t, struct table *inner, struct str key, struct arena *a,
                                   struct str *ret_value) {
    enum table_result r = table_get(inner, key, a, ret_value);
    return r == TABLE_ERROR ? inner_error(t, inner) : r;
}

static enum table_result proxy_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct combined_state *s = t->state;
    return inner_get(t, s->inner[0], key, a, ret_value);
}

static enum table_result union_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct combined_state *s = t->state;
    struct buf all = { 0 };
    enum table_result r = TABLE_NOT_FOUND;
    bool found = false;
    for (size_t i = 0; i < s->n && r != TABLE_ERROR; i++) {
        struct str value;
        r = inner_get(t, s->inner[i], key, a, &value);
        if (r == TABLE_FOUND) {
            if (found)
                buf_byte(&all, ',');
            buf_add(&all, value);
            found = true;
        }
    }
    if (r != TABLE_ERROR && found) {
        *ret_value = arena_str(a, buf_str(&all));
        r = TABLE_FOUND;
    }
    buf_free(&all);
    return r;
}

static enum table_result pipe_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct combined_state *s = t->state;
    enum table_result r = TABLE_FOUND;
    for (size_t i = 0; i < s->n && r == TABLE_FOUND; i++) {
        r = inner_get(t, s->inner[i], key, a, ret_value);
        key = *ret_value;
    }
    return r;
}

/* debug:type:name: the inner table, each access logged with key and result. */
static error debug_open(struct table *t) {
    if (str_index(t->name, ':') < 0)
        return err_make(t->gen, ERR_CONFIG, "bad syntax: \"%.*s\"; need \"debug:type:name\"", STR_ARG(t->spec));
    return proxy_open(t);
}

/* As Postfix 3.11 words it. */
static void debug_log(struct table *inner, const char *what, struct str key, struct str result, const char *outcome) {
    log_info("%.*s %s: \"%.*s\" = \"%.*s\"%s", STR_ARG(table_name(inner)), what, STR_ARG(key), STR_ARG(result),
             outcome);
}

static struct str shown(enum table_result r, struct str value) {
    return r == TABLE_FOUND ? value : r == TABLE_ERROR ? STR("error") : STR("not_found");
}

static enum table_result debug_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct table *inner = ((struct combined_state *)t->state)->inner[0];
    enum table_result r = inner_get(t, inner, key, a, ret_value);
    debug_log(inner, "lookup", key, shown(r, *ret_value), "");
    return r;
}

static enum table_result debug_put(struct table *t, struct str key, struct str value) {
    struct table *inner = ((struct combined_state *)t->state)->inner[0];
    enum table_result r = table_put(inner, key, value);
    debug_log(inner, "update", key, value, r == TABLE_FOUND ? ": success" : ": failed");
    return r == TABLE_ERROR ? inner_error(t, inner) : r;
}

static enum table_result debug_delete(struct table *t, struct str key) {
    struct table *inner = ((struct combined_state *)t->state)->inner[0];
    enum table_result r = table_delete(inner, key);
    debug_log(inner, "delete", key, r == TABLE_FOUND ? STR("success") : STR("failed"), "");
    return r == TABLE_ERROR ? inner_error(t, inner) : r;
}

static enum table_result debug_next(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                                    struct str *ret_value) {
    struct table *inner = ((struct combined_state *)t->state)->inner[0];
    enum table_result r = table_next(inner, after, a, ret_key, ret_value);
    debug_log(inner, "sequence", *ret_key, shown(r, *ret_value), "");
    return r == TABLE_ERROR ? inner_error(t, inner) : r;
}

const struct table_type table_type_debug = { .name = STR_INIT("debug"),
                                             .open = debug_open,
                                             .get = debug_get,
                                             .close = combined_close,
                                             .is_pattern = combined_is_pattern,
                                             .put = debug_put,
                                             .del = debug_delete,
                                             .next = debug_next };
const struct table_type table_type_proxy_here = { .name = STR_INIT("proxy"),
                                                  .open = proxy_open,
                                                  .get = proxy_get,
                                                  .close = combined_close,
                                                  .is_pattern = combined_is_pattern };
const struct table_type table_type_unionmap = { .name = STR_INIT("unionmap"),
                                                .open = list_open,
                                                .get = union_get,
                                                .close = combined_close,
                                                .is_pattern = combined_is_pattern };
const struct table_type table_type_pipemap = { .name = STR_INIT("pipemap"),
                                               .open = list_open,
                                               .get = pipe_get,
                                               .close = combined_close,
                                               .is_pattern = combined_is_pattern };
