/* route.h - rewriting addresses, address classes, and where mail goes next (trivial-rewrite(8), ADDRESS_CLASS_README).
 *
 * A router holds the tables its questions need and is used by qmgr, cleanup and trivial-rewrite in their own process;
 * the confined smtpd asks trivial-rewrite (proto/rewrite.h). Look-ups may block on local files only. Addresses are in
 * internal form. Results live in the arena given. */
#ifndef ANGARIUM_ROUTE_ROUTE_H
#define ANGARIUM_ROUTE_ROUTE_H

#include "base/err.h"
#include "conf/conf.h"
#include "table/table.h"

struct router;
/* Tables that cannot be opened do not fail here: their look-ups fail temporarily, and are logged. */
struct router *router_new(const struct conf *c);
void router_free(struct router *r);
/* Whether an address is listed, ask the tables of `lists` when the question comes from `service`: what its -o overrides
 * in master.cf say. `lists` belongs to `r` then; where mail goes is r's business alone. */
void router_add_lists(struct router *r, struct str service, struct router *lists);
/* The parameters that count for router_add_lists(): what smtpd(8) may override for itself. */
bool route_is_list_parameter(struct str name);

/* Make an address complete: append @$myorigin, .$mydomain (append_dot_mydomain), strip a trailing dot, percent and bang
 * forms, "@domain" routes. `origin` is $myorigin for local mail, remote_header_rewrite_domain for remote headers. */
struct str route_rewrite(struct router *r, struct arena *a, struct str address, struct str origin);

/* ADDRESS_CLASS_README's five */
enum address_class {
    CLASS_LOCAL = 1,       /* mydestination, inet_interfaces, proxy_interfaces */
    CLASS_VIRTUAL_ALIAS,   /* virtual_alias_domains */
    CLASS_VIRTUAL_MAILBOX, /* virtual_mailbox_domains */
    CLASS_RELAY,           /* relay_domains */
    CLASS_DEFAULT,
};
struct route {
    enum address_class class;
    struct str transport; /* "smtp" */
    struct str nexthop;   /* for transport, never empty but for error: without text */
    struct str recipient; /* complete, rewritten */
    bool routed;          /* the local part is a route of its own (a@b, a%b, a!b): allow_untrusted_routing */
};
/* NULL and *ret; ERR_TEMP when a table failed; ERR_PERM with dsn and text for an address that cannot be routed. */
error route_resolve(struct router *r, struct arena *a, struct str sender, struct str recipient, struct route *ret);

/* What a server wants to know before it takes mail, in one question. The address needs not be complete. */
enum route_want {
    ROUTE_WANT_CLASS = 1,  /* of a recipient: is it ours to take? */
    ROUTE_WANT_LISTED = 2, /* does it exist, as reject_unlisted_recipient and reject_unlisted_sender ask? */
};
struct route_question {
    struct str
        service;    /* of master.cf, who asks: its tables of recipients count (router_add_lists()); empty: main.cf's */
    bool is_sender; /* the address is the sender's: the answer has other codes */
    unsigned want;  /* enum route_want */
    struct str sender;  /* with ROUTE_WANT_CLASS; empty when route_depends_on_sender() says that it does not matter */
    struct str address; /* empty: everything is fine with it */
};
struct route_check {
    error unroutable; /* as route_resolve(); NULL with class and routed set */
    enum address_class class;
    bool routed;
    /* NULL: it exists, or nobody can say; else an SMTP error: 550 5.1.1 "User unknown in local recipient table", 550
     * 5.1.6 "User has moved to ...", 451 4.3.0 for a failed table ... */
    error unlisted;
};
void route_check(struct router *r, struct arena *a, const struct route_question *q, struct route_check *ret);
/* Does main.cf have tables that are asked with the sender? Without them one answer does for all senders. */
bool route_depends_on_sender(const struct conf *c);

/* Virtual aliases (virtual(5)) applied until nothing changes: one address becomes none of itself or several. Loops and
 * virtual_alias_recursion_limit, virtual_alias_expansion_limit end it with ERR_TEMP; `detail` says which and for whom.
 */
error route_expand_virtual(struct router *r, struct arena *a, struct str address, struct str **ret, size_t *ret_count);
/* Any other table asked with a mail address (bcc maps): user+ext@domain, user@domain, for our domains user+ext and
 * user, then
 * @domain. */
enum table_result route_find(struct router *r, struct maps *maps, struct arena *a, struct str address,
                             struct str *ret_value);
/* canonical_maps and its sisters, then masquerading, for one class of address ("envelope_sender", "header_recipient",
 * ...): the new address, or the old. A loop gives the old one and a warning in the log. */
error route_canonical(struct router *r, struct arena *a, struct str address, struct str class_name, struct str *ret);
/* generic(5): one step of `maps`, which `parameter` names (smtp_generic_maps): the new address, or the old. */
error route_generic(struct router *r, struct arena *a, struct maps *maps, struct str parameter, struct str address,
                    struct str *ret);
#endif
