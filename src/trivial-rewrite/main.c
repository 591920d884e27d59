/* trivial-rewrite(8): answers questions about addresses for daemons that have no tables of their own. */
#include "base/log.h"
#include "proto/rewrite.h"
#include "service/service.h"

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    (void)err_arena;
    ctx->state = router_new(ctx->conf);
    return NULL;
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    error e = rewrite_serve(service_ipc(io), ctx->state);
    if (e)
        log_warn("%.*s", STR_ARG(e->text));
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
