/* dns_access.c - restrictions that ask the name service about a name: does it take mail, and who serves it. */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "mail/address.h"

enum { SERVERS_MAX = 100 /* MX or NS hosts of one name, and addresses of one host, that are looked at */ };

static struct str without_dot(struct str name) {
    return name.n > 1 && name.p[name.n - 1] == '.' ? str_sub(name, 0, name.n - 1) : name;
}

static void query(struct checks *c, struct str name, enum dns_type type, struct dns_answer *ret) {
    c->s->back->dns_query(c->s->back->ctx, c->arena, name, type, ret);
}

/* --- unknown names --- */

/* Has `name` a record that mail could be sent to? RETRY before "no". `mx_first`: a null MX is an answer. */
static enum dns_status mail_host(struct checks *c, struct str name, bool mx_first) {
    static const enum dns_type with_mx[] = { DNS_MX, DNS_A, DNS_AAAA }, as_host[] = { DNS_A, DNS_AAAA, DNS_MX };
    const enum dns_type *types = mx_first ? with_mx : as_host;
    enum dns_status worst = DNS_NOT_FOUND;
    for (size_t i = 0; i < 3; i++) {
        struct dns_answer answer;
        query(c, name, types[i], &answer);
        if (answer.status == DNS_OK || answer.status == DNS_NULL_MX)
            return answer.status;
        if (answer.status == DNS_NOT_FOUND && worst == DNS_NOT_FOUND)
            return DNS_NOT_FOUND; /* the name is not there, whatever the type */
        if (answer.status == DNS_RETRY || (answer.status == DNS_INVALID && worst != DNS_RETRY))
            worst = answer.status;
    }
    return worst;
}

enum verdict row_reject_unknown_helo(struct checks *c, const struct restriction *r) {
    (void)r;
    struct str helo = c->s->helo;
    if (helo.n == 0)
        return DUNNO;
    if (helo_is_literal(helo))
        return check_helo_literal(c);
    enum dns_status status = mail_host(c, without_dot(helo), false);
    if (status == DNS_OK || status == DNS_NULL_MX)
        return DUNNO;
    const struct settings *set = c->s->set;
    if (status == DNS_RETRY)
        return check_tempfail(c, set->unknown_helo_tempfail, 450, "4.7.1",
                              "<%.*s>: Helo command rejected: Host not found", STR_ARG(helo));
    return check_refuse(c, set->unknown_hostname_code, "4.7.1", false, "<%.*s>: Helo command rejected: Host not found",
                        STR_ARG(helo));
}

static enum verdict unknown_domain(struct checks *c, struct str address, bool sender) {
    const char *class = sender ? "Sender address" : "Recipient address", *dsn = sender ? "4.1.8" : "4.1.2";
    const struct settings *set = c->s->set;
    struct str domain = without_dot(address_split(address).domain);
    struct route_check about;
    enum verdict v;
    if (domain.n == 0 || domain.p[0] == '[')
        return DUNNO;
    if (!check_class_of(c, address, &about, &v))
        return v;
    if (!about.unroutable && about.class != CLASS_DEFAULT && about.class != CLASS_RELAY)
        return DUNNO;
    enum dns_status status = mail_host(c, domain, true);
    switch (status) {
    case DNS_OK:
        return DUNNO;
    case DNS_NULL_MX:
        return check_refuse(c, sender ? 550 : 556, sender ? "4.7.27" : "4.1.10", false,
                            "<%.*s>: %s rejected: Domain %.*s does not accept mail (nullMX)", STR_ARG(address), class,
                            STR_ARG(domain));
    case DNS_RETRY:
        return check_tempfail(c, set->unknown_address_tempfail, 450, dsn, "<%.*s>: %s rejected: Domain not found",
                              STR_ARG(address), class);
    default:
        return check_refuse(c, set->unknown_address_code, dsn, false, "<%.*s>: %s rejected: %s", STR_ARG(address),
                            class, status == DNS_INVALID ? "Malformed DNS server reply" : "Domain not found");
    }
}

enum verdict row_reject_unknown_sender_domain(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->have_sender && c->sender.n ? unknown_domain(c, c->sender, true) : DUNNO;
}

enum verdict row_reject_unknown_recipient_domain(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->have_recipient && c->recipient.n ? unknown_domain(c, c->recipient, false) : DUNNO;
}

/* --- check_..._a_access, check_..._mx_access, check_..._ns_access --- */
struct servers {
    struct checks *c;
    const struct restriction *r;
    struct str subject; /* for <...> */
    const char *class;
    enum dns_type type;
};

/* DUNNO with *ret_found false: nothing is said of that host. */
static enum verdict said_of(struct servers *x, enum table_result found, struct str key, struct str value,
                            bool *ret_found) {
    if (found == TABLE_NOT_FOUND)
        return DUNNO;
    *ret_found = true;
    return access_answer(x->c, x->r, found, key, value, x->subject, x->class, check_forbid_ok);
}

static enum verdict check_address(struct servers *x, const struct endpoint *addr, bool *ret_found) {
    char text[INET6_ADDRSTRLEN];
    struct str value, address = arena_str(x->c->arena, endpoint_address(addr, text));
    enum table_result found = ip_find(x->r->maps, address, x->c->arena, &value);
    return said_of(x, found, address, value, ret_found);
}

static enum verdict check_server(struct servers *x, struct str host, bool *ret_found) {
    struct checks *c = x->c;
    struct str value;
    enum verdict v = DUNNO;
    if (x->type != DNS_A) { /* where only addresses are asked for, the name is not */
        enum table_result found = name_find(x->r->maps, host, access_parent_flags(c), c->arena, &value);
        v = said_of(x, found, host, value, ret_found);
    }
    if (*ret_found)
        return v;
    struct dns_answer addresses;
    c->s->back->dns_addresses(c->s->back->ctx, c->arena, host, &addresses);
    if (addresses.status != DNS_OK) {
        log_warn("Unable to look up %.*s host %.*s for %s %.*s: %.*s", STR_ARG(dns_type_name(x->type)), STR_ARG(host),
                 x->class, STR_ARG(x->subject), STR_ARG(dns_status_text(addresses.status)));
        return DUNNO;
    }
    for (size_t i = 0; i < addresses.count && i < SERVERS_MAX && !*ret_found; i++)
        v = check_address(x, &addresses.records[i].addr, ret_found);
    return v;
}

/* The name servers of a name are those of the zone that it is in. */
static struct str find_servers(struct servers *x, struct str domain, struct dns_answer *ret) {
    query(x->c, domain, x->type, ret);
    if (x->type != DNS_NS)
        return domain;
    for (ptrdiff_t dot = str_index(domain, '.');
         (ret->status == DNS_NO_DATA || ret->status == DNS_NOT_FOUND) && dot >= 0 && (size_t)dot + 1 < domain.n;
         dot = str_index(domain, '.')) {
        domain = str_from(domain, (size_t)dot + 1);
        query(x->c, domain, x->type, ret);
    }
    return domain;
}

static enum verdict check_servers(struct servers *x, struct str name) {
    struct address_parts p = address_split(name);
    struct str domain = without_dot(p.has_domain ? p.domain : name);
    bool found = false;
    struct endpoint addr;
    if (domain.n == 0)
        return DUNNO;
    if (domain.p[0] == '[') { /* an address is its own server, and nobody's zone */
        struct str inside = str_sub(domain, 1, domain.n >= 2 ? domain.n - 2 : 0);
        if (str_starts_icase(inside, STR("IPv6:")))
            inside = str_from(inside, 5);
        if (x->type == DNS_NS || !endpoint_ip(inside, 0, &addr))
            return DUNNO;
        return check_address(x, &addr, &found);
    }
    if (str_eq_icase(domain, STR("unknown")) && !p.has_domain)
        return DUNNO;
    if (endpoint_ip(domain, 0, &addr))
        return x->type == DNS_NS ? DUNNO : check_address(x, &addr, &found);
    if (x->type == DNS_A)
        return check_server(x, domain, &found);
    struct dns_answer answer;
    struct str zone = find_servers(x, domain, &answer);
    if (answer.status == DNS_NULL_MX)
        return DUNNO;
    if (x->type == DNS_MX && (answer.status == DNS_NOT_FOUND || answer.status == DNS_NO_DATA))
        return check_server(x, domain, &found); /* RFC 5321, 5.1: its own mail host */
    if (answer.status != DNS_OK) {
        log_warn("Unable to look up %.*s host for %.*s: %.*s", STR_ARG(dns_type_name(x->type)), STR_ARG(zone),
                 STR_ARG(dns_status_text(answer.status)));
        return DUNNO;
    }
    enum verdict v = DUNNO;
    for (size_t i = 0; i < answer.count && i < SERVERS_MAX && !found; i++)
        if (answer.records[i].name.n)
            v = check_server(x, answer.records[i].name, &found);
    return v;
}

enum verdict row_dns_access(struct checks *c, const struct restriction *r) {
    static const struct {
        struct str ending;
        enum dns_type type;
    } types[] = { { STR_INIT("_a_access"), DNS_A },
                  { STR_INIT("_mx_access"), DNS_MX },
                  { STR_INIT("_ns_access"), DNS_NS } };
    const struct session *s = c->s;
    const struct {
        struct str start, name, subject;
        const char *class;
    } names[] = {
        { STR_INIT("check_client_"), s->name, s->log_name, "Client host" },
        { STR_INIT("check_reverse_client_hostname_"), s->reverse_name, s->reverse_name, "Unverified Client host" },
        { STR_INIT("check_helo_"), s->helo, s->helo, "Helo command" },
        { STR_INIT("check_sender_"), c->have_sender ? c->sender : STR(""), c->sender, "Sender address" },
        { STR_INIT("check_recipient_"), c->have_recipient ? c->recipient : STR(""), c->recipient, "Recipient address" },
    };
    struct servers x = { .c = c, .r = r };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (str_ends(r->row->name, types[i].ending))
            x.type = types[i].type;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_starts(r->row->name, names[i].start)) {
            x.subject = names[i].subject;
            x.class = names[i].class;
            return names[i].name.n ? check_servers(&x, names[i].name) : DUNNO;
        }
    return DUNNO;
}
