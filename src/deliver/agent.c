#include "deliver/agent.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include <errno.h>

enum { AGENT_REPLY_TIME = 60 /* seconds qmgr has to take a result off the socket */ };

/* A process runs one agent, and service_ctx.state belongs to that agent's program. */
static struct agent the_agent;

/* The sessions that wait for a request: when the process drains they have nothing to finish. */
struct idle {
    struct coro *coro;
    struct idle *next, **self;
};
static struct idle *idle_first;

static error next_request(struct service_ctx *ctx, struct ipc *ipc, struct ipc_msg *ret) {
    if (ctx->draining && !ipc_pending(ipc))
        return &err_eof;
    struct idle me = { .coro = coro_self(), .next = idle_first, .self = &idle_first };
    if (idle_first)
        idle_first->self = &me.next;
    idle_first = &me;
    error e = ipc_recv(ipc, DEADLINE_NEVER, ret);
    *me.self = me.next;
    if (me.next)
        me.next->self = me.self;
    return e;
}

static void agent_drain(struct service_ctx *ctx) {
    for (struct idle *i = idle_first; i; i = i->next)
        coro_cancel(i->coro);
    if (the_agent.service.drain)
        the_agent.service.drain(ctx);
}

/* --- results --- */
struct outcome {
    enum delivery_status status;
    const char *word;
    char dsn_class;
};

static void log_outcome(struct agent_request *r, const struct rcpt *rcpt, const struct agent_status *s, struct str dsn,
                        const char *word) {
    struct arena *a = r->arena;
    int limit = (int)conf_int(r->ctx->conf, PARAM_delay_logging_resolution_limit);
    int64_t now = sys->mono_us();
    int64_t before = r->req.active_us - r->req.env.arrival_us, queued = r->req.sent_us - r->req.active_us;
    if (r->req.active_us == 0)
        before = queued = 0;
    int64_t connect = r->connected_us ? r->connected_us - r->start_us : 0;
    int64_t deliver = now - (r->connected_us ? r->connected_us : r->start_us);
    struct buf line = { 0 };
    struct str to = address_quote(a, rcpt->address);
    buf_printf(&line, "%s: to=<%.*s>", r->req.id.text, STR_ARG(to));
    if (rcpt->orig.n && !str_eq_icase(rcpt->orig, rcpt->address)) {
        struct str orig = address_quote(a, rcpt->orig);
        buf_printf(&line, ", orig_to=<%.*s>", STR_ARG(orig));
    }
    struct str parts[] = {
        delay_format(a, sys->wall_us() - r->req.env.arrival_us, limit),
        delay_format(a, before, limit),
        delay_format(a, queued, limit),
        delay_format(a, connect, limit),
        delay_format(a, deliver, limit),
    };
    buf_printf(&line, ", relay=%.*s, delay=%.*s, delays=%.*s/%.*s/%.*s/%.*s, dsn=%.*s, status=%s (%.*s)",
               STR_ARG(s->relay), STR_ARG(parts[0]), STR_ARG(parts[1]), STR_ARG(parts[2]), STR_ARG(parts[3]),
               STR_ARG(parts[4]), STR_ARG(dsn), word, STR_ARG(s->reason));
    log_record(LOG_LEVEL_INFO, buf_str(&line));
    buf_free(&line);
}

static void report(struct agent_request *r, size_t index, const struct agent_status *s, struct outcome o) {
    if (index >= r->req.env.rcpt_count || r->answered[index])
        return;
    r->answered[index] = true;
    struct str dsn = s->dsn;
    if (dsn.n == 0 || dsn_status_length(dsn) != dsn.n)
        dsn = STR("2.0.0"); /* the class is put right below */
    dsn = dsn_with_class(r->arena, dsn, o.dsn_class);
    log_outcome(r, &r->req.env.rcpts[index], s, dsn, o.word);
    struct delivery_result result = {
        .rcpt_index = r->req.rcpt_index[index],
        .status = o.status,
        .dsn = dsn,
        .reason = s->reason,
        .diagnostic_type = s->diagnostic_type,
        .diagnostic = s->diagnostic,
        .remote_type = s->remote_type,
        .remote_mta = s->remote_mta,
    };
    delivery_send_result(r->ipc, &result);
    /* Each result goes out at once: a later crash of this process must not deliver a recipient twice. */
    int old = coro_shield(1);
    ipc_flush(r->ipc, deadline_in(AGENT_REPLY_TIME)); /* a failure shows up at the next receive */
    coro_shield(old);
}

void agent_sent(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    bool probe = r->req.flags & DELIVERY_VERIFY;
    report(r, rcpt, s, (struct outcome){ DELIVERY_SENT, probe ? "deliverable" : "sent", '2' });
}

void agent_deferred(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    bool probe = r->req.flags & DELIVERY_VERIFY;
    report(r, rcpt, s, (struct outcome){ DELIVERY_DEFERRED, probe ? "undeliverable" : "deferred", '4' });
}

void agent_bounced(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    if (r->req.flags & DELIVERY_VERIFY)
        report(r, rcpt, s, (struct outcome){ DELIVERY_BOUNCED, "undeliverable", '5' });
    else if (conf_bool(r->ctx->conf, PARAM_soft_bounce))
        report(r, rcpt, s, (struct outcome){ DELIVERY_DEFERRED, "SOFTBOUNCE", '4' });
    else
        report(r, rcpt, s, (struct outcome){ DELIVERY_BOUNCED, "bounced", '5' });
}

void agent_finish(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    char class = s->dsn.n ? s->dsn.p[0] : '4';
    if (class == '2')
        agent_sent(r, rcpt, s);
    else if (class == '5')
        agent_bounced(r, rcpt, s);
    else
        agent_deferred(r, rcpt, s);
}

ssize_t agent_content_read(const struct agent_request *r, uint64_t at, void *p, size_t n) {
    if (at >= r->req.content_size)
        return 0;
    uint64_t left = r->req.content_size - at;
    if (n > left)
        n = (size_t)left;
    for (;;) {
        ssize_t got = sys->pread(r->req.content_fd, p, n, (off_t)(r->req.content_offset + at));
        if (got > 0)
            return got;
        if (got == 0) { /* shorter than qmgr said */
            errno = EIO;
            return -1;
        }
        if (errno != EINTR)
            return -1;
    }
}

/* --- sessions --- */
static bool serve_one(struct service_ctx *ctx, struct ipc *ipc, struct ipc_msg *m, struct arena *a,
                      void (*deliver)(struct agent_request *r)) {
    struct agent_request r = { .ctx = ctx, .arena = a, .ipc = ipc, .start_us = sys->mono_us() };
    r.req.content_fd = -1;
    if (m->type != DELIVERY_MSG_REQUEST || !delivery_unpack_request(m, a, &r.req)) {
        log_warn("malformed delivery request");
        return false;
    }
    r.answered = arena_array(a, r.req.env.rcpt_count, sizeof(*r.answered));
    deliver(&r);
    const struct agent_status forgotten = { .relay = STR("none"),
                                            .dsn = STR("4.3.0"),
                                            .reason = STR("the delivery agent gave no result") };
    for (size_t i = 0; i < r.req.env.rcpt_count; i++)
        if (!r.answered[i])
            agent_deferred(&r, i, &forgotten);
    if (r.req.content_fd >= 0)
        sys->close(r.req.content_fd);
    delivery_send_done(ipc, &r.done);
    int old = coro_shield(1);
    error e = ipc_flush(ipc, deadline_in(AGENT_REPLY_TIME));
    coro_shield(old);
    return e == NULL;
}

void agent_serve(struct service_ctx *ctx, struct ipc *ipc, void (*deliver)(struct agent_request *r)) {
    struct arena *a = arena_new();
    struct ipc_msg m = { .fd = -1 };
    error e = NULL;
    while (!(e = next_request(ctx, ipc, &m)) && serve_one(ctx, ipc, &m, a, deliver))
        arena_reset(a);
    if (e && e->kind == ERR_SYNTAX)
        log_warn("malformed message from the queue manager: %.*s", STR_ARG(e->text));
    arena_free(a);
}

static void agent_session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer,
                          const struct endpoint *local) {
    (void)peer;
    (void)local;
    agent_serve(ctx, service_ipc(io), the_agent.deliver);
}

int agent_main(int argc, char **argv, const struct agent *a) {
    the_agent = *a;
    struct service s = a->service;
    s.session = agent_session;
    s.drain = agent_drain;
    return service_main(argc, argv, &s);
}
