/* cleanup.h - submissions (proto/submit.h): the way of a message into the queue.
 *
 * Each message is a coroutine; those of one client come over one connection. Everything a message needs hangs on its
 * arena and ends with it. Only the content of one header field, the recipients, and what has come and waits for its
 * turn (SUBMIT_WINDOW, and CLEANUP_HELD_MAX for all together) are in memory. Logs what cleanup(8) logs; it does not log
 * who asked for the message: that is the client's line. */
#ifndef ANGARIUM_CLEANUP_CLEANUP_H
#define ANGARIUM_CLEANUP_CLEANUP_H

#include "cleanup/content.h"
#include "proto/submit.h"
#include "queue/spool.h"
#include "route/route.h"

enum {
    MESSAGE_ENVELOPE_MAX = 64 * 1024 * 1024, /* bytes of envelope and recipients, as sent, in memory for one message */
    CLEANUP_HELD_MAX = 32 * 1024 * 1024,     /* bytes received and not yet looked at; more waits in the sockets */
};

/* header_checks(5) and the like, for all messages (inspection.c); NULL tables: none. */
struct checks {
    struct maps *header, *mime, *nested, *body;
    struct maps *milter;     /* of fields that mail filters add */
    bool any;                /* there is something to look for: else messages are not looked at */
    size_t body_size;        /* body_checks_size_limit: bytes of a part that are looked at */
    unsigned refused_errors; /* a bit for each enum mime_error */
    struct content_inspector inspector;
};
void checks_open(struct checks *k, const struct conf *c);
void checks_close(struct checks *k);
struct dial_target;
struct milter_configs;
struct milter_macros;

struct cleanup { /* as long as the process */
    const struct conf *c;
    struct router *router;
    struct spool *spool;
    struct content_rules rules;
    struct checks checks;
    struct maps *sender_bcc, *recipient_bcc;
    /* non_smtpd_milters; who sets `dial` (service/dial.h) makes connections to them possible */
    struct arena *filter_arena;
    struct milter_configs *filters;
    struct milter_macros *filter_macros;
    error (*dial)(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret);
    void *dial_ctx;
    struct submit_server server;
};

/* Tables that cannot be opened fail at their look-ups; the spool must be there. `s` stays where it is. */
error cleanup_open(struct cleanup *s, const struct conf *c, struct arena *err_arena);
void cleanup_close(struct cleanup *s);

/* Serve one client until it goes away, breaks the protocol, or the service drains. In a coroutine. */
void cleanup_serve(struct cleanup *s, struct ipc *ipc);
/* Clients are asked to begin no more messages: idle sessions end at once, the others after those under way. */
void cleanup_drain(struct cleanup *s);
#endif
