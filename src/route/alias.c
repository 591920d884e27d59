#include "route/router.h"

#include "base/log.h"
#include "base/map.h"
#include "mail/address.h"

/* One step of a map that names addresses: none, or what the address becomes. `propagate` is the map's word in
 * propagate_unmatched_extensions. */
struct step {
    struct str *at;
    size_t n;
    struct str value; /* the table's text */
};

enum { RESULT_SHOWN = 300 }; /* bytes of an over-long address in the log */

static bool list_has(struct str list, struct str word) {
    struct str item;
    while (str_word(&list, STR_COMMA_SPACE, &item))
        if (str_eq_icase(item, word))
            return true;
    return false;
}

static struct str with_extension(struct arena *a, struct str address, struct str extension) {
    struct address_parts p = address_split(address);
    if (!p.has_domain)
        return arena_cat(a, address, extension);
    return arena_printf(a, "%.*s%.*s@%.*s", STR_ARG(p.local), STR_ARG(extension), STR_ARG(p.domain));
}

static enum table_result map_step(struct router *r, struct arena *a, struct maps *maps, struct str parameter,
                                  struct str propagate, struct str address, struct step *ret) {
    struct str value, extension;
    enum table_result found = router_find(r, maps, address, FIND_RENAMED, a, &value, &extension);
    if (found != TABLE_FOUND)
        return found;
    *ret = (struct step){ .value = value };
    struct str text = str_trim(value);
    if (text.n > 1 && text.p[0] == '@' && str_index_any(text, STR(",: \t")) < 0) {
        /* "@otherdomain": the same user there */
        ret->at = arena_array(a, 1, sizeof *ret->at);
        ret->n = 1;
        ret->at[0] = arena_cat(a, address_split(address).local, text);
        return TABLE_FOUND;
    }
    size_t most = (size_t)conf_int(r->c, PARAM_virtual_alias_expansion_limit);
    struct header_addresses parsed =
        header_addresses_parse_most(a, value, most > HEADER_ADDRESS_MAX ? most : HEADER_ADDRESS_MAX);
    if (parsed.truncated) { /* nobody would hear of those left out */
        log_warn("%.*s lookup of %.*s: an address is too long, or there are too many", STR_ARG(parameter),
                 STR_ARG(address));
        return TABLE_ERROR;
    }
    ret->at = arena_array(a, parsed.n, sizeof *ret->at);
    bool extend = extension.n > 0 && list_has(conf_str(r->c, PARAM_propagate_unmatched_extensions), propagate);
    for (size_t i = 0; i < parsed.n; i++) {
        if (parsed.at[i].address.n == 0)
            continue;
        struct str one = route_rewrite(r, a, parsed.at[i].address, r->myorigin);
        ret->at[ret->n++] = extend ? with_extension(a, one, extension) : one;
    }
    if (ret->n > 0)
        return TABLE_FOUND;
    log_warn("%.*s lookup of %.*s returns non-address result \"%.*s\"", STR_ARG(parameter), STR_ARG(address),
             STR_ARG(value));
    return TABLE_ERROR;
}

static error try_later(struct arena *a, struct str text) {
    struct err *e = ARENA_NEW(a, struct err);
    *e = (struct err){
        .kind = ERR_TEMP, .code = 451, .dsn = STR("4.3.0"), .text = STR("Error: queue file write error"), .detail = text
    };
    return e;
}

/* One virtual expansion under way. */
struct expansion {
    struct router *r;
    struct arena *arena;
    struct str address; /* whose it is, for messages */
    size_t longest, deepest, most;
    VEC(struct str) out;
    struct map
        finals; /* in lower case: addresses that stand in their own expansion and are final: "user: user, copy@b" */
};

static const struct str virtual_name = STR_INIT("virtual_alias_maps");

/* Not a table's fault: RFC 3463, 3.7 has no better detail. */
static error endless(struct expansion *x, struct str text) {
    struct err *e = ARENA_NEW(x->arena, struct err);
    *e = (struct err){
        .kind = ERR_TEMP, .code = 451, .dsn = STR("4.6.0"), .text = STR("Alias expansion error"), .detail = text
    };
    return e;
}

static error unreasonable(struct expansion *x, const char *what) {
    return endless(x, arena_printf(x->arena, "unreasonable %.*s map %s for %.*s", STR_ARG(virtual_name), what,
                                   STR_ARG(x->address)));
}

static bool is_final(struct expansion *x, struct str address) {
    return x->finals.n > 0 && map_get(&x->finals, arena_lower(x->arena, address));
}

/* What entry `i` becomes takes its place, the rest goes to the end. */
static error expand_step(struct expansion *x, size_t i, const struct step *step) {
    struct str from = x->out.at[i];
    for (size_t k = 0; k < step->n; k++) {
        struct str to = step->at[k];
        if (to.n > x->longest)
            return endless(x, arena_printf(x->arena, "unreasonable %.*s result %.*s... in map lookup for %.*s",
                                           STR_ARG(virtual_name), STR_ARG(str_sub(to, 0, RESULT_SHOWN)),
                                           STR_ARG(x->address)));
        if (k == 0)
            x->out.at[i] = to;
        else
            *vec_add(x->arena, &x->out) = to;
        if (str_eq_icase(to, from))
            map_put(&x->finals, arena_lower(x->arena, to), x);
    }
    return x->out.n > x->most ? unreasonable(x, "expansion size") : NULL;
}

static error expand_all(struct expansion *x) {
    for (size_t i = 0; i < x->out.n; i++)
        for (size_t depth = 0; !is_final(x, x->out.at[i]); depth++) {
            if (depth >= x->deepest)
                return unreasonable(x, "nesting");
            struct step step;
            enum table_result found =
                map_step(x->r, x->arena, x->r->virtual_alias, virtual_name, STR("virtual"), x->out.at[i], &step);
            if (found == TABLE_NOT_FOUND)
                break;
            if (found == TABLE_ERROR)
                return try_later(x->arena, arena_printf(x->arena, "%.*s map lookup problem for %.*s",
                                                        STR_ARG(virtual_name), STR_ARG(x->address)));
            error e = expand_step(x, i, &step);
            if (e)
                return e;
        }
    return NULL;
}

error route_expand_virtual(struct router *r, struct arena *a, struct str address, struct str **ret, size_t *ret_count) {
    struct expansion x = { .r = r,
                           .arena = a,
                           .address = address,
                           .most = (size_t)conf_int(r->c, PARAM_virtual_alias_expansion_limit),
                           .deepest = (size_t)conf_int(r->c, PARAM_virtual_alias_recursion_limit),
                           .longest = (size_t)conf_int(r->c, PARAM_virtual_alias_address_length_limit) };
    *vec_add(a, &x.out) = address;
    error e = maps_is_empty(r->virtual_alias) ? NULL : expand_all(&x);
    map_free(&x.finals);
    *ret = x.out.at;
    *ret_count = x.out.n;
    return e;
}

static bool class_has(struct router *r, enum param classes, struct str class_name) {
    return list_has(conf_str(r->c, classes), class_name);
}

enum { CANONICAL_DEPTH = 1000 };

/* One table, followed until it has no more to say. */
static error canonical_one(struct router *r, struct arena *a, struct maps *maps, struct str parameter,
                           struct str address, struct str *ret) {
    struct str at = address;
    for (int depth = 0; depth < CANONICAL_DEPTH; depth++) {
        struct step step;
        switch (map_step(r, a, maps, parameter, STR("canonical"), at, &step)) {
        case TABLE_ERROR:
            return try_later(a,
                             arena_printf(a, "%.*s map lookup problem for %.*s", STR_ARG(parameter), STR_ARG(address)));
        case TABLE_NOT_FOUND:
            *ret = at;
            return NULL;
        case TABLE_FOUND:
            break;
        }
        if (step.n > 1)
            log_warn("multi-valued %.*s entry for %.*s", STR_ARG(parameter), STR_ARG(address));
        bool same = str_eq_icase(step.at[0], at);
        at = step.at[0];
        if (same) {
            *ret = at;
            return NULL;
        }
    }
    log_warn("unreasonable %.*s map nesting for %.*s", STR_ARG(parameter), STR_ARG(address));
    *ret = address;
    return NULL;
}

error route_canonical(struct router *r, struct arena *a, struct str address, struct str class_name, struct str *ret) {
    *ret = address;
    if (address.n == 0)
        return NULL;
    const struct {
        struct maps *maps;
        enum param classes;
        struct str name;
    } tables[] = {
        { r->sender_canonical, PARAM_sender_canonical_classes, STR_INIT("sender_canonical_maps") },
        { r->recipient_canonical, PARAM_recipient_canonical_classes, STR_INIT("recipient_canonical_maps") },
        { r->canonical, PARAM_canonical_classes, STR_INIT("canonical_maps") },
    };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (maps_is_empty(tables[i].maps) || !class_has(r, tables[i].classes, class_name))
            continue;
        error e = canonical_one(r, a, tables[i].maps, tables[i].name, *ret, ret);
        if (e)
            return e;
    }
    if (class_has(r, PARAM_masquerade_classes, class_name) && router_masquerade(r, a, *ret, ret) == MATCH_ERROR)
        return try_later(a, arena_printf(a, "masquerade_exceptions lookup problem for %.*s", STR_ARG(address)));
    return NULL;
}

error route_generic(struct router *r, struct arena *a, struct maps *maps, struct str parameter, struct str address,
                    struct str *ret) {
    *ret = address;
    if (maps_is_empty(maps) || address.n == 0)
        return NULL;
    struct step step;
    switch (map_step(r, a, maps, parameter, STR("generic"), address, &step)) {
    case TABLE_ERROR:
        return try_later(a, arena_printf(a, "%.*s map lookup problem for %.*s", STR_ARG(parameter), STR_ARG(address)));
    case TABLE_NOT_FOUND:
        return NULL;
    case TABLE_FOUND:
        break;
    }
    if (step.n > 1)
        log_warn("multi-valued %.*s entry for %.*s", STR_ARG(parameter), STR_ARG(address));
    *ret = step.at[0];
    return NULL;
}
