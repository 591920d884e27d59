#include "proto/haproxy.h"

#include "run/loop.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include "test/test.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V2(verb_and_version, family, length, rest) SIGNATURE verb_and_version family length rest
#define BYTES(literal) literal, sizeof(literal) - 1

static const struct {
    const char *bytes;
    size_t n;
    const char *fault, *client, *server; /* no fault and no client: not proxied */
    uint16_t client_port, server_port;
} rows[] = {
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 1234 25\r\n"), NULL, "192.0.2.7", "192.0.2.8", 1234, 25 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 0 65535\n"), NULL, "192.0.2.7", "192.0.2.8", 0, 65535 },
    { BYTES("PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n"), NULL, "2001:db8::1", "2001:db8::2", 1234, 25 },
    { BYTES("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.8 1 2\r\n"), NULL, "192.0.2.7", "192.0.2.8", 1, 2 },
    { BYTES("PROXY UNKNOWN\r\n"), NULL, NULL, NULL, 0, 0 },
    { BYTES("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"), NULL, NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 1234 25"), "missing protocol header terminator", NULL, NULL, 0, 0 },
    { BYTES(""), "missing protocol header terminator", NULL, NULL, 0, 0 },
    { BYTES("PROXY\r\n"), "bad or missing protocol type", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP9 192.0.2.7 192.0.2.8 1 25\r\n"), "bad or missing protocol type", NULL, NULL, 0, 0 },
    { BYTES("proxy TCP4 192.0.2.7 192.0.2.8 1 25\r\n"), "unrecognized protocol header", NULL, NULL, 0, 0 },
    { BYTES("EHLO x\r\n"), "unrecognized protocol header", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4\r\n"), "bad or missing client address", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 2001:db8::1 192.0.2.8 1 25\r\n"), "bad or missing client address", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP6 192.0.2.7 2001:db8::1 1 25\r\n"), "bad or missing client address", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7\0 192.0.2.8 1 25\r\n"), "bad or missing client address", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2 1 25\r\n"), "bad or missing server address", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 65536 25\r\n"), "bad or missing client port", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 01 25\r\n"), "bad or missing client port", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 -1 25\r\n"), "bad or missing client port", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n"), "bad or missing server port", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 1 99999999999\r\n"), "bad or missing server port", NULL, NULL, 0, 0 },
    { BYTES("PROXY TCP4 192.0.2.7 192.0.2.8 1 25 x\r\n"), "text behind the server port", NULL, NULL, 0, 0 },
    { BYTES(V2("\x21", "\x11", "\0\x0c", "\xc0\0\2\7\xc0\0\2\x08\4\xd2\0\x19")), NULL, "192.0.2.7", "192.0.2.8", 1234,
      25 },
    { BYTES(V2("\x21", "\x11", "\0\x10", "\xc0\0\2\7\xc0\0\2\x08\4\xd2\0\x19\4\0\1x")), NULL, "192.0.2.7", "192.0.2.8",
      1234, 25 },
    { BYTES(V2("\x21", "\x21", "\0\x24",
               "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\x08\4\xd2\0\x19")),
      NULL, "2001:db8::1", "192.0.2.8", 1234, 25 },
    { BYTES(V2("\x20", "\0", "\0\0", "")), NULL, NULL, NULL, 0, 0 },
    { BYTES(V2("\x20", "\x11", "\0\x0c", "\xc0\0\2\7\xc0\0\2\x08\4\xd2\0\x19")), NULL, NULL, NULL, 0, 0 },
    { BYTES(V2("\x21", "\0", "\0\0", "")), NULL, NULL, NULL, 0, 0 },
    { BYTES(V2("\x21", "\x12", "\0\x0c", "\xc0\0\2\7\xc0\0\2\x08\4\xd2\0\x19")), "unsupported network protocol", NULL,
      NULL, 0, 0 },
    { BYTES(V2("\x21", "\x31", "\0\0", "")), "unsupported network protocol", NULL, NULL, 0, 0 },
    { BYTES(V2("\x21", "\x11", "\0\x0b", "\xc0\0\2\7\xc0\0\2\x08\4\xd2\0")), "short address field", NULL, NULL, 0, 0 },
    { BYTES(V2("\x21", "\x21", "\0\x0c", "\xc0\0\2\7\xc0\0\2\x08\4\xd2\0\x19")), "short address field", NULL, NULL, 0,
      0 },
    { BYTES(V2("\x22", "\x11", "\0\0", "")), "bad command in proxy header", NULL, NULL, 0, 0 },
    { BYTES(V2("\x31", "\x11", "\0\0", "")), "unrecognized protocol version", NULL, NULL, 0, 0 },
    { BYTES(V2("\x21", "\x11", "\xff\xff", "")), "version 2 protocol header too long", NULL, NULL, 0, 0 },
    { BYTES("\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0"), "unrecognized protocol header", NULL, NULL, 0, 0 },
    { BYTES(V2("\x21", "\x11", "\0\x0c", "\xc0\0")), "short version 2 protocol header", NULL, NULL, 0, 0 },
};

static void check(size_t i, const char *fault, const struct haproxy *h) {
    char text[INET6_ADDRSTRLEN];
    if ((fault != NULL) != (rows[i].fault != NULL) || (fault && strcmp(fault, rows[i].fault) != 0))
        fail_msg("row %zu: %s", i, fault ? fault : "taken");
    assert_int_equal(h->proxied, rows[i].client != NULL);
    if (!h->proxied)
        return;
    assert_str(endpoint_address(&h->client, text), rows[i].client);
    assert_str(endpoint_address(&h->server, text), rows[i].server);
    assert_int_equal(endpoint_port(&h->client), rows[i].client_port);
    assert_int_equal(endpoint_port(&h->server), rows[i].server_port);
}

static void test_parse(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *copy = test_malloc(rows[i].n + 1); /* no terminator behind it */
        memcpy(copy, rows[i].bytes, rows[i].n);
        struct haproxy h;
        check(i, haproxy_parse(str_n(copy, rows[i].n), &h), &h);
        test_free(copy);
    }
}

/* --- from a connection --- */
static struct {
    int fd;
    const char *fault;
    struct haproxy h;
    size_t seen;
    char rest[64];
} reading;

static void do_read(void *arg) {
    (void)arg;
    static char seen[HAPROXY_MAX];
    struct io *io = io_new(reading.fd);
    struct str rest;
    reading.fault = haproxy_read(io, deadline_in(5), &reading.h, seen, &reading.seen);
    if (!reading.fault && !io_line(io, sizeof reading.rest - 1, deadline_in(5), &rest))
        memcpy(reading.rest, rest.p, rest.n);
    io_close(io);
}

static void read_from(const char *script) {
    memset(&reading, 0, sizeof reading);
    fake_sys_install();
    assert_null(loop_init());
    reading.fd = script_peer_start(script);
    coro_spawn(do_read, NULL, "reader");
    assert_null(loop_run());
    script_peer_check();
    loop_free();
    fake_sys_remove();
}

static void test_read(void **state) {
    (void)state;
    /* what follows belongs to the session */
    read_from(">| PROXY TCP4 192.0.2.7 192.0.2.8 1234 25\\r\\nEHLO x\\r\\n\n");
    assert_null(reading.fault);
    assert_true(reading.h.proxied);
    assert_string_equal(reading.rest, "EHLO x\r\n");
    read_from(
        "slow 0.1\n>| \\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\0\\x0c\\xc0\\0\\x02\\x07\\xc0\\0\\x02\\x08\\x04\\xd2\\0"
        "\\x19EHLO x\\r\\n\n");
    assert_null(reading.fault);
    assert_true(reading.h.proxied);
    assert_string_equal(reading.rest, "EHLO x\r\n");

    read_from("quiet 4\nwait 2\n");
    assert_string_equal(reading.fault, "timeout error");
    assert_int_equal(reading.seen, 0);
    read_from(">| PROXY TCP4\nclose\n");
    assert_string_equal(reading.fault, "lost connection");
    assert_int_equal(reading.seen, 10);
    read_from(">| PROXY TCP4\nwait 10\n");
    assert_string_equal(reading.fault, "timeout error");
    read_from(">| \\r\\n\\r\\n\nclose\n");
    assert_string_equal(reading.fault, "lost connection");
    assert_int_equal(reading.seen, 4);
    read_from(">| \\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\0\\x0c\\xc0\nclose\n");
    assert_string_equal(reading.fault, "lost connection");
    assert_int_equal(reading.seen, 17);
    /* a header that says it is longer than we read is not waited for */
    read_from(">| \\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\xff\\xff\neof\n");
    assert_string_equal(reading.fault, "version 2 protocol header too long");
    read_from(
        ">| xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "xxxxxxxxxxxxxxxxx\n");
    assert_string_equal(reading.fault, "missing protocol header terminator");
    assert_int_equal(reading.seen, HAPROXY_LINE_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_parse), cmocka_unit_test(test_read) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
