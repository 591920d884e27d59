/* Which messages are taken up, from where, and when: qmgr(8)'s leaky bucket and fairness. */
#include "qmgr/qmgr.h"

#include "base/die.h"
#include "base/log.h"
#include <stdlib.h>

enum {
    RESCAN_S = 10, /* something is busy elsewhere, or cannot be opened: look again */
    SWEEP_S = 60,
    REFILL_S = 1,   /* messages that wait for room for their recipients are looked at */
    LOG_TURN = 16,  /* messages of the log for one of each other kind */
    CLOG_SHARE = 5, /* a destination with more than this part of the active queue is warned of */
    /* The slow start: who comes to a server just started is served before the backlog has all of the machine. The first
     * messages that were there already are this far apart, each pause is a little shorter than the one before, and
     * after some 1.2 seconds and 500 messages there is none. */
    OLD_PAUSE_US = 10000,
    OLD_PAUSE_MIN_US = 200,
    OLD_PAUSE_SHRINK = 128,
    OLD_PASSED = 64, /* messages looked at, not due, that count as one taken up */
};

static void params_of(void *ctx, struct str name, struct transport_params *ret) {
    transport_params_from(ctx, name, ret);
}

struct qmgr *qmgr_new(const struct conf *c, struct spool *spool, const struct qmgr_outside *outside,
                      struct group *work) {
    struct qmgr *q = calloc(1, sizeof *q);
    if (!q)
        die_no_memory(sizeof *q);
    q->wants = calloc(FEED_NOTICES_MAX, sizeof *q->wants);
    if (!q->wants)
        die_no_memory(FEED_NOTICES_MAX * sizeof *q->wants);
    q->conf = c;
    q->spool = spool;
    q->outside = *outside;
    q->work = work;
    q->fast_flush = fast_flush_new(q);
    int64_t least = US_PER_S * conf_time(c, PARAM_minimal_backoff_time);
    int64_t most = US_PER_S * conf_time(c, PARAM_maximal_backoff_time);
    struct scheduler_options o = {
        .destination_retry_us = least,
        .destination_retry_max_us = most > least ? most : least,
        .transport_retry_us = US_PER_S * conf_time(c, PARAM_transport_retry_time),
        .destinations_max = (size_t)conf_int(c, PARAM_qmgr_message_recipient_limit),
        .clog_warn_us = US_PER_S * conf_time(c, PARAM_qmgr_clog_warn_time),
        .params_of = params_of,
        .ctx = q,
    };
    if (conf_bool(c, PARAM_helpful_warnings) && o.clog_warn_us)
        o.clog_entries = (size_t)conf_int(c, PARAM_qmgr_message_active_limit) / CLOG_SHARE;
    q->scheduler = scheduler_new(&o);
    q->active_left.scan.files_only = q->incoming.scan.files_only = true;
    q->active_left.wanted = q->incoming.wanted = q->deferred.wanted = true;
    q->next_incoming_scan = INT64_MAX;
    q->old_pause = OLD_PAUSE_US;
    return q;
}

void qmgr_free(struct qmgr *q) {
    if (!q)
        return;
    spool_scan_end(q->spool, &q->active_left.scan);
    spool_scan_end(q->spool, &q->incoming.scan);
    spool_scan_end(q->spool, &q->deferred.scan);
    struct transport *t;
    for (size_t at = 0; (t = scheduler_each(q->scheduler, &at));)
        transport_close_idle(t, 0);
    scheduler_free(q->scheduler);
    fast_flush_free(q->fast_flush);
    map_free(&q->active);
    free(q->wants);
    free(q);
}

void feed_more(struct qmgr *q) {
    cond_signal(&q->feed_wake);
}

void feed_pace(struct qmgr *q) {
    if (scheduler_wake(q->scheduler) < q->feed_until)
        feed_more(q);
}

void feed_drain(struct qmgr *q) {
    q->draining = true;
    struct transport *t;
    for (size_t at = 0; (t = scheduler_each(q->scheduler, &at));)
        transport_close_idle(t, 0);
    struct entry *e = scheduler_take_all(q->scheduler);
    while (e) {
        struct entry *next = e->next;
        entry_abandon(e);
        e = next;
    }
    feed_more(q);
}

static void want(struct qmgr *q, const struct feed_want *w) {
    q->wants[(q->want_first + q->want_count++) % FEED_NOTICES_MAX] = *w;
    feed_more(q);
}

void feed_notice(struct qmgr *q, const struct queue_id *id, enum spool_state state) {
    if (q->want_count == FEED_NOTICES_MAX) {
        if (state == SPOOL_INCOMING)
            q->incoming.wanted = true;
        return;
    }
    want(q, &(struct feed_want){ *id, state, false });
}

error feed_deferred_id(struct qmgr *q, const struct queue_id *id, bool flush) {
    error e = NULL;
    while (!e && q->want_count >= FEED_NOTICES_MAX / 2) /* the other half is for new mail */
        e = cond_wait(&q->want_room, DEADLINE_NEVER);
    if (!e)
        want(q, &(struct feed_want){ *id, SPOOL_DEFERRED, flush });
    return e;
}

void feed_trigger(struct qmgr *q, struct str bytes) {
    for (size_t i = 0; i < bytes.n; i++) {
        switch (bytes.p[i]) {
        case 'F':
            scheduler_revive(q->scheduler);
            break;
        case 'A':
            q->ignore_times_next = true;
            break;
        default:
            break;
        }
    }
    for (size_t i = 0; i < bytes.n; i++) {
        switch (bytes.p[i]) {
        case 'W':
        case 'I':
            q->incoming.wanted = q->look_at_log = true;
            break;
        case 'D':
            q->deferred.wanted = true;
            break;
        default:
            break;
        }
    }
    feed_more(q);
}

static bool room(const struct qmgr *q) {
    int64_t messages = conf_int(q->conf, PARAM_qmgr_message_active_limit);
    /* As much memory as SCHEDULER_README allows. A large message takes no more than qmgr_message_recipient_limit of it,
     * so that small ones are taken up beside it. */
    int64_t rcpts = conf_int(q->conf, PARAM_qmgr_message_recipient_limit) +
                    messages * conf_int(q->conf, PARAM_qmgr_message_recipient_minimum);
    return q->active.n < (size_t)messages && q->rcpts < (size_t)rcpts && q->assigning < ASSIGNING_MAX;
}

/* The next message of a running scan; starts one when wanted. */
static bool source_next(struct qmgr *q, struct feed_source *src, enum spool_state state, struct spool_entry *ret) {
    if (!src->running) {
        if (!src->wanted)
            return false;
        src->wanted = false; /* asked for again meanwhile: another one after this */
        src->running = true;
        if (state == SPOOL_DEFERRED) {
            q->ignore_times = q->ignore_times_next;
            q->ignore_times_next = false;
        }
    }
    if (spool_scan_next(q->spool, &src->scan, state, ret))
        return true;
    src->running = false;
    return false;
}

static bool is_starting(const struct qmgr *q) {
    return q->old_pause && !q->ignore_times && !q->ignore_times_next; /* a flush is in a hurry */
}

static bool old_may(const struct qmgr *q) {
    return !is_starting(q) || sys->mono_us() >= q->next_old;
}

static void old_taken(struct qmgr *q) {
    q->next_old = sys->mono_us() + q->old_pause;
    q->old_pause -= q->old_pause / OLD_PAUSE_SHRINK;
    if (q->old_pause < OLD_PAUSE_MIN_US)
        q->old_pause = 0;
    q->old_passed = 0;
}

static bool feed_left(struct qmgr *q) {
    struct spool_entry e;
    if (!old_may(q) || !source_next(q, &q->active_left, SPOOL_ACTIVE, &e))
        return false;
    if (map_get(&q->active, queue_id_str(&e.id)))
        return true;
    if (message_take_up(q, &e.id, SPOOL_ACTIVE, false) == BUSY_ELSEWHERE)
        q->next_active_scan = deadline_in(RESCAN_S);
    old_taken(q);
    return true;
}

void feed_log(struct qmgr *q, struct spool_position position) {
    spool_log_committed(q->spool, position);
    feed_more(q);
}

static bool feed_from_log(struct qmgr *q) {
    struct spool_entry e;
    if (!spool_log_next(q->spool, &e))
        return false;
    message_from_log(q, &e);
    return true;
}

/* One that cannot be opened now (out of descriptors, for one) is found again by a scan, and soon. */
static void take_incoming(struct qmgr *q, const struct queue_id *id) {
    if (message_take_up(q, id, SPOOL_INCOMING, false) == BUSY_ELSEWHERE)
        q->next_incoming_scan = deadline_in(RESCAN_S);
}

static bool feed_incoming(struct qmgr *q) {
    if (q->want_count) {
        struct feed_want w = q->wants[q->want_first];
        q->want_first = (q->want_first + 1) % FEED_NOTICES_MAX;
        q->want_count--;
        cond_signal(&q->want_room);
        if (w.state == SPOOL_INCOMING)
            take_incoming(q, &w.id);
        else
            message_take_up(q, &w.id, w.state, w.flush);
        return true;
    }
    struct spool_entry e;
    if (!source_next(q, &q->incoming, SPOOL_INCOMING, &e))
        return false;
    take_incoming(q, &e.id);
    return true;
}

/* A time further ahead than any that is set was set by another clock, before it was put right. */
static bool is_due(const struct qmgr *q, int64_t next_try_us) {
    int64_t now = sys->wall_us(), most = US_PER_S * conf_time(q->conf, PARAM_maximal_backoff_time);
    int64_t least = US_PER_S * conf_time(q->conf, PARAM_minimal_backoff_time);
    return next_try_us <= now || next_try_us > now + (most > least ? most : least);
}

static bool feed_deferred(struct qmgr *q) {
    struct spool_entry e;
    if (!old_may(q) || !source_next(q, &q->deferred, SPOOL_DEFERRED, &e))
        return false;
    bool due = q->ignore_times || is_due(q, e.next_try_us);
    if (due)
        message_take_up(q, &e.id, SPOOL_DEFERRED, q->ignore_times);
    if (due || ++q->old_passed == OLD_PASSED)
        old_taken(q);
    return true;
}

static void timers(struct qmgr *q) {
    int64_t now = sys->mono_us();
    if (now >= q->next_deferred_scan) {
        q->deferred.wanted = true;
        q->next_deferred_scan = now + US_PER_S * conf_time(q->conf, PARAM_queue_run_delay);
    }
    if (now >= q->next_incoming_scan) {
        q->incoming.wanted = true;
        q->next_incoming_scan = INT64_MAX;
    }
    if (now >= q->next_active_scan) {
        q->active_left.wanted = true;
        q->next_active_scan = now + US_PER_S * conf_time(q->conf, PARAM_queue_run_delay);
    }
    if (now >= q->next_sweep) {
        struct transport *t;
        for (size_t at = 0; (t = scheduler_each(q->scheduler, &at));)
            transport_close_idle(t, US_PER_S * conf_time(q->conf, PARAM_max_idle));
        scheduler_sweep(q->scheduler, now);
        q->next_sweep = now + US_PER_S * SWEEP_S;
    }
    if (q->hungry && now >= q->next_refill) {
        rcpts_refill_all(q);
        q->next_refill = now + US_PER_S * REFILL_S;
    }
    if (now >= scheduler_wake(q->scheduler))
        deliver_start(q);
}

static int64_t next_timer(const struct qmgr *q) {
    int64_t at = q->next_deferred_scan < q->next_active_scan ? q->next_deferred_scan : q->next_active_scan;
    at = at < q->next_sweep ? at : q->next_sweep;
    at = at < q->next_incoming_scan ? at : q->next_incoming_scan;
    if (q->hungry && q->next_refill < at)
        at = q->next_refill;
    bool old = q->active_left.running || q->active_left.wanted || q->deferred.running || q->deferred.wanted;
    if (old && is_starting(q) && room(q) && q->next_old < at)
        at = q->next_old;
    return at < scheduler_wake(q->scheduler) ? at : scheduler_wake(q->scheduler);
}

/* A scan that was asked for while another one ran. */
static bool scan_can_begin(const struct qmgr *q) {
    return room(q) && (q->incoming.wanted || (old_may(q) && (q->active_left.wanted || q->deferred.wanted)));
}

void feed_run(struct qmgr *q) {
    while (!q->draining) {
        timers(q);
        if (q->look_at_log) {
            q->look_at_log = false;
            spool_log_look(q->spool);
        }
        bool some = false;
        /* one of each in turn, so that a backlog of one kind does not keep the others out */
        if (room(q))
            some = feed_left(q) || some;
        for (unsigned i = 0; i < LOG_TURN && room(q) && feed_from_log(q); i++)
            some = true;
        if (room(q))
            some = feed_incoming(q) || some;
        if (room(q))
            some = feed_deferred(q) || some;
        if (some || scan_can_begin(q)) {
            coro_yield();
            continue;
        }
        q->feed_until = next_timer(q);
        q->no_room = !room(q);
        error e = cond_wait(&q->feed_wake, q->feed_until);
        if (e == &err_cancelled)
            return;
    }
}
