/* haproxy.h - the PROXY protocol of haproxy, versions 1 and 2 (proxy-protocol.txt): who is at the other end of a proxy.
 *
 * A header comes before anything else on a connection. Version 1 is a line of text, "PROXY TCP4 192.0.2.1 192.0.2.25
 * 4711 25" CR LF; version 2 is binary and says how long it is. What the proxy does on its own account (health checks:
 * LOCAL, UNKNOWN) names nobody: the connection is what it seems. Version 2's additions (TLVs) are read and not looked
 * at. */
#ifndef ANGARIUM_PROTO_HAPROXY_H
#define ANGARIUM_PROTO_HAPROXY_H

#include "run/io.h"

enum {
    HAPROXY_LINE_MAX = 107,    /* bytes of version 1 with CR LF, as it is specified */
    HAPROXY_FIXED_SIZE = 16,   /* of version 2, in front of what has a length */
    HAPROXY_LENGTH_MAX = 4096, /* of version 2 behind that: addresses and TLVs */
    HAPROXY_MAX = HAPROXY_FIXED_SIZE + HAPROXY_LENGTH_MAX,
};

struct haproxy {
    bool proxied;                   /* false: the addresses are those of the connection */
    struct endpoint client, server; /* IPv4 in IPv6 has become IPv4 */
};

/* A whole header. NULL, or what is wrong with it. */
const char *haproxy_parse(struct str header, struct haproxy *ret);
/* Of version 2: bytes behind the first HAPROXY_FIXED_SIZE, or -1 when these are no such header, or too long a one. */
int haproxy_length(struct str fixed);
/* Read and parse; nothing behind the header is read. NULL, or what is wrong; what came of the header is in `seen`, for
 * the log. */
const char *haproxy_read(struct io *io, int64_t deadline, struct haproxy *ret, char seen[HAPROXY_MAX],
                         size_t *ret_seen);
#endif
