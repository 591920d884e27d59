#include "route/router.h"

#include "base/log.h"
#include "mail/address.h"

/* One step of a map that names addresses: none, or what the address becomes. `propagate` is the map's word in
 * propagate_unmatched_extensions. */
struct step {
    struct str *at;
    size_t n;
    struct str value; /* the table's text */
};

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
    struct header_addresses parsed = header_addresses_parse(a, value);
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

error route_expand_virtual(struct router *r, struct arena *a, struct str address, struct str **ret, size_t *ret_count) {
    VEC(struct str) out = { 0 };
    *vec_add(a, &out) = address;
    size_t most = (size_t)conf_int(r->c, PARAM_virtual_alias_expansion_limit);
    size_t deepest = (size_t)conf_int(r->c, PARAM_virtual_alias_recursion_limit);
    size_t longest = (size_t)conf_int(r->c, PARAM_virtual_alias_address_length_limit);
    const struct str name = STR("virtual_alias_maps");

    if (!maps_is_empty(r->virtual_alias))
        for (size_t i = 0; i < out.n; i++) {
            if (out.n > most)
                return try_later(a, arena_printf(a, "unreasonable %.*s map expansion size for %.*s", STR_ARG(name),
                                                 STR_ARG(address)));
            for (size_t depth = 0;; depth++) {
                if (depth >= deepest)
                    return try_later(
                        a, arena_printf(a, "unreasonable %.*s map nesting for %.*s", STR_ARG(name), STR_ARG(address)));
                struct step step;
                struct str from = out.at[i];
                enum table_result found = map_step(r, a, r->virtual_alias, name, STR("virtual"), from, &step);
                if (found == TABLE_ERROR)
                    return try_later(
                        a, arena_printf(a, "%.*s map lookup problem for %.*s", STR_ARG(name), STR_ARG(address)));
                if (found == TABLE_NOT_FOUND)
                    break;
                /* An address that stands in its own expansion is final there: "user: user, copy@elsewhere". */
                bool self = false;
                for (size_t k = 0; k < step.n; k++) {
                    if (step.at[k].n > longest)
                        return try_later(a, arena_printf(a, "unreasonable %.*s result %.*s... in map lookup for %.*s",
                                                         STR_ARG(name), 300, step.at[k].p, STR_ARG(address)));
                    self = self || str_eq_icase(step.at[k], from);
                }
                size_t first = 0;
                for (size_t k = 0; self && k < step.n; k++)
                    if (str_eq_icase(step.at[k], from))
                        first = k;
                out.at[i] = step.at[first];
                if (out.n + step.n > most + 1)
                    return try_later(a, arena_printf(a, "unreasonable %.*s map expansion size for %.*s", STR_ARG(name),
                                                     STR_ARG(address)));
                for (size_t k = 0; k < step.n; k++)
                    if (k != first)
                        *vec_add(a, &out) = step.at[k];
                if (self)
                    break;
            }
        }
    *ret = out.at;
    *ret_count = out.n;
    return NULL;
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
    return NULL;
}
