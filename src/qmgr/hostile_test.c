/* Clocks that are set, and a process without descriptors: mail waits no longer than it must, and none is lost. */
#include "qmgr/qmgr_world.h"
#include <errno.h>

enum { DAY = 24 * 3600 };

/* Deferred while the clock was a year ahead; then it is put right: the next try is not a year away. */
static void clock_set_back_script(struct world *w) {
    told(w, "a@b.example", "late@there.example");
    settle(w);
    CHECK(in(SPOOL_DEFERRED) == 1 && w->seen_count == 0);
    fake_sys_step_wall(-365 * DAY * US_PER_S);
    w->late_ok = true;
    wait_until(deadline_in(310)); /* queue_run_delay */
    settle(w);
    CHECK(delivered("late@there.example") == 1 && in(SPOOL_DEFERRED) == 0);
}
SCENE(clock_set_back)

/* What is set back by less than a backoff time stays in its order. */
static void clock_set_back_a_little_script(struct world *w) {
    told(w, "a@b.example", "late@there.example");
    settle(w);
    fake_sys_step_wall(-600 * US_PER_S);
    w->late_ok = true;
    wait_until(deadline_in(600));
    settle(w);
    CHECK(w->seen_count == 0 && in(SPOOL_DEFERRED) == 1);
    wait_until(deadline_in(700));
    settle(w);
    CHECK(delivered("late@there.example") == 1);
}
SCENE(clock_set_back_a_little)

/* A year passes in a moment: what was deferred has its last try, and its sender is told. */
static void clock_set_forward_script(struct world *w) {
    told(w, "a@b.example", "defer@there.example");
    told(w, "a@b.example", "late@there.example");
    settle(w);
    CHECK(in(SPOOL_DEFERRED) == 2);
    fake_sys_step_wall(365 * DAY * US_PER_S);
    w->late_ok = true;
    wait_until(deadline_in(310));
    settle(w);
    CHECK(delivered("late@there.example") == 1 && w->notices == 1 && in(SPOOL_DEFERRED) == 0);
    told(w, "a@b.example", "ok@there.example");
    settle(w);
    CHECK(delivered("ok@there.example") == 1);
}
SCENE(clock_set_forward)

/* Mail from the future, by a clock that was wrong when it came. */
static void from_the_future_script(struct world *w) {
    struct queue_id id = mail(w, "a@b.example", "ok@there.example", -10 * 365 * DAY);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    id = mail(w, "a@b.example", "late@there.example", -10 * 365 * DAY);
    feed_notice(w->q, &id, SPOOL_INCOMING);
    settle(w);
    CHECK(delivered("ok@there.example") == 1 && in(SPOOL_DEFERRED) == 1);
    w->late_ok = true;
    wait_until(deadline_in(700)); /* minimal_backoff_time and queue_run_delay */
    settle(w);
    CHECK(delivered("late@there.example") == 1 && w->notices == 0);
}
SCENE(from_the_future)

/* A clock that goes to and fro while mail comes and is deferred: everything is delivered, once. */
static void restless_clock_script(struct world *w) {
    static const int64_t steps[] = { 3600, -7200, 90 * DAY, -91 * DAY, 1, -1, -30 * DAY, 31 * DAY };
    enum { STEPS = sizeof steps / sizeof steps[0] };
    char to[STEPS][40];
    for (unsigned i = 0; i < STEPS; i++) {
        snprintf(to[i], sizeof to[i], "%s%u@there.example", i % 2 ? "ok" : "late", i);
        told(w, "a@b.example", to[i]);
        settle(w);
        fake_sys_step_wall(steps[i] * US_PER_S);
        wait_until(deadline_in(10));
    }
    w->late_ok = true;
    for (int i = 0; i < 30; i++) {
        wait_until(deadline_in(310));
        settle(w);
    }
    for (unsigned i = 0; i < STEPS; i++)
        CHECK(delivered(to[i]) == 1 || w->notices > 0);
    CHECK(w->seen_count + w->notices == STEPS && in(SPOOL_DEFERRED) + in(SPOOL_ACTIVE) + in(SPOOL_INCOMING) == 0);
}
SCENE(restless_clock)

/* The file cannot be opened now: it is looked for again soon, not when somebody thinks of it. */
static void no_descriptors_script(struct world *w) {
    static const int faults[] = { EMFILE, ENFILE, EIO, ENOMEM };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct queue_id id = mail(w, "a@b.example", "ok@there.example", 0);
        fake_sys_fail("openat", 1, faults[i]);
        feed_notice(w->q, &id, SPOOL_INCOMING);
        settle(w);
        CHECK(fake_sys_clear_faults() == 0 && w->seen_count == i && in(SPOOL_INCOMING) == 1);
        wait_until(deadline_in(11));
        settle(w);
        CHECK(delivered("ok@there.example") == i + 1 && in(SPOOL_INCOMING) == 0);
    }
}
SCENE(no_descriptors)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clock_set_back),    cmocka_unit_test(clock_set_back_a_little),
        cmocka_unit_test(clock_set_forward), cmocka_unit_test(from_the_future),
        cmocka_unit_test(restless_clock),    cmocka_unit_test(no_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
