#include "table/remote.h"

#include "build_config.h"
#include "table/table_impl.h"

static const struct table_remote *remote;
static const struct table_type *const *registered;
static size_t registered_count;

void table_set_remote(const struct table_remote *r) {
    remote = r;
}

void table_register(const struct table_type *const *types, size_t n) {
    registered = types;
    registered_count = n;
}

/* --- asking --- */

static enum table_result ask(struct table *t, struct table_question *q, struct arena *a, struct str *ret_key,
                             struct str *ret_value) {
    struct str why = STR("");
    q->flags = t->flags & TABLE_ASKED_FLAGS;
    q->proxied = str_starts(t->spec, STR("proxy:"));
    q->spec = q->proxied ? t->name : t->spec;
    if (!remote)
        return table_fail(t, "%.*s: this program cannot ask servers", STR_ARG(t->spec));
    enum table_result r = remote->ask(remote->ctx, q, a, ret_key, ret_value, &why);
    return r == TABLE_ERROR ? table_fail(t, "%.*s", STR_ARG(why)) : r;
}

static enum table_result remote_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct str unused;
    struct table_question q = { .what = TABLE_ASK_GET, .key = key };
    return ask(t, &q, a, &unused, ret_value);
}

static enum table_result change(struct table *t, struct table_question *q) {
    struct arena *a = arena_new();
    struct str key, value;
    enum table_result r = ask(t, q, a, &key, &value);
    arena_free(a);
    return r;
}

static enum table_result remote_put(struct table *t, struct str key, struct str value) {
    return change(t, &(struct table_question){ .what = TABLE_ASK_PUT, .key = key, .value = value });
}

static enum table_result remote_del(struct table *t, struct str key) {
    return change(t, &(struct table_question){ .what = TABLE_ASK_DELETE, .key = key });
}

static enum table_result remote_next(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                                     struct str *ret_value) {
    struct table_question q = { .what = after.n ? TABLE_ASK_NEXT : TABLE_ASK_FIRST, .key = after };
    return ask(t, &q, a, ret_key, ret_value);
}

/* A bad name is found where the table is opened in truth: at the first look-up. */
static error remote_open(struct table *t) {
    (void)t;
    return NULL;
}

/* --- types --- */

#define REMOTE(type, asks_whole, can_list)                                                                             \
    {                                                                                                                  \
        .name = STR_INIT(type), .pattern = (asks_whole), .open = remote_open, .get = remote_get, .put = remote_put,    \
        .del = remote_del, .next = remote_next, .listable = (can_list)                                                 \
    }

/* Keys are folded where the table is. tcp: and socketmap: are asked for the whole key only (tcp_table(5)). */
static const struct table_type server_types[] = {
#ifdef HAVE_LDAP
    REMOTE("ldap", false, false),
#endif
#ifdef HAVE_MEMCACHE
    REMOTE("memcache", false, true),
#endif
#ifdef HAVE_MYSQL
    REMOTE("mysql", false, false),
#endif
#ifdef HAVE_PGSQL
    REMOTE("pgsql", false, false),
#endif
#ifdef HAVE_SQLITE
    REMOTE("sqlite", false, false),
#endif
    REMOTE("socketmap", true, false), REMOTE("tcp", true, false),
};
enum { SERVER_TYPES = sizeof server_types / sizeof server_types[0] };

static const struct table_type users_type = REMOTE("unix", false, false);

size_t table_server_types(struct str *ret, size_t room) {
    size_t n = 0;
    for (; n < SERVER_TYPES && n < room; n++)
        ret[n] = server_types[n].name;
    return n;
}

bool table_type_is_server(struct str type) {
    for (size_t i = 0; i < SERVER_TYPES; i++)
        if (str_eq(type, server_types[i].name))
            return true;
    return false;
}

const struct table_type *table_type_elsewhere(struct str type) {
    for (size_t i = 0; i < registered_count; i++)
        if (str_eq(type, registered[i]->name))
            return registered[i];
    if (remote && str_eq(type, STR("proxy")))
        return &table_type_proxy;
    if (remote && remote->users && str_eq(type, users_type.name))
        return &users_type;
    for (size_t i = 0; i < SERVER_TYPES; i++)
        if (str_eq(type, server_types[i].name))
            return &server_types[i];
    return NULL;
}

/* --- proxy: --- */

/* Is any table that `spec` is made of asked for the whole key only? Read from the text: the tables are elsewhere. */
static bool spec_is_pattern(struct str spec, unsigned nesting) {
    static const struct str patterns[] = { STR_INIT("regexp"), STR_INIT("pcre"), STR_INIT("cidr"), STR_INIT("tcp"),
                                           STR_INIT("socketmap") };
    ptrdiff_t colon = str_index(spec, ':');
    if (colon < 0 || nesting > TABLE_NESTING_MAX)
        return false;
    struct str type = str_sub(spec, 0, (size_t)colon), name = str_from(spec, (size_t)colon + 1), word;
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (str_eq(type, patterns[i]))
            return true;
    if (str_eq(type, STR("proxy")) || str_eq(type, STR("debug")))
        return spec_is_pattern(name, nesting + 1);
    if ((!str_eq(type, STR("unionmap")) && !str_eq(type, STR("pipemap"))) || braces_open(name, &name))
        return false;
    while (str_word_braced(&name, STR_COMMA_SPACE, &word))
        if (spec_is_pattern(word, nesting + 1))
            return true;
    return false;
}

static bool proxy_is_pattern(const struct table *t) {
    return spec_is_pattern(t->name, t->nesting);
}

const struct table_type table_type_proxy = { .name = STR_INIT("proxy"),
                                             .open = remote_open,
                                             .get = remote_get,
                                             .put = remote_put,
                                             .del = remote_del,
                                             .next = remote_next,
                                             .listable = true, /* where the table behind it is */
                                             .is_pattern = proxy_is_pattern };
