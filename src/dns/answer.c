#include "dns/internal.h"

#include <ldns/ldns.h>
#include <stdlib.h>

/* RFC 6891: an answer of this size passes every network in one piece. */
enum { EDNS_SIZE = 1232 };

bool dns_make_question(struct arena *a, struct str name, enum dns_type type, uint16_t id, bool edns, struct str *ret) {
    if (name.n == 0 || name.n > 254 || memchr(name.p, 0, name.n))
        return false;
    ldns_rdf *owner = ldns_dname_new_frm_str(arena_cstr(a, name));
    if (!owner)
        return false;
    /* RFC 6840, 5.7: AD in a query asks for the resolver's opinion on the signatures */
    ldns_pkt *pkt = ldns_pkt_query_new(owner, (ldns_rr_type)type, LDNS_RR_CLASS_IN, LDNS_RD | LDNS_AD);
    if (!pkt) {
        ldns_rdf_deep_free(owner);
        return false;
    }
    ldns_pkt_set_id(pkt, id);
    if (edns)
        ldns_pkt_set_edns_udp_size(pkt, EDNS_SIZE);
    uint8_t *wire = NULL;
    size_t size = 0;
    bool ok = ldns_pkt2wire(&wire, pkt, &size) == LDNS_STATUS_OK;
    if (ok)
        *ret = arena_str(a, str_n((const char *)wire, size));
    free(wire);
    ldns_pkt_free(pkt);
    return ok;
}

/* A domain name without its final dot; empty when it does not look like one that could be a host: control bytes, blanks
 * and the like would go into logs, headers and look-ups. */
static struct str host_name(struct arena *a, const ldns_rdf *name) {
    char *text = ldns_rdf2str(name);
    if (!text)
        return STR("");
    struct str s = str_c(text);
    if (s.n > 1 && s.p[s.n - 1] == '.')
        s.n--;
    bool good = s.n > 0 && s.n <= 253;
    for (size_t i = 0; i < s.n && good; i++)
        good = byte_is_alnum(s.p[i]) || memchr("-_.", s.p[i], 3) != NULL;
    s = good ? arena_str(a, s) : STR("");
    free(text);
    return s;
}

static struct str txt_text(struct arena *a, const ldns_rr *rr) {
    struct str all = STR("");
    for (size_t i = 0; i < ldns_rr_rd_count(rr); i++) {
        const ldns_rdf *rdf = ldns_rr_rdf(rr, i); /* one length byte, then the text (RFC 1035, 3.3.14) */
        size_t n = ldns_rdf_size(rdf);
        if (n > 1)
            all = arena_cat(a, all, str_n((const char *)ldns_rdf_data(rdf) + 1, n - 1));
    }
    return all;
}

static bool read_record(struct arena *a, const ldns_rr *rr, enum dns_type type, struct dns_record *ret) {
    *ret = (struct dns_record){ .type = type, .ttl = ldns_rr_ttl(rr), .name = STR(""), .text = STR("") };
    const ldns_rdf *first = ldns_rr_rd_count(rr) > 0 ? ldns_rr_rdf(rr, 0) : NULL;
    if (!first)
        return false;
    switch (type) {
    case DNS_A:
        if (ldns_rdf_size(first) != 4)
            return false;
        ret->addr.len = sizeof ret->addr.u.in;
        ret->addr.u.in.sin_family = AF_INET;
        memcpy(&ret->addr.u.in.sin_addr, ldns_rdf_data(first), 4);
        return true;
    case DNS_AAAA:
        if (ldns_rdf_size(first) != 16)
            return false;
        ret->addr.len = sizeof ret->addr.u.in6;
        ret->addr.u.in6.sin6_family = AF_INET6;
        memcpy(&ret->addr.u.in6.sin6_addr, ldns_rdf_data(first), 16);
        return true;
    case DNS_MX: {
        if (ldns_rr_rd_count(rr) != 2 || ldns_rdf_size(first) != 2)
            return false;
        ret->preference = ldns_rdf2native_int16(first);
        ret->name = host_name(a, ldns_rr_rdf(rr, 1));
        const ldns_rdf *name = ldns_rr_rdf(rr, 1);
        if (ldns_rdf_size(name) == 1) /* the root: "." (RFC 7505, 3) */
            ret->name = STR(".");
        return true;
    }
    case DNS_NS:
    case DNS_PTR:
    case DNS_CNAME:
        ret->name = host_name(a, first);
        return true;
    case DNS_TXT:
        ret->text = txt_text(a, rr);
        return true;
    }
    return false;
}

static bool question_matches(const ldns_pkt *pkt, const ldns_rdf *owner, enum dns_type type) {
    const ldns_rr_list *q = ldns_pkt_question(pkt);
    if (ldns_rr_list_rr_count(q) != 1)
        return false;
    const ldns_rr *rr = ldns_rr_list_rr(q, 0);
    return (int)ldns_rr_get_type(rr) == (int)type && ldns_dname_compare(ldns_rr_owner(rr), owner) == 0;
}

/* The records of `type` that belong to `owner` or to what its CNAMEs lead to. */
static void take_records(struct arena *a, const ldns_pkt *pkt, ldns_rdf *owner, enum dns_type type,
                         struct dns_answer *ret) {
    const ldns_rr_list *list = ldns_pkt_answer(pkt);
    size_t n = ldns_rr_list_rr_count(list);
    const ldns_rdf *at = owner;
    VEC(struct dns_record) found = { 0 };
    for (size_t chain = 0; chain <= DNS_CHAIN_MAX; chain++) {
        const ldns_rdf *next = NULL;
        for (size_t i = 0; i < n && found.n < DNS_RECORDS_MAX; i++) {
            const ldns_rr *rr = ldns_rr_list_rr(list, i);
            if (ldns_rr_get_class(rr) != LDNS_RR_CLASS_IN || ldns_dname_compare(ldns_rr_owner(rr), at) != 0)
                continue;
            struct dns_record record;
            if ((int)ldns_rr_get_type(rr) == (int)type) {
                if (read_record(a, rr, type, &record))
                    *vec_add(a, &found) = record;
            } else if (ldns_rr_get_type(rr) == LDNS_RR_TYPE_CNAME && ldns_rr_rd_count(rr) == 1) {
                next = ldns_rr_rdf(rr, 0);
            }
        }
        if (found.n || !next || type == DNS_CNAME)
            break;
        at = next;
        struct str name = host_name(a, at);
        if (name.n)
            ret->canonical = name;
    }
    ret->records = found.at;
    ret->count = found.n;
}

bool dns_read_answer(struct arena *a, struct str packet, uint16_t id, struct str name, enum dns_type type,
                     struct dns_answer *ret, bool *ret_cut, unsigned *ret_rcode) {
    ldns_pkt *pkt = NULL;
    *ret = (struct dns_answer){ .status = DNS_INVALID, .canonical = name };
    if (ldns_wire2pkt(&pkt, (const uint8_t *)packet.p, packet.n) != LDNS_STATUS_OK)
        return false;
    ldns_rdf *owner = ldns_dname_new_frm_str(arena_cstr(a, name));
    bool ours = owner && ldns_pkt_qr(pkt) && ldns_pkt_id(pkt) == id && question_matches(pkt, owner, type);
    if (ours) {
        *ret_cut = ldns_pkt_tc(pkt);
        *ret_rcode = (unsigned)ldns_pkt_get_rcode(pkt);
        ret->secure = ldns_pkt_ad(pkt);
        if (*ret_rcode == LDNS_RCODE_NXDOMAIN) {
            ret->status = DNS_NOT_FOUND;
        } else if (*ret_rcode != LDNS_RCODE_NOERROR) {
            ret->status = DNS_RETRY;
        } else {
            take_records(a, pkt, owner, type, ret);
            ret->status = ret->count ? DNS_OK : DNS_NO_DATA;
            if (type == DNS_MX && ret->count == 1 && str_eq(ret->records[0].name, STR(".")))
                ret->status = DNS_NULL_MX;
        }
    }
    if (owner)
        ldns_rdf_deep_free(owner);
    ldns_pkt_free(pkt);
    return ours;
}
