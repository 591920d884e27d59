#include "route/router.h"

#include "mail/address.h"
#include "mail/dsn.h"
#include "route/probe.h"
#include <time.h>

/* Who is asked about: the enhanced codes differ (RFC 3463, 3.2: X.1.7 and X.1.8 are the sender's). */
enum side { SIDE_RECIPIENT, SIDE_SENDER };

static struct str side_status(struct arena *a, enum side side, struct str status) {
    static const struct {
        struct str recipient, sender;
    } pairs[] = {
        { STR_INIT(".1.1"), STR_INIT(".1.7") },
        { STR_INIT(".1.3"), STR_INIT(".1.7") },
        { STR_INIT(".1.6"), STR_INIT(".1.7") },
        { STR_INIT(".1.2"), STR_INIT(".1.8") },
    };
    if (side == SIDE_SENDER && status.n > 1)
        for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
            if (str_eq(str_from(status, 1), pairs[i].recipient))
                return arena_cat(a, str_sub(status, 0, 1), pairs[i].sender);
    return status;
}

static error refuse(struct arena *a, int64_t code, struct str status, struct str text) {
    status = dsn_with_class(a, status, code >= 500 ? '5' : '4');
    return err_smtp(a, (int)code, status.p, "%.*s", STR_ARG(text));
}

static error unknown(struct router *r, struct arena *a, enum side side, enum param code, const char *table) {
    struct str text = conf_bool(r->c, PARAM_show_user_unknown_table_name)
                          ? arena_printf(a, "User unknown in %s table", table)
                          : STR("User unknown");
    return refuse(a, conf_int(r->c, code), side == SIDE_SENDER ? STR("5.1.0") : STR("5.1.1"), text);
}

/* The error: and retry: transports say themselves why. */
static error refused_by_route(struct router *r, struct arena *a, enum side side, const struct route *route) {
    bool retry = str_eq(route->transport, STR("retry"));
    if (!retry && !str_eq(route->transport, STR("error")))
        return NULL;
    int64_t code = retry                                 ? 450
                   : route->class == CLASS_VIRTUAL_ALIAS ? conf_int(r->c, PARAM_unknown_virtual_alias_reject_code)
                                                         : 550;
    struct str status, text;
    dsn_split(route->nexthop, side == SIDE_SENDER ? STR("5.1.0") : STR("5.1.1"), &status, &text);
    return refuse(a, code, arena_str(a, side_status(a, side, status)), text);
}

/* Names that mail systems must know (RFC 5321, 4.5.1) or that we send from ourselves. */
static bool always_there(struct router *r, struct str local) {
    return str_eq_icase(local, STR("postmaster")) || str_eq_icase(local, STR("mailer-daemon")) ||
           str_eq_icase(local, conf_str(r->c, PARAM_double_bounce_sender)) || verify_is_sender(r->c, local, time(NULL));
}

/* `e` and `route` are what route_resolve() says of the address. */
static error listed(struct router *r, struct arena *a, enum side side, error e, const struct route *route) {
    if (e && e->kind == ERR_PERM)
        return refuse(a, e->code, side_status(a, side, e->dsn), e->text);
    if (e)
        return e;

    struct str value, extension;
    /* an address that will become another one is as good as that one: cleanup follows it */
    const struct {
        struct maps *maps;
        struct str name;
    } renames[] = {
        { side == SIDE_SENDER ? r->sender_canonical : r->recipient_canonical, STR_INIT("canonical_maps") },
        { r->canonical, STR_INIT("canonical_maps") },
        { r->virtual_alias, STR_INIT("virtual_alias_maps") },
    };
    for (size_t i = 0; i < sizeof renames / sizeof renames[0]; i++)
        switch (router_find(r, renames[i].maps, route->recipient, FIND_MAILBOX, a, &value, &extension)) {
        case TABLE_FOUND:
            return NULL;
        case TABLE_ERROR:
            return router_lookup_error(a, renames[i].name, route->recipient);
        case TABLE_NOT_FOUND:
            break;
        }
    e = refused_by_route(r, a, side, route);
    if (e)
        return e;

    const struct {
        enum address_class class;
        struct maps *maps;
        enum param code;
        const char *table;
    } tables[] = {
        { CLASS_LOCAL, r->local_recipient, PARAM_unknown_local_recipient_reject_code, "local recipient" },
        { CLASS_RELAY, r->relay_recipient, PARAM_unknown_relay_recipient_reject_code, "relay recipient" },
        { CLASS_VIRTUAL_MAILBOX, r->virtual_mailbox, PARAM_unknown_virtual_mailbox_reject_code, "virtual mailbox" },
    };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (tables[i].class != route->class || maps_is_empty(tables[i].maps))
            continue;
        if (route->class == CLASS_LOCAL && always_there(r, address_split(route->recipient).local))
            return NULL;
        switch (router_find(r, tables[i].maps, route->recipient, FIND_MAILBOX, a, &value, &extension)) {
        case TABLE_FOUND:
            return NULL;
        case TABLE_ERROR:
            return router_lookup_error(a, str_c(tables[i].table), route->recipient);
        case TABLE_NOT_FOUND:
            return unknown(r, a, side, tables[i].code, tables[i].table);
        }
    }
    return NULL;
}

bool route_depends_on_sender(const struct conf *c) {
    return conf_str(c, PARAM_sender_dependent_relayhost_maps).n > 0 ||
           conf_str(c, PARAM_sender_dependent_default_transport_maps).n > 0;
}

void router_add_lists(struct router *r, struct str service, struct router *lists) {
    *vec_add(r->arena, &r->services) = (struct service_lists){ arena_str(r->arena, service), lists };
}

bool route_is_list_parameter(struct str name) {
    static const struct str names[] = {
        STR_INIT("canonical_maps"),
        STR_INIT("local_recipient_maps"),
        STR_INIT("recipient_canonical_maps"),
        STR_INIT("relay_recipient_maps"),
        STR_INIT("relocated_maps"),
        STR_INIT("sender_canonical_maps"),
        STR_INIT("show_user_unknown_table_name"),
        STR_INIT("unknown_local_recipient_reject_code"),
        STR_INIT("unknown_relay_recipient_reject_code"),
        STR_INIT("unknown_virtual_alias_reject_code"),
        STR_INIT("unknown_virtual_mailbox_reject_code"),
        STR_INIT("virtual_alias_maps"),
        STR_INIT("virtual_mailbox_maps"),
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq(name, names[i]))
            return true;
    return false;
}

static struct router *lists_for(struct router *r, struct str service) {
    for (size_t i = 0; service.n && i < r->services.n; i++)
        if (str_eq(r->services.at[i].service, service))
            return r->services.at[i].router;
    return r;
}

void route_check(struct router *r, struct arena *a, const struct route_question *q, struct route_check *ret) {
    *ret = (struct route_check){ .class = CLASS_DEFAULT };
    if (q->address.n == 0)
        return;
    struct str complete = route_rewrite(r, a, q->address, r->myorigin);
    struct route route;
    error e = NULL;
    bool known = false; /* `e` and `route` are for no sender in particular */
    if (q->want & ROUTE_WANT_CLASS) {
        e = ret->unroutable = route_resolve(r, a, q->sender, complete, &route);
        ret->class = e ? CLASS_DEFAULT : route.class;
        ret->routed = !e && route.routed;
        known = q->sender.n == 0 || !route_depends_on_sender(r->c);
    }
    if (!(q->want & ROUTE_WANT_LISTED))
        return;
    if (!known)
        e = route_resolve(r, a, STR(""), complete, &route);
    ret->unlisted = listed(lists_for(r, q->service), a, q->is_sender ? SIDE_SENDER : SIDE_RECIPIENT, e, &route);
}
