/* One delivery: an entry of the scheduler, given to an agent, and the agent's answers. */
#include "qmgr/qmgr.h"

#include "base/log.h"
#include <errno.h>
#include <stdlib.h>

enum { DRAIN_US = 200 * 1000 /* an agent that closes so soon has not begun */ };

#define UNAVAILABLE STR("mail transport unavailable")
#define LOST STR("unknown mail transport error")
#define TRANSPORT_DSN STR("4.3.0")

static void send_request(struct ipc *ipc, const struct entry *e, struct arena *a) {
    const struct message *m = e->message;
    struct delivery_request r = {
        .id = m->id,
        .transport = e->destination->transport->name,
        .nexthop = e->nexthop,
        .env = m->env,
        .active_us = m->active_us,
        .sent_us = sys->wall_us(),
        .content = m->content,
    };
    struct rcpt *rcpts = arena_array(a, e->rcpt_count, sizeof *rcpts);
    uint32_t *index = arena_array(a, e->rcpt_count, sizeof *index);
    size_t n = 0;
    for (size_t i = 0; i < e->rcpt_count; i++) {
        if (*message_outcome(m, e->rcpts[i]) != OUTCOME_NONE)
            continue; /* answered before a lost connection was tried again */
        rcpts[n] = *message_rcpt(m, e->rcpts[i]);
        index[n++] = e->rcpts[i];
    }
    if (m->env.verp_delimiters[0] && n == 1)
        r.env.sender =
            verp_sender(a, m->env.verp_delimiters, m->env.sender, rcpts->orig.n ? rcpts->orig : rcpts->address);
    r.env.rcpts = rcpts;
    r.env.rcpt_count = n;
    r.rcpt_index = index;
    if (m->env.flags & ENVELOPE_VERIFY)
        r.flags |= DELIVERY_VERIFY;
    if (m->tracing)
        r.flags |= DELIVERY_TRACE;
    if (m->env.sender.n == 0)
        r.flags |= DELIVERY_BOUNCE;
    if (e->destination->waiting > 0 || e->destination->busy > 1)
        r.flags |= DELIVERY_MORE;
    delivery_send_request(ipc, &r);
}

static bool is_mine(const struct entry *e, uint32_t index) {
    for (size_t i = 0; i < e->rcpt_count; i++)
        if (e->rcpts[i] == index)
            return true;
    return false;
}

/* Everything the agent says until DONE. NULL: it has said DONE. */
static error read_answers(struct ipc *ipc, struct entry *e, struct arena *a, struct delivery_done *ret, bool *ret_any) {
    int64_t deadline = deadline_in(conf_time(e->message->q->conf, PARAM_daemon_timeout));
    struct ipc_msg m = { .fd = -1 };
    for (;;) {
        error err = ipc_recv(ipc, deadline, &m);
        if (err)
            return err;
        *ret_any = true;
        struct delivery_result r;
        struct delivery_done done;
        if (delivery_unpack_result(&m, &r) && is_mine(e, r.rcpt_index)) {
            struct result res = { .status = r.status,
                                  .address = r.address,
                                  .dsn = r.dsn,
                                  .action = r.action,
                                  .passed_on = r.passed_on,
                                  .reason = r.reason,
                                  .diagnostic_type = r.diagnostic_type,
                                  .diagnostic = r.diagnostic,
                                  .remote_type = r.remote_type,
                                  .remote_mta = r.remote_mta };
            rcpt_result(e->message, r.rcpt_index, &res);
        } else if (delivery_unpack_done(&m, &done)) {
            ipc_msg_drop(&m);
            *ret = (struct delivery_done){ done.destination_dead, arena_str(a, done.reason), arena_str(a, done.dsn) };
            return NULL;
        } else {
            ipc_msg_drop(&m);
            return err_errno(EPROTO);
        }
    }
}

struct attempted {
    enum attempt outcome;
    struct str dsn, reason;
};

static struct attempted attempt(struct entry *e, struct arena *a) {
    struct message *m = e->message;
    struct qmgr *q = m->q;
    struct transport *t = e->destination->transport;
    for (bool again = false;; again = true) {
        struct ipc *ipc;
        struct delivery_done done = { 0 };
        bool used = false, any = false;
        error err = transport_connect(q, t, &ipc, &used);
        if (err) {
            log_warn("connect to transport private/%.*s: %.*s", STR_ARG(t->name), STR_ARG(err->text));
            return (struct attempted){ ATTEMPT_NO_TRANSPORT, TRANSPORT_DSN, UNAVAILABLE };
        }
        int64_t asked = sys->mono_us();
        send_request(ipc, e, a);
        err = ipc_flush(ipc, deadline_in(conf_time(q->conf, PARAM_qmgr_ipc_timeout)));
        if (!err)
            err = read_answers(ipc, e, a, &done, &any);
        if (!err) {
            transport_keep(q, t, ipc);
            if (done.destination_dead)
                return (struct attempted){ ATTEMPT_UNREACHABLE, done.dsn, done.reason };
            return (struct attempted){ ATTEMPT_DONE, STR(""), STR("") };
        }
        ipc_close(ipc);
        /* An agent may close an idle connection at any time, and one that drains as it is asked closes a new one: the
         * request has not been seen. (An agent that dies while it delivers costs one more try.) */
        bool at_once = err->kind == ERR_EOF && sys->mono_us() - asked < DRAIN_US;
        if (!any && (used || (at_once && !again)))
            continue;
        log_warn("private/%.*s socket: %.*s while delivering %s", STR_ARG(t->name), STR_ARG(err->text), m->id.text);
        return (struct attempted){ ATTEMPT_LOST, TRANSPORT_DSN, LOST };
    }
}

static void deliver_run(void *arg) {
    struct entry *e = arg;
    struct message *m = e->message;
    struct qmgr *q = m->q;
    struct arena *a = arena_new();
    struct attempted did;
    bool content = message_content(m);
    if (content)
        did = attempt(e, a);
    else
        did = (struct attempted){ ATTEMPT_ABANDONED, TRANSPORT_DSN, STR("queue file is not readable") };
    if (content)
        message_content_done(m);
    if (did.outcome == ATTEMPT_DONE) {
        did.dsn = TRANSPORT_DSN;
        did.reason = LOST; /* for recipients the agent has forgotten */
    }
    int64_t now = sys->mono_us();
    struct entry *stopped = scheduler_done(e, did.outcome, did.dsn, did.reason, now);
    struct str dsn = STR(""), reason = STR("");
    /* one reason for all of them; asked for before a wait, after which the destination may be gone or alive again */
    if (stopped && destination_dead(stopped->destination, now, &dsn, &reason)) {
        dsn = arena_str(a, dsn);
        reason = arena_str(a, reason);
    }
    entry_defer(e, did.dsn, did.reason);
    entries_defer(stopped, dsn, reason);
    arena_free(a);
    deliver_start(q);
    group_leave(q->work);
}

void deliver_start(struct qmgr *q) {
    struct entry *e;
    while (!q->draining && (e = scheduler_next(q->scheduler, sys->mono_us()))) {
        group_enter(q->work);
        if (!coro_spawn(deliver_run, e, "deliver")) {
            /* no memory for another: the running ones will come back here */
            group_leave(q->work);
            scheduler_done(e, ATTEMPT_ABANDONED, STR(""), STR(""), sys->mono_us());
            log_warn("delivery of %s: out of memory", e->message->id.text);
            entry_defer(e, TRANSPORT_DSN, STR("out of memory"));
            return;
        }
    }
    feed_pace(q);
}
