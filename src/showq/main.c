/* showq - list the mail queue: showq(8). */
#include "base/die.h"
#include "service/service.h"
#include "showq/showq.h"
#include <stdlib.h>

enum { SEND_BYTES = 64 * 1024 /* gathered before they are sent */ };

struct client {
    struct ipc *ipc;
    int64_t timeout_s;
};

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    struct showq *q = calloc(1, sizeof *q);
    if (!q)
        die_no_memory(sizeof *q);
    ctx->state = q;
    return showq_open(q, ctx->conf, err_arena);
}

static bool send_what_is_much(struct client *c) {
    return ipc_unsent(c->ipc) < SEND_BYTES || !ipc_flush(c->ipc, deadline_in(c->timeout_s));
}

static bool send_entry(void *arg, const struct listing_entry *e) {
    struct client *c = arg;
    listing_send(c->ipc, e);
    return send_what_is_much(c);
}

static bool send_packed(void *arg, struct str entries) {
    struct client *c = arg;
    listing_send_packed(c->ipc, entries);
    return send_what_is_much(c);
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    struct client c = { .ipc = service_ipc(io), .timeout_s = conf_time(ctx->conf, PARAM_ipc_timeout) };
    showq_walk_packed(ctx->state, send_entry, send_packed, &c);
    listing_end(c.ipc);
    ipc_flush(c.ipc, deadline_in(c.timeout_s));
}

int main(int argc, char **argv) {
    static const struct service showq = {
        .program = "showq",
        .confine = CONFINE_READ_FILES | CONFINE_NO_NETWORK,
        .drain_cancels = true,
        .init = init,
        .session = session,
    };
    return service_main(argc, argv, &showq);
}
