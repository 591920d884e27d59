/* router.h - what a router holds; for the files of this room only. */
#ifndef ANGARIUM_ROUTE_ROUTER_H
#define ANGARIUM_ROUTE_ROUTER_H

#include "route/route.h"
#include "table/match.h"
#include "table/table.h"

struct own_address { /* of inet_interfaces and proxy_interfaces */
    bool v6;
    unsigned char bytes[16]; /* the first 4 for IPv4 */
};

struct masquerade_domain {
    struct str name; /* in lower case */
    bool keep;       /* "!name" */
};

struct service_lists { /* of a service with tables of its own */
    struct str service;
    struct router *router;
};

struct router {
    const struct conf *c;
    struct arena *arena; /* as long as the router */
    struct match *mydestination, *relay_domains, *virtual_alias_domains, *virtual_mailbox_domains;
    struct maps *transport, *virtual_alias, *canonical, *sender_canonical, *recipient_canonical, *relocated;
    struct maps *local_recipient, *relay_recipient, *virtual_mailbox;
    struct maps *sender_relayhost, *sender_transport;
    VEC(struct masquerade_domain) masquerade_domains;
    struct match *masquerade_exceptions; /* NULL: none */
    VEC(struct own_address) own;
    VEC(struct service_lists) services;
    /* main.cf values asked for with every address */
    struct str myorigin, mydomain, myhostname;
    struct extension_rules extensions;
    bool append_at_myorigin, append_dot_mydomain, percent_hack, swap_bangpath;
    unsigned transport_parents; /* ADDR_FIND_PARENT_NO_DOT: transport_maps is in parent_domain_matches_subdomains */
};

/* 451 4.3.0 with the failed parameter in `detail`; logged here once for each call. */
error router_lookup_error(struct arena *a, struct str parameter, struct str key);
/* 1 yes, 0 no, -1 a table failed. `domain` without trailing dot. */
int router_domain_is_local(struct router *r, struct str domain);
/* "a.b.c.d" or, for v6, what stands behind "IPv6:". False: not an address. */
bool own_address_parse(struct str text, bool v6, struct own_address *ret);

/* addr_find() with what it needs to know of the address: is its domain ours ($myorigin, or a local one)? */
enum table_result router_find(struct router *r, struct maps *m, struct str address, unsigned flags, struct arena *a,
                              struct str *ret_value, struct str *ret_extension);
enum {
    FIND_MAILBOX = ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN,
    FIND_RENAMED = FIND_MAILBOX | ADDR_FIND_EXTERNAL, /* canonical(5), virtual(5) */
};

/* masquerade.c. MATCH_YES: `*ret` is another address; MATCH_ERROR: masquerade_exceptions cannot be asked. */
void router_open_masquerade(struct router *r);
enum match_result router_masquerade(struct router *r, struct arena *a, struct str address, struct str *ret);

/* Does the local part look like a route of its own, to whoever gets the mail (a%b, a!b, a@b)? */
bool route_is_routed(struct str local);
/* Is it one for us, with allow_percent_hack and swap_bangpath? */
bool route_has_routing(const struct router *r, struct str local);
#endif
