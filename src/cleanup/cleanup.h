/* cleanup.h - one submission after the other over one connection (proto/submit.h): the way of a message into the queue.
 *
 * Everything a message needs hangs on its arena and ends with it. Only the content of one header field and the
 * recipients are in memory. Logs what cleanup(8) logs; it does not log who asked for the message: that is the client's
 * line. */
#ifndef ANGARIUM_CLEANUP_CLEANUP_H
#define ANGARIUM_CLEANUP_CLEANUP_H

#include "cleanup/content.h"
#include "queue/spool.h"
#include "route/route.h"
#include "run/ipc.h"

enum {
    MESSAGE_ENVELOPE_MAX = 64 * 1024 * 1024, /* bytes of envelope and recipients, as sent, in memory for one message */
};

struct cleanup { /* as long as the process */
    const struct conf *c;
    struct router *router;
    struct spool *spool;
    struct content_rules rules;
    struct maps *sender_bcc, *recipient_bcc;
    /* A message has come into incoming/; never waits. */
    void (*queued)(void *ctx, const struct queue_id *id);
    void *ctx;
    bool draining;                /* sessions end after their message */
    struct cleanup_session *idle; /* those that wait for the next message */
};

/* Tables that cannot be opened fail at their look-ups; the spool must be there. */
error cleanup_open(struct cleanup *s, const struct conf *c, struct arena *err_arena);
void cleanup_close(struct cleanup *s);

/* Serve one client until it goes away, breaks the protocol, or the service drains. In a coroutine. */
void cleanup_serve(struct cleanup *s, struct ipc *ipc);
/* From now on no message is begun: idle sessions end at once, the others after their message. */
void cleanup_drain(struct cleanup *s);
#endif
