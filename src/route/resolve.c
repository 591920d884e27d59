#include "route/router.h"

#include "base/log.h"
#include "base/utf8.h"
#include "mail/address.h"
#include "mail/dsn.h"

enum {
    STRIP_MAX = ADDRESS_MAX, /* local domains taken off one address: each costs a byte at least */
};

static error bad_address(struct arena *a) {
    return err_smtp(a, 501, "5.1.3", "bad address syntax");
}

/* Where mail goes: "transport:nexthop". Either part may be empty. */
struct destination {
    struct str transport, nexthop;
};
static struct destination destination_parse(struct str s) {
    ptrdiff_t colon = str_index(s, ':');
    if (colon < 0)
        return (struct destination){ str_trim(s), STR("") };
    return (struct destination){ str_trim(str_sub(s, 0, (size_t)colon)), str_trim(str_from(s, (size_t)colon + 1)) };
}

/* A host name, also in UTF-8 (RFC 6531, 3.3), or an address literal. */
static bool domain_valid(struct arena *a, struct str domain) {
    if (domain.n > 0 && domain.p[0] == '[')
        return address_domain_is_literal(domain);
    if (str_is_ascii(domain))
        return hostname_valid(domain);
    if (!utf8_valid(domain))
        return false;
    char *ascii = arena_cstr(a, domain);
    for (size_t i = 0; i < domain.n; i++)
        if ((unsigned char)ascii[i] >= 0x80)
            ascii[i] = 'x';
    return hostname_valid((struct str){ ascii, domain.n });
}

/* A local part that needs no quotes: what it holds may be a route and not just a name. */
static bool needs_no_quotes(struct arena *a, struct str local) {
    struct str whole = arena_cat(a, local, STR("@x"));
    return str_eq(address_quote(a, whole), whole);
}

/* The domain as it is looked at: without a last dot; numbers in the brackets they should have had. */
static error plain_domain(struct router *r, struct arena *a, struct str *inout, bool *ret_numeric) {
    struct str domain = *inout;
    *ret_numeric = false;
    if (domain.n == 0 && conf_bool(r->c, PARAM_resolve_null_domain))
        domain = r->myhostname;
    if (domain.n > 1 && domain.p[domain.n - 1] == '.')
        domain.n--;
    struct own_address ip;
    bool v6 = str_index(domain, ':') >= 0;
    if (own_address_parse(domain, v6, &ip)) {
        if (!conf_bool(r->c, PARAM_resolve_numeric_domain))
            return bad_address(a);
        domain = arena_printf(a, "[%s%.*s]", v6 ? "IPv6:" : "", STR_ARG(domain));
        *ret_numeric = true;
    }
    *inout = domain;
    return domain_valid(a, domain) ? NULL : bad_address(a);
}

/* Take our own domains off until what is left is a mailbox here or an address elsewhere. */
static error strip_local(struct router *r, struct arena *a, struct str recipient, struct address_parts *ret,
                         bool *ret_local) {
    bool dequoted = conf_bool(r->c, PARAM_resolve_dequoted_address), numeric;
    *ret_local = false;
    for (int i = 0; i < STRIP_MAX; i++) {
        *ret = address_split(recipient);
        if (!ret->has_domain) {
            /* site!user, user%site: as if written user@site; a plain name is one of this host */
            recipient = route_has_routing(r, recipient)
                            ? route_rewrite(r, a, recipient, r->myorigin)
                            : arena_printf(a, "%.*s@%.*s", STR_ARG(recipient), STR_ARG(r->myhostname));
            continue;
        }
        error e = plain_domain(r, a, &ret->domain, &numeric);
        if (e)
            return e;
        int local = router_domain_is_local(r, ret->domain);
        if (local < 0)
            return router_lookup_error(a, STR("mydestination"), ret->domain);
        *ret_local = local;
        if (!local || numeric || !route_has_routing(r, ret->local) || !(dequoted || needs_no_quotes(a, ret->local)))
            return NULL;
        recipient = route_rewrite(r, a, ret->local, r->myorigin);
    }
    return bad_address(a);
}

static error find_class(struct router *r, struct arena *a, struct str domain, bool local, enum address_class *ret) {
    const struct {
        struct match *list;
        struct str name;
        enum address_class class;
    } lists[] = {
        { r->virtual_alias_domains, STR_INIT("virtual_alias_domains"), CLASS_VIRTUAL_ALIAS },
        { r->virtual_mailbox_domains, STR_INIT("virtual_mailbox_domains"), CLASS_VIRTUAL_MAILBOX },
        { r->relay_domains, STR_INIT("relay_domains"), CLASS_RELAY },
    };
    *ret = local ? CLASS_LOCAL : CLASS_DEFAULT;
    struct str first = STR("mydestination");
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (local && lists[i].class == CLASS_RELAY)
            break; /* relay_domains was $mydestination by default for years: both at once is no mistake */
        if (*ret != CLASS_DEFAULT && !conf_bool(r->c, PARAM_helpful_warnings))
            break;
        switch (match_find(lists[i].list, domain, STR(""))) {
        case MATCH_ERROR:
            if (*ret != CLASS_DEFAULT) /* asked only for the warning's sake */
                break;
            return router_lookup_error(a, lists[i].name, domain);
        case MATCH_YES:
            if (*ret != CLASS_DEFAULT)
                log_warn("do not list domain %.*s in BOTH %.*s and %.*s", STR_ARG(domain), STR_ARG(first),
                         STR_ARG(lists[i].name));
            if (*ret != CLASS_DEFAULT)
                return NULL;
            *ret = lists[i].class;
            first = lists[i].name;
            break;
        case MATCH_NO:
            break;
        }
    }
    return NULL;
}

/* A table asked with the sender: user+ext@domain, user@domain, user of our domains, @domain. `*ret` stays as it is when
 * there is no answer.
 */
static error sender_lookup(struct router *r, struct arena *a, struct maps *maps, struct str parameter,
                           struct str sender, enum param empty_key, struct str *ret) {
    if (maps_is_empty(maps))
        return NULL;
    struct str value, extension;
    enum table_result found;
    if (sender.n == 0)
        found = maps_get(maps, conf_str(r->c, empty_key), a, &value, NULL);
    else
        found = router_find(r, maps, sender, FIND_MAILBOX, a, &value, &extension);
    if (found == TABLE_ERROR)
        return router_lookup_error(a, parameter, sender);
    if (found == TABLE_FOUND && !str_eq_icase(value, STR("DUNNO")))
        *ret = value;
    return NULL;
}

/* The next hop of mail that leaves: sender_dependent_relayhost_maps, relayhost, or the domain itself. */
static error relay_nexthop(struct router *r, struct arena *a, struct str sender, struct str domain, struct str *ret) {
    struct str relayhost = str_trim(conf_str(r->c, PARAM_relayhost));
    error e = sender_lookup(r, a, r->sender_relayhost, STR("sender_dependent_relayhost_maps"), sender,
                            PARAM_empty_address_relayhost_maps_lookup_key, &relayhost);
    if (!e)
        *ret = relayhost.n > 0 ? relayhost : domain;
    return e;
}

static error class_destination(struct router *r, struct arena *a, enum address_class class, struct str sender,
                               struct str domain, struct destination *ret) {
    switch (class) {
    case CLASS_LOCAL:
        *ret = destination_parse(conf_str(r->c, PARAM_local_transport));
        break;
    case CLASS_VIRTUAL_ALIAS: /* what was not an alias when cleanup looked is nobody */
        *ret = (struct destination){ STR("error"), conf_bool(r->c, PARAM_show_user_unknown_table_name)
                                                       ? STR("5.1.1 User unknown in virtual alias table")
                                                       : STR("5.1.1 User unknown") };
        break;
    case CLASS_VIRTUAL_MAILBOX:
        *ret = destination_parse(conf_str(r->c, PARAM_virtual_transport));
        break;
    case CLASS_RELAY:
        *ret = destination_parse(conf_str(r->c, PARAM_relay_transport));
        break;
    case CLASS_DEFAULT: {
        struct str transport = conf_str(r->c, PARAM_default_transport);
        error e = sender_lookup(r, a, r->sender_transport, STR("sender_dependent_default_transport_maps"), sender,
                                PARAM_empty_address_default_transport_maps_lookup_key, &transport);
        if (e)
            return e;
        *ret = destination_parse(transport);
        break;
    }
    }
    if (ret->nexthop.n == 0 && (class == CLASS_RELAY || class == CLASS_DEFAULT))
        return relay_nexthop(r, a, sender, domain, &ret->nexthop);
    return NULL;
}

/* transport(5): the address, its domain, .parents, "*". An empty part of the answer keeps what the class says, but a
 * transport without next hop goes to the recipient's domain. */
static error transport_lookup(struct router *r, struct arena *a, struct str recipient, struct str domain,
                              struct destination *inout) {
    if (maps_is_empty(r->transport))
        return NULL;
    struct str value, extension;
    enum table_result found = addr_find(r->transport, recipient, false, ADDR_FIND_DOMAIN | r->transport_parents,
                                        r->extensions, a, &value, &extension);
    if (found == TABLE_NOT_FOUND)
        found = maps_get_partial(r->transport, STR("*"), a, &value, NULL);
    if (found == TABLE_ERROR)
        return router_lookup_error(a, STR("transport_maps"), recipient);
    if (found == TABLE_NOT_FOUND)
        return NULL;
    struct destination d = destination_parse(value);
    if (d.transport.n > 0)
        *inout = (struct destination){ d.transport, d.nexthop.n > 0 ? d.nexthop : domain };
    else if (d.nexthop.n > 0)
        inout->nexthop = d.nexthop;
    if (str_eq(d.transport, STR("error")) && d.nexthop.n == 0)
        inout->nexthop = STR("Address is undeliverable");
    return NULL;
}

error route_resolve(struct router *r, struct arena *a, struct str sender, struct str recipient, struct route *ret) {
    if (recipient.n > ADDRESS_MAX)
        return bad_address(a);
    struct address_parts parts;
    bool local;
    error e = strip_local(r, a, recipient, &parts, &local);
    if (e)
        return e;
    struct str domain = parts.domain, user = parts.local;
    if (local && user.n == 0)
        user = conf_str(r->c, PARAM_empty_address_recipient);

    struct route route = { .class = CLASS_DEFAULT };
    e = find_class(r, a, domain, local, &route.class);
    if (e)
        return e;
    route.recipient = arena_printf(a, "%.*s@%.*s", STR_ARG(user), STR_ARG(domain));
    route.routed = route_is_routed(user);
    /* Programs that get the address on their command line would take it for an option. */
    if (route.recipient.p[0] == '-' && !conf_bool(r->c, PARAM_allow_min_user))
        return bad_address(a);

    struct destination d = { STR(""), STR("") };
    e = class_destination(r, a, route.class, sender, domain, &d);
    if (e)
        return e;
    if (route.class != CLASS_VIRTUAL_ALIAS) {
        e = transport_lookup(r, a, route.recipient, domain, &d);
        if (e)
            return e;
    }

    struct str moved, extension;
    switch (router_find(r, r->relocated, route.recipient, FIND_MAILBOX, a, &moved, &extension)) {
    case TABLE_ERROR:
        return router_lookup_error(a, STR("relocated_maps"), route.recipient);
    case TABLE_FOUND:
        d = (struct destination){ STR("error"), conf_bool(r->c, PARAM_relocated_prefix_enable)
                                                    ? arena_printf(a, "5.1.6 User has moved to %.*s", STR_ARG(moved))
                                                    : moved };
        break;
    case TABLE_NOT_FOUND:
        break;
    }
    if (d.transport.n == 0)
        return err_smtp(a, 451, "4.3.5", "Server configuration error");
    route.transport = arena_str(a, d.transport);
    route.nexthop = arena_str(a, d.nexthop.n > 0 ? d.nexthop : domain);
    *ret = route;
    return NULL;
}
