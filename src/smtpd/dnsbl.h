/* dnsbl.h - lists in the name service (RFC 5782): addresses and domains that somebody warns of, or vouches for. */
#ifndef ANGARIUM_SMTPD_DNSBL_H
#define ANGARIUM_SMTPD_DNSBL_H

#include "dns/dnsxl.h"

struct dns_list {        /* domain, or domain=d.d.d.d (dns/dnsxl.h) */
    struct str argument; /* as it was written */
    struct str domain;
    bool filtered;
    struct dnsxl_filter filter;
};
/* In `a`. ERR_SYNTAX: malformed. */
error dns_list_parse(struct arena *a, struct str text, struct dns_list **ret);

/* What lists have said in one session, so that each is asked once: at most DNS_CACHE_MAX answers, then it begins anew.
 */
struct dns_cache;
enum { DNS_CACHE_MAX = 100 };
void dns_cache_free(struct dns_cache *c); /* NULL is allowed */
#endif
