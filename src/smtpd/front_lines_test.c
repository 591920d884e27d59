#include "test/test.h"

#include "smtpd/front_lines.h"

/* The content in pieces of `step` bytes; what is decided goes on, what is not is given again. */
static void feed(struct str content, size_t step, struct buf *ret) {
    struct front_lines f = { 0 };
    struct buf b = { 0 };
    buf_add(&b, STR("Received: x\n"));
    size_t from = b.n;
    for (size_t at = 0; at < content.n; at += step) {
        buf_add(&b, str_sub(content, at, step));
        from = front_lines(&f, &b, from, false);
        assert_true(from <= b.n && b.n - from <= FRONT_UNDECIDED_MAX + 4);
        buf_add(ret, str_sub(buf_str(&b), 0, from));
        buf_consume(&b, from);
        from = 0;
    }
    assert_int_equal(front_lines(&f, &b, from, true), b.n);
    buf_add(ret, buf_str(&b));
    buf_free(&b);
}

static void lines(void **state) {
    (void)state;
    static const struct {
        const char *content, *made;
    } rows[] = {
        { "a: b\n\nFrom x\n", "a: b\n\nFrom x\n" },
        { "From me\n>From you\na: b\n", "X-Mailbox-Line: From me\nX-Mailbox-Line: >From you\na: b\n" },
        { "From me\n>>>From you\n>x\n", "X-Mailbox-Line: From me\nX-Mailbox-Line: >>>From you\n>x\n" },
        { "From x\n", "X-Mailbox-Line: From x\n" },
        { "From x", "X-Mailbox-Line: From x" },
        { "From", "From" },
        { ">", ">" },
        { "", "" },
        { "\nFrom x\n", "\nFrom x\n" },
        { "from me\n", "from me\n" },
        { ">From\n", ">From\n" },
        { "From: a\n", "From: a\n" },
        { " leading\n", "\n leading\n" },
        { "\tx\n", "\n\tx\n" },
        { "From x\n a: b\n", "X-Mailbox-Line: From x\n\n a: b\n" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t step = 1; step < 20; step++) {
            struct buf got = { 0 };
            feed(str_c(rows[i].content), step, &got);
            assert_true(str_starts(buf_str(&got), STR("Received: x\n")));
            assert_str(str_from(buf_str(&got), 12), rows[i].made);
            buf_free(&got);
        }
}

/* A line without end and quotes without end are taken in pieces. */
static void endless(void **state) {
    (void)state;
    struct buf in = { 0 }, got = { 0 };
    buf_add(&in, STR("From "));
    for (int i = 0; i < 100000; i++)
        buf_byte(&in, 'x');
    feed(buf_str(&in), 1000, &got);
    assert_int_equal(got.n, in.n + 12 + 16);
    buf_clear(&in);
    buf_clear(&got);
    for (int i = 0; i < 100000; i++)
        buf_byte(&in, '>');
    feed(buf_str(&in), 1000, &got);
    assert_int_equal(got.n, in.n + 12);
    buf_free(&in);
    buf_free(&got);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(lines), cmocka_unit_test(endless) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
