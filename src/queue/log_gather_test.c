/* How long a batch waits for messages that are on their way, to the microsecond of a clock of its own. */
#include "queue/spool_test_util.h"

#include "queue/segment.h"
#include "run/coro.h"
#include "test/fake_sys.h"

enum { MESSAGES_MAX = 48, SLOW = 1000000, NEVER = -1 };

struct message {
    int64_t begins, ends; /* microseconds from now; ends: the commit, */
    int64_t acked;        /* and its return; NEVER: it is given up instead */
};

static struct {
    struct test_queue q;
    struct spool *s;
    int64_t start;
    const struct message *messages;
} test;

static void run_message(void *arg) {
    const struct message *m = arg;
    struct spool_new *new;
    wait_until(test.start + m->begins);
    assert_null(spool_create(test.s, &new));
    spool_write(new, STR("content\n"));
    wait_until(test.start + m->ends);
    if (m->acked == NEVER) {
        spool_abort(new);
        return;
    }
    struct envelope env = test_envelope(test.q.arena, 8, 1);
    assert_null(spool_commit(new, &env, SPOOL_INCOMING));
    assert_int_equal(sys->mono_us() - test.start, m->acked);
}

/* All of them, the first of which makes the segment. */
static void expect(const struct message *messages, size_t n) {
    test.q = test_queue_new();
    fake_sys_install();
    assert_null(loop_init());
    struct spool_options options = {
        .queue_directory = str_c(test.q.dir), .access = SPOOL_WRITER, .log = true, .segment_size = SEGMENT_SIZE_MIN
    };
    assert_null(spool_open(&options, test.q.arena, &test.s));
    struct queue_id first;
    assert_null(test_message(test.s, test.q.arena, 10, 1, SPOOL_INCOMING, &first));
    test.start = sys->mono_us();
    for (size_t i = 0; i < n; i++)
        assert_non_null(coro_spawn(run_message, (void *)(uintptr_t)&messages[i], "message"));
    assert_null(loop_run());
    loop_free();
    spool_close(test.s);
    fake_sys_remove();
    test_queue_free(&test.q);
}

#define EXPECT(...)                                                                                                    \
    do {                                                                                                               \
        static const struct message messages[] = { __VA_ARGS__ };                                                      \
        expect(messages, sizeof messages / sizeof messages[0]);                                                        \
    } while (0)

static void who_is_alone_waits_for_nobody(void **state) {
    (void)state;
    EXPECT({ 0, 100, 100 });
    EXPECT({ 0, 100, 100 }, { 200, 300, 300 });
}

static void half_of_those_under_way_share_a_batch(void **state) {
    (void)state;
    EXPECT({ 0, 100, 100 }, { 0, 200, 200 });
    EXPECT({ 0, 100, 200 }, { 0, 200, 200 }, { 0, 300, 300 });
    EXPECT({ 0, 100, 300 }, { 0, 200, 300 }, { 0, 300, 300 }, { 0, 400, 400 }, { 0, 400, 400 });
}

static void who_gives_up_is_not_waited_for(void **state) {
    (void)state;
    EXPECT({ 0, 100, 250 }, { 0, 250, NEVER }, { 0, 400, 400 });
}

/* A millisecond at most, and after that was in vain the next 1, 3, 7 ... batches do not wait. */
static void a_wait_has_an_end(void **state) {
    (void)state;
    EXPECT({ 0, 100, 1100 }, { 0, SLOW, SLOW }, { 0, SLOW, SLOW }, { 1200, 1300, 1300 }, { 1400, 1500, 2500 },
           { 2600, 2700, 2700 }, { 2800, 2900, 2900 }, { 3000, 3100, 3100 }, { 3200, 3300, 4300 });
}

/* Where waiting has paid the next one waits, too. */
static void a_wait_that_was_worth_it_forgives(void **state) {
    (void)state;
    EXPECT({ 0, 100, 1100 }, { 0, SLOW, SLOW }, { 0, 3000, 3000 }, { 1200, 1300, 1300 }, { 1400, 1500, 1600 },
           { 1400, 1600, 1600 }, { 1700, 1800, 1900 }, { 1700, 1900, 1900 });
}

static void who_was_begun_long_ago_is_not_waited_for(void **state) {
    (void)state;
    EXPECT({ 0, SLOW, SLOW }, { 0, SLOW, SLOW }, { 5000, 5100, 5100 });
    EXPECT({ 0, SLOW, SLOW }, { 0, SLOW, SLOW }, { 4000, 4100, 5100 });
}

/* One that commits at 100 while `others` are under way, which commit at 200. */
static void expect_among(size_t others, int64_t acked) {
    struct message messages[MESSAGES_MAX] = { { 0, 100, acked } };
    assert_true(others < MESSAGES_MAX);
    for (size_t i = 1; i <= others; i++)
        messages[i] = (struct message){ 0, 200, 200 };
    expect(messages, others + 1);
}

static void a_crowd_gathers_by_itself(void **state) {
    (void)state;
    expect_among(31, 200);
    expect_among(32, 100);
}

/* A batch that is large enough does not wait, however many come. */
static void a_large_batch_waits_for_no_more(void **state) {
    (void)state;
    struct message messages[16 + 20];
    for (size_t i = 0; i < 36; i++)
        messages[i] = i < 16 ? (struct message){ 0, 100, 100 } : (struct message){ 0, 200, 200 };
    expect(messages, 36);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_alone_waits_for_nobody),     cmocka_unit_test(half_of_those_under_way_share_a_batch),
        cmocka_unit_test(who_gives_up_is_not_waited_for),    cmocka_unit_test(a_wait_has_an_end),
        cmocka_unit_test(a_wait_that_was_worth_it_forgives), cmocka_unit_test(who_was_begun_long_ago_is_not_waited_for),
        cmocka_unit_test(a_crowd_gathers_by_itself),         cmocka_unit_test(a_large_batch_waits_for_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
