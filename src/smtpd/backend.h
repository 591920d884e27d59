/* backend.h - the back ends of a running smtpd: cleanup, trivial-rewrite and the name service.
 *
 * Connections to the other daemons are kept and used again; one that has died while it lay idle is replaced without
 * anybody noticing. */
#ifndef ANGARIUM_SMTPD_BACKEND_H
#define ANGARIUM_SMTPD_BACKEND_H

#include "service/service.h"
#include "smtpd/session.h"

enum {
    CLEANUP_LINKS_MAX = 64, /* connections, each for SUBMIT_STREAMS_MAX messages at a time */
    /* Connections at a time, all kept; more questions wait their turn. Questions about a database that hangs hold
     * theirs for LOOKUP_SECONDS: there are enough for the others. */
    REWRITE_OPEN_MAX = 100,
    NAME_LOOKUP_TIME = 60, /* seconds all name service questions about a client may take */
};

/* Reads resolv.conf and hosts: before the process is confined. `ret` is used by one process for as long as it lives. */
error backend_open(struct service_ctx *ctx, struct arena *err_arena, struct backend *ret);
#endif
