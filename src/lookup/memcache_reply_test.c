/* What a memcached says, whole and in every piece of it. */
#include "test/test.h"

#include "lookup/memcache_reply.h"

enum { LINE = 64, DATA = 5 };

static void values(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        enum memcache_reply reply;
        const char *text;
    } rows[] = {
        { "END\r\n", MEMCACHE_NONE, NULL },
        { "VALUE k 0 3\r\nabc\r\nEND\r\n", MEMCACHE_VALUE, "abc" },
        { "VALUE k 7 0\r\n\r\nEND\r\n", MEMCACHE_VALUE, "" },
        { "VALUE k 0 5\r\n\r\nEN\r\r\nEND\r\n", MEMCACHE_VALUE, "\r\nEN\r" },
        { "VALUE k 0 3 99\r\nabc\r\nEND\r\n", MEMCACHE_VALUE, "abc" },
        /* another key, no number, a limit, a wrong end */
        { "VALUE q 0 3\r\nabc\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 -3\r\nabc\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k x 3\r\nabc\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 3x\r\nabc\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 3 x\r\nabc\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 3 1 1\r\nabc\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0\r\n\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 6\r\nabcdef\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 18446744073709551615\r\nabc\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 3\r\nabcd\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 3\r\nabc\r\nENDX\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 3\r\nabc\r\nEND\r\nmore", MEMCACHE_BAD, NULL },
        { "VALUE k 0 3\r\nabc\r\nVALUE k 0 3\r\nabd\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "VALUE k 0 3\nabc\nEND\n", MEMCACHE_BAD, NULL },
        { "END\n", MEMCACHE_BAD, NULL },
        { "END\r\nEND\r\n", MEMCACHE_BAD, NULL },
        { "SERVER_ERROR out of memory\r\n", MEMCACHE_BAD, NULL },
        { "\r\n", MEMCACHE_BAD, NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct str got, whole = str_c(rows[i].bytes);
        assert_int_equal(memcache_reply_get(whole, STR("k"), LINE, DATA, &got), rows[i].reply);
        if (rows[i].text)
            assert_str(got, rows[i].text);
        for (size_t n = 0; rows[i].reply != MEMCACHE_BAD && n < whole.n; n++)
            assert_int_equal(memcache_reply_get(str_sub(whole, 0, n), STR("k"), LINE, DATA, &got), MEMCACHE_MORE);
    }
}

static void long_lines(void **state) {
    (void)state;
    struct str got, line = STR("VALUE k 0 3");
    char bytes[200];
    memset(bytes, 'x', sizeof bytes);
    assert_int_equal(memcache_reply_get(str_n(bytes, 10), STR("k"), 10, DATA, &got), MEMCACHE_MORE);
    assert_int_equal(memcache_reply_get(str_n(bytes, 11), STR("k"), 10, DATA, &got), MEMCACHE_BAD);
    assert_int_equal(memcache_reply_get(STR("VALUE k 0 3\r\nabc\r\nEND\r\n"), STR("k"), line.n, DATA, &got),
                     MEMCACHE_VALUE);
    assert_int_equal(memcache_reply_get(STR("VALUE k 0 3\r\nabc\r\nEND\r\n"), STR("k"), line.n - 1, DATA, &got),
                     MEMCACHE_BAD);
}

static void lines(void **state) {
    (void)state;
    struct str got;
    assert_int_equal(memcache_reply_line(STR("STORED\r\n"), LINE, &got), MEMCACHE_VALUE);
    assert_str(got, "STORED");
    assert_int_equal(memcache_reply_line(STR("STORED\r"), LINE, &got), MEMCACHE_MORE);
    assert_int_equal(memcache_reply_line(STR("STORED\n"), LINE, &got), MEMCACHE_BAD);
    assert_int_equal(memcache_reply_line(STR("STORED\r\nSTORED\r\n"), LINE, &got), MEMCACHE_BAD);
    assert_int_equal(memcache_reply_line(STR("STORED\r\n"), 5, &got), MEMCACHE_BAD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
