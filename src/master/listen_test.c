#include "master/master.h"

#include "test/test.h"
#include <unistd.h>

struct master master;

static struct conf *load(struct arena *a, const char *interfaces, const char *protocols) {
    struct conf_override o[] = {
        { STR("inet_interfaces"), str_c(interfaces) },
        { STR("inet_protocols"), str_c(protocols) },
        { STR("known_tcp_ports"), STR("lmtp=24, smtp=25, smtps=submissions=465, odd=x, big=65536") },
    };
    struct conf_source source = {
        .config_directory = STR("/nonexistent"), .missing_is_empty = true, .overrides = o, .override_count = 3
    };
    struct conf *c = NULL;
    error e = conf_load(&source, a, &c);
    if (e)
        fail_msg("%.*s", STR_ARG(e->text));
    return c;
}

static void test_ports(void **state) {
    (void)state;
    static const struct {
        struct str name;
        int port; /* 0: none */
    } rows[] = {
        { STR_INIT("25"), 25 },
        { STR_INIT("smtp"), 25 },
        { STR_INIT("SMTP"), 25 },
        { STR_INIT("smtps"), 465 },
        { STR_INIT("lmtp"), 24 },
        { STR_INIT("0"), 0 },
        { STR_INIT("submissions"), 465 },
        { STR_INIT("65535"), 65535 },
        { STR_INIT("65536"), 0 },
        { STR_INIT("-1"), 0 },
        { STR_INIT("odd"), 0 },
        { STR_INIT("big"), 0 },
        { STR_INIT(""), 0 },
        { STR_INIT("25x"), 0 },
        { STR_INIT("nosuchservice"), 0 },
        { STR_INIT("averyveryveryveryveryveryveryveryveryveryveryveryveryveryverylongname"), 0 },
    };
    struct arena *a = arena_new();
    struct conf *c = load(a, "all", "all");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint16_t port = 0;
        bool ok = listen_port(c, rows[i].name, &port);
        if (ok != (rows[i].port != 0) || (ok && port != rows[i].port))
            fail_msg("%.*s: %d %u", STR_ARG(rows[i].name), ok, port);
    }
    conf_free(c);
    arena_free(a);
}

/* "address port" of each socket with commas between, or "error". */
static void check(const char *interfaces, const char *protocols, const char *name, const char *want) {
    struct arena *a = arena_new();
    struct conf *c = load(a, interfaces, protocols);
    struct master_entry e = { .name = str_c(name), .type = SERVICE_INET };
    struct endpoint *at;
    size_t n;
    struct buf got = { 0 };
    error failed = listen_addresses(c, &e, a, &at, &n);
    if (failed) {
        assert_int_equal(failed->kind, ERR_CONFIG);
        buf_add(&got, STR("error"));
    }
    for (size_t i = 0; !failed && i < n; i++) {
        char text[INET6_ADDRSTRLEN];
        buf_printf(&got, "%s%.*s %u", i ? "," : "", STR_ARG(endpoint_address(&at[i], text)), endpoint_port(&at[i]));
    }
    test_assert_str(buf_str(&got), str_c(want), name, __LINE__);
    buf_free(&got);
    conf_free(c);
    arena_free(a);
}

static void test_addresses(void **state) {
    (void)state;
    check("all", "ipv4", "smtp", "0.0.0.0 25");
    check("all", "ipv4", "127.0.0.1:10025", "127.0.0.1 10025");
    check("127.0.0.1", "ipv4", "25", "127.0.0.1 25");
    check("127.0.0.1, 127.0.0.1 127.0.0.1", "ipv4", "25", "127.0.0.1 25");
    check("127.0.0.1", "ipv4", "127.0.0.2:25", "127.0.0.2 25");
    check("127.0.0.1", "ipv4", ":25", "127.0.0.1 25");
    check("loopback-only", "ipv4", "25", "127.0.0.1 25");
    check("127.0.0.1", "ipv4", "0.0.0.0:25", "0.0.0.0 25");
    check("all", "ipv4", "[::1]:25", "error"); /* no address of an enabled protocol */
    check("all", "ipv4", "127.0.0.1", "error");
    check("all", "ipv4", "[127.0.0.1]", "error");
    check("all", "ipv4", "127.0.0.1:", "error");
    check("all", "ipv4", "", "error");
    check("all", "ipv4", "nosuch.invalid:25", "error");
}

static void test_addresses_ipv6(void **state) {
    (void)state;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0)
        skip();
    close(fd);
    check("all", "all", "smtp", "0.0.0.0 25,:: 25");
    check("all", "ipv6", "[::1]:smtps", "::1 465");
    check("127.0.0.1, [::1]", "all", "25", "127.0.0.1 25,::1 25");
    check("127.0.0.1, [::1]", "ipv6", "25", "::1 25");
    check("127.0.0.1", "ipv6", "25", "error");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_addresses_ipv6),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
