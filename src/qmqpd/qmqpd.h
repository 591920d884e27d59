/* qmqpd.h - one client of QMQP (https://cr.yp.to/proto/qmqp.html). */
#ifndef ANGARIUM_QMQPD_QMQPD_H
#define ANGARIUM_QMQPD_QMQPD_H

#include "dns/dns.h"
#include "proto/submit.h"
#include "table/match.h"

enum {
    QMQP_OVERHEAD_MAX = 64 * 1024 * 1024, /* bytes around the content: addresses and lengths */
    QMQP_ADDRESS_MAX = 2048,
    QMQP_HELD_MAX = 64 * 1024 * 1024, /* content in memory, over all clients; one larger message comes alone */
};

struct qmqpd {
    const struct conf *conf;
    struct match *authorized;
    struct dns *dns;
    unsigned submit_flags;
    struct str content_filter;
    uint64_t held; /* bytes of content that clients have announced and that are not yet with cleanup */
    struct cond room;
    error (*connect)(void *ctx, struct ipc **ret); /* to cleanup */
    void *ctx;
};

/* ERR_CONFIG: the text of the fatal line. `dns`, `connect` and `ctx` are the caller's to set. */
error qmqpd_open(struct qmqpd *q, const struct conf *c, struct arena *err_arena);
void qmqpd_close(struct qmqpd *q);
/* One connection, to its end; `io` stays the caller's. */
void qmqpd_session(struct qmqpd *q, struct io *io, const struct endpoint *client);
#endif
