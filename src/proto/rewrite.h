/* rewrite.h - questions about addresses: smtpd (confined: it has no tables), local -> trivial-rewrite
 * (private/rewrite).
 *
 * A frame a question and a frame an answer, each with the u32 number of the question first: many may be under way on a
 * connection (proto/mux.h), and are answered in any order. At most REWRITE_QUESTIONS_MAX at a time; the numbers are the
 * client's choice. */
#ifndef ANGARIUM_PROTO_REWRITE_H
#define ANGARIUM_PROTO_REWRITE_H

#include "route/route.h"
#include "run/ipc.h"

/* Questions about a database that hangs keep their places until it is given up: there are enough for the others. */
enum { REWRITE_QUESTIONS_MAX = 128 };

enum rewrite_type {
    REWRITE_MSG_REWRITE = 1, /* origin, address -> address */
    REWRITE_MSG_RESOLVE,     /* sender, recipient -> route or error */
    REWRITE_MSG_CHECK,       /* 'r' or 's', what is wanted, service, sender, address -> struct route_check */
    REWRITE_MSG_REPLY,
};

/* Takes `ipc` over. Never NULL. */
struct rewrite_link *rewrite_link_new(struct ipc *ipc);
void rewrite_link_close(struct rewrite_link *l); /* nobody may be asking; NULL is allowed */
/* False: broken, or the other side has gone. Those who ask have been told. */
bool rewrite_link_usable(const struct rewrite_link *l);
size_t rewrite_link_count(const struct rewrite_link *l); /* questions under way, and those that wait for their turn */

/* The outer error is the connection's; answers are copied to `a`. */
error rewrite_address(struct rewrite_link *l, struct arena *a, struct str address, struct str origin, int64_t deadline,
                      struct str *ret);
error rewrite_resolve(struct rewrite_link *l, struct arena *a, struct str sender, struct str recipient,
                      int64_t deadline, struct route *ret, error *ret_route_error);
error rewrite_check(struct rewrite_link *l, struct arena *a, const struct route_question *q, int64_t deadline,
                    struct route_check *ret);

/* trivial-rewrite's side: answer one client, each question in a coroutine of its own, until it goes away (NULL) or
 * breaks the protocol. When it returns no question is under way. `ipc` stays the caller's. In a coroutine. */
error rewrite_serve(struct ipc *ipc, struct router *r);
#endif
