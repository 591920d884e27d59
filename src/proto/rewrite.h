/* rewrite.h - questions of the confined daemons about addresses: smtpd -> trivial-rewrite (private/rewrite).
 * One request frame, one reply frame; several may be under way on one connection only one after the other. */
#ifndef ANGARIUM_PROTO_REWRITE_H
#define ANGARIUM_PROTO_REWRITE_H

#include "route/route.h"
#include "run/ipc.h"

enum rewrite_type {
    REWRITE_MSG_REWRITE = 1, /* origin, address -> address */
    REWRITE_MSG_RESOLVE,     /* sender, recipient -> route or error */
    REWRITE_MSG_VALIDATE,    /* 'r' or 's', address -> NULL or error */
    REWRITE_MSG_REPLY,
};
/* The outer error is the connection's; answers are copied to `a`. */
error rewrite_address(struct ipc *ipc, struct arena *a, struct str address, struct str origin, int64_t deadline,
                      struct str *ret);
error rewrite_resolve(struct ipc *ipc, struct arena *a, struct str sender, struct str recipient, int64_t deadline,
                      struct route *ret, error *ret_route_error);
error rewrite_validate(struct ipc *ipc, struct arena *a, bool is_sender, struct str address, int64_t deadline,
                       error *ret_refusal);
/* trivial-rewrite's side: answer one request frame. */
error rewrite_serve(struct ipc *ipc, struct router *r, struct arena *a, const struct ipc_msg *m);
#endif
