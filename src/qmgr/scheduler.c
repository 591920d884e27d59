#include "qmgr/scheduler_private.h"

#include "base/log.h"
#include <stdlib.h>

/* What a job has for one destination. Alive while it has entries that wait. */
struct peer {
    struct job *job;
    struct destination *destination;
    struct entry *first, *last;
    struct heap_node by_rank;  /* in its destination's heap */
    struct heap_node by_wait;  /* in its destination's `parked`, or in none */
    struct peer *next, **link; /* in its job's `listed` or `parked` */
};

static struct peer *peer_by_rank(struct heap_node *n) {
    return HEAP_OWNER(n, struct peer, by_rank);
}
static struct job *job_by_age(struct heap_node *n) {
    return HEAP_OWNER(n, struct job, by_age);
}
static struct destination *first_destination(const struct heap *h) {
    return HEAP_OWNER(heap_first(h), struct destination, node);
}

static struct str own(struct str s) {
    char *p = scheduler_alloc(s.n + 1);
    memcpy(p, s.p, s.n);
    return str_n(p, s.n);
}

static void disown(struct str s) {
    union {
        const char *borrowed;
        char *owned;
    } p = { .borrowed = s.p };
    free(p.owned);
}

/* --- rings --- */

static void ring_out(struct ring_link *l) {
    if (!l->next)
        return;
    l->prev->next = l->next;
    l->next->prev = l->prev;
    l->next = l->prev = NULL;
}
static void ring_in(struct ring_link *head, struct ring_link *l) { /* at the end */
    if (l->next)
        return;
    l->next = head;
    l->prev = head->prev;
    head->prev->next = l;
    head->prev = l;
}

/* --- making and freeing --- */

struct scheduler *scheduler_new(const struct scheduler_options *o) {
    struct scheduler *s = scheduler_alloc(sizeof *s);
    s->ready.next = s->ready.prev = &s->ready;
    s->options = *o;
    return s;
}

struct transport *scheduler_transport(struct scheduler *s, struct str name) {
    struct transport *t = map_get(&s->transports, name);
    if (t)
        return t;
    t = scheduler_alloc(sizeof *t);
    t->scheduler = s;
    t->name = own(name);
    s->options.params_of(s->options.ctx, t->name, &t->params);
    /* a delay between deliveries means one at a time */
    if (t->params.destination_rate_us)
        t->params.initial_concurrency = t->params.concurrency_limit = 1;
    if (t->params.transport_rate_us)
        t->params.process_limit = 1;
    map_put(&s->transports, t->name, t);
    return t;
}

struct destination *scheduler_destination(struct transport *t, struct str name) {
    struct destination *d = map_get(&t->destinations, name);
    if (d)
        return d;
    d = scheduler_alloc(sizeof *d);
    d->transport = t;
    d->name = own(name);
    d->window = destination_initial_window(t);
    map_put(&t->destinations, d->name, d);
    t->scheduler->destinations++;
    return d;
}

static void destination_free(struct destination *d) {
    if (d->timer.at)
        heap_out(&d->transport->scheduler->timers, &d->timer);
    map_remove(&d->transport->destinations, d->name);
    d->transport->scheduler->destinations--;
    heap_free(&d->peers);
    heap_free(&d->parked);
    free(d->rest);
    disown(d->name);
    free(d);
}

static bool is_idle(const struct destination *d) {
    return d->waiting == 0 && d->busy == 0;
}

/* What it has learned is kept, while there is room for it. */
static void destination_free_if_idle(struct destination *d) {
    const struct scheduler *s = d->transport->scheduler;
    if (!is_idle(d) || d->timer.at)
        return;
    bool nothing_learned = !d->rest && !d->losses && d->window == destination_initial_window(d->transport);
    if (nothing_learned || s->destinations > s->options.destinations_max)
        destination_free(d);
}

static void transport_free(struct transport *t) {
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&t->destinations, &at, &e))
        destination_free(e->value);
    map_free(&t->destinations);
    heap_free(&t->ready);
    heap_free(&t->suspects);
    for (size_t i = 0; i < SCHEDULER_CLASSES; i++)
        heap_free(&t->candidates[i]);
    free(t->rest);
    disown(t->name);
    free(t);
}

void scheduler_free(struct scheduler *s) {
    if (!s)
        return;
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&s->transports, &at, &e))
        transport_free(e->value);
    map_free(&s->transports);
    heap_free(&s->timers);
    free(s);
}

/* --- jobs, as candidates for preemption --- */

/* Most entries it may have yet: what is unread may all go to different destinations. */
static size_t job_need(const struct job *j) {
    return j->waiting + j->arrival->unread;
}

static unsigned size_class(size_t need) {
    unsigned c = 0;
    while (need >>= 1)
        c++;
    return c < SCHEDULER_CLASSES ? c : SCHEDULER_CLASSES - 1;
}

static void candidates_out(struct job *j) {
    struct heap *h = &j->transport->candidates[j->size_class];
    if (!j->by_age.at)
        return;
    heap_out(h, &j->by_age);
    if (h->n == 0)
        j->transport->classes &= ~(1U << j->size_class);
}

/* In the heap of its size, if it is a candidate at all. */
static void candidates_update(struct job *j) {
    unsigned c = size_class(job_need(j));
    if (j->listed && j->by_age.at && c == j->size_class)
        return;
    candidates_out(j);
    if (!j->listed)
        return;
    j->size_class = c;
    j->transport->classes |= 1U << c;
    heap_in(&j->transport->candidates[c], &j->by_age);
}

static void peer_link(struct peer *p, struct peer **list) {
    p->next = *list;
    if (p->next)
        p->next->link = &p->next;
    p->link = list;
    *list = p;
}
static void peer_unlink(struct peer *p) {
    *p->link = p->next;
    if (p->next)
        p->next->link = p->link;
}

/* Entries that a candidate may have, weighed against its age, when no size is asked for: one entry is worth a second.
 */
static void peer_park(struct peer *p) {
    p->by_wait.key = p->job->arrival->since + (int64_t)job_need(p->job) * 1000000;
    p->by_wait.tie = p->job->arrival->seq;
    heap_in(&p->destination->parked, &p->by_wait);
    peer_unlink(p);
    peer_link(p, &p->job->parked);
}

static void peer_unpark(struct peer *p) {
    heap_out(&p->destination->parked, &p->by_wait);
    peer_unlink(p);
    peer_link(p, &p->job->listed);
    candidates_update(p->job);
}

/* --- who may deliver --- */

static void transport_update(struct transport *t) {
    bool room = !t->params.process_limit || t->busy < t->params.process_limit;
    bool something = t->ready.n > 0 || (t->suspects.n > 0 && t->suspects_busy == 0);
    if (room && something && !t->timer.at)
        ring_in(&t->scheduler->ready, &t->link);
    else
        ring_out(&t->link);
}

static void destination_update(struct destination *d) {
    struct transport *t = d->transport;
    bool can = d->waiting && !d->rest && d->busy < d->window && !d->timer.at;
    struct heap *in = !can ? NULL : d->losses ? &t->suspects : &t->ready;
    if (d->in && d->in != in)
        heap_out(d->in, &d->node);
    if (can) {
        d->node.key = heap_first(&d->peers)->key;
        if (d->in == in)
            heap_moved(in, &d->node);
        else
            heap_in(in, &d->node);
    }
    d->in = in;
    if (in == &t->ready && d->parked.n)
        peer_unpark(HEAP_OWNER(heap_first(&d->parked), struct peer, by_wait));
    transport_update(t);
}

/* --- messages and their entries --- */

void scheduler_arrive(struct scheduler *s, struct arrival *a, int64_t now) {
    *a = (struct arrival){ .seq = ++s->arrivals, .since = now };
}

void scheduler_unread(struct arrival *a, size_t unread) {
    a->unread = unread;
    for (struct job *j = a->jobs; j; j = j->next)
        candidates_update(j);
}

void scheduler_depart(struct arrival *a) {
    while (a->jobs) {
        struct job *j = a->jobs;
        a->jobs = j->next;
        free(j);
    }
}

static struct job *job_of(struct arrival *a, struct transport *t) {
    for (struct job *j = a->jobs; j; j = j->next)
        if (j->transport == t)
            return j;
    struct job *j = scheduler_alloc(sizeof *j);
    *j = (struct job){ .next = a->jobs, .arrival = a, .transport = t, .rank = (int64_t)a->seq };
    j->by_age = (struct heap_node){ .key = (int64_t)a->seq };
    a->jobs = j;
    return j;
}

static struct peer *peer_of(struct destination *d, struct arrival *a) {
    if (d->open && d->open->job->arrival == a)
        return d->open;
    /* Another peer for the same two may be there, when other mail for the destination came in between. */
    struct peer *p = scheduler_alloc(sizeof *p);
    p->job = job_of(a, d->transport);
    p->destination = d;
    p->by_rank = (struct heap_node){ .key = p->job->rank, .tie = a->seq };
    heap_in(&d->peers, &p->by_rank);
    peer_link(p, &p->job->listed);
    d->open = p;
    return p;
}

static void peer_free(struct peer *p) {
    struct destination *d = p->destination;
    heap_out(&d->peers, &p->by_rank);
    if (p->by_wait.at)
        heap_out(&d->parked, &p->by_wait);
    peer_unlink(p);
    if (d->open == p)
        d->open = NULL;
    free(p);
}

static struct entry *peer_pop(struct peer *p) {
    struct entry *e = p->first;
    struct destination *d = p->destination;
    struct job *j = p->job;
    p->first = e->next;
    e->next = NULL;
    d->waiting--;
    j->waiting--;
    d->transport->scheduler->waiting--;
    if (!p->first)
        peer_free(p);
    candidates_update(j);
    return e;
}

static void warn_of_clog(struct destination *d, int64_t now) {
    const struct scheduler_options *o = &d->transport->scheduler->options;
    if (!o->clog_entries || d->waiting + d->busy <= o->clog_entries || (d->clog_at && now < d->clog_at))
        return;
    const struct transport *t = d->transport;
    d->clog_at = now + o->clog_warn_us;
    log_warn("mail for %.*s is using up %zu of %zu active queue entries", STR_ARG(d->name), d->waiting + d->busy,
             t->scheduler->waiting + t->scheduler->busy);
    log_warn("this may slow down other mail deliveries");
    if (t->params.concurrency_limit && d->window >= t->params.concurrency_limit)
        log_warn("you may need to increase the main.cf %.*s_destination_concurrency_limit from %u", STR_ARG(t->name),
                 t->params.concurrency_limit);
    log_warn("to turn off these warnings specify: qmgr_clog_warn_time = 0");
}

struct entry *destination_open(const struct destination *d, const struct arrival *a) {
    return d->open && d->open->job->arrival == a ? d->open->last : NULL;
}

void scheduler_add(struct entry *e, struct arrival *a, int64_t now) {
    struct destination *d = e->destination;
    struct peer *p = peer_of(d, a);
    e->next = NULL;
    if (p->first)
        p->last->next = e;
    else
        p->first = e;
    p->last = e;
    d->waiting++;
    p->job->waiting++;
    d->transport->scheduler->waiting++;
    candidates_update(p->job);
    destination_update(d);
    warn_of_clog(d, now);
}

/* --- preemption --- */

/* Is there a destination that may deliver for it? If not, it is parked. */
static bool may_go_on(struct job *j) {
    while (j->listed) {
        if (j->listed->destination->in == &j->transport->ready)
            return true;
        peer_park(j->listed);
    }
    candidates_update(j);
    return false;
}

/* The best candidate of one size: the oldest that can go on. NULL: none needs as little as `most`. */
static struct job *best_of_class(struct transport *t, unsigned c, const struct job *current, size_t most) {
    struct heap_node *n;
    while ((n = heap_first_but(&t->candidates[c], &current->by_age))) {
        struct job *j = job_by_age(n);
        if (may_go_on(j))
            return job_need(j) <= most ? j : NULL;
    }
    return NULL;
}

/* The job that waits longest for its size, of those that need no more than `most` entries. */
static struct job *best_candidate(struct transport *t, const struct job *current, size_t most, int64_t now) {
    struct job *best = NULL;
    double best_score = -1;
    for (unsigned c = 0; c < SCHEDULER_CLASSES && (size_t)1 << c <= most; c++) {
        struct job *j = t->classes & 1U << c ? best_of_class(t, c, current, most) : NULL;
        if (!j)
            continue;
        double score = (double)(now - j->arrival->since + 1) / (double)job_need(j);
        if (score > best_score) {
            best = j;
            best_score = score;
        }
    }
    return best;
}

static void job_to_front(struct job *j) {
    struct peer *lists[] = { j->listed, j->parked };
    j->rank = --j->transport->front;
    j->preempts = true;
    for (size_t i = 0; i < 2; i++)
        for (struct peer *p = lists[i]; p; p = p->next) {
            p->by_rank.key = j->rank;
            heap_moved(&p->destination->peers, &p->by_rank);
            if (p->destination->in) {
                p->destination->node.key = heap_first(&p->destination->peers)->key;
                heap_moved(p->destination->in, &p->destination->node);
            }
        }
}

/* `current` is the job whose entry would be next: put another in front of it, if that is fair. */
static void preempt(struct transport *t, struct job *current, int64_t now) {
    const struct transport_params *p = &t->params;
    size_t cost = p->slot_cost < 2 ? 2 : p->slot_cost;
    /* Unread recipients may share entries: the fewest there can be. */
    size_t unread = p->recipient_limit ? current->arrival->unread / p->recipient_limit : 0;
    size_t slots = (current->taken + current->waiting + unread) / cost;
    if (p->slot_cost == 0 || slots < current->used + p->minimum_slots || slots <= current->used)
        return;
    struct job *j = best_candidate(t, current, slots - current->used, now);
    if (!j)
        return;
    size_t need = job_need(j), lent = need * p->slot_discount / 100 + p->slot_loan;
    if (need + current->used > lent && (need + current->used - lent) * cost > current->taken)
        return;
    current->used += need;
    job_to_front(j);
}

/* --- the next one --- */

static void pause(struct scheduler *s, struct heap_node *timer, int64_t until) {
    timer->key = until;
    if (timer->at)
        heap_moved(&s->timers, timer);
    else
        heap_in(&s->timers, timer);
}

/* Timers of destinations and of transports are in one heap: `tie` says which it is. */
enum { TIMER_DESTINATION, TIMER_TRANSPORT };

static void timers_run(struct scheduler *s, int64_t now) {
    struct heap_node *n;
    while ((n = heap_first(&s->timers)) && n->key <= now) {
        heap_out(&s->timers, n);
        if (n->tie == TIMER_TRANSPORT)
            transport_update(HEAP_OWNER(n, struct transport, timer));
        else
            destination_update(HEAP_OWNER(n, struct destination, timer));
    }
}

int64_t scheduler_wake(const struct scheduler *s) {
    const struct heap_node *n = heap_first(&s->timers);
    return n ? n->key : INT64_MAX;
}

static struct destination *take_turn(struct transport *t, int64_t now) {
    bool suspect = t->suspects.n > 0 && t->suspects_busy == 0;
    if (suspect && t->ready.n) {
        t->suspects_turn = !t->suspects_turn;
        suspect = t->suspects_turn;
    }
    if (suspect)
        return first_destination(&t->suspects);
    preempt(t, peer_by_rank(heap_first(&first_destination(&t->ready)->peers))->job, now);
    return first_destination(&t->ready);
}

struct entry *scheduler_next(struct scheduler *s, int64_t now) {
    timers_run(s, now);
    if (s->ready.next == &s->ready)
        return NULL;
    struct transport *t = (struct transport *)s->ready.next;
    struct destination *d = take_turn(t, now);
    struct peer *p = peer_by_rank(heap_first(&d->peers));
    p->job->taken++;
    struct entry *e = peer_pop(p);
    d->busy++;
    t->busy++;
    s->busy++;
    d->node.tie = ++t->turn;
    e->suspect = d->losses > 0;
    t->suspects_busy += e->suspect;
    ring_out(&t->link); /* to the end of the queue of those that want a turn */
    destination_update(d);
    return e;
}

/* --- the end of an attempt --- */

static struct entry *take_waiting(struct destination *d, struct entry *list) {
    while (d->peers.n) {
        struct entry *e = peer_pop(peer_by_rank(heap_first(&d->peers)));
        e->next = list;
        list = e;
    }
    return list;
}

static struct entry *transport_take(struct transport *t, struct entry *list) {
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&t->destinations, &at, &e)) {
        list = take_waiting(e->value, list);
        destination_update(e->value);
    }
    return list;
}

struct entry *scheduler_done(struct entry *e, enum attempt outcome, struct str dsn, struct str reason, int64_t now) {
    struct destination *d = e->destination;
    struct transport *t = d->transport;
    struct scheduler *s = t->scheduler;
    struct entry *list = NULL;
    d->busy--;
    t->busy--;
    s->busy--;
    t->suspects_busy -= e->suspect;
    switch (outcome) {
    case ATTEMPT_DONE:
        destination_reached(d);
        break;
    case ATTEMPT_UNREACHABLE:
        destination_unreachable(d, dsn, reason, now);
        break;
    case ATTEMPT_LOST:
        destination_agent_lost(d, dsn, reason, now);
        break;
    case ATTEMPT_NO_TRANSPORT:
        free(t->rest);
        t->rest = rest_new(now + s->options.transport_retry_us, dsn, STR(""), reason);
        list = transport_take(t, NULL);
        break;
    case ATTEMPT_ABANDONED:
        break;
    }
    if (d->rest)
        list = take_waiting(d, list);
    if (t->params.destination_rate_us && outcome != ATTEMPT_ABANDONED) {
        d->timer.tie = TIMER_DESTINATION;
        pause(s, &d->timer, now + t->params.destination_rate_us);
    }
    if (t->params.transport_rate_us && outcome != ATTEMPT_ABANDONED) {
        t->timer.tie = TIMER_TRANSPORT;
        pause(s, &t->timer, now + t->params.transport_rate_us);
    }
    destination_update(d);
    if (!list) /* entries of it may be in there; scheduler_sweep() frees it later */
        destination_free_if_idle(d);
    return list;
}

/* --- all of them --- */

void scheduler_revive(struct scheduler *s) {
    size_t at = 0;
    struct map_entry *te, *de;
    while (map_next(&s->transports, &at, &te)) {
        struct transport *t = te->value;
        free(t->rest);
        t->rest = NULL;
        for (size_t dat = 0; map_next(&t->destinations, &dat, &de);) {
            struct destination *d = de->value;
            if (d->rest)
                destination_live(d);
            destination_update(d);
            if (is_idle(d) && !d->losses && !d->timer.at)
                destination_free(d);
        }
    }
}

struct entry *scheduler_take(struct arrival *a) {
    struct entry *list = NULL;
    for (struct job *j = a->jobs; j; j = j->next) {
        while (j->listed || j->parked) {
            struct peer *p = j->listed ? j->listed : j->parked;
            /* a peer that peer_pop() frees it has taken out of the list */
            struct destination *d = p->destination; // NOLINT(clang-analyzer-unix.Malloc)
            struct entry *e = peer_pop(p);
            e->next = list;
            list = e;
            destination_update(d);
        }
    }
    return list;
}

struct entry *scheduler_take_all(struct scheduler *s) {
    size_t at = 0;
    struct map_entry *te;
    struct entry *list = NULL;
    while (map_next(&s->transports, &at, &te))
        list = transport_take(te->value, list);
    return list;
}

void scheduler_sweep(struct scheduler *s, int64_t now) {
    size_t at = 0;
    struct map_entry *te, *de;
    timers_run(s, now);
    while (map_next(&s->transports, &at, &te)) {
        struct transport *t = te->value;
        for (size_t dat = 0; map_next(&t->destinations, &dat, &de);) {
            struct destination *d = de->value;
            if (!is_idle(d) || d->timer.at || (d->rest && d->rest->until > now))
                continue;
            /* a suspect is remembered until its mail has been tried again */
            if (d->losses && d->lost_at + 2 * s->options.destination_retry_max_us > now)
                continue;
            destination_free(d);
        }
    }
}

struct transport *scheduler_each(struct scheduler *s, size_t *at) {
    struct map_entry *te;
    return map_next(&s->transports, at, &te) ? te->value : NULL;
}

size_t scheduler_waiting(const struct scheduler *s) {
    return s->waiting;
}
