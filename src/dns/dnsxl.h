/* dnsxl.h - DNS lists of clients, to deny or to allow (RFC 5782): the name that is asked, and which answers count. */
#ifndef ANGARIUM_DNS_DNSXL_H
#define ANGARIUM_DNS_DNSXL_H

#include "dns/dns.h"

/* The answers that count: 127.0.0.2, 127.0.[0;2].[1..9]. */
struct dnsxl_filter {
    uint32_t allowed[4][8]; /* a bit a value of each of the four numbers */
};

/* Four numbers with dots between them; each is 0 to 255, or [list] of numbers and ranges n..m with semicolons between
 * them (postconf(5), reject_rbl_client). ERR_SYNTAX says what is wrong, in `a`. */
error dnsxl_filter_parse(struct arena *a, struct str text, struct dnsxl_filter *ret);
bool dnsxl_filter_match(const struct dnsxl_filter *f, struct in_addr answer);

/* 192.0.2.99 in list.example: "99.2.0.192.list.example"; an IPv6 address by its 32 nibbles (RFC 5782, 2.1, 2.4). An
 * IPv4-mapped address is an IPv4 address. False: neither. */
bool dnsxl_name(struct arena *a, const struct endpoint *client, struct str list, struct str *ret);
#endif
