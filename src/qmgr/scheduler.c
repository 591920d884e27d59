#include "qmgr/scheduler.h"

#include "base/buf.h"
#include "base/die.h"
#include "base/log.h"
#include <math.h>
#include <stdlib.h>

struct scheduler {
    struct map transports;
    struct ring_link ready; /* transports that have something to deliver */
    int64_t destination_retry_us, destination_retry_max_us, transport_retry_us;
    void (*params_of)(void *ctx, struct str name, struct transport_params *ret);
    void *ctx;
    size_t waiting;
};

/* Sums of fractions such as 1/3 do not come to 1 exactly. */
#define EPSILON 1e-6

static void *zalloc(size_t n) {
    void *p = calloc(1, n);
    if (!p)
        die_no_memory(n);
    return p;
}

static struct str own(struct str s) {
    char *p = zalloc(s.n + 1);
    memcpy(p, s.p, s.n);
    return str_n(p, s.n);
}

static void disown(struct str *s) {
    union {
        const char *borrowed;
        char *owned;
    } p = { .borrowed = s->p };
    if (s->n)
        free(p.owned);
    *s = STR("");
}

/* --- rings --- */

static void ring_init(struct ring_link *head) {
    head->next = head->prev = head;
}
static bool ring_empty(const struct ring_link *head) {
    return head->next == head;
}
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

/* --- feedback --- */

static bool number(struct str s, double *ret) {
    char text[32];
    s = str_trim(s);
    if (s.n == 0 || s.n >= sizeof text || !(byte_is_digit(s.p[0]) || s.p[0] == '.'))
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    char *end;
    *ret = strtod(text, &end);
    return *end == 0 && isfinite(*ret);
}

bool feedback_parse(struct str s, struct feedback *ret) {
    struct feedback f = { .kind = FEEDBACK_CONSTANT };
    struct str over = STR("");
    ptrdiff_t slash = str_index(s, '/');
    if (slash >= 0) {
        over = str_trim(str_from(s, (size_t)slash + 1));
        s = str_sub(s, 0, (size_t)slash);
    }
    if (!number(s, &f.value))
        return false;
    double divisor;
    if (str_eq(over, STR("concurrency"))) {
        f.kind = FEEDBACK_BY_CONCURRENCY;
    } else if (str_eq(over, STR("sqrt_concurrency"))) {
        f.kind = FEEDBACK_BY_SQRT;
    } else if (slash >= 0) {
        if (!number(over, &divisor) || divisor <= 0)
            return false;
        f.value /= divisor;
    }
    if (f.value < 0 || f.value > 1)
        return false;
    *ret = f;
    return true;
}

double feedback_amount(const struct feedback *f, unsigned concurrency) {
    double c = concurrency ? concurrency : 1;
    switch (f->kind) {
    case FEEDBACK_BY_CONCURRENCY:
        return f->value / c;
    case FEEDBACK_BY_SQRT:
        return f->value / sqrt(c);
    case FEEDBACK_CONSTANT:
        break;
    }
    return f->value;
}

/* --- making and freeing --- */

struct scheduler *scheduler_new(int64_t destination_retry_us, int64_t destination_retry_max_us,
                                int64_t transport_retry_us,
                                void (*params_of)(void *ctx, struct str name, struct transport_params *ret),
                                void *ctx) {
    struct scheduler *s = zalloc(sizeof *s);
    ring_init(&s->ready);
    s->destination_retry_us = destination_retry_us;
    s->destination_retry_max_us = destination_retry_max_us;
    s->transport_retry_us = transport_retry_us;
    s->params_of = params_of;
    s->ctx = ctx;
    return s;
}

struct transport *scheduler_transport(struct scheduler *s, struct str name) {
    struct transport *t = map_get(&s->transports, name);
    if (t)
        return t;
    t = zalloc(sizeof *t);
    t->scheduler = s;
    t->name = own(name);
    t->dead_dsn = t->dead_reason = STR("");
    ring_init(&t->ready);
    ring_init(&t->suspects);
    s->params_of(s->ctx, t->name, &t->params);
    map_put(&s->transports, t->name, t);
    return t;
}

static unsigned initial_window(const struct transport *t) {
    unsigned limit = t->params.concurrency_limit, initial = t->params.initial_concurrency;
    if (limit && initial > limit)
        initial = limit;
    return initial ? initial : 1;
}

struct destination *scheduler_destination(struct transport *t, struct str name) {
    struct destination *d = map_get(&t->destinations, name);
    if (d)
        return d;
    d = zalloc(sizeof *d);
    d->transport = t;
    d->name = own(name);
    d->dead_dsn = d->dead_reason = STR("");
    d->window = initial_window(t);
    map_put(&t->destinations, d->name, d);
    return d;
}

static void destination_free(struct destination *d) {
    ring_out(&d->link);
    map_remove(&d->transport->destinations, d->name);
    disown(&d->dead_dsn);
    disown(&d->dead_reason);
    disown(&d->name);
    free(d);
}

static void destination_free_if_idle(struct destination *d) {
    if (!d->first && !d->busy && !d->dead_until && !d->losses && !d->open && d->window == initial_window(d->transport))
        destination_free(d);
}

void scheduler_free(struct scheduler *s) {
    if (!s)
        return;
    size_t at = 0;
    struct map_entry *te;
    while (map_next(&s->transports, &at, &te)) {
        struct transport *t = te->value;
        size_t dat = 0;
        struct map_entry *de;
        while (map_next(&t->destinations, &dat, &de))
            destination_free(de->value);
        map_free(&t->destinations);
        disown(&t->dead_dsn);
        disown(&t->dead_reason);
        disown(&t->name);
        free(t);
    }
    map_free(&s->transports);
    free(s);
}

/* --- who may deliver --- */

static void transport_update(struct transport *t) {
    bool room = !t->params.process_limit || t->busy < t->params.process_limit;
    bool something = !ring_empty(&t->ready) || (!ring_empty(&t->suspects) && t->suspects_busy == 0);
    if (room && something)
        ring_in(&t->scheduler->ready, &t->link);
    else
        ring_out(&t->link);
}

static void destination_update(struct destination *d) {
    ring_out(&d->link);
    if (d->first && !d->dead_until && d->busy < d->window)
        ring_in(d->losses ? &d->transport->suspects : &d->transport->ready, &d->link);
    transport_update(d->transport);
}

static void transport_live(struct transport *t) {
    t->dead_until = 0;
    disown(&t->dead_dsn);
    disown(&t->dead_reason);
}

static void destination_live(struct destination *d) {
    d->dead_until = 0;
    disown(&d->dead_dsn);
    disown(&d->dead_reason);
    d->window = initial_window(d->transport);
    d->success = d->failure = d->failed_cohorts = 0;
}

bool destination_dead(struct destination *d, int64_t now, struct str *ret_dsn, struct str *ret_reason) {
    struct transport *t = d->transport;
    if (t->dead_until && t->dead_until <= now)
        transport_live(t);
    if (d->dead_until && d->dead_until <= now)
        destination_live(d);
    if (t->dead_until) {
        *ret_dsn = t->dead_dsn;
        *ret_reason = t->dead_reason;
        return true;
    }
    if (d->dead_until) {
        *ret_dsn = d->dead_dsn;
        *ret_reason = d->dead_reason;
        return true;
    }
    return false;
}

void scheduler_add(struct entry *e) {
    struct destination *d = e->destination;
    e->next = NULL;
    if (d->last)
        d->last->next = e;
    else
        d->first = e;
    d->last = e;
    d->waiting++;
    d->transport->scheduler->waiting++;
    if (!d->link.next)
        destination_update(d);
}

static struct entry *destination_pop(struct destination *d) {
    struct entry *e = d->first;
    d->first = e->next;
    if (!d->first)
        d->last = NULL;
    e->next = NULL;
    d->waiting--;
    d->transport->scheduler->waiting--;
    return e;
}

static struct destination *take_turn(struct transport *t) {
    bool suspect = !ring_empty(&t->suspects) && t->suspects_busy == 0;
    if (suspect && !ring_empty(&t->ready)) {
        t->suspects_turn = !t->suspects_turn;
        suspect = t->suspects_turn;
    }
    struct ring_link *head = suspect ? &t->suspects : &t->ready;
    return ring_empty(head) ? NULL : (struct destination *)head->next;
}

struct entry *scheduler_next(struct scheduler *s) {
    if (ring_empty(&s->ready))
        return NULL;
    struct transport *t = (struct transport *)s->ready.next;
    struct destination *d = take_turn(t);
    struct entry *e = destination_pop(d);
    if (d->open == e)
        d->open = NULL; /* on its way: no more recipients */
    d->busy++;
    t->busy++;
    e->suspect = d->losses > 0;
    t->suspects_busy += e->suspect;
    ring_out(&t->link); /* to the end of the queue of those that want a turn */
    destination_update(d);
    return e;
}

/* --- what an attempt teaches --- */

static void reached(struct destination *d) {
    struct transport *t = d->transport;
    const struct transport_params *p = &t->params;
    if (d->dead_until)
        destination_live(d);
    d->losses = 0;
    d->failed_cohorts = 0;
    if (p->concurrency_limit && d->window >= p->concurrency_limit)
        return;
    /* A window nobody fills must not grow: its size would mean nothing when they come. */
    if (d->window >= d->busy + initial_window(t))
        return;
    d->success += feedback_amount(&p->positive, d->window);
    while (d->success + EPSILON >= 1) {
        d->window++;
        d->success -= 1;
        d->failure = 0;
    }
    if (p->concurrency_limit && d->window > p->concurrency_limit)
        d->window = p->concurrency_limit;
    if (p->feedback_debug)
        log_info("%.*s: %.*s: success: window %u, success %g", STR_ARG(t->name), STR_ARG(d->name), d->window,
                 d->success);
}

static void destination_kill(struct destination *d, int64_t for_us, struct str dsn, struct str reason, int64_t now) {
    disown(&d->dead_dsn);
    disown(&d->dead_reason);
    d->dead_until = now + for_us;
    d->dead_dsn = own(dsn);
    struct buf b = { 0 };
    buf_printf(&b, "delivery temporarily suspended: %.*s", STR_ARG(reason));
    d->dead_reason = own(buf_str(&b));
    buf_free(&b);
}

static void unreachable(struct destination *d, struct str dsn, struct str reason, int64_t now) {
    const struct transport_params *p = &d->transport->params;
    if (d->dead_until)
        return;
    d->losses = 0; /* an answer, if a bad one: the agent is well */
    d->failed_cohorts += 1.0 / d->window;
    d->failure -= feedback_amount(&p->negative, d->window);
    while (d->failure + EPSILON < 0) {
        if (d->window > 1) /* not to zero: a destination is dead by its cohorts only */
            d->window--;
        d->failure += 1;
        d->success = 0;
    }
    if (p->feedback_debug)
        log_info("%.*s: %.*s: failure: window %u, failure %g, cohorts %g", STR_ARG(d->transport->name),
                 STR_ARG(d->name), d->window, d->failure, d->failed_cohorts);
    if (p->failed_cohort_limit && d->failed_cohorts + EPSILON >= p->failed_cohort_limit)
        destination_kill(d, d->transport->scheduler->destination_retry_us, dsn, reason, now);
}

static void agent_lost(struct destination *d, struct str dsn, struct str reason, int64_t now) {
    const struct scheduler *s = d->transport->scheduler;
    enum { DOUBLINGS_MAX = 20 };
    d->lost_at = now;
    if (d->losses++ == 0 || d->dead_until)
        return;
    unsigned doublings = d->losses - 2 < DOUBLINGS_MAX ? d->losses - 2 : DOUBLINGS_MAX;
    int64_t us = s->destination_retry_us << doublings;
    destination_kill(d, us < s->destination_retry_max_us ? us : s->destination_retry_max_us, dsn, reason, now);
}

static struct entry *take_waiting(struct destination *d, struct entry *list) {
    while (d->first) {
        struct entry *e = destination_pop(d);
        if (d->open == e)
            d->open = NULL;
        e->next = list;
        list = e;
    }
    return list;
}

static struct entry *transport_take(struct transport *t, struct entry *list) {
    size_t at = 0;
    struct map_entry *de;
    while (map_next(&t->destinations, &at, &de)) {
        list = take_waiting(de->value, list);
        destination_update(de->value);
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
    t->suspects_busy -= e->suspect;
    switch (outcome) {
    case ATTEMPT_DONE:
        reached(d);
        break;
    case ATTEMPT_UNREACHABLE:
        unreachable(d, dsn, reason, now);
        break;
    case ATTEMPT_LOST:
        agent_lost(d, dsn, reason, now);
        break;
    case ATTEMPT_NO_TRANSPORT:
        disown(&t->dead_dsn);
        disown(&t->dead_reason);
        t->dead_until = now + s->transport_retry_us;
        t->dead_dsn = own(dsn);
        t->dead_reason = own(reason);
        list = transport_take(t, NULL);
        break;
    case ATTEMPT_ABANDONED:
        break;
    }
    if (d->dead_until)
        list = take_waiting(d, list);
    destination_update(d);
    if (!list) /* entries of it may be in there; scheduler_sweep() frees it later */
        destination_free_if_idle(d);
    return list;
}

/* --- all of them --- */

static bool is_idle(const struct destination *d) {
    return !d->first && !d->busy && !d->open;
}

void scheduler_revive(struct scheduler *s) {
    size_t at = 0;
    struct map_entry *te, *de;
    while (map_next(&s->transports, &at, &te)) {
        struct transport *t = te->value;
        if (t->dead_until)
            transport_live(t);
        for (size_t dat = 0; map_next(&t->destinations, &dat, &de);) {
            struct destination *d = de->value;
            if (d->dead_until)
                destination_live(d);
            destination_update(d);
            if (is_idle(d) && !d->losses)
                destination_free(d);
        }
    }
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
    while (map_next(&s->transports, &at, &te)) {
        struct transport *t = te->value;
        for (size_t dat = 0; map_next(&t->destinations, &dat, &de);) {
            struct destination *d = de->value;
            if (!is_idle(d) || (d->dead_until && d->dead_until > now))
                continue;
            /* a suspect is remembered until its mail has been tried again */
            if (d->losses && d->lost_at + 2 * s->destination_retry_max_us > now)
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
