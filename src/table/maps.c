/* A parameter's list of tables, and the mail address look-ups made on it. */
#include "base/log.h"
#include "mail/address.h"
#include "table/cidr.h"
#include "table/table_impl.h"
#include <stdlib.h>

enum { LOG_KEY_MAX = 100 };

struct maps {
    struct arena *arena;
    VEC(struct table *) tables;
};

struct maps *maps_open(const struct conf *c, struct str list, unsigned flags) {
    struct arena *a = arena_new();
    struct maps *m = ARENA_NEW(a, struct maps);
    m->arena = a;
    struct str word;
    while (str_word_braced(&list, STR_COMMA_SPACE, &word))
        *vec_add(a, &m->tables) = table_open(c, word, flags);
    if (list.n) /* unbalanced braces: a stand-in that says so */
        *vec_add(a, &m->tables) = table_open(c, list, flags);
    return m;
}

void maps_close(struct maps *m) {
    if (!m)
        return;
    for (size_t i = 0; i < m->tables.n; i++)
        table_close(m->tables.at[i]);
    arena_free(m->arena);
}

bool maps_is_empty(const struct maps *m) {
    return m->tables.n == 0;
}

error maps_error(const struct maps *m) {
    for (size_t i = 0; i < m->tables.n; i++)
        if (table_error(m->tables.at[i]))
            return table_error(m->tables.at[i]);
    return NULL;
}

static enum table_result search(struct maps *m, struct str key, bool partial, struct arena *a, struct str *ret_value,
                                struct str *ret_table) {
    *ret_value = STR("");
    if (ret_table)
        *ret_table = STR("");
    if (key.n == 0) /* what is left of an address may be nothing; no table has it */
        return TABLE_NOT_FOUND;
    for (size_t i = 0; i < m->tables.n; i++) {
        struct table *t = m->tables.at[i];
        if (partial && table_is_pattern(t))
            continue;
        enum table_result r = table_get(t, key, a, ret_value);
        if (r == TABLE_NOT_FOUND)
            continue;
        if (ret_table)
            *ret_table = table_name(t);
        if (r == TABLE_ERROR) {
            error why = table_error(t);
            log_warn("%.*s lookup error for \"%.*s\"%s%.*s", STR_ARG(table_name(t)),
                     STR_ARG(str_sub(key, 0, LOG_KEY_MAX)), why ? ": " : "", STR_ARG(why ? why->text : STR("")));
        }
        if (r == TABLE_FOUND && ret_value->n == 0) {
            log_warn("table %.*s: key %.*s: empty string result is not allowed", STR_ARG(table_name(t)), STR_ARG(key));
            log_warn("table %.*s should return NO RESULT in case of NOT FOUND", STR_ARG(table_name(t)));
            return TABLE_ERROR;
        }
        return r;
    }
    return TABLE_NOT_FOUND;
}

enum table_result maps_get(struct maps *m, struct str key, struct arena *a, struct str *ret_value,
                           struct str *ret_table) {
    return search(m, key, false, a, ret_value, ret_table);
}

enum table_result maps_get_partial(struct maps *m, struct str key, struct arena *a, struct str *ret_value,
                                   struct str *ret_table) {
    return search(m, key, true, a, ret_value, ret_table);
}

/* --- mail addresses --- */

struct addr_search {
    struct maps *maps;
    struct arena *arena;
    struct str *ret_value;
    bool external;
};

/* A local part alone: the '@' put behind it keeps address_quote() from taking one inside for the separator. */
static struct str quote_local(struct arena *a, struct str local) {
    struct str quoted = address_quote(a, arena_cat(a, local, STR("@")));
    return str_sub(quoted, 0, quoted.n - 1);
}

/* Tables hold addresses in external form (quoted where RFC 5321 wants it); older ones in internal form. `suffix`
 * is "@domain", "@" or nothing. */
static enum table_result find_form(struct addr_search *s, struct str local, struct str suffix, bool partial) {
    /* the address as it came is not copied */
    bool joined = suffix.n == 0 || local.p + local.n == suffix.p;
    struct str plain = joined ? str_n(local.p, local.n + suffix.n) : arena_cat(s->arena, local, suffix);
    if (local.n == 0 || address_is_dot_string(local))
        return search(s->maps, plain, partial, s->arena, s->ret_value, NULL);
    struct str quoted = arena_cat(s->arena, quote_local(s->arena, local), suffix);
    enum table_result r = search(s->maps, quoted, partial, s->arena, s->ret_value, NULL);
    if (r == TABLE_NOT_FOUND && !s->external && !str_eq(plain, quoted))
        r = search(s->maps, plain, partial, s->arena, s->ret_value, NULL);
    return r;
}

static enum table_result find_parents(struct addr_search *s, struct str domain, unsigned flags) {
    enum table_result r = TABLE_NOT_FOUND;
    struct cidr address;
    if (str_index_any(domain, STR("[:")) >= 0 || cidr_parse_address(domain, &address))
        return r;
    while (r == TABLE_NOT_FOUND) {
        ptrdiff_t dot = str_index(str_from(domain, 1), '.'); /* not a leading one */
        if (dot < 0)
            break;
        domain = str_from(domain, (size_t)dot + 1); /* ".parent" */
        struct str key = flags & ADDR_FIND_PARENT_NO_DOT ? str_from(domain, 1) : domain;
        r = search(s->maps, key, true, s->arena, s->ret_value, NULL);
    }
    return r;
}

enum table_result name_find(struct maps *m, struct str name, unsigned flags, struct arena *a, struct str *ret_value) {
    struct addr_search s = { m, a, ret_value, false };
    enum table_result r = search(m, name, false, a, ret_value, NULL);
    return r == TABLE_NOT_FOUND ? find_parents(&s, name, flags) : r;
}

enum table_result ip_find(struct maps *m, struct str address, struct arena *a, struct str *ret_value) {
    char delimiter = str_index(address, ':') >= 0 ? ':' : '.';
    enum table_result r = search(m, address, false, a, ret_value, NULL);
    ptrdiff_t end;
    while (r == TABLE_NOT_FOUND && (end = str_rindex(address, delimiter)) >= 0) {
        address = str_sub(address, 0, (size_t)end);
        r = search(m, address, true, a, ret_value, NULL);
    }
    return r;
}

struct extension_rules addr_extension_rules(const struct conf *c) {
    return (struct extension_rules){ conf_str(c, PARAM_recipient_delimiter),
                                     conf_bool(c, PARAM_owner_request_special) };
}

enum table_result addr_find(struct maps *m, struct str address, bool local_domain, unsigned flags,
                            struct extension_rules extensions, struct arena *a, struct str *ret_value,
                            struct str *ret_extension) {
    struct addr_search s = { m, a, ret_value, (flags & ADDR_FIND_EXTERNAL) != 0 };
    struct str unmatched = STR("");
    *ret_value = STR("");
    if (ret_extension)
        *ret_extension = STR("");
    if (m->tables.n == 0)
        return TABLE_NOT_FOUND;

    struct address_parts p = address_split(address);
    struct str at_domain = p.has_domain ? str_from(address, p.local.n) : STR("");
    struct str user = p.local, extension = STR("");
    bool extended = address_split_extension(p.local, extensions, &user, &extension);
    struct str delimited = str_from(p.local, user.n); /* "+ext" */

    enum table_result r = find_form(&s, p.local, at_domain, false);
    if (r == TABLE_NOT_FOUND && extended) {
        r = find_form(&s, user, at_domain, true);
        unmatched = delimited;
    }
    if (r == TABLE_NOT_FOUND && (flags & ADDR_FIND_BARE_LOCAL) && local_domain && p.has_domain) {
        r = find_form(&s, p.local, STR(""), true);
        unmatched = STR("");
        if (r == TABLE_NOT_FOUND && extended) {
            r = find_form(&s, user, STR(""), true);
            unmatched = delimited;
        }
    }
    if (r == TABLE_NOT_FOUND && (flags & ADDR_FIND_AT_DOMAIN) && p.has_domain) {
        r = search(m, at_domain, true, a, ret_value, NULL);
        unmatched = STR(""); /* "@domain" is for every user there, extension and all: nothing to propagate */
    }
    if (r == TABLE_NOT_FOUND && (flags & ADDR_FIND_DOMAIN) && p.has_domain) {
        r = search(m, p.domain, true, a, ret_value, NULL);
        if (r == TABLE_NOT_FOUND)
            r = find_parents(&s, p.domain, flags);
        unmatched = delimited;
    }
    if (r == TABLE_NOT_FOUND && (flags & ADDR_FIND_LOCAL_AT) && p.has_domain) {
        r = find_form(&s, p.local, STR("@"), true);
        unmatched = STR("");
        if (r == TABLE_NOT_FOUND && extended) {
            r = find_form(&s, user, STR("@"), true);
            unmatched = delimited;
        }
    }
    if (r == TABLE_FOUND && ret_extension)
        *ret_extension = arena_str(a, unmatched);
    return r;
}
