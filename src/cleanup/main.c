/* cleanup(8): takes messages from smtpd, pickup, bounce and local, and puts them into the queue. */
#include "cleanup/cleanup.h"

#include "base/log.h"
#include "proto/notice.h"
#include "service/service.h"

enum {
    NOTICES_MAX = 1024, /* waiting to be sent; more are dropped: qmgr also looks by itself */
    NOTICE_SECONDS = 10,
};

struct daemon {
    struct service_ctx *ctx;
    struct cleanup cleanup;
    struct cond news;
    struct queue_id waiting[NOTICES_MAX];
    size_t first, count;
};

static struct daemon daemon_;

static void queued(void *ctx, const struct queue_id *id) {
    struct daemon *d = ctx;
    if (d->count == NOTICES_MAX)
        return;
    if (d->count == 0)
        group_enter(&d->ctx->work); /* left when all are sent: a draining process waits for it */
    d->waiting[(d->first + d->count++) % NOTICES_MAX] = *id;
    cond_signal(&d->news);
}

static error send_notices(struct daemon *d, struct ipc *qmgr, size_t n) {
    for (size_t i = 0; i < n; i++)
        notice_new(qmgr, &d->waiting[(d->first + i) % NOTICES_MAX]);
    return ipc_flush(qmgr, deadline_in(NOTICE_SECONDS));
}

/* The one connection to qmgr: kept, made anew when qmgr has gone. What does not arrive is found by qmgr's own scan. */
static void tell_qmgr(struct service_ctx *ctx) {
    struct daemon *d = ctx->state;
    struct arena *a = arena_new();
    struct str endpoint = arena_cat(a, STR("public/"), conf_str(ctx->conf, PARAM_queue_service_name));
    struct ipc *qmgr = NULL;
    for (;;) {
        while (d->count == 0)
            if (cond_wait(&d->news, DEADLINE_NEVER))
                goto cancelled;
        size_t n = d->count;
        bool fresh = !qmgr;
        error e = qmgr ? NULL : service_connect(ctx, endpoint, deadline_in(NOTICE_SECONDS), &qmgr);
        if (!e)
            e = send_notices(d, qmgr, n);
        if (e == &err_cancelled)
            break;
        if (e) {
            ipc_close(qmgr);
            qmgr = NULL;
            if (!fresh)
                continue; /* it was the old connection: try once with a new one */
        }
        d->first = (d->first + n) % NOTICES_MAX;
        d->count -= n;
        if (d->count == 0)
            group_leave(&ctx->work);
    }
cancelled:
    ipc_close(qmgr);
    arena_free(a);
}

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    ctx->state = &daemon_;
    daemon_.ctx = ctx;
    error e = cleanup_open(&daemon_.cleanup, ctx->conf, err_arena);
    daemon_.cleanup.queued = queued;
    daemon_.cleanup.ctx = &daemon_;
    return e;
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    struct daemon *d = ctx->state;
    cleanup_serve(&d->cleanup, service_ipc(io));
}

static void drain(struct service_ctx *ctx) {
    struct daemon *d = ctx->state;
    cleanup_drain(&d->cleanup);
}

int main(int argc, char **argv) {
    static const char *const writable[] = { ".", NULL };
    static const struct service s = {
        .program = "cleanup",
        .confine = CONFINE_WRITE_FILES | CONFINE_NO_NETWORK,
        .writable = writable,
        .init = init,
        .start = tell_qmgr,
        .session = session,
        .drain = drain,
    };
    return service_main(argc, argv, &s);
}
