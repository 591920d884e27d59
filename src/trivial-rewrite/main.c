/* trivial-rewrite(8): answers questions about addresses for daemons that have no tables of their own. */
#include "base/log.h"
#include "proto/rewrite.h"
#include "service/service.h"

enum { REPLY_SECONDS = 100 /* for a client to take its answer */ };

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    (void)err_arena;
    ctx->state = router_new(ctx->conf);
    return NULL;
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    struct ipc *ipc = service_ipc(io);
    struct arena *a = arena_new();
    struct ipc_msg m = { .fd = -1 };
    while (!ipc_recv(ipc, DEADLINE_NEVER, &m)) {
        error e = rewrite_serve(ipc, ctx->state, a, &m);
        ipc_msg_drop(&m);
        if (e) {
            log_warn("%.*s", STR_ARG(e->text));
            break;
        }
        if (ipc_flush(ipc, deadline_in(REPLY_SECONDS)))
            break;
        arena_reset(a);
    }
    arena_free(a);
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "trivial-rewrite",
        .confine = CONFINE_READ_FILES | CONFINE_NO_NETWORK,
        .no_chroot = true, /* /etc/passwd and the tables are outside */
        .multi_client = true,
        .drain_cancels = true, /* clients ask again */
        .init = init,
        .session = session,
    };
    return service_main(argc, argv, &s);
}
