/* scheduler_test_util.h - what the tests of the scheduler share: parameters, messages, entries. */
#ifndef ANGARIUM_QMGR_SCHEDULER_TEST_UTIL_H
#define ANGARIUM_QMGR_SCHEDULER_TEST_UTIL_H

#include "test/test.h"

#include "qmgr/scheduler.h"
#include <stdlib.h>

#define S INT64_C(1000000)
#define RETRY (300 * S)
#define RETRY_MAX (4000 * S)
#define TRANSPORT_RETRY (60 * S)

static struct transport_params params;

static inline void params_of(void *ctx, struct str name, struct transport_params *ret) {
    (void)ctx;
    (void)name;
    *ret = params;
}

static inline struct scheduler *make(void) {
    struct scheduler_options o = {
        .destination_retry_us = RETRY,
        .destination_retry_max_us = RETRY_MAX,
        .transport_retry_us = TRANSPORT_RETRY,
        .destinations_max = 20000,
        .params_of = params_of,
    };
    return scheduler_new(&o);
}

static inline void defaults(void) {
    params = (struct transport_params){
        .initial_concurrency = 5,
        .concurrency_limit = 20,
        .recipient_limit = 50,
        .failed_cohort_limit = 1,
        .positive = { .value = 1 },
        .negative = { .value = 1 },
        .slot_cost = 5,
        .slot_discount = 50,
        .slot_loan = 3,
        .minimum_slots = 3,
    };
}

/* Messages live until the end of the test. */
struct letter {
    struct letter *next;
    struct arrival arrival;
};
static struct letter *letters;

static inline struct arrival *letter(struct scheduler *s, int64_t now) {
    struct letter *l = calloc(1, sizeof *l);
    assert_non_null(l);
    l->next = letters;
    letters = l;
    scheduler_arrive(s, &l->arrival, now);
    return &l->arrival;
}

static inline struct entry *put_of(struct arrival *a, struct scheduler *s, const char *transport,
                                   const char *destination, int64_t now) {
    struct entry *e = calloc(1, sizeof *e);
    assert_non_null(e);
    e->message = (struct message *)(void *)a;
    e->destination = scheduler_destination(scheduler_transport(s, str_c(transport)), str_c(destination));
    scheduler_add(e, a, now);
    return e;
}

static inline struct entry *put(struct scheduler *s, const char *transport, const char *destination) {
    return put_of(letter(s, 0), s, transport, destination, 0);
}

static inline void put_many(struct scheduler *s, const char *transport, const char *destination, size_t n) {
    while (n-- > 0)
        put(s, transport, destination);
}

static inline size_t free_list(struct entry *e) {
    size_t n = 0;
    while (e) {
        struct entry *next = e->next;
        free(e);
        e = next;
        n++;
    }
    return n;
}

static inline size_t finish(struct entry *e, enum attempt outcome, int64_t now) {
    struct entry *list = scheduler_done(e, outcome, STR("4.4.1"), STR("refused"), now);
    free(e);
    return free_list(list);
}

static inline size_t take(struct scheduler *s, struct entry **e, size_t max) {
    size_t n = 0;
    while (n < max && (e[n] = scheduler_next(s, 0)))
        n++;
    return n;
}

static inline void end(struct scheduler *s) {
    free_list(scheduler_take_all(s));
    while (letters) {
        struct letter *l = letters;
        letters = l->next;
        scheduler_depart(&l->arrival);
        free(l);
    }
    scheduler_free(s);
}
#endif
