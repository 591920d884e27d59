/* dial.h - connections to servers that the administrator names: policy servers, milters, login servers, content
 * filters.
 *
 * A confined process has no paths, so master connects unix sockets for it. Which ones is settled in init(), from the
 * configuration: dial_declare() tells master, and master refuses every path that was not told before READY. Who breaks
 * into a worker reaches nobody its configuration did not name. Internet connections the worker makes itself.
 *
 *   inet:host:port  inet:[::1]:port  inet:port   `port` a number or a service name; without a host: localhost
 *   unix:path                                    relative to queue_directory
 */
#ifndef ANGARIUM_SERVICE_DIAL_H
#define ANGARIUM_SERVICE_DIAL_H

#include "dns/dns.h"
#include "service/service.h"

struct dial_target {
    bool local;      /* unix */
    struct str path; /* local */
    struct str host; /* a name, or a numeric address without brackets */
    uint16_t port;
    struct str text; /* as it was given, for logs */
};

/* Looks up service names in files: in init(). ERR_SYNTAX with the reason in text (in `a`); `ret` borrows from `a`. */
error dial_parse(struct arena *a, struct str text, struct dial_target *ret);
/* In init(), before READY. Declaring one twice is no error. ERR_LIMIT: more than
 * CONTROL_DIALS_MAX. Standalone, and for internet targets,
 * there is nothing to do. */
error dial_declare(struct service_ctx *ctx, const struct dial_target *t);
/* A new connection. A host with several addresses: one after the other within `deadline`. `dns` is
 * needed for hosts that are names only. ERR_TEMP: no address, or master could not; ERR_PERM: was not declared; texts
 * are valid until the next call in this process. Other errors are those of io_connect(). */
error dial(struct service_ctx *ctx, struct dns *dns, const struct dial_target *t, int64_t deadline, struct io **ret);
#endif
