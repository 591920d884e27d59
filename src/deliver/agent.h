/* agent.h - what every delivery agent does the same way: take requests, answer per recipient, write the log line.
 *
 * An agent's main() calls agent_main(); for each request `deliver` runs in a coroutine of its own (one connection from
 * qmgr each) and calls agent_sent/deferred/bounced once per recipient, in any order. What it forgets is deferred.
 *
 * Answers are gathered and go to qmgr when `deliver` returns, or before: see agent_go_on(). */
#ifndef ANGARIUM_DELIVER_AGENT_H
#define ANGARIUM_DELIVER_AGENT_H

#include "proto/delivery.h"
#include "service/service.h"

struct agent_request {
    struct service_ctx *ctx;
    struct arena *arena;         /* ends with the request */
    struct delivery_request req; /* its content: content_read() */
    struct ipc *ipc;
    bool *answered; /* per recipient */
    bool orphaned;  /* agent_go_on() has said no */
    /* for delays=a/b/c/d; the agent sets them (mono clock of run/sys.h), 0: not reached */
    int64_t start_us, connected_us;
    struct delivery_done done;
};

struct agent {
    struct service service; /* program, confine, root, init, start ...; session is set by agent_main */
    void (*deliver)(struct agent_request *r);
};
int agent_main(int argc, char **argv, const struct agent *a);
/* What agent_main() does with each connection, until its end or until the process drains between two requests. */
void agent_serve(struct service_ctx *ctx, struct ipc *ipc, void (*deliver)(struct agent_request *r));

struct agent_status { /* strings borrowed for the call; `relay` e.g. "mx.example[192.0.2.1]:25", "local", "none" */
    struct str relay, dsn, reason;
    unsigned conn_use; /* how often the connection has been used, with this time; logged when more than once */
    struct str diagnostic_type, diagnostic, remote_type, remote_mta;
    bool passed_on;     /* with NOTIFY, to a server that will tell the sender of success itself */
    struct str address; /* for agent_answer(): what failed, when that is not the recipient itself */
    struct str action;  /* of RFC 3464, 2.3.3, when a success is not "delivered", or empty */
};
/* Logs `QID: to=<..>, orig_to=<..>, relay=.., delay=.., delays=a/b/c/d, dsn=.., status=.. (reason)` and reports to
 * qmgr. With soft_bounce, bounced becomes deferred ("SOFTBOUNCE") here and nowhere else. A failure's class digit is
 * made to fit. The agent's *_delivery_status_filter (status_filter.h) may change dsn and reason before all that, also
 * a delay into a failure and the reverse. */
void agent_sent(struct agent_request *r, size_t rcpt, const struct agent_status *s);
void agent_deferred(struct agent_request *r, size_t rcpt, const struct agent_status *s);
void agent_bounced(struct agent_request *r, size_t rcpt, const struct agent_status *s);
/* The same by class of `dsn`: 2 sent, 4 deferred, 5 bounced. */
void agent_finish(struct agent_request *r, size_t rcpt, const struct agent_status *s);

/* "5.7.1 text" that the administrator wrote in place of a next hop, for error(8) and discard(8): dsn and reason of
 * `*s`. A code of another class than `class_0` ("5.0.0") is ignored, with a warning; that counts then. */
void agent_status_text(struct str text, struct str class_0, struct agent_status *s);

/* For an agent that turns one recipient into several: agent_log() writes the line for what `address` stands for, as
 * agent_finish() would, and tells qmgr nothing; what the filter has changed is in `*s` afterwards. agent_answer() tells
 * qmgr the outcome of the recipient, without a line and without the filter. */
void agent_log(struct agent_request *r, size_t rcpt, struct str address, struct agent_status *s);
void agent_answer(struct agent_request *r, size_t rcpt, const struct agent_status *s);

/* Call it before each thing that must not be done twice. Sends the answers so far, so that a crash repeats one delivery
 * at most. False: the queue manager has gone and its successor will make this request again; return then, without more
 * answers. Nothing is logged of recipients that have none. */
bool agent_go_on(struct agent_request *r);
/* The same for who has just waited for somebody else: what the loop saw then is new enough, and costs no call. */
bool agent_go_on_after_wait(struct agent_request *r);
/* The answers alone: before a long wait. */
void agent_flush(struct agent_request *r);
#endif
