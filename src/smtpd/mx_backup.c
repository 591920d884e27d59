/* mx_backup.c - permit_mx_backup: we are one of the mail hosts that the recipient's domain names. */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "mail/address.h"

/* What could not be asked: refusals become deferrals, since the client may well be right. */
static enum verdict cannot_say(struct checks *c, const char *dsn, struct str text) {
    check_defer(c, &c->defer_if_reject, 450, str_c(dsn), false,
                arena_printf(c->arena, "<%.*s>: %s rejected: %.*s", STR_ARG(c->subject), c->class, STR_ARG(text)));
    return DUNNO;
}

static bool is_own_address(const struct settings *set, struct str address) {
    for (size_t i = 0; i < set->own_address_count; i++)
        if (str_eq(set->own_addresses[i], address))
            return true;
    return false;
}

/* Is the host this one? PERMIT: yes. */
static enum verdict is_here(struct checks *c, struct str host) {
    struct session *s = c->s;
    struct route_check about;
    enum verdict v;
    if (!check_class_of(c, arena_cat(c->arena, STR("postmaster@"), host), &about, &v))
        return v;
    if (!about.unroutable && about.class == CLASS_LOCAL)
        return PERMIT;
    struct dns_answer addresses;
    s->back->dns_addresses(s->back->ctx, c->arena, host, &addresses);
    if (addresses.status != DNS_OK)
        return cannot_say(c, "4.4.4",
                          arena_printf(c->arena, "Unable to look up host %.*s as mail exchanger: %.*s", STR_ARG(host),
                                       STR_ARG(dns_status_text(addresses.status))));
    for (size_t i = 0; i < addresses.count; i++) {
        char text[INET6_ADDRSTRLEN];
        if (is_own_address(s->set, endpoint_address(&addresses.records[i].addr, text)))
            return PERMIT;
    }
    return DUNNO;
}

/* permit_mx_backup_networks: the first choice of the domain must be a host that we know. */
static bool primaries_are_known(struct checks *c, const struct dns_answer *mx) {
    struct session *s = c->s;
    uint16_t best = UINT16_MAX;
    for (size_t i = 0; i < mx->count; i++)
        if (mx->records[i].preference < best)
            best = mx->records[i].preference;
    for (size_t i = 0; i < mx->count; i++) {
        struct dns_answer addresses;
        if (mx->records[i].preference != best)
            continue;
        s->back->dns_addresses(s->back->ctx, c->arena, mx->records[i].name, &addresses);
        if (addresses.status != DNS_OK) {
            (void)cannot_say(
                c, "4.4.4",
                arena_printf(c->arena, "Unable to verify host %.*s as mail exchanger", STR_ARG(mx->records[i].name)));
            return false;
        }
        for (size_t k = 0; k < addresses.count; k++) {
            char text[INET6_ADDRSTRLEN];
            struct str address = endpoint_address(&addresses.records[k].addr, text);
            if (match_find(s->set->mx_backup_networks, STR(""), address) != MATCH_YES)
                return false;
        }
    }
    return true;
}

enum verdict row_permit_mx_backup(struct checks *c, const struct restriction *r) {
    struct session *s = c->s;
    static bool warned;
    if (!warned) {
        warned = true;
        log_warn("support for restriction \"%.*s\" will be removed from %.*s; instead, specify \"relay_domains\"",
                 STR_ARG(r->row->name), STR_ARG(s->set->mail_name));
    }
    if (!c->have_recipient || c->recipient.n == 0)
        return DUNNO;
    enum verdict v = check_auth_destination(c);
    struct str domain = address_split(c->recipient).domain;
    if (v != DUNNO || c->about.routed || domain.n == 0 || domain.p[0] == '[')
        return v;
    struct dns_answer mx;
    s->back->dns_query(s->back->ctx, c->arena, domain, DNS_MX, &mx);
    if (mx.status == DNS_NOT_FOUND || mx.status == DNS_NO_DATA) /* perhaps an alias of ours */
        return is_here(c, domain);
    if (mx.status == DNS_NULL_MX)
        return DUNNO;
    if (mx.status != DNS_OK)
        return cannot_say(c, "4.4.4",
                          arena_printf(c->arena, "Unable to look up mail exchanger information: %.*s",
                                       STR_ARG(dns_status_text(mx.status))));
    for (size_t i = 0; i < mx.count && v == DUNNO; i++)
        if (mx.records[i].name.n)
            v = is_here(c, mx.records[i].name);
    if (v == PERMIT && conf_str(s->set->conf, PARAM_permit_mx_backup_networks).n && !primaries_are_known(c, &mx))
        return DUNNO;
    return v;
}
