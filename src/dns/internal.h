/* internal.h - what the files of dns/ share. */
#ifndef ANGARIUM_DNS_INTERNAL_H
#define ANGARIUM_DNS_INTERNAL_H

#include "base/map.h"
#include "dns/dns.h"

struct dns_host { /* one address of the hosts file, in file order */
    struct str name;
    struct endpoint addr;
    struct dns_host *next;
};

struct dns {
    struct arena *arena;
    struct endpoint servers[DNS_SERVERS_MAX];
    size_t server_count;
    int64_t timeout_us;
    unsigned tries;
    bool idna2003;
    struct dns_host *hosts;
    enum dns_verdict (*filter)(void *ctx, struct str record);
    void *filter_ctx;
};

/* hosts.c */
void dns_read_resolv_conf(struct dns *d, struct str text);
void dns_read_hosts(struct dns *d, struct str text);
error dns_read_servers(struct dns *d, struct str list, struct arena *err_arena);
bool dns_same_address(const struct endpoint *a, const struct endpoint *b);

/* answer.c: read the packet that answers a question for `name` and `type`. False: not an answer to it (wrong id or
 * question): go on waiting. `*ret_cut`: ask again by TCP. `*ret_rcode` as in the packet. */
bool dns_read_answer(struct arena *a, struct str packet, uint16_t id, struct str name, enum dns_type type,
                     struct dns_answer *ret, bool *ret_cut, unsigned *ret_rcode);
/* The question's packet; false: `name` is not a domain name. */
bool dns_make_question(struct arena *a, struct str name, enum dns_type type, uint16_t id, bool edns, struct str *ret);
#endif
