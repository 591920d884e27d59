#include "deliver/agent.h"

#include "base/log.h"
#include "deliver/status_filter.h"
#include "mail/address.h"
#include "mail/date.h"
#include "mail/dsn.h"
#include <errno.h>

enum {
    AGENT_REPLY_TIME = 60, /* seconds qmgr has to take a result off the socket */
    AGENT_THREADS = 128,   /* deliveries at a time that wait for disks, locks and programs to start */
};

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

/* What a status means in this request: probes have words of their own, and soft_bounce turns failures into delays. */
static struct outcome outcome_of(const struct agent_request *r, enum delivery_status status) {
    bool probe = r->req.flags & DELIVERY_VERIFY;
    switch (status) {
    case DELIVERY_SENT:
        return (struct outcome){ DELIVERY_SENT, probe ? "deliverable" : "sent", '2' };
    case DELIVERY_BOUNCED:
        if (probe)
            return (struct outcome){ DELIVERY_BOUNCED, "undeliverable", '5' };
        if (conf_bool(r->ctx->conf, PARAM_soft_bounce))
            return (struct outcome){ DELIVERY_DEFERRED, "SOFTBOUNCE", '4' };
        return (struct outcome){ DELIVERY_BOUNCED, "bounced", '5' };
    case DELIVERY_DEFERRED:
        break;
    }
    return (struct outcome){ DELIVERY_DEFERRED, probe ? "undeliverable" : "deferred", '4' };
}

static struct outcome outcome_by_dsn(const struct agent_request *r, struct str dsn) {
    char class = dsn.n ? dsn.p[0] : '4';
    return outcome_of(r, class == '2' ? DELIVERY_SENT : class == '5' ? DELIVERY_BOUNCED : DELIVERY_DEFERRED);
}

static struct str dsn_or(struct str dsn, struct str otherwise) {
    return dsn.n && dsn_status_length(dsn) == dsn.n ? dsn : otherwise;
}

static struct str dsn_for(const struct agent_request *r, const struct agent_status *s, struct outcome o) {
    return dsn_with_class(r->arena, dsn_or(s->dsn, STR("2.0.0")), o.dsn_class);
}

static void log_outcome(struct agent_request *r, struct str address, struct str orig_to, const struct agent_status *s,
                        struct outcome o) {
    struct arena *a = r->arena;
    int limit = (int)conf_int(r->ctx->conf, PARAM_delay_logging_resolution_limit);
    int64_t now = sys->mono_us();
    int64_t before = r->req.active_us - r->req.env.arrival_us, queued = r->req.sent_us - r->req.active_us;
    if (r->req.active_us == 0)
        before = queued = 0;
    int64_t connect = r->connected_us ? r->connected_us - r->start_us : 0;
    int64_t deliver = now - (r->connected_us ? r->connected_us : r->start_us);
    struct buf line = { 0 };
    struct str to = address_logged(a, address), dsn = dsn_for(r, s, o);
    buf_printf(&line, "%s: to=<%.*s>", r->req.id.text, STR_ARG(to));
    if (orig_to.n && !str_eq_icase(orig_to, address)) {
        struct str orig = address_logged(a, orig_to);
        buf_printf(&line, ", orig_to=<%.*s>", STR_ARG(orig));
    }
    struct str parts[] = {
        delay_format(a, sys->wall_us() - r->req.env.arrival_us, limit),
        delay_format(a, before, limit),
        delay_format(a, queued, limit),
        delay_format(a, connect, limit),
        delay_format(a, deliver, limit),
    };
    buf_printf(&line, ", relay=%.*s", STR_ARG(s->relay));
    if (s->conn_use > 1)
        buf_printf(&line, ", conn_use=%u", s->conn_use);
    buf_printf(&line, ", delay=%.*s, delays=%.*s/%.*s/%.*s/%.*s, dsn=%.*s, status=%s (%.*s)", STR_ARG(parts[0]),
               STR_ARG(parts[1]), STR_ARG(parts[2]), STR_ARG(parts[3]), STR_ARG(parts[4]), STR_ARG(dsn), o.word,
               STR_ARG(s->reason));
    log_record(LOG_LEVEL_INFO, buf_str(&line));
    buf_free(&line);
}

/* Will the reason of a success stand in a report to the sender? */
static bool will_be_told(const struct agent_request *r, size_t index) {
    return (r->req.flags & DELIVERY_TRACE) || (r->req.env.flags & ENVELOPE_WARNED) ||
           (r->req.env.rcpts[index].dsn_notify & DSN_NOTIFY_SUCCESS);
}

static void answer(struct agent_request *r, size_t index, const struct agent_status *s, struct outcome o) {
    r->answered[index] = true;
    struct str reason = s->reason;
    if (o.status == DELIVERY_SENT && s->relay.n && !str_eq(s->relay, STR("none")) && will_be_told(r, index))
        reason = arena_printf(r->arena, "delivery via %.*s: %.*s", STR_ARG(s->relay), STR_ARG(s->reason));
    struct delivery_result result = {
        .rcpt_index = r->req.rcpt_index[index],
        .status = o.status,
        .address = s->address,
        .action = o.status == DELIVERY_SENT ? s->action : STR(""),
        .dsn = dsn_for(r, s, o),
        .passed_on = s->passed_on,
        .reason = reason,
        .diagnostic_type = s->diagnostic_type,
        .diagnostic = s->diagnostic,
        .remote_type = s->remote_type,
        .remote_mta = s->remote_mta,
    };
    delivery_send_result(r->ipc, &result);
}

void agent_flush(struct agent_request *r) {
    int old = coro_shield(1);
    ipc_flush(r->ipc, deadline_in(AGENT_REPLY_TIME)); /* a failure shows up at the next receive */
    coro_shield(old);
}

bool agent_go_on(struct agent_request *r) {
    agent_flush(r);
    char byte;
    struct iovec iov = { &byte, 1 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n = sys->recvmsg(ipc_fd(r->ipc), &msg, MSG_PEEK | MSG_DONTWAIT);
    r->orphaned = n == 0 || (n < 0 && errno == ECONNRESET);
    return !r->orphaned;
}

bool agent_go_on_after_wait(struct agent_request *r) {
    agent_flush(r);
    return ipc_quiet(r->ipc) || agent_go_on(r);
}

static bool open_question(const struct agent_request *r, size_t index) {
    return index < r->req.env.rcpt_count && !r->answered[index];
}

/* The diagnostic stays: it quotes the peer, as RFC 3464, 2.3.6 wants it. */
static void filter(struct agent_request *r, struct agent_status *s) {
    s->dsn = dsn_or(s->dsn, STR("4.0.0"));
    status_filter(r->arena, &s->dsn, &s->reason);
}

static void report(struct agent_request *r, size_t index, const struct agent_status *status, struct str dsn) {
    if (!open_question(r, index))
        return;
    const struct rcpt *rcpt = &r->req.env.rcpts[index];
    struct agent_status s = *status;
    s.dsn = dsn;
    filter(r, &s);
    struct outcome o = outcome_by_dsn(r, s.dsn);
    log_outcome(r, rcpt->address, rcpt->orig, &s, o);
    answer(r, index, &s, o);
}

void agent_status_text(struct str text, struct str class_0, struct agent_status *s) {
    dsn_split(text, class_0, &s->dsn, &s->reason);
    if (s->dsn.p[0] == class_0.p[0])
        return;
    log_warn("ignoring dsn code \"%.*s\" of \"%.*s\": this service needs one such as %.*s", STR_ARG(s->dsn),
             STR_ARG(text), STR_ARG(class_0));
    s->dsn = class_0;
}

void agent_sent(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    report(r, rcpt, s, dsn_with_class(r->arena, dsn_or(s->dsn, STR("2.0.0")), '2'));
}

void agent_deferred(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    report(r, rcpt, s, dsn_with_class(r->arena, dsn_or(s->dsn, STR("4.0.0")), '4'));
}

void agent_bounced(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    report(r, rcpt, s, dsn_with_class(r->arena, dsn_or(s->dsn, STR("5.0.0")), '5'));
}

void agent_finish(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    report(r, rcpt, s, s->dsn);
}

void agent_log(struct agent_request *r, size_t rcpt, struct str address, struct agent_status *s) {
    const struct rcpt *of = &r->req.env.rcpts[rcpt];
    struct str orig = of->orig.n ? of->orig : of->address;
    filter(r, s);
    log_outcome(r, address, orig, s, outcome_by_dsn(r, s->dsn));
}

void agent_answer(struct agent_request *r, size_t rcpt, const struct agent_status *s) {
    if (open_question(r, rcpt))
        answer(r, rcpt, s, outcome_by_dsn(r, s->dsn));
}

/* --- sessions --- */
static bool serve_one(struct service_ctx *ctx, struct ipc *ipc, struct ipc_msg *m, struct arena *a,
                      void (*deliver)(struct agent_request *r)) {
    struct agent_request r = { .ctx = ctx, .arena = a, .ipc = ipc, .start_us = sys->mono_us() };
    r.req.content.fd = -1;
    if (m->type != DELIVERY_MSG_REQUEST || !delivery_unpack_request(m, a, &r.req)) {
        log_warn("malformed delivery request");
        return false;
    }
    r.answered = arena_array(a, r.req.env.rcpt_count, sizeof(*r.answered));
    deliver(&r);
    const struct agent_status forgotten = { .relay = STR("none"),
                                            .dsn = STR("4.3.0"),
                                            .reason = STR("the delivery agent gave no result") };
    content_release(&r.req.content);
    if (r.orphaned) {
        log_info("%s: the queue manager has gone: delivery given up", r.req.id.text);
        return false;
    }
    for (size_t i = 0; i < r.req.env.rcpt_count; i++)
        if (!r.answered[i])
            agent_deferred(&r, i, &forgotten);
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
    ipc_msg_drop(&m); /* a malformed request may have come with one */
    arena_free(a);
}

static void agent_session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer,
                          const struct endpoint *local) {
    (void)peer;
    (void)local;
    agent_serve(ctx, service_ipc(io), the_agent.deliver);
}

static error agent_init(struct service_ctx *ctx, struct arena *err_arena) {
    status_filter_open(ctx);
    offload_set_threads(AGENT_THREADS);
    return the_agent.service.init ? the_agent.service.init(ctx, err_arena) : NULL;
}

int agent_main(int argc, char **argv, const struct agent *a) {
    the_agent = *a;
    struct service s = a->service;
    s.session = agent_session;
    s.drain = agent_drain;
    s.init = agent_init;
    return service_main(argc, argv, &s);
}
