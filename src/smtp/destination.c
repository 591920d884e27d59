#include "smtp/destination.h"

#include "smtp/resolved.h"

#include <stdlib.h>
#include <sys/random.h>

enum { MX_HOSTS_MAX = 50, TARGETS_MAX = 200 };

bool destination_parse(const struct client_config *c, struct str text, struct destination *ret) {
    *ret = (struct destination){ .port = c->default_port };
    if (str_starts(text, STR("unix:")) && c->lmtp) {
        ret->host = str_from(text, 5);
        ret->unix_path = true;
        return ret->host.n > 0;
    }
    if (str_starts(text, STR("inet:")))
        text = str_from(text, 5);
    struct str port;
    if (text.n && text.p[0] == '[') {
        ptrdiff_t close = str_index(text, ']');
        if (close < 2)
            return false;
        ret->host = str_sub(text, 1, (size_t)close - 1);
        ret->literal = true;
        struct str rest = str_from(text, (size_t)close + 1);
        if (rest.n && rest.p[0] != ':')
            return false;
        port = str_from(rest, 1);
        ret->port_given = rest.n > 0;
        if (str_starts_icase(ret->host, STR("ipv6:")))
            ret->host = str_from(ret->host, 5);
    } else {
        ptrdiff_t colon = str_rindex(text, ':');
        ret->host = colon < 0 ? text : str_sub(text, 0, (size_t)colon);
        port = colon < 0 ? STR("") : str_from(text, (size_t)colon + 1);
        ret->port_given = colon >= 0;
    }
    if (ret->port_given && !client_port(port, &ret->port))
        return false;
    return ret->host.n > 0;
}

static void set_port(struct endpoint *e, uint16_t port) {
    if (e->u.sa.sa_family == AF_INET6)
        e->u.in6.sin6_port = htons(port);
    else
        e->u.in.sin_port = htons(port);
}

static bool is_ipv6(const struct target *t) {
    return t->addr.u.sa.sa_family == AF_INET6;
}

static struct failure dns_failure(struct arena *a, struct str name, enum dns_type type, enum dns_status status) {
    if (status == DNS_NULL_MX)
        return (struct failure){ STR("5.1.10"),
                                 arena_printf(a, "Domain %.*s does not accept mail (nullMX)", STR_ARG(name)) };
    const char *dsn = status == DNS_RETRY ? "4.4.3" : "5.4.4";
    return (struct failure){ str_c(dsn), arena_printf(a,
                                                      "Host or domain name not found. Name service error for "
                                                      "name=%.*s type=%.*s: %.*s",
                                                      STR_ARG(name), STR_ARG(dns_type_name(type)),
                                                      STR_ARG(dns_status_text(status))) };
}

/* The addresses of one host. `*ttl` is lowered to what their records say. */
static enum dns_status add_host(const struct client_config *c, struct arena *a, struct str host, uint16_t preference,
                                uint16_t port, int64_t deadline, struct target_list *list, uint32_t *ttl) {
    struct dns_answer answer = { .status = DNS_NOT_FOUND };
    struct endpoint e;
    if (endpoint_ip(host, port, &e)) {
        bool six = e.u.sa.sa_family == AF_INET6;
        if (!(c->families & (six ? DNS_FAMILY_IPV6 : DNS_FAMILY_IPV4)))
            return DNS_NO_DATA;
        if (list->n < TARGETS_MAX)
            *vec_add(a, list) = (struct target){ arena_str(a, host), e, preference };
        return DNS_OK;
    }
    if (c->dns_hosts)
        dns_addresses(c->dns, a, host, c->families, c->native_hosts, deadline, &answer);
    else /* the hosts file alone: a name that is not in it has no address */
        dns_hosts_addresses(c->dns, a, host, c->families, &answer);
    for (size_t i = 0; i < answer.count && list->n < TARGETS_MAX; i++) {
        struct target *t = vec_add(a, list);
        *t = (struct target){ arena_str(a, host), answer.records[i].addr, preference };
        set_port(&t->addr, port);
        if (answer.records[i].ttl < *ttl)
            *ttl = answer.records[i].ttl;
    }
    return answer.status;
}

/* Fisher-Yates; the order of equals is random so that load spreads (RFC 5321, 5.1). */
static void shuffle(struct target *t, size_t n) {
    for (size_t i = n; i > 1; i--) {
        uint32_t r = 0;
        if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r)
            return;
        size_t k = r % i;
        struct target swap = t[i - 1];
        t[i - 1] = t[k];
        t[k] = swap;
    }
}

static bool wants_ipv6_first(const struct client_config *c) {
    return !str_eq(c->address_preference, STR("ipv4"));
}

/* Among equal preferences: smtp_address_preference. A stable insertion sort: lists are short. */
static void sort_targets(const struct client_config *c, struct target *t, size_t n) {
    bool any = str_eq(c->address_preference, STR("any"));
    for (size_t i = 1; i < n; i++) {
        struct target x = t[i];
        size_t k = i;
        for (; k > 0; k--) {
            const struct target *y = &t[k - 1];
            bool before =
                x.preference < y->preference || (x.preference == y->preference && !any && is_ipv6(&x) != is_ipv6(y) &&
                                                 is_ipv6(&x) == wants_ipv6_first(c));
            if (!before)
                break;
            t[k] = *y;
        }
        t[k] = x;
    }
}

/* smtp_balance_inet_protocols: with more targets than smtp_mx_address_limit, both families get a chance. */
static void balance(const struct client_config *c, struct target_list *list) {
    size_t limit = c->mx_address_limit > 0 ? (size_t)c->mx_address_limit : list->n;
    if (list->n <= limit)
        return;
    if (c->balance && limit > 1) {
        bool family = is_ipv6(&list->at[0]), mixed = false;
        for (size_t i = 1; i < limit; i++)
            mixed = mixed || is_ipv6(&list->at[i]) != family;
        for (size_t i = limit; !mixed && i < list->n; i++)
            if (is_ipv6(&list->at[i]) != family) { /* the first of the other family gets the second place */
                struct target other = list->at[i];
                memmove(&list->at[2], &list->at[1], (i - 1) * sizeof *list->at);
                list->at[1] = other;
                mixed = true;
            }
    }
    list->n = limit;
}

static bool lookup_literal(const struct client_config *c, struct arena *a, const struct destination *d,
                           int64_t deadline, struct target_list *ret, struct failure *ret_why, uint32_t *ttl) {
    enum dns_status status = add_host(c, a, d->host, 0, d->port, deadline, ret, ttl);
    if (ret->n)
        return true;
    *ret_why = dns_failure(a, d->host, c->families & DNS_FAMILY_IPV6 ? DNS_AAAA : DNS_A, status);
    return false;
}

/* RFC 5321, 5.1: targets that are not better than ourselves would send the mail in a circle. */
bool destination_cut_at_self(const struct client_config *c, struct arena *a, const struct destination *d, uint16_t best,
                             struct target_list *list, struct failure *ret_why) {
    if (d->port != 25)
        return true; /* another port on this host is another server */
    uint16_t found = UINT16_MAX;
    for (size_t i = 0; i < list->n; i++)
        found = list->at[i].preference < found ? list->at[i].preference : found;
    for (size_t i = 0; i < list->n; i++) {
        bool self = str_eq_icase(list->at[i].name, c->myhostname) || client_is_own_address(c, &list->at[i].addr);
        if (!self)
            continue;
        size_t keep = 0;
        for (size_t k = 0; k < list->n; k++)
            if (list->at[k].preference < list->at[i].preference)
                list->at[keep++] = list->at[k];
        list->n = keep;
        break;
    }
    if (list->n)
        return true;
    if (found != best) {
        *ret_why = (struct failure){ STR("4.4.4"),
                                     arena_printf(a, "unable to find primary relay for %.*s", STR_ARG(d->host)) };
        return false;
    }
    *ret_why =
        (struct failure){ STR("5.4.6"), arena_printf(a, "mail for %.*s loops back to myself", STR_ARG(d->host)) };
    return false;
}

static bool lookup_domain(const struct client_config *c, struct arena *a, const struct destination *d, int64_t deadline,
                          struct target_list *ret, struct failure *ret_why, uint32_t *ttl) {
    struct dns_answer mx;
    dns_query(c->dns, a, d->host, DNS_MX, deadline, &mx);
    if (mx.status == DNS_RETRY && c->ignore_mx_error)
        mx.status = DNS_NO_DATA;
    if (mx.status == DNS_NO_DATA) { /* no MX: the domain itself (RFC 5321, 5.1) */
        enum dns_status status = add_host(c, a, d->host, 0, d->port, deadline, ret, ttl);
        *ttl = 0; /* nothing says how long there will be no MX */
        if (ret->n)
            return destination_cut_at_self(c, a, d, 0, ret, ret_why);
        *ret_why = dns_failure(a, d->host, c->families & DNS_FAMILY_IPV6 ? DNS_AAAA : DNS_A, status);
        return false;
    }
    if (mx.status != DNS_OK) {
        *ret_why = dns_failure(a, d->host, DNS_MX, mx.status);
        return false;
    }
    enum dns_status worst = DNS_NOT_FOUND;
    struct str missing = d->host;
    uint16_t best = UINT16_MAX;
    for (size_t i = 0; i < mx.count; i++)
        best = mx.records[i].preference < best ? mx.records[i].preference : best;
    for (size_t i = 0; i < mx.count; i++)
        *ttl = mx.records[i].ttl < *ttl ? mx.records[i].ttl : *ttl;
    for (size_t i = 0; i < mx.count && i < MX_HOSTS_MAX; i++) {
        struct str host = mx.records[i].name;
        if (host.n == 0 || str_eq(host, STR("."))) {
            worst = worst == DNS_RETRY ? worst : DNS_INVALID;
            continue;
        }
        enum dns_status status = add_host(c, a, host, mx.records[i].preference, d->port, deadline, ret, ttl);
        if (status != DNS_OK) {
            if (status == DNS_RETRY)
                *ttl = 0; /* the next message may find it */
            if (worst != DNS_RETRY)
                worst = status;
            missing = host;
        }
    }
    if (ret->n == 0) {
        *ret_why = dns_failure(a, missing, c->families & DNS_FAMILY_IPV6 ? DNS_AAAA : DNS_A, worst);
        if (c->defer_if_no_mx_address && ret_why->dsn.p[0] == '5')
            ret_why->dsn = STR("4.4.4");
        return false;
    }
    return destination_cut_at_self(c, a, d, best, ret, ret_why);
}

bool destination_lookup(const struct client_config *c, struct arena *a, const struct destination *d, int64_t deadline,
                        struct resolved *resolved, struct target_list *ret, struct failure *ret_why) {
    *ret = (struct target_list){ 0 };
    if (d->unix_path) {
        struct target t = { .name = d->host };
        if (!endpoint_unix(d->host, &t.addr)) {
            *ret_why = (struct failure){ STR("4.3.5"), STR("unix-domain socket path is too long") };
            return false;
        }
        *vec_add(a, ret) = t;
        return true;
    }
    if (!resolved || !resolved_get(resolved, d, a, ret)) {
        uint32_t ttl = UINT32_MAX; /* stays that for an address */
        if (!(d->literal || !c->lookup_mx ? lookup_literal(c, a, d, deadline, ret, ret_why, &ttl)
                                          : lookup_domain(c, a, d, deadline, ret, ret_why, &ttl)))
            return false;
        if (resolved && ttl != UINT32_MAX)
            resolved_put(resolved, d, ret, ttl);
    }
    if (c->randomize)
        shuffle(ret->at, ret->n);
    sort_targets(c, ret->at, ret->n);
    balance(c, ret);
    return true;
}
