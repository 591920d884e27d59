/* delivery.h - one delivery attempt: qmgr -> a delivery agent (private/<transport>).
 *
 * qmgr: REQUEST with the content, or with a descriptor of it (proto/content.h)  ->  agent
 *       <- RESULT per recipient, in any order, as soon as it is known
 *       <- DONE (what the attempt says of the destination)
 * The agent logs `to=...` lines (loglines); qmgr keeps the books: a recipient without RESULT at DONE or at a lost
 * connection is deferred. The connection is used again for the next request. */
#ifndef ANGARIUM_PROTO_DELIVERY_H
#define ANGARIUM_PROTO_DELIVERY_H

#include "mail/envelope.h"
#include "proto/content.h"

enum delivery_flags {
    DELIVERY_VERIFY = 1, /* do not deliver: would it be accepted? */
    DELIVERY_TRACE = 2,  /* the sender wants a report of this attempt (sendmail -v, -bv) */
    DELIVERY_BOUNCE = 4, /* a bounce: qmgr made the request for mail that is itself a notice (null sender) */
    DELIVERY_MORE = 8,   /* more mail for this destination is on its way: a session with it is worth keeping */
};
struct delivery_request {
    unsigned flags;
    struct queue_id id;
    struct str transport;         /* "smtp", "local", ... : the service name */
    struct str nexthop;           /* host, [host]:port, domain, or text for error: */
    struct envelope env;          /* rcpts: those of this attempt */
    const uint32_t *rcpt_index;   /* for each rcpt, its index in the message: what RESULT refers to */
    int64_t active_us;            /* when qmgr took it up (delays=a/b) */
    int64_t sent_us;              /* when this request was made */
    struct spool_content content; /* for the receiver: content_release() */
};
enum delivery_status { DELIVERY_SENT = 1, DELIVERY_DEFERRED, DELIVERY_BOUNCED };
struct delivery_result {
    uint32_t rcpt_index;
    enum delivery_status status;
    struct str address; /* what failed, when the agent expanded the recipient (an alias' member); otherwise empty */
    struct str dsn;     /* "2.0.0" */
    struct str action;  /* RFC 3464 action when not the usual one ("relayed", "expanded"), or empty */
    bool passed_on;     /* with NOTIFY, to a server that will tell the sender of success itself (RFC 3461, 5.2.1) */
    struct str reason;  /* the log line's text */
    struct str diagnostic_type, diagnostic; /* "smtp" + full reply, or empty */
    struct str remote_type, remote_mta;     /* "dns" + name, or empty */
};
struct delivery_done {
    bool destination_dead;  /* connecting or greeting failed: the next messages for it may wait */
    struct str reason, dsn; /* why, for `delivery temporarily suspended: ...` */
};
enum delivery_type { DELIVERY_MSG_REQUEST = 1, DELIVERY_MSG_RESULT, DELIVERY_MSG_DONE };

/* qmgr's side */
void delivery_send_request(struct ipc *ipc, const struct delivery_request *r);
/* Give `m` of type RESULT/DONE; false: malformed. */
bool delivery_unpack_result(const struct ipc_msg *m, struct delivery_result *ret);
bool delivery_unpack_done(const struct ipc_msg *m, struct delivery_done *ret);
/* the agent's side */
/* Takes m->fd. Strings and content are borrowed from `m`. */
bool delivery_unpack_request(struct ipc_msg *m, struct arena *a, struct delivery_request *ret);
void delivery_send_result(struct ipc *ipc, const struct delivery_result *r);
void delivery_send_done(struct ipc *ipc, const struct delivery_done *d);
#endif
