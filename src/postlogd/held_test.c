#include "postlogd/held.h"

#include "test/test.h"

static void add(struct held *h, const char *line, int64_t made_us, int64_t now_us) {
    held_add(h, str_c(line), made_us, now_us);
}

static void test_order(void **state) {
    (void)state;
    struct held h = { 0 };
    struct buf out = { 0 };
    assert_int_equal(held_due(&h), INT64_MAX);
    held_take(&h, INT64_MAX, &out);
    assert_int_equal(out.n, 0);
    /* two processes, each with lines in order; equal times stay as they came */
    add(&h, "a3", 30, 100);
    add(&h, "a5", 50, 100);
    add(&h, "a5 again", 50, 100);
    add(&h, "b1", 10, 100);
    add(&h, "b4", 40, 100);
    add(&h, "b5", 50, 100);
    assert_int_equal(held_due(&h), 10 + HELD_US);
    held_take(&h, 40, &out);
    assert_str(buf_str(&out), "b1\na3\nb4\n");
    assert_int_equal(held_due(&h), 50 + HELD_US);
    /* what stayed is still in order with what comes later, and before it at equal times */
    add(&h, "c5", 50, 100);
    add(&h, "c4", 45, 100);
    assert_int_equal(held_due(&h), 45 + HELD_US);
    buf_clear(&out);
    held_take(&h, INT64_MAX, &out);
    assert_str(buf_str(&out), "c4\na5\na5 again\nb5\nc5\n");
    assert_int_equal(held_due(&h), INT64_MAX);
    buf_free(&out);
    held_free(&h);
}

/* A sender may say any time: no line is kept for longer because of it. */
static void test_lies(void **state) {
    (void)state;
    struct held h = { 0 };
    struct buf out = { 0 };
    add(&h, "future", INT64_MAX, 1000);
    assert_int_equal(held_due(&h), 1000 + HELD_US);
    add(&h, "past", INT64_MIN, 1000);
    assert_true(held_due(&h) < 0);
    held_take(&h, 999, &out);
    assert_str(buf_str(&out), "past\n");
    held_take(&h, 1000, &out);
    assert_str(buf_str(&out), "past\nfuture\n");
    buf_free(&out);
    held_free(&h);
}

static void test_bounds(void **state) {
    (void)state;
    struct held h = { 0 };
    struct buf out = { 0 };
    char line[1000];
    memset(line, 'x', sizeof line);
    int lines = 0;
    for (; !held_is_full(&h) && lines < 100000; lines++)
        held_add(&h, str_n(line, sizeof line), lines, 100000);
    assert_true(h.bytes.n <= HELD_BYTES_MAX + sizeof line);
    held_take(&h, INT64_MAX, &out);
    assert_int_equal(out.n, (size_t)lines * (sizeof line + 1));
    assert_true(!held_is_full(&h) && h.bytes.room < HELD_BYTES_MAX); /* given back */
    for (lines = 0; !held_is_full(&h) && lines < 100000; lines++)
        held_add(&h, STR("x"), lines, 100000);
    assert_int_equal(lines, HELD_LINES_MAX + 1);
    buf_free(&out);
    held_free(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
