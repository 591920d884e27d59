/* bounce, defer, trace - tell senders what became of their mail: bounce(8). */
#include "bounce/bounce.h"

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    bounce_serve(ctx, service_ipc(io));
}

int main(int argc, char **argv) {
    static const struct service service = {
        .program = "bounce", .confine = CONFINE_NO_FILES | CONFINE_NO_NETWORK, .init = bounce_init, .session = session
    };
    return service_main(argc, argv, &service);
}
