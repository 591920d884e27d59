/* mynetworks.h - the default of mynetworks: the networks this machine is on (postconf(5): mynetworks_style,
 * inet_interfaces, inet_protocols). */
#ifndef ANGARIUM_CONF_MYNETWORKS_H
#define ANGARIUM_CONF_MYNETWORKS_H

#include "base/arena.h"
#include "base/err.h"

struct interface_address {
    int family;                          /* AF_INET, AF_INET6 */
    unsigned char address[16], mask[16]; /* network order; AF_INET uses the first four */
    bool loopback;
};

/* The addresses of this machine that inet_protocols allows, in the kernel's order. */
error interfaces_list(struct str inet_protocols, struct arena *a, const struct interface_address **ret,
                      size_t *ret_count);

/* The list as mynetworks is written: "127.0.0.0/8 [::1]/128". Pure: `all` comes from interfaces_list() or a test.
 * May ask the resolver for names in inet_interfaces (it blocks: at start only). ERR_CONFIG: unknown style, a name
 * that cannot be found, an address that no interface has. */
error mynetworks_default(struct str style, struct str inet_interfaces, const struct interface_address *all,
                         size_t count, struct arena *a, struct str *ret);

/* Which protocols the value of inet_protocols names. ERR_CONFIG: `unknown inet_protocols value "x" in "x"`. */
error inet_protocols_parse(struct str value, struct arena *a, bool *ret_ipv4, bool *ret_ipv6);
#endif
