/* cidr.h - IP addresses and networks: 10.0.0.0/8, 2001:db8::/32, with or without [ ]. */
#ifndef ANGARIUM_TABLE_CIDR_H
#define ANGARIUM_TABLE_CIDR_H

#include "base/arena.h"

struct cidr {
    int family; /* AF_INET, AF_INET6 */
    unsigned bits;
    unsigned char address[16];
};

/* One address, without brackets; bits is 32 or 128. */
bool cidr_parse_address(struct str s, struct cidr *ret);
/* An address or a network. NULL, or what is wrong, in `a`. */
const char *cidr_parse(struct arena *a, struct str s, struct cidr *ret);
bool cidr_contains(const struct cidr *network, const struct cidr *address);
#endif
