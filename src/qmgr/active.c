/* One message while it is active: taken up, its recipients sorted by destination, its content open while needed. */
#include "qmgr/qmgr.h"

#include "base/die.h"
#include "base/log.h"
#include "mail/address.h"
#include <errno.h>
#include <stdlib.h>

enum {
    CONTENTS_KEPT = 256,          /* contents kept open between deliveries */
    ENTRY_BYTES_MAX = 512 * 1024, /* of addresses in one delivery: a request is one frame (run/ipc.h) */
    RCPT_OVERHEAD = 32,           /* lengths and flags of one recipient in a frame */
    ASSIGN_YIELD = 100,           /* recipients before others get their turn */
};

/* --- entries --- */

static struct entry *entry_new(struct message *m, struct destination *d, struct str nexthop) {
    struct entry *e = calloc(1, sizeof *e);
    if (!e)
        die_no_memory(sizeof *e);
    e->message = m;
    e->destination = d;
    e->nexthop = nexthop;
    m->pending++;
    return e;
}

void entry_free(struct entry *e) {
    free(e->rcpts);
    free(e);
}

static void entry_add_rcpt(struct entry *e, uint32_t index, size_t bytes) {
    if (e->rcpt_count == e->rcpt_room) {
        size_t room = e->rcpt_room ? 2 * e->rcpt_room : 1;
        uint32_t *grown = realloc(e->rcpts, room * sizeof *grown);
        if (!grown)
            die_no_memory(room * sizeof *grown);
        e->rcpts = grown;
        e->rcpt_room = room;
    }
    e->rcpts[e->rcpt_count++] = index;
    e->bytes += bytes;
}

/* --- recipients to destinations --- */

struct target { /* of one recipient */
    uint32_t index;
    bool local;
    struct str transport, nexthop;
};

static bool list_has(struct str list, struct str name) {
    struct str word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        if (str_eq(word, name))
            return true;
    return false;
}

/* "transport:nexthop" for all recipients (content_filter, FILTER). */
static void filter_target(const struct message *m, const struct rcpt *r, struct target *ret) {
    struct str spec = m->env.content_filter;
    ptrdiff_t colon = str_index(spec, ':');
    ret->transport = colon < 0 ? spec : str_sub(spec, 0, (size_t)colon);
    ret->nexthop = colon < 0 ? STR("") : str_from(spec, (size_t)colon + 1);
    if (ret->nexthop.n == 0)
        ret->nexthop = conf_str(m->q->conf, PARAM_default_filter_nexthop);
    if (ret->nexthop.n == 0) {
        struct address_parts parts = address_split(r->address);
        ret->nexthop = parts.has_domain ? parts.domain : conf_str(m->q->conf, PARAM_myhostname);
    }
}

/* Concurrency is counted per destination: a domain, or, where an agent gets one recipient at a time, a recipient; for a
 * mailbox that is the user, whatever the extension (postconf(5), default_destination_recipient_limit). */
static struct str destination_name(const struct message *m, const struct transport *t, const struct rcpt *r,
                                   struct str nexthop, bool local) {
    if (t->params.recipient_limit != 1)
        return arena_lower(m->arena, nexthop);
    struct str address = r->address;
    if (local) {
        struct address_parts parts = address_split(address);
        struct str user, extension;
        if (address_split_extension(parts.local, conf_str(m->q->conf, PARAM_recipient_delimiter), &user, &extension))
            address = user;
        else
            address = parts.local;
        return arena_lower(m->arena, arena_printf(m->arena, "%.*s@%.*s", STR_ARG(address), STR_ARG(nexthop)));
    }
    return arena_lower(m->arena, address);
}

/* Our own complaints to the postmaster end here when they cannot be delivered (qmgr(8)). */
static bool is_double_bounce(const struct message *m, const struct rcpt *r, const struct route *route) {
    if (route->class != CLASS_LOCAL && route->class != CLASS_VIRTUAL_ALIAS)
        return false;
    return str_eq_icase(address_split(r->address).local, conf_str(m->q->conf, PARAM_double_bounce_sender));
}

/* Where recipient `ret->index` goes; false: that has been decided here. May wait. */
static bool rcpt_target(struct message *m, struct target *ret) {
    struct qmgr *q = m->q;
    uint32_t index = ret->index;
    struct rcpt *r = &m->env.rcpts[index];
    ret->local = false;
    if (m->env.content_filter.n) {
        filter_target(m, r, ret);
    } else {
        struct route route = { 0 };
        error e = q->outside.resolve(q->outside.ctx, m->arena, m->env.sender, r->address, &route);
        if (e) {
            bool permanent = e->kind == ERR_PERM;
            struct str dsn = e->dsn.n ? e->dsn : permanent ? STR("5.1.3") : STR("4.3.0");
            rcpt_decide(m, index, permanent ? DELIVERY_BOUNCED : DELIVERY_DEFERRED, dsn,
                        e->text.n ? e->text : STR("address resolver failure"));
            return false;
        }
        if (is_double_bounce(m, r, &route)) {
            rcpt_decide(m, index, DELIVERY_SENT, STR("2.0.0"), STR("undeliverable postmaster notification discarded"));
            return false;
        }
        if (route.recipient.n)
            r->address = route.recipient;
        ret->transport = route.transport;
        ret->nexthop = route.nexthop;
        ret->local = route.class == CLASS_LOCAL;
    }
    if (!m->flush && list_has(conf_str(q->conf, PARAM_defer_transports), ret->transport)) {
        rcpt_decide(m, index, DELIVERY_DEFERRED, STR("4.3.2"), STR("deferred transport"));
        return false;
    }
    return true;
}

static void assign_one(struct message *m, uint32_t index, const struct target *target) {
    const struct rcpt *r = &m->env.rcpts[index];
    struct transport *t = scheduler_transport(m->q->scheduler, target->transport);
    struct destination *d = scheduler_destination(t, destination_name(m, t, r, target->nexthop, target->local));
    struct str dsn, reason;
    if (destination_dead(d, sys->mono_us(), &dsn, &reason)) {
        rcpt_decide(m, index, DELIVERY_DEFERRED, dsn, arena_str(m->arena, reason));
        return;
    }
    size_t bytes = r->address.n + r->orig.n + r->dsn_orcpt.n + RCPT_OVERHEAD;
    struct entry *e = destination_open(d, &m->arrival);
    unsigned limit = t->params.recipient_limit;
    if (e && str_eq(e->nexthop, target->nexthop) && (!limit || e->rcpt_count < limit) &&
        e->bytes + bytes <= ENTRY_BYTES_MAX) {
        entry_add_rcpt(e, index, bytes);
        return;
    }
    e = entry_new(m, d, target->nexthop);
    entry_add_rcpt(e, index, bytes);
    scheduler_add(e, &m->arrival, sys->mono_us());
}

/* Some recipients from `*inout_at` on. Their routes are asked for first, which may wait for a database; what they share
 * is gathered after that, so that nothing is sent off meanwhile that the next recipient could have gone with. */
static void assign_some(struct message *m, struct target *targets, size_t *inout_at) {
    const struct qmgr *q = m->q;
    size_t n = 0;
    for (; *inout_at < m->env.rcpt_count && n < ASSIGN_YIELD && !q->draining; ++*inout_at) {
        targets[n].index = (uint32_t)*inout_at;
        if (m->env.rcpts[*inout_at].state != RCPT_DONE && rcpt_target(m, &targets[n]))
            n++;
    }
    for (size_t i = 0; i < n && !q->draining; i++) /* draining: nobody would take the entries out again */
        assign_one(m, targets[i].index, &targets[i]);
}

static void assign_run(void *arg) {
    struct message *m = arg;
    struct qmgr *q = m->q;
    size_t most = m->todo < ASSIGN_YIELD ? m->todo : ASSIGN_YIELD;
    struct target *targets = arena_array(m->arena, most, sizeof *targets);
    for (size_t at = 0; at < m->env.rcpt_count && !q->draining;) {
        assign_some(m, targets, &at);
        scheduler_unread(&m->arrival, m->env.rcpt_count - at);
        if (at < m->env.rcpt_count) {
            deliver_start(q);
            coro_yield();
        }
    }
    q->assigning--;
    feed_more(q);
    deliver_start(q);
    message_release(m);
}

/* --- taking up and letting go --- */

static void log_active(const struct message *m) {
    struct arena *a = arena_new();
    log_info("%s: from=<%.*s>, size=%llu, nrcpt=%zu (queue active)", m->id.text,
             STR_ARG(address_quote(a, m->env.sender)), (unsigned long long)m->content.size, m->todo);
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
    error e = spool_log_clear(s, &m->id, SPOOL_LOG_DEFER);
    if (!e && from == SPOOL_INCOMING)
        e = spool_log_clear(s, &m->id, SPOOL_LOG_BOUNCE);
    if (e)
        log_warn("%s: remove log: %.*s", m->id.text, STR_ARG(e->text));
    m->bounced = from != SPOOL_INCOMING;
}

static enum taken take_up(struct qmgr *q, const struct queue_id *id, enum spool_state from, bool flush, bool fresh) {
    if (map_get(&q->active, queue_id_str(id)))
        return NOT_TAKEN;
    struct arena *a = arena_new();
    struct message *m = ARENA_NEW(a, struct message);
    *m = (struct message){ .q = q, .arena = a, .id = *id, .flush = flush, .content = { .fd = -1 } };
    error e = spool_load(q->spool, id, from, a, &m->env, &m->content);
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
    m->outcome = arena_zalloc(a, m->env.rcpt_count);
    m->marked = arena_zalloc(a, m->env.rcpt_count);
    for (size_t i = 0; i < m->env.rcpt_count; i++)
        m->todo += m->env.rcpts[i].state != RCPT_DONE;
    scheduler_arrive(q->scheduler, &m->arrival, sys->mono_us());
    scheduler_unread(&m->arrival, m->todo);
    map_put(&q->active, queue_id_str(&m->id), m);
    q->rcpts += m->todo;
    q->contents++;
    m->content_users = 1; /* this function's, until the recipients have been assigned */
    m->pending = 1;
    clear_logs(m, from, fresh);
    log_active(m);
    group_enter(q->work);
    q->assigning++;
    if (!coro_spawn(assign_run, m, "assign")) /* here it would keep all others waiting */
        assign_run(m);
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
    feed_more(q);
    group_leave(q->work);
}

void message_release(struct message *m) {
    if (--m->pending > 0)
        return;
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
    m->q->rcpts -= m->todo;
    arena_free(m->arena);
}
