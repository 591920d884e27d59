#include "qmgr/scheduler_test_util.h"
#include <math.h>

static void what_a_dead_transport_lets_go_knows_its_destination(void **state) {
    (void)state;
    defaults();
    params.process_limit = 1;
    struct scheduler *s = make();
    struct entry *e;
    put_many(s, "smtp", "a", 2);
    assert_int_equal(take(s, &e, 1), 1);
    struct entry *list = scheduler_done(e, ATTEMPT_NO_TRANSPORT, STR("4.3.0"), STR("unavailable"), 0);
    free(e);
    struct str dsn, reason;
    assert_non_null(list);
    assert_true(destination_dead(list->destination, 1, &dsn, &reason));
    assert_str(reason, "unavailable");
    assert_int_equal(free_list(list), 1);
    end(s);
}

static void feedback_forms(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool good;
        unsigned concurrency;
        double amount;
    } rows[] = {
        { "1", true, 7, 1 },
        { "0", true, 7, 0 },
        { "0.25", true, 7, 0.25 },
        { "1/5", true, 7, 0.2 },
        { " 1 / 5 ", true, 7, 0.2 },
        { "1/concurrency", true, 4, 0.25 },
        { "0.5 / concurrency", true, 5, 0.1 },
        { "1/sqrt_concurrency", true, 16, 0.25 },
        { "2", false, 0, 0 },
        { "-1", false, 0, 0 },
        { "", false, 0, 0 },
        { "1/0", false, 0, 0 },
        { "1/", false, 0, 0 },
        { "/2", false, 0, 0 },
        { "nan", false, 0, 0 },
        { "1/many", false, 0, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct feedback f;
        if (feedback_parse(str_c(rows[i].text), &f) != rows[i].good)
            fail_msg("row %zu", i);
        if (rows[i].good && fabs(feedback_amount(&f, rows[i].concurrency) - rows[i].amount) > 1e-9)
            fail_msg("row %zu: %g", i, feedback_amount(&f, rows[i].concurrency));
    }
}

static void the_window_opens_to_its_limit(void **state) {
    (void)state;
    defaults();
    struct scheduler *s = make();
    struct entry *e[100];
    put_many(s, "smtp", "a", 200);
    size_t busy = take(s, e, 100);
    assert_int_equal(busy, 5);
    for (int i = 0; i < 60; i++) { /* each success: one more at a time */
        assert_int_equal(finish(e[0], ATTEMPT_DONE, 0), 0);
        e[0] = e[--busy];
        busy += take(s, e + busy, 100 - busy);
        assert_true(busy <= 20);
    }
    assert_int_equal(busy, 20);
    while (busy > 0)
        finish(e[--busy], ATTEMPT_DONE, 0);
    end(s);
}

static void a_window_that_is_not_used_stays(void **state) {
    (void)state;
    defaults();
    struct scheduler *s = make();
    struct entry *e[100];
    for (int i = 0; i < 50; i++) {
        put(s, "smtp", "a");
        assert_int_equal(take(s, e, 100), 1);
        finish(e[0], ATTEMPT_DONE, 0);
    }
    put_many(s, "smtp", "a", 100);
    size_t busy = take(s, e, 100);
    assert_true(busy <= 6);
    while (busy > 0)
        finish(e[--busy], ATTEMPT_ABANDONED, 0);
    end(s);
}

/* postconf(5): with the defaults one failed pseudo-cohort suspends the destination. */
static void a_failed_cohort_suspends(void **state) {
    (void)state;
    defaults();
    struct scheduler *s = make();
    struct entry *e[100];
    struct str dsn, reason;
    put_many(s, "smtp", "bad", 20);
    put_many(s, "smtp", "good", 3);
    size_t busy = take(s, e, 100), given_back = 0, failures = 0;
    assert_int_equal(busy, 8);
    struct destination *bad = scheduler_destination(scheduler_transport(s, STR("smtp")), STR("bad"));
    for (size_t i = 0; i < busy; i++)
        if (e[i]->destination == bad && !given_back) {
            given_back = finish(e[i], ATTEMPT_UNREACHABLE, 10 * S);
            e[i] = NULL;
            failures++;
        }
    assert_int_equal(given_back, 15);
    assert_int_equal(failures, 4); /* 1/5 + 1/4 + 1/3 + 1/2 > 1 */
    assert_true(destination_dead(bad, 10 * S, &dsn, &reason));
    assert_str(dsn, "4.4.1");
    assert_str(reason, "delivery temporarily suspended: refused");
    struct destination *good = scheduler_destination(scheduler_transport(s, STR("smtp")), STR("good"));
    assert_false(destination_dead(good, 10 * S, &dsn, &reason));
    assert_true(destination_dead(bad, 10 * S + RETRY - 1, &dsn, &reason));
    assert_false(destination_dead(bad, 10 * S + RETRY, &dsn, &reason));
    for (size_t i = 0; i < busy; i++)
        if (e[i])
            finish(e[i], ATTEMPT_DONE, 10 * S);
    end(s);
}

static void no_cohort_limit_no_death(void **state) {
    (void)state;
    defaults();
    params.failed_cohort_limit = 0;
    struct scheduler *s = make();
    struct entry *e;
    for (int i = 0; i < 100; i++) {
        put(s, "smtp", "bad");
        assert_non_null(e = scheduler_next(s, 0));
        finish(e, ATTEMPT_UNREACHABLE, i);
    }
    put_many(s, "smtp", "bad", 5); /* the window is down to one, never to none */
    assert_non_null(e = scheduler_next(s, 0));
    assert_null(scheduler_next(s, 0));
    finish(e, ATTEMPT_DONE, 0);
    end(s);
}

static void a_success_between_resets_the_cohorts(void **state) {
    (void)state;
    defaults();
    struct scheduler *s = make();
    struct entry *e;
    struct str dsn, reason;
    put(s, "smtp", "a");
    struct entry *long_one = scheduler_next(s, 0); /* so that the destination is not forgotten in between */
    for (int i = 0; i < 200; i++) {
        struct entry *first = put(s, "smtp", "a");
        struct destination *d = first->destination;
        assert_non_null(e = scheduler_next(s, 0));
        finish(e, ATTEMPT_UNREACHABLE, i);
        assert_false(destination_dead(d, i, &dsn, &reason));
        put(s, "smtp", "a");
        assert_non_null(e = scheduler_next(s, 0));
        finish(e, ATTEMPT_DONE, i);
    }
    finish(long_one, ATTEMPT_DONE, 0);
    end(s);
}

static void revive(void **state) {
    (void)state;
    defaults();
    params.initial_concurrency = 1;
    struct scheduler *s = make();
    struct str dsn, reason;
    struct entry *first = put(s, "smtp", "a");
    struct destination *d = first->destination;
    finish(scheduler_next(s, 0), ATTEMPT_UNREACHABLE, 0);
    assert_true(destination_dead(d, 1, &dsn, &reason));
    scheduler_revive(s);
    d = scheduler_destination(scheduler_transport(s, STR("smtp")), STR("a"));
    assert_false(destination_dead(d, 1, &dsn, &reason));
    end(s);
}

static void destinations_take_turns(void **state) {
    (void)state;
    defaults();
    params.process_limit = 3;
    struct scheduler *s = make();
    struct arrival *a = letter(s, 0);
    for (int i = 0; i < 300; i++)
        put_of(a, s, "smtp", "large", 0);
    for (int i = 0; i < 6; i++)
        put_of(a, s, "smtp", i % 2 ? "b" : "c", 0);
    struct entry *e[10];
    size_t b = 0, c = 0, done = 0;
    while (b + c < 6) {
        size_t busy = take(s, e, 10);
        assert_int_equal(busy, 3);
        for (size_t i = 0; i < busy; i++) {
            b += str_eq(e[i]->destination->name, STR("b"));
            c += str_eq(e[i]->destination->name, STR("c"));
            finish(e[i], ATTEMPT_DONE, 0);
            done++;
        }
    }
    assert_true(done <= 12); /* not behind the 300 */
    end(s);
}

static void transports_do_not_wait_for_each_other(void **state) {
    (void)state;
    defaults();
    params.process_limit = 2;
    struct scheduler *s = make();
    put_many(s, "slow", "a", 100);
    put_many(s, "quick", "b", 2);
    struct entry *e[10];
    size_t busy = take(s, e, 10), quick = 0;
    assert_int_equal(busy, 4);
    for (size_t i = 0; i < busy; i++)
        quick += str_eq(e[i]->destination->transport->name, STR("quick"));
    assert_int_equal(quick, 2);
    while (busy > 0)
        finish(e[--busy], ATTEMPT_DONE, 0);
    end(s);
}

static void a_transport_that_is_not_there(void **state) {
    (void)state;
    defaults();
    struct scheduler *s = make();
    struct entry *e[10];
    struct str dsn, reason;
    put_many(s, "smtp", "a", 7);
    put_many(s, "smtp", "b", 7);
    put_many(s, "local", "c", 1);
    size_t busy = take(s, e, 2);
    struct transport *t = scheduler_transport(s, STR("smtp"));
    size_t i = e[0]->destination->transport == t ? 0 : 1;
    struct entry *list = scheduler_done(e[i], ATTEMPT_NO_TRANSPORT, STR("4.3.0"), STR("mail transport unavailable"), 5);
    free(e[i]);
    assert_int_equal(free_list(list), 13);
    struct destination *d = scheduler_destination(t, STR("new"));
    assert_true(destination_dead(d, 6, &dsn, &reason));
    assert_str(reason, "mail transport unavailable");
    assert_false(destination_dead(d, 5 + TRANSPORT_RETRY, &dsn, &reason));
    finish(e[1 - i], ATTEMPT_DONE, 6);
    assert_int_equal(busy, 2);
    end(s);
}

/* One destination kills the agent, which serves the others too: it is found and set apart, they go on. */
static void the_suspect_is_found(void **state) {
    (void)state;
    defaults();
    struct scheduler *s = make();
    struct entry *e[100];
    struct str dsn, reason;
    put_many(s, "smtp", "hostile", 1);
    for (int i = 0; i < 5; i++) {
        char name[8] = { 'g', (char)('0' + i), 0 };
        put(s, "smtp", name);
    }
    size_t busy = take(s, e, 100);
    assert_int_equal(busy, 6);
    for (size_t i = 0; i < busy; i++)
        assert_int_equal(finish(e[i], ATTEMPT_LOST, 0), 0);
    /* the next time: one suspect after the other; a newcomer is not kept waiting */
    for (int i = 0; i < 5; i++) {
        char name[8] = { 'g', (char)('0' + i), 0 };
        put(s, "smtp", name);
    }
    struct entry *h = put(s, "smtp", "hostile");
    struct destination *hostile = h->destination;
    put_many(s, "smtp", "newcomer", 2);
    size_t done = 0, good = 0;
    bool killed = false;
    for (int round = 0; round < 20 && done < 8; round++) {
        busy = take(s, e, 100);
        size_t suspects = 0;
        for (size_t i = 0; i < busy; i++) {
            suspects += e[i]->suspect;
            if (e[i]->destination == hostile) {
                killed = true;
                finish(e[i], ATTEMPT_LOST, S);
            } else {
                good++;
                finish(e[i], ATTEMPT_DONE, S);
            }
            done++;
        }
        assert_true(suspects <= 1);
    }
    assert_true(killed);
    assert_int_equal(good, 7);
    assert_true(destination_dead(hostile, S + RETRY - 1, &dsn, &reason));
    assert_false(destination_dead(hostile, S + RETRY, &dsn, &reason));
    /* again after that: longer */
    put(s, "smtp", "hostile");
    assert_non_null(e[0] = scheduler_next(s, 0));
    finish(e[0], ATTEMPT_LOST, S + RETRY);
    assert_true(destination_dead(hostile, S + RETRY + 2 * RETRY - 1, &dsn, &reason));
    end(s);
}

static void sweeping_forgets(void **state) {
    (void)state;
    defaults();
    params.initial_concurrency = 1;
    struct scheduler *s = make();
    struct transport *t = scheduler_transport(s, STR("smtp"));
    for (int i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%d", i);
        put(s, "smtp", name);
        finish(scheduler_next(s, 0), i % 2 ? ATTEMPT_DONE : ATTEMPT_UNREACHABLE, 0);
    }
    assert_int_equal(t->destinations.n, 500); /* those with nothing to remember went at once */
    scheduler_sweep(s, RETRY - 1);
    assert_int_equal(t->destinations.n, 500);
    scheduler_sweep(s, RETRY);
    assert_int_equal(t->destinations.n, 0);
    end(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(feedback_forms),
        cmocka_unit_test(what_a_dead_transport_lets_go_knows_its_destination),
        cmocka_unit_test(the_window_opens_to_its_limit),
        cmocka_unit_test(a_window_that_is_not_used_stays),
        cmocka_unit_test(a_failed_cohort_suspends),
        cmocka_unit_test(no_cohort_limit_no_death),
        cmocka_unit_test(a_success_between_resets_the_cohorts),
        cmocka_unit_test(revive),
        cmocka_unit_test(destinations_take_turns),
        cmocka_unit_test(transports_do_not_wait_for_each_other),
        cmocka_unit_test(a_transport_that_is_not_there),
        cmocka_unit_test(the_suspect_is_found),
        cmocka_unit_test(sweeping_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
