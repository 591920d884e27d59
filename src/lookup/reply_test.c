/* What tcp: and socketmap: servers say. */
#include "test/test.h"

#include "lookup/reply.h"

static void tcp_requests(void **state) {
    (void)state;
    struct buf b = { 0 };
    assert_true(tcp_request(&b, STR("Key @%Ex.Com\xc3\xa9\t")));
    assert_str(buf_str(&b), "get Key%20@%25Ex.Com%C3%A9%09\n");
    buf_clear(&b);
    char long_key[TCP_LINE_MAX];
    memset(long_key, 'k', sizeof long_key);
    assert_false(tcp_request(&b, str_n(long_key, TCP_LINE_MAX - 4)));
    buf_clear(&b);
    assert_true(tcp_request(&b, str_n(long_key, TCP_LINE_MAX - 5)));
    buf_free(&b);
}

static void tcp_replies(void **state) {
    (void)state;
    static const struct {
        const char *line;
        enum table_result result;
        const char *text;
    } rows[] = {
        { "200 va%20lue", TABLE_FOUND, "va lue" },
        { "200 ", TABLE_FOUND, "" },
        { "200  two  words ", TABLE_FOUND, " two  words " },
        { "200\tx\r", TABLE_FOUND, "x\r" },
        { "200 %4a%4A", TABLE_FOUND, "JJ" },
        { "500 none", TABLE_NOT_FOUND, "none" },
        { "400 later", TABLE_ERROR, "later" },
        { "300 x", TABLE_ERROR, "malformed reply" },
        { "200", TABLE_ERROR, "malformed reply" },
        { "200 a%zz", TABLE_ERROR, "malformed reply" },
        { "200 a%0", TABLE_ERROR, "malformed reply" },
        { "200 a%", TABLE_ERROR, "malformed reply" },
        { "2000 x", TABLE_ERROR, "malformed reply" },
        { "", TABLE_ERROR, "malformed reply" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct str text;
        enum table_result r = tcp_reply(str_c(rows[i].line), a, &text);
        if (r != rows[i].result)
            fail_msg("%s: %d", rows[i].line, (int)r);
        assert_str(text, rows[i].text);
    }
    arena_free(a);
}

static void netstrings(void **state) {
    (void)state;
    static const struct {
        const char *in;
        enum netstring result;
        const char *content;
        size_t used;
    } rows[] = {
        { "3:abc,", NETSTRING_WHOLE, "abc", 6 },
        { "0:,", NETSTRING_WHOLE, "", 3 },
        { "3:abc,4:", NETSTRING_WHOLE, "abc", 6 },
        { "", NETSTRING_MORE, "", 0 },
        { "3", NETSTRING_MORE, "", 0 },
        { "3:ab", NETSTRING_MORE, "", 0 },
        { "3:abc", NETSTRING_MORE, "", 0 },
        { "3:abcd", NETSTRING_BAD, "", 0 },
        { ":abc,", NETSTRING_BAD, "", 0 },
        { "x", NETSTRING_BAD, "", 0 },
        { "03:abc,", NETSTRING_BAD, "", 0 },
        { "11:", NETSTRING_BAD, "", 0 },
        { "99999999999999999999999999:", NETSTRING_BAD, "", 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct str content = STR("");
        size_t used = 0;
        enum netstring r = netstring_take(str_c(rows[i].in), 10, &content, &used);
        if (r != rows[i].result)
            fail_msg("%s: %d", rows[i].in, (int)r);
        assert_str(content, rows[i].content);
        assert_int_equal(used, rows[i].used);
    }
    struct buf b = { 0 };
    netstring_add(&b, STR("nm key"));
    assert_str(buf_str(&b), "6:nm key,");
    buf_free(&b);
}

static void socketmap_replies(void **state) {
    (void)state;
    static const struct {
        const char *reply;
        enum table_result result;
        const char *text;
    } rows[] = {
        { "OK value", TABLE_FOUND, "value" },
        { "OK  two", TABLE_FOUND, " two" },
        { "OK ", TABLE_FOUND, "" },
        { "OK", TABLE_NOT_FOUND, "" },
        { "NOTFOUND ", TABLE_NOT_FOUND, "" },
        { "NOTFOUND", TABLE_NOT_FOUND, "" },
        { "TEMP x", TABLE_ERROR, "x" },
        { "TIMEOUT x y", TABLE_ERROR, "x y" },
        { "PERM no", TABLE_ERROR, "no" },
        { "FOO x", TABLE_ERROR, "malformed reply" },
        { "", TABLE_ERROR, "malformed reply" },
        { "ok x", TABLE_ERROR, "malformed reply" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct str text;
        enum table_result r = socketmap_reply(str_c(rows[i].reply), &text);
        if (r != rows[i].result)
            fail_msg("%s: %d", rows[i].reply, (int)r);
        assert_str(text, rows[i].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp_requests),
        cmocka_unit_test(tcp_replies),
        cmocka_unit_test(netstrings),
        cmocka_unit_test(socketmap_replies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
