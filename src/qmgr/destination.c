/* How many deliveries at a time a destination gets, and when it gets none. */
#include "qmgr/scheduler_private.h"

#include "base/die.h"
#include "base/log.h"
#include <stdlib.h>

/* Sums of fractions such as 1/3 do not come to 1 exactly. */
#define EPSILON 1e-6

void *scheduler_alloc(size_t n) {
    void *p = calloc(1, n);
    if (!p)
        die_no_memory(n);
    return p;
}

struct rest *rest_new(int64_t until, struct str dsn, struct str prefix, struct str reason) {
    struct rest *r = scheduler_alloc(sizeof *r + dsn.n + prefix.n + reason.n);
    char *p = (char *)(r + 1);
    memcpy(p, dsn.p, dsn.n);
    memcpy(p + dsn.n, prefix.p, prefix.n);
    memcpy(p + dsn.n + prefix.n, reason.p, reason.n);
    r->until = until;
    r->dsn = str_n(p, dsn.n);
    r->reason = str_n(p + dsn.n, prefix.n + reason.n);
    return r;
}

unsigned destination_initial_window(const struct transport *t) {
    unsigned limit = t->params.concurrency_limit, initial = t->params.initial_concurrency;
    if (limit && initial > limit)
        initial = limit;
    return initial ? initial : 1;
}

void destination_live(struct destination *d) {
    free(d->rest);
    d->rest = NULL;
    d->window = destination_initial_window(d->transport);
    d->success = d->failure = d->failed_cohorts = 0;
}

bool destination_dead(struct destination *d, int64_t now, struct str *ret_dsn, struct str *ret_reason) {
    struct transport *t = d->transport;
    if (t->rest && t->rest->until <= now) {
        free(t->rest);
        t->rest = NULL;
    }
    if (d->rest && d->rest->until <= now)
        destination_live(d);
    const struct rest *r = t->rest ? t->rest : d->rest;
    if (!r)
        return false;
    *ret_dsn = r->dsn;
    *ret_reason = r->reason;
    return true;
}

/* As the pseudocode in SCHEDULER_README has it. */
void destination_reached(struct destination *d) {
    const struct transport *t = d->transport;
    const struct transport_params *p = &t->params;
    if (d->rest)
        destination_live(d);
    d->losses = 0;
    d->failed_cohorts = 0;
    if (p->concurrency_limit && d->window >= p->concurrency_limit)
        return;
    /* A window nobody fills must not grow: its size would mean nothing when they come. */
    if (d->window >= d->busy + destination_initial_window(t))
        return;
    d->success += feedback_amount(&p->positive, d->window);
    if (d->success + EPSILON >= 1) { /* an amount is no more than 1 */
        d->window++;
        d->success -= 1;
        d->failure = 0;
    }
    if (p->feedback_debug)
        log_info("%.*s: %.*s: success: window %u, success %g", STR_ARG(t->name), STR_ARG(d->name), d->window,
                 d->success);
}

static void kill(struct destination *d, int64_t for_us, struct str dsn, struct str reason, int64_t now) {
    free(d->rest);
    d->rest = rest_new(now + for_us, dsn, STR("delivery temporarily suspended: "), reason);
}

void destination_unreachable(struct destination *d, struct str dsn, struct str reason, int64_t now) {
    const struct transport_params *p = &d->transport->params;
    if (d->rest)
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
        kill(d, d->transport->scheduler->options.destination_retry_us, dsn, reason, now);
}

void destination_agent_lost(struct destination *d, struct str dsn, struct str reason, int64_t now) {
    const struct scheduler_options *o = &d->transport->scheduler->options;
    enum { DOUBLINGS_MAX = 20 };
    d->lost_at = now;
    if (d->losses++ == 0 || d->rest)
        return;
    unsigned doublings = d->losses - 2 < DOUBLINGS_MAX ? d->losses - 2 : DOUBLINGS_MAX;
    int64_t us = o->destination_retry_us << doublings;
    kill(d, us < o->destination_retry_max_us ? us : o->destination_retry_max_us, dsn, reason, now);
}
