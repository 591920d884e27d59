/* backend.h - the back ends of a running smtpd: cleanup, trivial-rewrite and the name service.
 *
 * All sessions share the connections to the other daemons; one that has died while it lay idle is replaced without
 * anybody noticing. */
#ifndef ANGARIUM_SMTPD_BACKEND_H
#define ANGARIUM_SMTPD_BACKEND_H

#include "service/service.h"
#include "smtpd/session.h"

enum {
    CLEANUP_LINKS_MAX = 64, /* connections, each for SUBMIT_STREAMS_MAX messages at a time */
    TICKET_KEYS_TIME = 5,   /* seconds for tlsmgr to answer */
    TICKET_KEYS_PAUSE = 30, /* until it is asked again after it did not */
    NAME_LOOKUP_TIME = 60,  /* seconds all name service questions about a client may take */
};

/* Reads resolv.conf and hosts: before the process is confined. `ret` is used by one process for as long as it lives. */
/* With smtpd_sasl_auth_enable: ret->sasl, too. */
error backend_open(struct service_ctx *ctx, struct arena *err_arena, struct backend *ret);
#endif
