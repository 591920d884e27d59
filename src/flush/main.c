/* flush - deferred mail by destination, for ETRN and postqueue -s: flush(8). */
#include "base/log.h"
#include "flush/flush.h"
#include "service/service.h"

enum { CONNECT_SECONDS = 100 };

static struct daemon {
    struct service_ctx *ctx;
    struct flush flush;
    struct str endpoint;
} daemon_;

static error connect_qmgr(void *ctx, struct ipc **ret) {
    struct daemon *d = ctx;
    return service_connect(d->ctx, d->endpoint, deadline_in(CONNECT_SECONDS), ret);
}

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    error e = flush_open(&daemon_.flush, ctx->conf, err_arena);
    daemon_.ctx = ctx;
    daemon_.endpoint = arena_cat(err_arena, STR("public/"), conf_str(ctx->conf, PARAM_queue_service_name));
    daemon_.flush.work = &ctx->work;
    daemon_.flush.draining = &ctx->draining;
    daemon_.flush.connect = connect_qmgr;
    daemon_.flush.ctx = &daemon_;
    return e;
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    if (!service_trigger_session(ctx, io))
        flush_serve(&daemon_.flush, service_ipc(io));
}

static void wakeup(struct service_ctx *ctx, struct str request) {
    (void)ctx;
    if (str_index(request, 'P') >= 0)
        flush_refresh(&daemon_.flush, true);
    else if (str_index_any(request, STR("WR")) >= 0)
        flush_refresh(&daemon_.flush, false);
}

int main(int argc, char **argv) {
    static const char *const writable[] = { "flush", NULL };
    static const struct service s = {
        .program = "flush",
        .confine = CONFINE_WRITE_FILES | CONFINE_NO_NETWORK,
        .drain_cancels = true,
        .writable = writable,
        .init = init,
        .session = session,
        .wakeup = wakeup,
    };
    return service_main(argc, argv, &s);
}
