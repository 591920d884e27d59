/* The order of deliveries: jobs, preemption, delays between deliveries. */
#include "qmgr/scheduler_test_util.h"

#include "base/buf.h"
#include "base/log.h"

/* One delivery at a time, each a second long, until nothing is left: which message each is of. */
static void run_to_end(struct scheduler *s, struct arrival *const *of, size_t count, int64_t from, struct buf *ret) {
    struct entry *e;
    for (int64_t now = from; (e = scheduler_next(s, now)); now += S) {
        for (size_t i = 0; i < count; i++)
            if ((void *)e->message == of[i])
                buf_byte(ret, (char)('1' + i));
        assert_int_equal(finish(e, ATTEMPT_DONE, now), 0);
    }
}

static void check_sequence(const char *sizes, const char *want) {
    struct scheduler *s = make();
    struct arrival *of[9];
    size_t n = 0;
    struct str rest = str_c(sizes), word;
    while (str_word(&rest, STR_SPACE, &word)) {
        of[n] = letter(s, 0);
        for (int k = atoi(word.p); k > 0; k--)
            put_of(of[n], s, "smtp", "a", 0);
        n++;
    }
    struct buf got = { 0 };
    run_to_end(s, of, n, 0, &got);
    if (!str_eq(buf_str(&got), str_c(want)))
        fail_msg("%s: %.*s, not %s", sizes, STR_ARG(buf_str(&got)), want);
    buf_free(&got);
    end(s);
}

/* The examples of SCHEDULER_README, and what its rules make of others. */
static void sequences(void **state) {
    (void)state;
    defaults();
    params.process_limit = 1;
    params.minimum_slots = 1;
    params.slot_cost = 2;
    params.slot_discount = params.slot_loan = 0;
    check_sequence("10 2 2", "11112211113311");
    check_sequence("4 1 1 1 1", "11211345"); /* no more than half of what was taken */
    params.slot_discount = 50;
    check_sequence("10 2 2", "11221111331111");
    params.slot_discount = 0;
    params.slot_loan = 1;
    check_sequence("10 1 1", "211311111111");
    params.slot_loan = 0;
    params.slot_cost = 0; /* none: in the order of arrival */
    check_sequence("10 2 2", "11111111112233");
    params.slot_cost = 1; /* 2 is the least there is */
    check_sequence("10 2 2", "11112211113311");
    params.slot_cost = 2;
    params.minimum_slots = 6; /* ten entries never make six slots */
    check_sequence("10 2 2", "11111111112233");
    params.minimum_slots = 5;
    check_sequence("10 2 2", "11112211111133");
}

/* The one that has waited longest for its size goes first, also when it is not the smallest. */
static void the_oldest_for_its_size(void **state) {
    (void)state;
    defaults();
    params.process_limit = 1;
    struct scheduler *s = make();
    struct arrival *of[3] = { letter(s, 0), letter(s, 10 * S), letter(s, 97 * S) };
    for (int i = 0; i < 1000; i++)
        put_of(of[0], s, "smtp", "a", 0);
    for (int i = 0; i < 5; i++)
        put_of(of[1], s, "smtp", "a", 10 * S);
    put_of(of[2], s, "smtp", "a", 97 * S);
    struct buf got = { 0 };
    run_to_end(s, of, 3, 100 * S, &got); /* 90 s for 5 entries: 18; 3 s for one: 3 */
    assert_true(str_starts(buf_str(&got), STR("22222")));
    buf_free(&got);
    end(s);
}

/* A newsletter has all processes and its one destination; a letter to the same one gets the next that is free. */
static void a_letter_slips_by(void **state) {
    (void)state;
    defaults();
    params.process_limit = 20;
    struct scheduler *s = make();
    struct arrival *news = letter(s, 0);
    for (int i = 0; i < 2000; i++)
        put_of(news, s, "smtp", "a", 0);
    struct entry *e[20];
    size_t busy = take(s, e, 20);
    for (int round = 0; round < 60; round++) {
        struct arrival *small = letter(s, round * S);
        put_of(small, s, "smtp", "a", round * S);
        assert_int_equal(finish(e[0], ATTEMPT_DONE, round * S), 0);
        e[0] = scheduler_next(s, round * S);
        assert_ptr_equal(e[0]->message, (struct message *)(void *)small);
        for (size_t i = 0; i < 10 && busy > 0; i++) { /* it goes on in between: the slots come back */
            finish(e[--busy], ATTEMPT_DONE, round * S);
            busy += take(s, e + busy, 20 - busy);
        }
    }
    while (busy > 0)
        finish(e[--busy], ATTEMPT_DONE, 0);
    end(s);
}

/* However many letters come, the newsletter takes no longer than cost/(cost - 1) times as long, and what it lent. */
static void a_newsletter_is_not_starved(void **state) {
    (void)state;
    for (unsigned cost = 2; cost <= 20; cost += 3) {
        defaults();
        params.process_limit = 1;
        params.slot_cost = cost;
        struct scheduler *s = make();
        struct arrival *news = letter(s, 0);
        size_t size = 2000, left = size, others = 0;
        for (size_t i = 0; i < size; i++)
            put_of(news, s, "smtp", "a", 0);
        int64_t now = 0;
        for (; left > 0; now += S) {
            struct arrival *a = letter(s, now); /* always more letters than there is room for */
            for (int k = (int)(now / S % 3); k >= 0; k--)
                put_of(a, s, "smtp", "a", now);
            struct entry *e = scheduler_next(s, now);
            if ((void *)e->message == news)
                left--;
            else
                others++;
            finish(e, ATTEMPT_DONE, now);
            if (others > 10 * size)
                fail_msg("cost %u: %zu others, and %zu left", cost, others, left);
        }
        size_t most = size / (cost - 1) + 2 * (params.slot_loan + 3);
        if (others > most || others < size / (cost + 1))
            fail_msg("cost %u: %zu others, expected at most %zu", cost, others, most);
        end(s);
    }
}

/* What cannot be delivered now is no candidate, and does not hide those that can; when it can, it is one again. */
static void blocked_candidates(void **state) {
    (void)state;
    defaults();
    params.process_limit = 2;
    params.initial_concurrency = params.concurrency_limit = 1;
    struct scheduler *s = make();
    struct arrival *first = letter(s, 0), *news = letter(s, 0);
    put_of(first, s, "smtp", "full", 0);
    struct entry *holder = scheduler_next(s, 0), *e;
    for (int i = 0; i < 1000; i++)
        put_of(news, s, "smtp", i % 2 ? "a" : "b", 0);
    struct arrival *stuck[500];
    for (int i = 0; i < 500; i++)
        put_of(stuck[i] = letter(s, 0), s, "smtp", "full", 0);
    for (int i = 0; i < 20; i++)
        finish(scheduler_next(s, 0), ATTEMPT_DONE, 0);
    struct arrival *late = letter(s, 0);
    put_of(late, s, "smtp", "c", 0);
    e = scheduler_next(s, 0);
    assert_ptr_equal(e->message, (struct message *)(void *)late);
    finish(e, ATTEMPT_DONE, 0);
    /* now the others, one for each slot */
    for (int i = 0; i < 2; i++) {
        finish(holder, ATTEMPT_DONE, 0);
        holder = scheduler_next(s, 0);
        assert_ptr_equal(holder->message, (struct message *)(void *)stuck[i]);
        for (int k = 0; k < 10; k++)
            finish(scheduler_next(s, 0), ATTEMPT_DONE, 0);
    }
    finish(holder, ATTEMPT_DONE, 0);
    end(s);
}

/* Recipients not read yet count as what they may become. */
static void unread_recipients_count(void **state) {
    (void)state;
    defaults();
    params.process_limit = 1;
    struct scheduler *s = make();
    struct arrival *news = letter(s, 0), *other = letter(s, 0);
    for (int i = 0; i < 100; i++)
        put_of(news, s, "smtp", "a", 0);
    put_of(other, s, "smtp", "a", 0);
    scheduler_unread(other, 5000); /* no small letter */
    struct entry *e = scheduler_next(s, 0);
    assert_ptr_equal(e->message, (struct message *)(void *)news);
    finish(e, ATTEMPT_DONE, 0);
    scheduler_unread(other, 0);
    e = scheduler_next(s, 0);
    assert_ptr_equal(e->message, (struct message *)(void *)other);
    finish(e, ATTEMPT_DONE, 0);
    end(s);
}

static void a_delay_between_deliveries(void **state) {
    (void)state;
    defaults();
    params.destination_rate_us = 10 * S;
    struct scheduler *s = make();
    put_many(s, "smtp", "a", 3);
    put_many(s, "smtp", "b", 1);
    struct entry *e[5];
    assert_int_equal(take(s, e, 5), 2); /* one at a time, to each */
    assert_int_equal(scheduler_wake(s), INT64_MAX);
    finish(e[0], ATTEMPT_DONE, 100 * S);
    assert_null(scheduler_next(s, 100 * S));
    assert_int_equal(scheduler_wake(s), 110 * S);
    assert_null(scheduler_next(s, 110 * S - 1));
    finish(e[1], ATTEMPT_DONE, 105 * S);
    put(s, "smtp", "b"); /* though nothing was waiting there */
    assert_non_null(e[0] = scheduler_next(s, 110 * S));
    assert_null(scheduler_next(s, 115 * S - 1));
    assert_non_null(e[1] = scheduler_next(s, 115 * S));
    assert_string_equal(e[1]->destination->name.p, "b");
    finish(e[0], ATTEMPT_DONE, 115 * S);
    finish(e[1], ATTEMPT_DONE, 115 * S);
    scheduler_sweep(s, 124 * S); /* is remembered, and then no more */
    assert_int_equal(scheduler_transport(s, STR("smtp"))->destinations.n, 2);
    assert_non_null(e[0] = scheduler_next(s, 125 * S));
    finish(e[0], ATTEMPT_DONE, 125 * S);
    scheduler_sweep(s, 136 * S);
    assert_int_equal(scheduler_transport(s, STR("smtp"))->destinations.n, 0);
    end(s);
}

static void a_delay_of_the_transport(void **state) {
    (void)state;
    defaults();
    params.transport_rate_us = 20 * S;
    struct scheduler *s = make();
    put_many(s, "slow", "a", 2);
    put_many(s, "slow", "b", 2);
    struct entry *e[5];
    int64_t now = 0;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(take(s, e, 5), 0 + (i == 0)); /* `take` is at time 0 */
        if (i > 0)
            assert_non_null(e[0] = scheduler_next(s, now));
        finish(e[0], ATTEMPT_DONE, now);
        assert_null(scheduler_next(s, now + 20 * S - 1));
        now += 20 * S;
        assert_int_equal(scheduler_wake(s), now);
    }
    end(s);
}

static void so_many_are_remembered(void **state) {
    (void)state;
    defaults();
    params.initial_concurrency = 1;
    struct scheduler *s = make(); /* 20,000 */
    for (int i = 0; i < 21000; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%d", i);
        put(s, "smtp", name);
        finish(scheduler_next(s, 0), ATTEMPT_UNREACHABLE, 0);
    }
    assert_int_equal(scheduler_transport(s, STR("smtp"))->destinations.n, 20000);
    end(s);
}

static unsigned warnings;
static void count_warnings(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx;
    (void)tag;
    warnings += level == LOG_LEVEL_WARN && str_contains(text, STR("mail for a is using up 101 of 10"));
}

static void clogged(void **state) {
    (void)state;
    defaults();
    struct scheduler_options o = {
        .destinations_max = 10, .clog_entries = 100, .clog_warn_us = 300 * S, .params_of = params_of
    };
    struct scheduler *s = scheduler_new(&o);
    warnings = 0;
    log_set_sink(count_warnings, NULL);
    put_many(s, "smtp", "a", 100);
    put_many(s, "smtp", "b", 5);
    assert_int_equal(warnings, 0);
    put(s, "smtp", "a");
    assert_int_equal(warnings, 1);
    for (int64_t now = 0; now < 1000 * S; now += 100 * S) {
        struct entry *e = scheduler_next(s, now);
        finish(e, ATTEMPT_ABANDONED, now);
        put_of(letter(s, now), s, "smtp", "a", now);
    }
    log_set_sink(NULL, NULL);
    assert_int_equal(warnings, 4); /* at 0, 300, 600 and 900 */
    end(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences),
        cmocka_unit_test(the_oldest_for_its_size),
        cmocka_unit_test(a_letter_slips_by),
        cmocka_unit_test(a_newsletter_is_not_starved),
        cmocka_unit_test(blocked_candidates),
        cmocka_unit_test(unread_recipients_count),
        cmocka_unit_test(a_delay_between_deliveries),
        cmocka_unit_test(a_delay_of_the_transport),
        cmocka_unit_test(so_many_are_remembered),
        cmocka_unit_test(clogged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
