/* Unit tests of dns/: a name server written down as a table answers over loopback, from the same loop. */
#include "dns/dns.h"
#include "dns/internal.h"
#include "test/test.h"
#include <errno.h>
#include <ldns/ldns.h>
#include <stdlib.h>
#include <unistd.h>

/* What the test server knows. `udp_cut`: the UDP answer is cut, the whole one comes by TCP. */
struct zone_row {
    const char *name;
    int type;
    int rcode;
    bool udp_cut;
    const char *records; /* one a line, presentation form */
};
static const struct zone_row zone[] = {
    { "a.example.", LDNS_RR_TYPE_A, 0, false, "a.example. 60 IN A 192.0.2.7\na.example. 60 IN A 192.0.2.8" },
    { "a.example.", LDNS_RR_TYPE_AAAA, 0, false, "a.example. 60 IN AAAA 2001:db8::7" },
    { "alias.example.", LDNS_RR_TYPE_A, 0, false,
      "alias.example. 60 IN CNAME b.example.\nb.example. 60 IN CNAME a.example.\na.example. 60 IN A 192.0.2.7" },
    { "stray.example.", LDNS_RR_TYPE_A, 0, false, "other.example. 60 IN A 192.0.2.66" },
    { "loop.example.", LDNS_RR_TYPE_A, 0, false,
      "loop.example. 60 IN CNAME pool.example.\npool.example. 60 IN CNAME loop.example." },
    { "mx.example.", LDNS_RR_TYPE_MX, 0, false,
      "mx.example. 60 IN MX 20 b.example.\nmx.example. 60 IN MX 10 a.example." },
    { "null.example.", LDNS_RR_TYPE_MX, 0, false, "null.example. 60 IN MX 0 ." },
    { "nothing.example.", LDNS_RR_TYPE_MX, LDNS_RCODE_NXDOMAIN, false, "" },
    { "empty.example.", LDNS_RR_TYPE_MX, 0, false, "" },
    { "broken.example.", LDNS_RR_TYPE_MX, LDNS_RCODE_SERVFAIL, false, "" },
    { "long.example.", LDNS_RR_TYPE_TXT, 0, true, "long.example. 60 IN TXT \"one \" \"two\"" },
    { "7.2.0.192.in-addr.arpa.", LDNS_RR_TYPE_PTR, 0, false, "7.2.0.192.in-addr.arpa. 60 IN PTR a.example." },
    { "9.2.0.192.in-addr.arpa.", LDNS_RR_TYPE_PTR, 0, false, "9.2.0.192.in-addr.arpa. 60 IN PTR a.example." },
    { "10.2.0.192.in-addr.arpa.", LDNS_RR_TYPE_PTR, 0, false,
      "10.2.0.192.in-addr.arpa. 60 IN PTR bad\\032name.example." },
};

static uint8_t *make_answer(const uint8_t *question, size_t n, bool udp, size_t *ret_size) {
    ldns_pkt *pkt = NULL;
    assert_int_equal(ldns_wire2pkt(&pkt, question, n), LDNS_STATUS_OK);
    const ldns_rr *q = ldns_rr_list_rr(ldns_pkt_question(pkt), 0);
    char *name = ldns_rdf2str(ldns_rr_owner(q));
    const struct zone_row *row = NULL;
    for (size_t i = 0; i < sizeof zone / sizeof *zone; i++)
        if (strcmp(zone[i].name, name) == 0 && zone[i].type == (int)ldns_rr_get_type(q))
            row = &zone[i];
    free(name);
    ldns_pkt_set_qr(pkt, true);
    ldns_pkt_set_rcode(pkt, (uint8_t)(row ? row->rcode : LDNS_RCODE_NXDOMAIN));
    if (row && row->udp_cut && udp) {
        ldns_pkt_set_tc(pkt, true);
    } else if (row) {
        struct str records = str_c(row->records), line;
        struct arena *a = arena_new();
        while (records.n && str_next(&records, STR("\n"), &line)) {
            ldns_rr *rr = NULL;
            assert_int_equal(ldns_rr_new_frm_str(&rr, arena_cstr(a, line), 0, NULL, NULL), LDNS_STATUS_OK);
            ldns_pkt_push_rr(pkt, LDNS_SECTION_ANSWER, rr);
        }
        arena_free(a);
    }
    uint8_t *wire = NULL;
    assert_int_equal(ldns_pkt2wire(&wire, pkt, ret_size), LDNS_STATUS_OK);
    ldns_pkt_free(pkt);
    return wire;
}

static struct {
    int udp, tcp;
    uint16_t port;
    struct coro *servers[2];
    void (*test)(struct dns *d, struct arena *a);
    unsigned forged; /* wrong answers sent ahead of the right one */
} server;

static void serve_udp(void *arg) {
    (void)arg;
    while (!wait_readable(server.udp, DEADLINE_NEVER)) {
        uint8_t question[600];
        struct sockaddr_in peer;
        socklen_t len = sizeof peer;
        ssize_t n = recvfrom(server.udp, question, sizeof question, 0, (struct sockaddr *)&peer, &len);
        if (n <= 0)
            continue;
        size_t size;
        uint8_t *wire = make_answer(question, (size_t)n, true, &size);
        for (unsigned i = 0; i < server.forged; i++) { /* another id: must not be believed */
            wire[0] ^= 0xff;
            sendto(server.udp, wire, size, 0, (struct sockaddr *)&peer, len);
            wire[0] ^= 0xff;
        }
        sendto(server.udp, wire, size, 0, (struct sockaddr *)&peer, len);
        free(wire);
    }
}

static void serve_tcp(void *arg) {
    (void)arg;
    while (!wait_readable(server.tcp, DEADLINE_NEVER)) {
        int fd = accept4(server.tcp, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            continue;
        struct io *io = io_new(fd);
        unsigned char head[2];
        uint8_t question[600];
        if (!io_full(io, head, 2, deadline_in(5)) && !io_full(io, question, head[1], deadline_in(5))) {
            size_t size;
            uint8_t *wire = make_answer(question, head[1], false, &size);
            unsigned char out[2] = { (unsigned char)(size >> 8), (unsigned char)size };
            io_write(io, str_n((char *)out, 2));
            io_write(io, str_n((char *)wire, size));
            assert_null(io_flush(io, deadline_in(5)));
            free(wire);
        }
        io_close(io);
    }
}

static void run_with_server(void *arg) {
    (void)arg;
    struct arena *a = arena_new();
    struct dns *d;
    struct dns_options o = { .servers = arena_printf(a, "127.0.0.1:%u", server.port), .hosts = "/nonexistent" };
    assert_null(dns_open(&o, a, &d));
    server.test(d, a);
    dns_close(d);
    arena_free(a);
    coro_cancel(server.servers[0]);
    coro_cancel(server.servers[1]);
}

static void with_server(void (*test)(struct dns *d, struct arena *a)) {
    assert_null(loop_init());
    struct endpoint at;
    assert_true(endpoint_ip(STR("127.0.0.1"), 0, &at));
    assert_null(listen_on(&at, 5, 0, &server.tcp));
    struct sockaddr_in bound = { 0 };
    socklen_t len = sizeof bound;
    getsockname(server.tcp, (struct sockaddr *)&bound, &len);
    server.port = ntohs(bound.sin_port);
    server.udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.udp, (struct sockaddr *)&bound, len), 0);
    server.test = test;
    server.servers[0] = coro_spawn(serve_udp, NULL, "udp");
    server.servers[1] = coro_spawn(serve_tcp, NULL, "tcp");
    coro_spawn(run_with_server, NULL, "test");
    assert_null(loop_run());
    close(server.udp);
    close(server.tcp);
    loop_free();
}

static struct dns_answer ask(struct dns *d, struct arena *a, const char *name, enum dns_type type) {
    struct dns_answer answer;
    dns_query(d, a, str_c(name), type, deadline_in(10), &answer);
    return answer;
}

static void check_answers(struct dns *d, struct arena *a) {
    char text[INET6_ADDRSTRLEN];
    struct dns_answer r = ask(d, a, "a.example", DNS_A);
    assert_int_equal(r.status, DNS_OK);
    assert_int_equal(r.count, 2);
    assert_str(endpoint_address(&r.records[0].addr, text), "192.0.2.7");
    r = ask(d, a, "alias.example", DNS_A);
    assert_int_equal(r.count, 1);
    assert_str(r.canonical, "a.example");
    assert_int_equal(ask(d, a, "stray.example", DNS_A).status, DNS_NO_DATA);
    assert_int_equal(ask(d, a, "loop.example", DNS_A).status, DNS_NO_DATA);
    r = ask(d, a, "mx.example", DNS_MX);
    assert_int_equal(r.count, 2);
    assert_int_equal(r.records[0].preference + r.records[1].preference, 30);
    assert_int_equal(ask(d, a, "null.example", DNS_MX).status, DNS_NULL_MX);
    assert_int_equal(ask(d, a, "nothing.example", DNS_MX).status, DNS_NOT_FOUND);
    assert_int_equal(ask(d, a, "empty.example", DNS_MX).status, DNS_NO_DATA);
    assert_int_equal(ask(d, a, "broken.example", DNS_MX).status, DNS_RETRY);
    assert_int_equal(ask(d, a, "", DNS_MX).status, DNS_INVALID);
    r = ask(d, a, "long.example", DNS_TXT);
    assert_int_equal(r.status, DNS_OK);
    assert_str(r.records[0].text, "one two");
    dns_addresses(d, a, STR("a.example"), DNS_FAMILY_ANY, true, deadline_in(10), &r);
    assert_int_equal(r.count, 3);
    dns_addresses(d, a, STR("nothing.example"), DNS_FAMILY_ANY, true, deadline_in(10), &r);
    assert_int_equal(r.status, DNS_NOT_FOUND);
}

static void answers(void **state) {
    (void)state;
    with_server(check_answers);
}

static void check_forged(struct dns *d, struct arena *a) {
    server.forged = 5;
    assert_int_equal(ask(d, a, "a.example", DNS_A).status, DNS_OK);
    server.forged = 0;
}

static void forged_answers_are_passed_over(void **state) {
    (void)state;
    with_server(check_forged);
}

static struct dns_client client_of(struct dns *d, struct arena *a, const char *address) {
    struct endpoint e;
    struct dns_client c;
    assert_true(endpoint_ip(str_c(address), 1025, &e));
    dns_client_name(d, a, &e, deadline_in(10), &c);
    return c;
}

static void check_clients(struct dns *d, struct arena *a) {
    assert_str(client_of(d, a, "192.0.2.7").name, "a.example");
    assert_str(client_of(d, a, "::ffff:192.0.2.7").name, "a.example"); /* one normal form */
    struct dns_client c = client_of(d, a, "192.0.2.9");                /* the name leads elsewhere */
    assert_str(c.name, "unknown");
    assert_str(c.reverse_name, "a.example");
    assert_true(c.mismatch);
    c = client_of(d, a, "192.0.2.10"); /* a name with a blank in it is none */
    assert_str(c.reverse_name, "unknown");
    c = client_of(d, a, "192.0.2.99");
    assert_int_equal(c.name_status, DNS_NOT_FOUND);
}

static void client_names(void **state) {
    (void)state;
    with_server(check_clients);
}

static void configuration(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct dns d = { .arena = a };
    assert_null(dns_read_servers(&d, STR("127.0.0.1:5300, [::1]:53 [::2]"), a));
    assert_int_equal(d.server_count, 3);
    assert_int_equal(endpoint_port(&d.servers[0]), 5300);
    assert_int_equal(endpoint_port(&d.servers[2]), 53);
    static const char *bad[] = { "127.0.0.1:0", "127.0.0.1:65536", "ns.example:53", "127.0.0.1:+5", "[::1" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error e = dns_read_servers(&d, str_c(bad[i]), a);
        assert_non_null(e);
        assert_true(str_contains(e->text, STR("dns_resolvers")));
    }
    d = (struct dns){ .arena = a };
    dns_read_resolv_conf(&d,
                         STR("# x\nnameserver 192.0.2.1\nnameserver nonsense\noptions timeout:3 attempts:4 rotate\n"));
    assert_int_equal(d.server_count, 1);
    assert_int_equal(d.timeout_us, 3 * US_PER_S);
    assert_int_equal(d.tries, 4);
    dns_read_hosts(&d, STR("127.0.0.1 localhost # me\nnonsense x\n192.0.2.5 mail.example mail"));
    struct dns_answer r;
    dns_addresses(&d, a, STR("MAIL"), DNS_FAMILY_IPV4, true, 0, &r);
    assert_int_equal(r.count, 1);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration),
        cmocka_unit_test(answers),
        cmocka_unit_test(forged_answers_are_passed_over),
        cmocka_unit_test(client_names),
    };
    return cmocka_run_group_tests_name("dns", tests, NULL, NULL);
}
