#include "postlogd/line.h"

#include "test/test.h"
#include <stdlib.h>

/* Copied without a terminator, so that a sanitizer sees a read past the end (CM-01). */
static void check(const char *bytes, size_t n, const char *want_line, const char *want_strip) {
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    struct buf line = { 0 };
    postlogd_line(str_n(copy, n), &line);
    free(copy);
    assert_str(buf_str(&line), want_line);
    char *exact = malloc(line.n ? line.n : 1);
    assert_non_null(exact);
    if (line.n)
        memcpy(exact, line.p, line.n);
    assert_str(postlogd_strip(str_n(exact, line.n)), want_strip);
    free(exact);
    buf_free(&line);
}
#define CHECK(literal, line, strip) check(literal, sizeof(literal) - 1, line, strip)

static void test_lines(void **state) {
    (void)state;
    CHECK("Nov  2 09:20:47 host postfix/smtpd[1]: x", "Nov  2 09:20:47 host postfix/smtpd[1]: x",
          "postfix/smtpd[1]: x");
    CHECK("a\nb\rc\0d\n\n", "a?b?c?d", "a?b?c?d"); /* one datagram never makes two lines */
    CHECK("", "", "");
    CHECK("\n\n\0\n", "", "");
    CHECK("Nov  2 09:20:47", "Nov  2 09:20:47", "Nov  2 09:20:47");
    CHECK("Nov  2 09:20:47 ", "Nov  2 09:20:47 ", "Nov  2 09:20:47 ");
    CHECK("Nov  2 09:20:47 host", "Nov  2 09:20:47 host", "Nov  2 09:20:47 host");
    CHECK("Nov  2 09:20:47 host ", "Nov  2 09:20:47 host ", "Nov  2 09:20:47 host ");
    CHECK("\xff\xfe", "??", "??");
}

static void test_long(void **state) {
    (void)state;
    static char big[POSTLOGD_LINE_MAX * 3];
    memset(big, 'x', sizeof big);
    struct buf line = { 0 };
    postlogd_line(str_n(big, sizeof big), &line);
    assert_true(line.n <= POSTLOGD_LINE_MAX && line.n > POSTLOGD_LINE_MAX - 8);
    buf_free(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lines), cmocka_unit_test(test_long) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
