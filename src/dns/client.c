#include "dns/internal.h"

/* 4.3.2.1.in-addr.arpa (RFC 1035, 3.5), nibbles.ip6.arpa (RFC 3596, 2.5) */
static struct str reverse_question(struct arena *a, const struct endpoint *client) {
    char text[INET6_ADDRSTRLEN];
    struct endpoint plain;
    /* an IPv4 client seen through an IPv6 socket has its one normal form here too */
    if (!endpoint_ip(endpoint_address(client, text), 0, &plain))
        return STR("");
    if (plain.u.sa.sa_family == AF_INET) {
        const unsigned char *p = (const unsigned char *)&plain.u.in.sin_addr;
        return arena_printf(a, "%u.%u.%u.%u.in-addr.arpa", p[3], p[2], p[1], p[0]);
    }
    const unsigned char *p = (const unsigned char *)&plain.u.in6.sin6_addr;
    struct buf name = { 0 };
    for (int i = 15; i >= 0; i--)
        buf_printf(&name, "%x.%x.", p[i] & 15u, (unsigned)(p[i] >> 4));
    buf_add(&name, STR("ip6.arpa"));
    struct str s = arena_str(a, buf_str(&name));
    buf_free(&name);
    return s;
}

static enum dns_status reverse_name(struct dns *d, struct arena *a, const struct endpoint *client, int64_t deadline,
                                    struct str *ret) {
    for (const struct dns_host *h = d->hosts; h; h = h->next)
        if (dns_same_address(&h->addr, client)) {
            *ret = h->name;
            return DNS_OK;
        }
    struct str question = reverse_question(a, client);
    if (question.n == 0)
        return DNS_NOT_FOUND;
    struct dns_answer answer;
    dns_query(d, a, question, DNS_PTR, deadline, &answer);
    if (answer.status != DNS_OK)
        return answer.status;
    for (size_t i = 0; i < answer.count; i++) {
        struct str name = answer.records[i].name;
        struct endpoint ip;
        if (name.n && !endpoint_ip(name, 0, &ip)) { /* "1.2.3.4" as a name proves nothing */
            *ret = name;
            return DNS_OK;
        }
    }
    return DNS_INVALID;
}

void dns_client_name(struct dns *d, struct arena *a, const struct endpoint *client, int64_t deadline,
                     struct dns_client *ret) {
    *ret = (struct dns_client){ .name = STR("unknown"), .reverse_name = STR("unknown"), .forward_status = DNS_OK };
    struct str name;
    ret->reverse_status = ret->name_status = reverse_name(d, a, client, deadline, &name);
    if (ret->reverse_status != DNS_OK)
        return;
    ret->reverse_name = arena_str(a, name);
    char text[INET6_ADDRSTRLEN];
    struct endpoint plain;
    endpoint_ip(endpoint_address(client, text), 0, &plain);
    bool six = plain.u.sa.sa_family == AF_INET6;
    struct dns_answer answer;
    dns_addresses(d, a, name, six ? DNS_FAMILY_IPV6 : DNS_FAMILY_IPV4, true, deadline, &answer);
    for (size_t i = 0; i < answer.count; i++)
        if (dns_same_address(&answer.records[i].addr, client)) {
            ret->name = ret->reverse_name;
            return;
        }
    ret->mismatch = true;
    ret->forward_status = answer.status;
    ret->name_status = answer.status == DNS_RETRY ? DNS_RETRY : DNS_NOT_FOUND;
}
