#include "dns/dnsxl.h"

#include "test/test.h"
#include <arpa/inet.h>

static bool matches(const char *filter, const char *answer) {
    struct arena *a = arena_new();
    struct dnsxl_filter f;
    struct in_addr address;
    assert_int_equal(inet_pton(AF_INET, answer, &address), 1);
    assert_null(dnsxl_filter_parse(a, str_c(filter), &f));
    arena_free(a);
    return dnsxl_filter_match(&f, address);
}

static void test_answers(void **state) {
    (void)state;
    assert_true(matches("127.0.0.2", "127.0.0.2"));
    assert_false(matches("127.0.0.2", "127.0.0.3"));
    assert_false(matches("127.0.0.2", "126.0.0.2"));
    assert_true(matches("127.0.[0..3].[2;4..9]", "127.0.3.9"));
    assert_true(matches("127.0.[0..3].[2;4..9]", "127.0.0.2"));
    assert_false(matches("127.0.[0..3].[2;4..9]", "127.0.0.3"));
    assert_false(matches("127.0.[0..3].[2;4..9]", "127.0.4.4"));
    assert_true(matches("[0..255].[0..255].[0..255].[0..255]", "255.255.255.255"));
}

static void test_bad_filters(void **state) {
    (void)state;
    static const char *const bad[] = { "",           "127",         "127.0.0",       "127.0.0.2.3", "127.0.0.256",
                                       "127.0.0.",   "127.0.0.[]",  "127.0.0.[2",    "127.0.0.2]",  "127.0.0.[9..2]",
                                       "127.0.0.-1", "127.0.0.[2;", "127.0.0.[2..]", "a.b.c.d",     "127.0.0.2 " };
    struct arena *a = arena_new();
    struct dnsxl_filter f;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error e = dnsxl_filter_parse(a, str_c(bad[i]), &f);
        assert_non_null(e);
        assert_int_equal(e->kind, ERR_SYNTAX);
    }
    arena_free(a);
}

static void test_names(void **state) {
    (void)state;
    static const struct {
        const char *address, *name;
    } rows[] = {
        { "192.0.2.99", "99.2.0.192.list.example" },
        { "::ffff:192.0.2.99", "99.2.0.192.list.example" },
        { "2001:db8::a1", "1.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.list.example" },
    };
    struct arena *a = arena_new();
    struct str name;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct endpoint client;
        assert_true(endpoint_ip(str_c(rows[i].address), 0, &client));
        assert_true(dnsxl_name(a, &client, STR("list.example"), &name));
        assert_str(name, rows[i].name);
    }
    struct endpoint local;
    assert_true(endpoint_unix(STR("/x"), &local));
    assert_false(dnsxl_name(a, &local, STR("list.example"), &name));
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_bad_filters),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
