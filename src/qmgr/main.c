/* qmgr, oqmgr - the queue manager: qmgr(8). */
#include "base/die.h"
#include "conf/master_cf.h"
#include "proto/edit.h"
#include "proto/notice.h"
#include "qmgr/qmgr.h"
#include "service/service.h"
#include <errno.h>
#include <unistd.h>

enum { TAKE_OVER_RETRY_US = 100 * 1000 };

struct state {
    struct service_ctx *ctx;
    struct arena *arena;
    struct spool *spool;
    struct router *router, *probe_router; /* the second for probes; NULL: they go the way of mail */
    struct master_cf services;
    struct qmgr *qmgr;
    bool in_office;
};

static error connect_service(void *ctx, struct str endpoint, int64_t deadline, struct ipc **ret) {
    return service_connect(((struct state *)ctx)->ctx, endpoint, deadline, ret);
}

static error resolve(void *ctx, struct arena *a, struct str sender, struct str recipient, struct route *ret) {
    return route_resolve(((struct state *)ctx)->router, a, sender, recipient, ret);
}

static error resolve_probe(void *ctx, struct arena *a, struct str sender, struct str recipient, struct route *ret) {
    return route_resolve(((struct state *)ctx)->probe_router, a, sender, recipient, ret);
}

/* The main.cf in which mail's routes are those of probes, where they differ: a router for them is made of it. */
static error open_probe_router(struct state *s, struct arena *err_arena) {
    static const struct {
        struct str name;
        enum param mail, probe;
    } rows[] = {
        { STR_INIT("default_transport"), PARAM_default_transport, PARAM_address_verify_default_transport },
        { STR_INIT("local_transport"), PARAM_local_transport, PARAM_address_verify_local_transport },
        { STR_INIT("relay_transport"), PARAM_relay_transport, PARAM_address_verify_relay_transport },
        { STR_INIT("relayhost"), PARAM_relayhost, PARAM_address_verify_relayhost },
        { STR_INIT("sender_dependent_default_transport_maps"), PARAM_sender_dependent_default_transport_maps,
          PARAM_address_verify_sender_dependent_default_transport_maps },
        { STR_INIT("sender_dependent_relayhost_maps"), PARAM_sender_dependent_relayhost_maps,
          PARAM_address_verify_sender_dependent_relayhost_maps },
        { STR_INIT("transport_maps"), PARAM_transport_maps, PARAM_address_verify_transport_maps },
        { STR_INIT("virtual_transport"), PARAM_virtual_transport, PARAM_address_verify_virtual_transport },
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    const struct conf *c = s->ctx->conf;
    struct conf_override over[ROWS];
    bool differs = false;
    for (size_t i = 0; i < ROWS; i++) {
        over[i] = (struct conf_override){ rows[i].name, conf_str(c, rows[i].probe) };
        differs = differs || !str_eq(conf_str(c, rows[i].mail), over[i].value);
    }
    if (!differs)
        return NULL;
    struct conf_source source = { .config_directory = conf_directory(c),
                                  .overrides = over,
                                  .override_count = ROWS,
                                  .process_name = s->ctx->program,
                                  .service_name = s->ctx->name };
    struct conf *probe_conf; /* as long as the process */
    error e = conf_load(&source, err_arena, &probe_conf);
    if (!e)
        s->probe_router = router_new(probe_conf);
    return e;
}

static unsigned process_limit(void *ctx, struct str transport) {
    const struct state *s = ctx;
    for (size_t i = 0; i < s->services.count; i++) {
        const struct master_entry *e = &s->services.entries[i];
        if (e->type == SERVICE_UNIX && str_eq(e->name, transport))
            return e->maxproc > 0 ? (unsigned)e->maxproc : 0;
    }
    return (unsigned)conf_int(s->ctx->conf, PARAM_default_process_limit);
}

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    static struct state s;
    s.ctx = ctx;
    s.arena = arena_new();
    struct spool_options o = spool_options_from(ctx->conf, SPOOL_READER);
    error e = spool_open(&o, err_arena, &s.spool);
    if (e)
        return e;
    struct str path = arena_printf(err_arena, "%.*s/master.cf", STR_ARG(conf_directory(ctx->conf)));
    if ((e = master_cf_load(path, ctx->conf, s.arena, &s.services)))
        return e;
    s.router = router_new(ctx->conf);
    if ((e = open_probe_router(&s, err_arena)))
        return e;
    struct qmgr_outside outside = { connect_service, resolve, s.probe_router ? resolve_probe : NULL, process_limit,
                                    &s };
    s.qmgr = qmgr_new(ctx->conf, s.spool, &outside, &ctx->work);
    ctx->state = &s;
    return NULL;
}

static void tend_log(void *arg) {
    spool_log_run(((struct state *)arg)->spool);
}

/* Ends the process when a turn of the loop takes longer than this. */
static void watchdog(void *arg) {
    const struct state *s = arg;
    unsigned limit = (unsigned)conf_time(s->ctx->conf, PARAM_qmgr_daemon_timeout);
    do
        alarm(limit);
    while (!wait_until(deadline_in_us(US_PER_S * limit / 3)));
    alarm(0);
}

static void start(struct service_ctx *ctx) {
    struct state *s = ctx->state;
    if (!coro_spawn(watchdog, s, "watchdog"))
        die("out of memory");
    /* After a reload the one before us finishes its deliveries; it lets go of the rest as soon as it has been told. */
    while (!spool_take_over(s->spool))
        if (ctx->draining || wait_until(deadline_in_us(TAKE_OVER_RETRY_US)))
            return;
    s->in_office = true;
    if (!coro_spawn(tend_log, s, "log"))
        die("out of memory");
    feed_run(s->qmgr);
}

/* Not who has come through master: that may be a daemon with no such rights. */
static bool may_edit(const struct service_ctx *ctx, struct io *io) {
    uid_t uid;
    return service_peer_uid(io, &uid) && !service_peer_is_master(io) && (uid == 0 || uid == ctx->mail_uid);
}

/* Dead destinations are forgotten once a request: or each id would have its try. */
static bool try_now(struct qmgr *q, const struct notice *n, bool *inout_revived) {
    bool flush = n->type == NOTICE_FLUSH_ID;
    if (flush && !*inout_revived)
        feed_trigger(q, STR("F"));
    *inout_revived = *inout_revived || flush;
    return !feed_deferred_id(q, &n->id, flush);
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)peer;
    (void)local;
    struct state *s = ctx->state;
    if (service_trigger_session(ctx, io))
        return;
    struct ipc *ipc = service_ipc(io);
    struct ipc_msg m = { .fd = -1 };
    struct notice n;
    bool revived = false;
    while (!ipc_recv(ipc, DEADLINE_NEVER, &m) && notice_unpack(&m, &n)) {
        if (n.type == NOTICE_LOG)
            feed_log(s->qmgr, n.position);
        else if (n.type == NOTICE_NEW)
            feed_notice(s->qmgr, &n.id, SPOOL_INCOMING);
        else if (!try_now(s->qmgr, &n, &revived))
            break;
    }
    if (m.type == EDIT_MSG_OPEN)
        control_session(s->qmgr, ipc, may_edit(ctx, io), s->in_office);
    ipc_msg_drop(&m);
}

static void wakeup(struct service_ctx *ctx, struct str request) {
    feed_trigger(((struct state *)ctx->state)->qmgr, request);
}

static void drain(struct service_ctx *ctx) {
    struct state *s = ctx->state;
    s->in_office = false;
    feed_drain(s->qmgr);
    spool_hand_over(s->spool);
}

int main(int argc, char **argv) {
    static const char *const writable[] = { "log",   "incoming", "active", "deferred", "hold", "corrupt",
                                            "defer", "bounce",   "trace",  "maildrop", NULL };
    static const struct service qmgr = {
        .program = "qmgr",
        .confine = CONFINE_WRITE_FILES | CONFINE_NO_NETWORK,
        .drain_cancels = true,
        .writable = writable,
        .init = init,
        .start = start,
        .session = session,
        .wakeup = wakeup,
        .drain = drain,
    };
    return service_main(argc, argv, &qmgr);
}
