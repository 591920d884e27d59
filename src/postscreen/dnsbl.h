/* dnsbl.h - postscreen_dnsbl_sites: DNS lists with filters and weights, and the rank they give a client. */
#ifndef ANGARIUM_POSTSCREEN_DNSBL_H
#define ANGARIUM_POSTSCREEN_DNSBL_H

#include "dns/dnsxl.h"
#include "table/table.h"

enum { DNSBL_LISTS_MAX = 64 /* different domains; all are asked at once for each client */ };

/* list.example=127.0.0.[2..9]*3: several sites of one domain ask it once. */
struct dnsbl_site {
    bool filtered;
    struct dnsxl_filter filter;
    int64_t weight; /* negative: the list says that the client is good */
};
struct dnsbl_list {
    struct str domain;
    struct dnsbl_site *sites;
    size_t site_count;
};
struct dnsbl {
    struct dnsbl_list *lists;
    size_t list_count;
    struct maps *reply_map; /* what a client hears in place of a domain that has a password in it; NULL: none */
};

/* `sites` as in main.cf. ERR_CONFIG says which item is wrong, in `err_arena`. */
error dnsbl_load(struct dnsbl *d, struct arena *a, struct str sites, struct arena *err_arena);

struct dnsbl_rank {
    int64_t score;
    struct str domain; /* the list that counted most against the client, as it is shown; empty: none */
    uint32_t ttl;      /* the shortest of the answers, seconds; 0: there was none */
};
struct dnsbl_query;
/* Ask all lists about this client, in coroutines of their own. */
struct dnsbl_query *dnsbl_ask(const struct dnsbl *d, struct dns *dns, const struct endpoint *client, int64_t deadline);
/* Waits for what has not been answered, until `deadline` (ERR_TIMEOUT: the rank of what has), and ends the query.
 * Texts are in `a`. Each answer that counts is logged. */
void dnsbl_end(struct dnsbl_query *q, struct arena *a, int64_t deadline, struct dnsbl_rank *ret);
#endif
