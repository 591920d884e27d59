/* destination.h - from a nexthop to the list of addresses to try (RFC 5321, 5.1; smtp(8)).
 *
 * Forms: domain, domain:port, [host], [host]:port, [address], inet:..., unix:/path (LMTP), and several of them
 * separated by commas or blanks. Brackets: no MX look-up. */
#ifndef ANGARIUM_SMTP_DESTINATION_H
#define ANGARIUM_SMTP_DESTINATION_H

#include "smtp/config.h"

struct target {           /* one address to try */
    struct str name;      /* the host's name, or its address in brackets' inside; the path of a unix socket */
    struct endpoint addr; /* port included */
    uint16_t preference;
};
struct target_list {
    struct target *at;
    size_t n, room;
};
/* Why there is nothing to try: like a reply, with the status deciding between bounce and defer. */
struct failure {
    struct str dsn, text;
};

struct destination { /* one parsed form */
    struct str host;
    uint16_t port;
    bool literal; /* [ ]: take the host as it is */
    bool unix_path;
    bool port_given;
};
struct resolved; /* resolved.h */

bool destination_parse(const struct client_config *c, struct str text, struct destination *ret);

/* Targets in the order they are to be tried; false: none, see *ret_why. Our own addresses among the MX hosts cut the
 * list there (mail must move towards a better preference). */
bool destination_lookup(const struct client_config *c, struct arena *a, const struct destination *d, int64_t deadline,
                        struct resolved *resolved_or_null, struct target_list *ret, struct failure *ret_why);
/* The cutting alone, for MX hosts; `best` is the best preference among the MX records. Nothing left: false, a loop when
 * we are the best host ourselves, otherwise a primary whose address is not to be had now. */
bool destination_cut_at_self(const struct client_config *c, struct arena *a, const struct destination *d, uint16_t best,
                             struct target_list *list, struct failure *ret_why);
#endif
