/* cleanup(8): takes messages from smtpd, pickup, bounce and local, and puts them into the queue. */
#include "cleanup/cleanup.h"

#include "base/log.h"
#include "milter/config.h"
#include "proto/notice.h"
#include "service/service.h"

enum {
    NOTICES_MAX = 1024, /* waiting to be sent; more are dropped: qmgr also looks by itself */
    SEGMENTS_MAX = 8,   /* of the log, in use since the last notice was sent */
    NOTICE_SECONDS = 10,
    ABSENT_US = 100000, /* after it could not be reached qmgr is left alone for so long */
};

struct daemon {
    struct service_ctx *ctx;
    struct cleanup cleanup;
    struct dns *dns; /* for the names of filters; NULL: none has one */
    struct cond news;
    struct spool_position log[SEGMENTS_MAX]; /* the newest of each segment */
    size_t log_count;
    struct queue_id files[NOTICES_MAX];
    size_t first, count;
};

static struct daemon daemon_;

static bool waiting(const struct daemon *d) {
    return d->count > 0 || d->log_count > 0;
}

static void keep_position(struct daemon *d, struct spool_position p) {
    for (size_t i = 0; i < d->log_count; i++)
        if (d->log[i].segment == p.segment) {
            d->log[i] = p;
            return;
        }
    if (d->log_count < SEGMENTS_MAX)
        d->log[d->log_count++] = p;
}

static void committed(void *ctx, const struct spool_news *news) {
    struct daemon *d = ctx;
    if (!waiting(d))
        group_enter(&d->ctx->work); /* left when all are sent: a draining process waits for it */
    if (news->position.segment)
        keep_position(d, news->position);
    else if (d->count < NOTICES_MAX)
        d->files[(d->first + d->count++) % NOTICES_MAX] = news->id;
    cond_signal(&d->news);
}

/* What is to be said at one moment. */
struct notices {
    struct spool_position log[SEGMENTS_MAX];
    size_t log_count, count;
};

static struct notices now_waiting(const struct daemon *d) {
    struct notices n = { .log_count = d->log_count, .count = d->count };
    memcpy(n.log, d->log, sizeof n.log);
    return n;
}

static error send_notices(struct daemon *d, struct ipc *qmgr, const struct notices *n) {
    for (size_t i = 0; i < n->log_count; i++)
        notice_log(qmgr, n->log[i]);
    for (size_t i = 0; i < n->count; i++)
        notice_new(qmgr, &d->files[(d->first + i) % NOTICES_MAX]);
    return ipc_flush(qmgr, deadline_in(NOTICE_SECONDS));
}

/* Segments that have grown while we sent stay. */
static void forget_notices(struct daemon *d, const struct notices *sent) {
    size_t kept = 0;
    for (size_t i = 0; i < d->log_count; i++)
        if (i >= sent->log_count || d->log[i].end != sent->log[i].end)
            d->log[kept++] = d->log[i];
    d->log_count = kept;
    d->first = (d->first + sent->count) % NOTICES_MAX;
    d->count -= sent->count;
    if (!waiting(d))
        group_leave(&d->ctx->work);
}

/* The one connection to qmgr: kept, made anew when qmgr has gone. What does not arrive is found by qmgr's own scan. */
static void tell_qmgr(struct service_ctx *ctx) {
    struct daemon *d = ctx->state;
    struct arena *a = arena_new();
    struct str endpoint = arena_cat(a, STR("public/"), conf_str(ctx->conf, PARAM_queue_service_name));
    struct ipc *qmgr = NULL;
    int64_t not_before = 0;
    for (;;) {
        while (!waiting(d))
            if (cond_wait(&d->news, DEADLINE_NEVER))
                goto cancelled;
        if (not_before > sys->mono_us() && wait_until(not_before))
            break;
        struct notices n;
        bool fresh = !qmgr;
        error e = qmgr ? NULL : service_connect(ctx, endpoint, deadline_in(NOTICE_SECONDS), &qmgr);
        n = now_waiting(d);
        if (!e)
            e = send_notices(d, qmgr, &n);
        if (e == &err_cancelled)
            break;
        if (e) {
            ipc_close(qmgr);
            qmgr = NULL;
            if (!fresh)
                continue; /* it was the old connection: try once with a new one */
            not_before = deadline_in_us(ABSENT_US);
        }
        forget_notices(d, &n);
    }
cancelled:
    ipc_close(qmgr);
    arena_free(a);
}

static error dial_filter(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret) {
    const struct daemon *d = ctx;
    return dial(d->ctx, d->dns, t, deadline, ret);
}

/* non_smtpd_milters. Only who has one beyond a unix socket may use the network. */
static error reach_filters(struct daemon *d, struct arena *err_arena) {
    const struct milter_configs *list = d->cleanup.filters;
    d->cleanup.dial = dial_filter;
    d->cleanup.dial_ctx = d;
    for (size_t i = 0; i < list->n; i++)
        if (!list->at[i].target.local)
            d->ctx->confine_off |= CONFINE_NO_NETWORK;
    error e = milter_configs_declare(d->ctx, list);
    struct dns_options options = { .servers = conf_str(d->ctx->conf, PARAM_dns_resolvers) };
    if (!e && (d->ctx->confine_off & CONFINE_NO_NETWORK))
        e = dns_open(&options, err_arena, &d->dns);
    return e;
}

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    ctx->state = &daemon_;
    daemon_.ctx = ctx;
    error e = cleanup_open(&daemon_.cleanup, ctx->conf, err_arena);
    if (!e)
        e = reach_filters(&daemon_, err_arena);
    if (!e)
        spool_on_news(daemon_.cleanup.spool, committed, &daemon_);
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
