#include "route/router.h"

#include "base/log.h"
#include "mail/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>

bool own_address_parse(struct str text, bool v6, struct own_address *ret) {
    char c[INET6_ADDRSTRLEN];
    if (text.n == 0 || text.n >= sizeof c || memchr(text.p, 0, text.n))
        return false;
    memcpy(c, text.p, text.n);
    c[text.n] = 0;
    *ret = (struct own_address){ .v6 = v6 };
    return inet_pton(v6 ? AF_INET6 : AF_INET, c, ret->bytes) == 1;
}

static void own_add(struct router *r, const struct sockaddr *sa) {
    struct own_address o = { 0 };
    if (sa && sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        memcpy(o.bytes, &in.sin_addr, 4);
    } else if (sa && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        o.v6 = true;
        memcpy(o.bytes, &in6.sin6_addr, 16);
    } else {
        return;
    }
    *vec_add(r->arena, &r->own) = o;
}

static void own_add_all(struct router *r) {
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list) != 0)
        return;
    for (struct ifaddrs *i = list; i; i = i->ifa_next)
        own_add(r, i->ifa_addr);
    freeifaddrs(list);
}

static void own_add_name(struct router *r, struct str name) {
    if (name.n >= 2 && name.p[0] == '[' && name.p[name.n - 1] == ']')
        name = str_sub(name, 1, name.n - 2);
    struct own_address o;
    if (own_address_parse(name, false, &o) || own_address_parse(name, true, &o)) {
        *vec_add(r->arena, &r->own) = o;
        return;
    }
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
    if (getaddrinfo(arena_cstr(r->arena, name), NULL, &hints, &found) != 0)
        return; /* master, which must bind it, has the say about a name without address */
    for (struct addrinfo *i = found; i; i = i->ai_next)
        own_add(r, i->ai_addr);
    freeaddrinfo(found);
}

static void own_add_list(struct router *r, struct str list) {
    struct str word;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        if (str_eq_icase(word, STR("all"))) {
            own_add_all(r);
        } else if (str_eq_icase(word, STR("loopback-only"))) {
            own_add_name(r, STR("127.0.0.1"));
            own_add_name(r, STR("::1"));
        } else {
            own_add_name(r, word);
        }
    }
}

struct router *router_new(const struct conf *c) {
    struct arena *arena = arena_new();
    struct router *r = ARENA_NEW(arena, struct router);
    r->arena = arena;
    r->c = c;

#define LIST(field, param, kind) r->field = match_open(c, STR(#field), conf_str(c, param), kind, TABLE_FOLD)
    LIST(mydestination, PARAM_mydestination, MATCH_STRING);
    LIST(virtual_alias_domains, PARAM_virtual_alias_domains, MATCH_STRING);
    LIST(virtual_mailbox_domains, PARAM_virtual_mailbox_domains, MATCH_STRING);
    LIST(relay_domains, PARAM_relay_domains, MATCH_DOMAIN);
#undef LIST

    /* No TABLE_NO_REGSUB: what these answer is an address or a route, which the asker can choose anyhow, except where
     * the answer names a transport. */
    r->transport = maps_open(c, conf_str(c, PARAM_transport_maps), TABLE_FOLD | TABLE_NO_REGSUB);
    r->virtual_alias = maps_open(c, conf_str(c, PARAM_virtual_alias_maps), TABLE_FOLD);
    r->canonical = maps_open(c, conf_str(c, PARAM_canonical_maps), TABLE_FOLD);
    r->sender_canonical = maps_open(c, conf_str(c, PARAM_sender_canonical_maps), TABLE_FOLD);
    r->recipient_canonical = maps_open(c, conf_str(c, PARAM_recipient_canonical_maps), TABLE_FOLD);
    r->relocated = maps_open(c, conf_str(c, PARAM_relocated_maps), TABLE_FOLD);
    r->local_recipient = maps_open(c, conf_str(c, PARAM_local_recipient_maps), TABLE_FOLD);
    r->relay_recipient = maps_open(c, conf_str(c, PARAM_relay_recipient_maps), TABLE_FOLD);
    r->virtual_mailbox = maps_open(c, conf_str(c, PARAM_virtual_mailbox_maps), TABLE_FOLD);
    r->sender_relayhost =
        maps_open(c, conf_str(c, PARAM_sender_dependent_relayhost_maps), TABLE_FOLD | TABLE_NO_REGSUB);
    r->sender_transport =
        maps_open(c, conf_str(c, PARAM_sender_dependent_default_transport_maps), TABLE_FOLD | TABLE_NO_REGSUB);

    router_open_masquerade(r);
    own_add_list(r, conf_str(c, PARAM_inet_interfaces));
    own_add_list(r, conf_str(c, PARAM_proxy_interfaces));

    r->myorigin = conf_str(c, PARAM_myorigin);
    r->mydomain = conf_str(c, PARAM_mydomain);
    r->myhostname = conf_str(c, PARAM_myhostname);
    r->extensions = addr_extension_rules(c);
    struct str parents = conf_str(c, PARAM_parent_domain_matches_subdomains), word;
    while (str_word(&parents, STR_COMMA_SPACE, &word))
        if (str_eq_icase(word, STR("transport_maps")))
            r->transport_parents = ADDR_FIND_PARENT_NO_DOT;
    r->append_at_myorigin = conf_bool(c, PARAM_append_at_myorigin);
    r->append_dot_mydomain = conf_bool(c, PARAM_append_dot_mydomain);
    r->percent_hack = conf_bool(c, PARAM_allow_percent_hack);
    r->swap_bangpath = conf_bool(c, PARAM_swap_bangpath);
    return r;
}

void router_free(struct router *r) {
    if (!r)
        return;
    match_close(r->mydestination);
    match_close(r->virtual_alias_domains);
    match_close(r->virtual_mailbox_domains);
    match_close(r->relay_domains);
    match_close(r->masquerade_exceptions);
    struct maps *maps[] = { r->transport,           r->virtual_alias,    r->canonical,       r->sender_canonical,
                            r->recipient_canonical, r->relocated,        r->local_recipient, r->relay_recipient,
                            r->virtual_mailbox,     r->sender_relayhost, r->sender_transport };
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++)
        maps_close(maps[i]);
    for (size_t i = 0; i < r->services.n; i++)
        router_free(r->services.at[i].router);
    arena_free(r->arena);
}

error router_lookup_error(struct arena *a, struct str parameter, struct str key) {
    log_warn("%.*s lookup failure for \"%.*s\"", STR_ARG(parameter), STR_ARG(key));
    struct err *e = ARENA_NEW(a, struct err);
    *e = (struct err){ .kind = ERR_TEMP,
                       .code = 451,
                       .dsn = STR("4.3.0"),
                       .text = STR("Temporary lookup failure"),
                       .detail = arena_str(a, parameter) };
    return e;
}

/* [a.b.c.d] or [IPv6:...] among our own. */
static bool literal_is_own(const struct router *r, struct str domain) {
    if (domain.n < 3 || domain.p[0] != '[' || domain.p[domain.n - 1] != ']')
        return false;
    struct str inside = str_sub(domain, 1, domain.n - 2);
    bool v6 = str_starts_icase(inside, STR("IPv6:"));
    struct own_address o;
    if (!own_address_parse(v6 ? str_from(inside, 5) : inside, v6, &o))
        return false;
    for (size_t i = 0; i < r->own.n; i++)
        if (r->own.at[i].v6 == o.v6 && memcmp(r->own.at[i].bytes, o.bytes, v6 ? 16 : 4) == 0)
            return true;
    return false;
}

int router_domain_is_local(struct router *r, struct str domain) {
    if (literal_is_own(r, domain))
        return 1;
    switch (match_find(r->mydestination, domain, STR(""))) {
    case MATCH_YES:
        return 1;
    case MATCH_NO:
        return 0;
    default:
        return -1;
    }
}

enum table_result router_find(struct router *r, struct maps *m, struct str address, unsigned flags, struct arena *a,
                              struct str *ret_value, struct str *ret_extension) {
    *ret_value = STR("");
    *ret_extension = STR("");
    if (maps_is_empty(m) || address.n == 0)
        return TABLE_NOT_FOUND;
    bool ours = true;
    struct address_parts parts = address_split(address);
    if (parts.has_domain && !str_eq_icase(parts.domain, r->myorigin)) {
        int local = router_domain_is_local(r, parts.domain);
        if (local < 0)
            return TABLE_ERROR;
        ours = local > 0;
    }
    return addr_find(m, address, ours, flags, r->extensions, a, ret_value, ret_extension);
}

enum table_result route_find(struct router *r, struct maps *maps, struct arena *a, struct str address,
                             struct str *ret_value) {
    struct str extension;
    return router_find(r, maps, address, FIND_MAILBOX, a, ret_value, &extension);
}
