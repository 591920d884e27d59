/* wire.h - a connection to a server, for code in threads: blocking calls with a deadline each (run/sys.h, mono_us). */
#ifndef ANGARIUM_LOOKUP_WIRE_H
#define ANGARIUM_LOOKUP_WIRE_H

#include "base/buf.h"
#include "base/err.h"

struct wire {
    int fd;        /* -1: closed */
    struct buf in; /* read and not yet taken */
};

/* `host` is a name or an address, with `port` a number or a service; each address is tried in turn. The resolver of the
 * C library is asked for names only, and knows no deadline: timeout, attempts and servers of resolv.conf bound it (by
 * default 2 x 5 seconds a server). Whoever asked the table waits LOOKUP_SECONDS (proto/lookup.h) all the same. */
error wire_connect(struct wire *w, struct str host, struct str port, int64_t deadline);
error wire_connect_unix(struct wire *w, struct str path, int64_t deadline);
void wire_close(struct wire *w); /* twice is allowed */
bool wire_is_open(const struct wire *w);
/* The server has hung up, or has said something nobody asked for: not to be used again. */
bool wire_is_stale(const struct wire *w);
error wire_write(struct wire *w, struct str bytes, int64_t deadline);
/* At least one more byte into `w->in`, which may not grow over `most`: ERR_LIMIT. ERR_EOF: the server hung up. */
error wire_read(struct wire *w, size_t most, int64_t deadline);
#endif
