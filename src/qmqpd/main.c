/* main.c - qmqpd(8): mail comes in by QMQP. Confined: no files, and of the network only what the name service needs. */
#include "mail/date.h"
#include "qmqpd/qmqpd.h"
#include "service/service.h"

enum { CONNECT_SECONDS = 100 };

static struct {
    struct service_ctx *ctx;
    struct qmqpd qmqpd;
    struct str endpoint;
} daemon_;

static error connect_cleanup(void *ctx, struct ipc **ret) {
    (void)ctx;
    return service_connect(daemon_.ctx, daemon_.endpoint, deadline_in(CONNECT_SECONDS), ret);
}

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    struct qmqpd *q = &daemon_.qmqpd;
    struct dns_options dns = { .servers = conf_str(ctx->conf, PARAM_dns_resolvers) };
    daemon_.ctx = ctx;
    daemon_.endpoint = arena_cat(err_arena, STR("public/"), conf_str(ctx->conf, PARAM_cleanup_service_name));
    error e = qmqpd_open(q, ctx->conf, err_arena);
    q->connect = connect_cleanup;
    (void)date_rfc5322(err_arena, 0); /* reads the time zone while there are files */
    return e ? e : dns_open(&dns, err_arena, &q->dns);
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)local;
    if (!ctx->standalone && peer->len)
        qmqpd_session(&daemon_.qmqpd, io, peer);
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "qmqpd",
        .confine = CONFINE_NO_FILES,
        .empty_chroot = true,
        .init = init,
        .session = session,
    };
    return service_main(argc, argv, &s);
}
