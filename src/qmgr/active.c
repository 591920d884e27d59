/* One message while it is active: taken up, its content open while needed, let go of. */
#include "qmgr/qmgr.h"

#include "base/log.h"
#include "mail/address.h"
#include <errno.h>
#include <stdlib.h>

enum { CONTENTS_KEPT = 256 /* contents kept open between deliveries */ };

/* --- taking up and letting go --- */

static void log_active(const struct message *m) {
    struct arena *a = arena_new();
    log_info("%s: from=<%.*s>, size=%llu, nrcpt=%zu (queue active)", m->id.text,
             STR_ARG(address_logged(a, m->env.sender)), (unsigned long long)m->content.size, m->todo);
    arena_free(a);
}

static enum taken load_failed(struct qmgr *q, const struct queue_id *id, enum spool_state from, error e) {
    struct str queue = spool_state_name(from);
    if (e->kind == ERR_SYNTAX) {
        log_warn("saving corrupt file \"%s\" from queue \"%.*s\" to queue \"corrupt\"", id->text, STR_ARG(queue));
        error moved = spool_move(q->spool, id, from, SPOOL_CORRUPT);
        if (moved)
            log_warn("%s: move to corrupt: %.*s", id->text, STR_ARG(moved->text));
        return NOT_TAKEN;
    }
    if (e->sys == ENOENT || e->sys == EAGAIN)
        return NOT_TAKEN;
    log_warn("%s: open file in queue %.*s: %.*s", id->text, STR_ARG(queue), STR_ARG(e->text));
    return BUSY_ELSEWHERE; /* out of descriptors, for one: to be tried again */
}

/* New mail has no logs; what lies there under its name is of an earlier message (queue/spool.c: removing). */
static void clear_logs(struct message *m, enum spool_state from, bool fresh) {
    if (fresh)
        return;
    struct spool *s = m->q->spool;
    error e = spool_reasons_clear(s, &m->id, SPOOL_ACTIVE);
    if (!e && from == SPOOL_INCOMING)
        e = spool_log_clear(s, &m->id, SPOOL_LOG_BOUNCE);
    if (!e && from == SPOOL_INCOMING)
        e = spool_log_clear(s, &m->id, SPOOL_LOG_TRACE);
    if (e) {
        log_warn("%s: remove log: %.*s", m->id.text, STR_ARG(e->text));
        m->deferred_lost = true; /* what is in there is not of this attempt alone */
    }
    m->bounced = m->traced = from != SPOOL_INCOMING;
}

/* sendmail -v: of the first attempt; sendmail -bv: of the only one. */
static bool wants_report(const struct message *m, enum spool_state from) {
    if (m->env.flags & ENVELOPE_VERIFY)
        return !(m->env.flags & ENVELOPE_INTERNAL);
    return (m->env.flags & ENVELOPE_TRACE) && from != SPOOL_DEFERRED;
}

static enum taken take_up(struct qmgr *q, const struct queue_id *id, enum spool_state from, bool flush, bool fresh) {
    if (map_get(&q->active, queue_id_str(id)))
        return NOT_TAKEN;
    struct arena *a = arena_new();
    struct message *m = ARENA_NEW(a, struct message);
    *m = (struct message){ .q = q, .arena = a, .id = *id, .flush = flush, .content = { .fd = -1 } };
    error e = spool_load_front(q->spool, id, from, a, &m->env, &m->content, &m->rest);
    enum taken no = NOT_TAKEN;
    if (e && e->sys == EWOULDBLOCK) { /* in incoming: by cleanup, which is not done with it */
        if (from != SPOOL_INCOMING)
            log_info("%s: skipped, still being delivered", id->text);
        no = from == SPOOL_INCOMING ? NOT_TAKEN : BUSY_ELSEWHERE;
    } else if (e) {
        no = load_failed(q, id, from, e);
    } else if (from != SPOOL_ACTIVE && (e = spool_move(q->spool, id, from, SPOOL_ACTIVE))) {
        log_warn("%s: move to active: %.*s", id->text, STR_ARG(e->text));
        spool_content_close(&m->content);
        no = e->sys == ENOENT ? NOT_TAKEN : BUSY_ELSEWHERE;
    }
    if (e) {
        arena_free(a);
        return no;
    }
    m->active_us = sys->wall_us();
    m->tracing = wants_report(m, from);
    rcpts_begin(m);
    scheduler_arrive(q->scheduler, &m->arrival, sys->mono_us());
    scheduler_unread(&m->arrival, m->todo);
    map_put(&q->active, queue_id_str(&m->id), m);
    q->contents++;
    m->content_users = 1; /* this function's, until the recipients have been assigned */
    if ((m->env.flags & ENVELOPE_EXPIRED) && from != SPOOL_INCOMING) /* its notice says what is in the log */
        m->bounced = true;
    else
        clear_logs(m, from, fresh);
    log_active(m);
    group_enter(q->work);
    rcpts_assign(m);
    return TAKEN;
}

enum taken message_take_up(struct qmgr *q, const struct queue_id *id, enum spool_state from, bool flush) {
    return take_up(q, id, from, flush, false);
}

enum taken message_from_log(struct qmgr *q, const struct spool_entry *e) {
    return take_up(q, &e->id, e->state, false, e->fresh);
}

static void end_run(void *arg) {
    struct message *m = arg;
    struct qmgr *q = m->q;
    if (m->content_users)
        message_content_done(m);
    message_end(m);
    rcpts_refill(q, NULL);
    feed_more(q);
    group_leave(q->work);
}

void message_release(struct message *m) {
    struct qmgr *q = m->q;
    if (--m->pending > 0) {
        rcpts_refill(q, m);
        return;
    }
    if (m->rest.todo && !message_stopped(m)) { /* all that is in memory has been tried */
        rcpts_assign(m);
        return;
    }
    if (!coro_spawn(end_run, m, "end"))
        end_run(m);
}

bool message_content(struct message *m) {
    if (!spool_content_is_open(&m->content)) {
        error e = spool_content_open(m->q->spool, &m->id, SPOOL_ACTIVE, &m->content);
        if (e) {
            log_warn("%s: open content: %.*s", m->id.text, STR_ARG(e->text));
            m->content = (struct spool_content){ .fd = -1 };
            return false;
        }
        m->q->contents++;
    }
    m->content_users++;
    return true;
}

static void content_close(struct message *m) {
    if (spool_content_is_open(&m->content))
        m->q->contents--;
    spool_content_close(&m->content);
}

void message_content_done(struct message *m) {
    if (--m->content_users == 0 && m->q->contents > CONTENTS_KEPT)
        content_close(m);
}

void message_forget(struct message *m) {
    content_close(m);
    map_remove(&m->q->active, queue_id_str(&m->id));
    scheduler_depart(&m->arrival);
    rcpts_end(m);
    buf_free(&m->reasons);
    arena_free(m->arena);
}
