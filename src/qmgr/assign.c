/* The recipients of a message: read as far as there is room for them, sorted into entries by destination, let go of.
 *
 * A message of up to PIECE_MAX recipients is in memory whole. A larger one is read in pieces (SCHEDULER_README, memory
 * resource limits): at first as many as qmgr_message_recipient_limit leaves room for, later as many as its transports
 * have room for (_recipient_limit, and _extra_recipient_limit for one that overtakes another), and
 * qmgr_message_recipient_minimum in any case, so that no message waits for another to end. */
#include "qmgr/qmgr.h"

#include "base/die.h"
#include "base/log.h"
#include "mail/address.h"
#include "route/probe.h"
#include "table/table.h"
#include <stdlib.h>

enum {
    ENTRY_BYTES_MAX = 512 * 1024, /* of addresses in one delivery: a request is one frame (run/ipc.h) */
    RCPT_OVERHEAD = 32,           /* lengths and flags of one recipient in a frame */
    ASSIGN_YIELD = 100,           /* recipients before others get their turn */
    REFILL_LIMIT = 100,           /* of a message that has no transport yet */
    HUNGRY_TURN = 1000,           /* messages looked at for more recipients at once */
    PIECE_READ = 100,             /* recipients read together: one that takes its time keeps them all in memory */
};

/* --- pieces and slots --- */

static struct piece *piece_of(const struct message *m, uint32_t slot, uint32_t *ret_at) {
    if (m->pieces == &m->only) {
        *ret_at = slot;
        return m->only;
    }
    *ret_at = slot % PIECE_MAX;
    return slot / PIECE_MAX < m->piece_count ? m->pieces[slot / PIECE_MAX] : NULL;
}

bool slot_is_there(const struct message *m, uint32_t slot) {
    uint32_t at;
    const struct piece *p = piece_of(m, slot, &at);
    return p && at < p->count;
}

struct rcpt *message_rcpt(const struct message *m, uint32_t slot) {
    uint32_t at;
    const struct piece *p = piece_of(m, slot, &at);
    return &p->rcpts[at];
}

uint8_t *message_outcome(const struct message *m, uint32_t slot) {
    uint32_t at;
    const struct piece *p = piece_of(m, slot, &at);
    return &p->outcome[at];
}

uint32_t slot_index(const struct message *m, uint32_t slot) {
    uint32_t at;
    const struct piece *p = piece_of(m, slot, &at);
    return p->index ? p->index[at] : at;
}

void slot_set_marked(struct message *m, uint32_t slot) {
    uint32_t at;
    const struct piece *p = piece_of(m, slot, &at);
    p->marked[at] = true;
}

bool slot_unmarked(const struct message *m, uint32_t *inout_at, uint32_t *ret) {
    size_t end = m->pieces == &m->only ? m->whole.count : m->piece_count * PIECE_MAX;
    while (*inout_at < end) {
        uint32_t slot = *inout_at, at;
        const struct piece *p = piece_of(m, slot, &at);
        if (!p) {
            *inout_at += PIECE_MAX - at;
            continue;
        }
        ++*inout_at;
        if (at < p->count && p->outcome[at] == OUTCOME_DONE && !p->marked[at]) {
            *ret = slot;
            return true;
        }
    }
    return false;
}

static void count_in(struct message *m, size_t n) {
    m->rcpts += n;
    m->q->rcpts += n;
}

static void count_out(struct message *m, size_t n) {
    m->rcpts -= n;
    m->q->rcpts -= n;
}

static void piece_free(struct message *m, size_t number) {
    struct piece *p = m->pieces[number];
    m->pieces[number] = NULL;
    count_out(m, p->count);
    arena_free(p->arena);
}

/* What waits or is answered needs it no more. As long as something is to do, everything that is done is marked. */
static void let_go(struct message *m, uint32_t slot) {
    uint32_t at;
    struct piece *p = piece_of(m, slot, &at);
    if (--p->held == 0 && p->arena && m->answered < m->todo)
        piece_free(m, slot / PIECE_MAX);
}

void rcpts_begin(struct message *m) {
    const struct envelope *env = &m->env;
    if (!env->rcpts) {
        m->todo = m->rest.todo;
        return;
    }
    struct piece *p = m->only = &m->whole;
    m->pieces = &m->only;
    m->piece_count = 1;
    *p = (struct piece){ .rcpts = env->rcpts, .count = env->rcpt_count };
    p->outcome = arena_zalloc(m->arena, 2 * p->count);
    p->marked = p->outcome + p->count;
    for (size_t i = 0; i < p->count; i++) {
        if (env->rcpts[i].state == RCPT_DONE) {
            p->outcome[i] = OUTCOME_DONE;
            p->marked[i] = true;
        } else {
            p->held++;
        }
    }
    m->todo = p->held;
    count_in(m, p->count);
}

/* The number of the piece, or -1: there is none. */
static ssize_t piece_read(struct message *m, size_t max) {
    struct arena *a = arena_new();
    struct piece *p = ARENA_NEW(a, struct piece);
    *p = (struct piece){ .arena = a };
    error e = spool_rcpts_next(m->q->spool, &m->id, SPOOL_ACTIVE, &m->rest, max < PIECE_READ ? max : PIECE_READ, a,
                               &p->rcpts, &p->index, &p->count);
    if (e || p->count == 0) {
        if (e) /* what is left stays to be done: the file is found again in active */
            log_warn("%s: read recipients: %.*s", m->id.text, STR_ARG(e->text));
        m->rest.todo = 0;
        arena_free(a);
        return -1;
    }
    p->outcome = arena_zalloc(a, 2 * p->count);
    p->marked = p->outcome + p->count;
    p->held = p->count;
    if ((m->piece_count & (m->piece_count - 1)) == 0) { /* full: doubled at each power of two */
        size_t room = m->piece_count ? 2 * m->piece_count : 1;
        struct piece **grown = realloc(m->pieces, room * sizeof *grown);
        if (!grown)
            die_no_memory(room * sizeof *grown);
        m->pieces = grown;
    }
    m->pieces[m->piece_count] = p;
    count_in(m, p->count);
    return (ssize_t)m->piece_count++;
}

/* --- room for more --- */

static void hungry_out(struct message *m) {
    struct qmgr *q = m->q;
    if (!m->hungry_next)
        return;
    if (q->hungry == m)
        q->hungry = m->hungry_next == m ? NULL : m->hungry_next;
    m->hungry_next->hungry_prev = m->hungry_prev;
    m->hungry_prev->hungry_next = m->hungry_next;
    m->hungry_next = m->hungry_prev = NULL;
}

static void hungry_in(struct message *m) { /* at the end */
    struct qmgr *q = m->q;
    if (m->hungry_next)
        return;
    if (!q->hungry) {
        q->hungry = m->hungry_next = m->hungry_prev = m;
        return;
    }
    m->hungry_next = q->hungry;
    m->hungry_prev = q->hungry->hungry_prev;
    m->hungry_prev->hungry_next = m->hungry_next->hungry_prev = m;
}

void rcpts_end(struct message *m) {
    hungry_out(m);
    if (m->pieces != &m->only) {
        for (size_t i = 0; i < m->piece_count; i++)
            if (m->pieces[i])
                piece_free(m, i);
        free(m->pieces);
    }
    count_out(m, m->rcpts);
    m->pieces = NULL;
    m->piece_count = 0;
}

/* Read, and not answered. */
static size_t unanswered(const struct message *m) {
    size_t read = m->todo - m->rest.todo;
    return read > m->answered ? read - m->answered : 0;
}

static size_t room_for(const struct message *m) {
    const struct qmgr *q = m->q;
    size_t minimum = (size_t)conf_int(q->conf, PARAM_qmgr_message_recipient_minimum), room = 0;
    size_t waiting = unanswered(m);
    if (m->piece_count == 0) {
        size_t limit = (size_t)conf_int(q->conf, PARAM_qmgr_message_recipient_limit);
        room = limit > q->rcpts ? limit - q->rcpts : 0;
        return room > minimum ? room : minimum;
    }
    for (const struct job *j = m->arrival.jobs; j; j = j->next) {
        const struct transport_params *p = &j->transport->params;
        size_t limit = (size_t)p->rcpts_limit + (j->preempts ? p->rcpts_extra : 0);
        room += limit > j->transport->rcpts ? limit - j->transport->rcpts : 0;
    }
    size_t answered = m->rcpts - waiting; /* in memory yet, because others of their piece wait */
    room -= answered < room ? answered : room;
    return room + (waiting < minimum ? minimum - waiting : 0);
}

static bool is_time_to_read(const struct message *m, int64_t now) {
    if (m->sorting || m->rest.todo == 0 || message_stopped(m))
        return false;
    size_t room = room_for(m), batch = REFILL_LIMIT;
    if (room == 0)
        return false;
    if (m->arrival.jobs)
        batch = m->arrival.jobs->transport->params.refill_limit;
    return room >= batch || unanswered(m) == 0 || now >= m->refill_at;
}

void rcpts_refill(struct qmgr *q, struct message *m) {
    if (q->no_room) {
        q->no_room = false;
        feed_more(q);
    }
    if (m && is_time_to_read(m, sys->mono_us()))
        rcpts_assign(m);
    m = q->hungry;
    if (!m)
        return;
    q->hungry = m->hungry_next; /* the next one is looked at the next time */
    if (is_time_to_read(m, sys->mono_us()))
        rcpts_assign(m);
}

void rcpts_refill_all(struct qmgr *q) {
    const struct message *first = q->hungry;
    for (unsigned i = 0; i < HUNGRY_TURN && q->hungry && (i == 0 || q->hungry != first); i++)
        rcpts_refill(q, NULL);
}

/* --- entries --- */

static struct entry *entry_new(struct message *m, struct destination *d, struct str nexthop) {
    bool same = str_eq(nexthop, d->name);
    size_t own = same ? 0 : nexthop.n;
    struct entry *e = malloc(sizeof *e + own);
    if (!e)
        die_no_memory(sizeof *e + own);
    *e = (struct entry){ .message = m, .destination = d, .transport = d->transport };
    e->rcpts = e->few;
    e->rcpt_room = sizeof e->few / sizeof e->few[0];
    e->nexthop = d->name;
    if (!same) {
        memcpy(e + 1, nexthop.p, nexthop.n);
        e->nexthop = str_n((const char *)(e + 1), nexthop.n);
    }
    m->pending++;
    return e;
}

void entry_free(struct entry *e) {
    e->transport->rcpts -= e->rcpt_count;
    for (size_t i = 0; i < e->rcpt_count; i++)
        let_go(e->message, e->rcpts[i]);
    if (e->rcpts != e->few)
        free(e->rcpts);
    free(e);
}

static void entry_add_rcpt(struct entry *e, uint32_t slot, uint32_t bytes) {
    if (e->rcpt_count == e->rcpt_room) {
        uint32_t room = 2 * (e->rcpt_room + 1);
        uint32_t *grown = realloc(e->rcpts == e->few ? NULL : e->rcpts, room * sizeof *grown);
        if (!grown)
            die_no_memory(room * sizeof *grown);
        if (e->rcpts == e->few)
            memcpy(grown, e->few, sizeof e->few);
        e->rcpts = grown;
        e->rcpt_room = room;
    }
    e->rcpts[e->rcpt_count++] = slot;
    e->bytes += bytes;
    e->transport->rcpts++;
}

/* --- recipients to destinations --- */

struct target { /* of one recipient */
    uint32_t slot;
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
                                   struct str nexthop, bool local, struct arena *a) {
    if (t->params.recipient_limit != 1)
        return arena_lower(a, nexthop);
    struct str address = r->address;
    if (local) {
        struct address_parts parts = address_split(address);
        struct str user, extension;
        if (address_split_extension(parts.local, addr_extension_rules(m->q->conf), &user, &extension))
            address = user;
        else
            address = parts.local;
        return arena_lower(a, arena_printf(a, "%.*s@%.*s", STR_ARG(address), STR_ARG(nexthop)));
    }
    return arena_lower(a, address);
}

/* Our own complaints to the postmaster end here when they cannot be delivered (qmgr(8)). */
static bool is_double_bounce(const struct message *m, const struct rcpt *r, const struct route *route) {
    if (route->class != CLASS_LOCAL && route->class != CLASS_VIRTUAL_ALIAS)
        return false;
    struct str local = address_split(r->address).local;
    return str_eq_icase(local, conf_str(m->q->conf, PARAM_double_bounce_sender)) ||
           verify_is_sender(m->q->conf, local, sys->wall_us() / US_PER_S);
}

static struct arena *slot_arena(const struct message *m, uint32_t slot) {
    uint32_t at;
    const struct piece *p = piece_of(m, slot, &at);
    return p->arena ? p->arena : m->arena;
}

/* Where the recipient in `ret->slot` goes; false: that has been decided here. May wait. What is found is in `a`. */
static bool rcpt_target(struct message *m, struct target *ret, struct arena *a) {
    struct qmgr *q = m->q;
    uint32_t slot = ret->slot;
    struct rcpt *r = message_rcpt(m, slot);
    ret->local = false;
    if (m->env.flags & ENVELOPE_EXPIRED) {
        control_expired(m, slot);
        return false;
    }
    if (m->env.content_filter.n) {
        filter_target(m, r, ret);
    } else {
        struct route route = { 0 };
        bool probe = q->outside.resolve_probe && (m->env.flags & ENVELOPE_VERIFY);
        error e = (probe ? q->outside.resolve_probe : q->outside.resolve)(q->outside.ctx, a, m->env.sender, r->address,
                                                                          &route);
        if (e) {
            bool permanent = e->kind == ERR_PERM;
            struct str dsn = e->dsn.n ? e->dsn : permanent ? STR("5.1.3") : STR("4.3.0");
            rcpt_decide(m, slot, permanent ? DELIVERY_BOUNCED : DELIVERY_DEFERRED, dsn,
                        e->text.n ? e->text : STR("address resolver failure"));
            return false;
        }
        if (is_double_bounce(m, r, &route)) {
            rcpt_decide(m, slot, DELIVERY_SENT, STR("2.0.0"), STR("undeliverable postmaster notification discarded"));
            return false;
        }
        if (route.recipient.n && !str_eq(route.recipient, r->address))
            r->address = arena_str(slot_arena(m, slot), route.recipient);
        ret->transport = route.transport;
        ret->nexthop = route.nexthop;
        ret->local = route.class == CLASS_LOCAL;
    }
    if (!m->flush && list_has(conf_str(q->conf, PARAM_defer_transports), ret->transport)) {
        rcpt_decide(m, slot, DELIVERY_DEFERRED, STR("4.3.2"), STR("deferred transport"));
        return false;
    }
    return true;
}

static void assign_one(struct message *m, const struct target *target, struct arena *a) {
    uint32_t slot = target->slot;
    const struct rcpt *r = message_rcpt(m, slot);
    struct transport *t = scheduler_transport(m->q->scheduler, target->transport);
    struct destination *d = scheduler_destination(t, destination_name(m, t, r, target->nexthop, target->local, a));
    struct str dsn, reason;
    if (destination_dead(d, sys->mono_us(), &dsn, &reason)) {
        rcpt_decide(m, slot, DELIVERY_DEFERRED, arena_str(a, dsn), arena_str(a, reason));
        let_go(m, slot);
        return;
    }
    size_t bytes = r->address.n + r->orig.n + r->dsn_orcpt.n + RCPT_OVERHEAD;
    struct entry *e = destination_open(d, &m->arrival);
    unsigned limit = t->params.recipient_limit;
    if (m->env.verp_delimiters[0])
        limit = 1; /* each has a sender of its own */
    if (e && str_eq(e->nexthop, target->nexthop) && (!limit || e->rcpt_count < limit) &&
        e->bytes + bytes <= ENTRY_BYTES_MAX) {
        entry_add_rcpt(e, slot, (uint32_t)bytes);
        return;
    }
    e = entry_new(m, d, target->nexthop);
    entry_add_rcpt(e, slot, (uint32_t)bytes);
    scheduler_add(e, &m->arrival, sys->mono_us());
}

/* Some recipients of a piece. Their routes are asked for first, which may wait for a database; what they share is
 * gathered after that, so that nothing is sent off meanwhile that the next recipient could have gone with. */
static void assign_some(struct message *m, uint32_t first, size_t count, struct target *targets, struct arena *a) {
    size_t n = 0;
    for (size_t i = 0; i < count && !message_stopped(m); i++) {
        targets[n].slot = first + (uint32_t)i;
        if (*message_outcome(m, targets[n].slot) != OUTCOME_NONE)
            continue;
        if (rcpt_target(m, &targets[n], a))
            n++;
        else
            let_go(m, targets[n].slot);
    }
    for (size_t i = 0; i < n && !message_stopped(m); i++) /* stopped: nobody would take the entries out again */
        assign_one(m, &targets[i], a);
}

static void assign_piece(struct message *m, size_t number) {
    struct arena *a = arena_new();
    uint32_t first = (uint32_t)(number * PIECE_MAX);
    size_t count = m->pieces[number]->count; /* the piece may be gone with its last recipient */
    size_t most = count < ASSIGN_YIELD ? count : ASSIGN_YIELD;
    for (size_t at = 0; at < count && !message_stopped(m); at += most) {
        if (at > 0) {
            deliver_start(m->q);
            coro_yield();
        }
        size_t n = count - at < most ? count - at : most;
        struct target *targets = arena_array(a, most, sizeof *targets);
        assign_some(m, first + (uint32_t)at, n, targets, a);
        scheduler_unread(&m->arrival, m->rest.todo + count - at - n);
        arena_reset(a);
    }
    arena_free(a);
}

static void assign_run(void *arg) {
    struct message *m = arg;
    struct qmgr *q = m->q;
    if (m->whole.count)
        assign_piece(m, 0);
    for (size_t room = room_for(m); m->rest.todo && room && !message_stopped(m);) {
        ssize_t number = piece_read(m, room);
        if (number < 0)
            break;
        size_t n = m->pieces[number]->count;
        room -= n < room ? n : room;
        assign_piece(m, (size_t)number);
    }
    if (m->arrival.jobs)
        m->refill_at = deadline_in_us(m->arrival.jobs->transport->params.refill_us);
    if (m->rest.todo)
        hungry_in(m);
    else
        hungry_out(m);
    m->sorting = false;
    q->assigning--;
    feed_more(q);
    deliver_start(q);
    message_release(m);
}

void rcpts_assign(struct message *m) {
    m->pending++;
    m->sorting = true;
    m->q->assigning++;
    if (!coro_spawn(assign_run, m, "assign")) /* here it would keep all others waiting */
        assign_run(m);
}
