#include "service/dial.h"

#include "test/test.h"

static struct dial_target parse(struct arena *a, const char *text) {
    struct dial_target t;
    assert_null(dial_parse(a, str_c(text), &t));
    assert_str(t.text, text);
    return t;
}

static void test_inet(void **state) {
    (void)state;
    struct arena *a = arena_new();
    static const struct {
        const char *text, *host;
        uint16_t port;
    } rows[] = {
        { "inet:127.0.0.1:10023", "127.0.0.1", 10023 },   { "inet:[::1]:8891", "::1", 8891 },
        { "inet:filter.example:1", "filter.example", 1 }, { "inet:smtp", "localhost", 25 },
        { "inet:localhost:smtp", "localhost", 25 },       { "inet:localhost:65535", "localhost", 65535 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct dial_target t = parse(a, rows[i].text);
        assert_false(t.local);
        assert_str(t.host, rows[i].host);
        assert_int_equal(t.port, rows[i].port);
    }
    arena_free(a);
}

static void test_unix(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct dial_target t = parse(a, "unix:private/policy");
    assert_true(t.local);
    assert_str(t.path, "private/policy");
    t = parse(a, "unix:/run/filter.sock");
    assert_str(t.path, "/run/filter.sock");
    arena_free(a);
}

static void test_refused(void **state) {
    (void)state;
    struct arena *a = arena_new();
    static const char *const bad[] = {
        "",
        "inet:",
        "inet:host:",
        "inet:host:0",
        "inet:host:65536",
        "inet::25",
        "inet:[::1]",
        "inet:[::1]25",
        "inet:[]:25",
        "inet:[::1",
        "unix:",
        "private/policy",
        "127.0.0.1:10023",
        "inet:host:no-such-service",
    };
    struct dial_target t;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error e = dial_parse(a, str_c(bad[i]), &t);
        assert_non_null(e);
        assert_int_equal(e->kind, ERR_SYNTAX);
        assert_true(e->text.n > 0);
    }
    char long_path[200] = "unix:/";
    memset(long_path + 6, 'x', sizeof long_path - 7);
    assert_non_null(dial_parse(a, str_c(long_path), &t));
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inet),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
