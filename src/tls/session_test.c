#include "test/test.h"

#include "run/coro.h"
#include "tls/test_certs.h"
#include "tls/test_world.h"
#include "tls/tickets.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <unistd.h>

static char chain[64], other_chain[64];
static struct test_world world;

/* One session: the server answers each line with itself, and ends at QUIT. */
struct server {
    int fd;
    const char *before; /* bytes read before the handshake, as behind a PROXY header */
    int64_t seconds;    /* for the handshake */
    size_t flood;       /* bytes said at the end */
    error e;
    struct tls_facts facts;
    struct arena *arena;
    struct buf heard;
    error read_error;
};

static void server_run(void *arg) {
    struct server *s = arg;
    struct io *io = io_new(s->fd);
    struct tls *t = NULL;
    s->e = tls_accept(world.server, io, str_c(s->before), STR("peer[192.0.2.1]"), 0,
                      deadline_in(s->seconds ? s->seconds : 20), &t);
    if (!s->e) {
        tls_facts(t, s->arena, &s->facts);
        struct str line;
        while (!(s->read_error = io_line(io, 1000, deadline_in(20), &line))) {
            buf_add(&s->heard, line);
            if (str_starts(line, STR("QUIT")))
                break;
            io_write(io, line);
        }
        for (size_t n = 0; n < s->flood; n += 10)
            io_write(io, STR("123456789\n"));
        io_flush(io, deadline_in(20));
    }
    assert_int_equal(ERR_peek_error(), 0);
    io_close(io);
    assert_int_equal(fcntl(s->fd, F_GETFD), -1); /* closed, */
    assert_int_equal(errno, EBADF);
}

static void run_pair(struct server *s, struct test_client *c) {
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    s->fd = pair[0];
    c->fd = pair[1];
    s->arena = world.arena;
    assert_null(loop_init());
    assert_non_null(coro_spawn(server_run, s, "server"));
    assert_non_null(coro_spawn(test_client_run, c, "client"));
    assert_null(loop_run());
    loop_free();
}

static void done(struct server *s, struct test_client *c) {
    buf_free(&s->heard);
    buf_free(&c->heard);
    SSL_SESSION_free(c->session);
    c->session = NULL;
}

static void begin(const char *more) {
    char settings[1024];
    snprintf(settings, sizeof settings, "smtpd_tls_chain_files = %s\n%s", chain, more);
    test_world_begin(&world, settings, false);
    assert_non_null(world.server);
}

static void test_talk(void **state) {
    (void)state;
    static const int versions[] = { TLS1_2_VERSION, 0 };
    begin("");
    for (size_t i = 0; i < 2; i++) {
        struct server s = { 0 };
        struct test_client c = { .highest = versions[i], .text = "hello\nQUIT\n" };
        run_pair(&s, &c);
        assert_null(s.e);
        assert_true(c.shaken);
        assert_str(buf_str(&c.heard), "hello\n");
        assert_string_equal(c.subject, "mx.example");
        assert_str(s.facts.protocol, i ? "TLSv1.3" : "TLSv1.2");
        assert_int_equal(s.facts.bits, 256);
        assert_true(s.facts.active);
        assert_false(s.facts.requested_cert);
        assert_int_equal(s.facts.cert_print.n, 0);
        assert_str(s.facts.details,
                   i ? "key-exchange X25519 server-signature ECDSA (prime256v1) server-digest SHA256" : "");
        done(&s, &c);
    }
    assert_int_equal(world.log.n, 0);
    test_world_end(&world);
}

/* Who just closes is at the end of what it had to say, no more and no less. */
static void test_ends(void **state) {
    (void)state;
    begin("");
    for (int abrupt = 0; abrupt < 2; abrupt++) {
        struct server s = { 0 };
        struct test_client c = { .text = "QUIT\n", .abrupt = abrupt };
        run_pair(&s, &c);
        assert_null(s.read_error);
        done(&s, &c);
    }
    assert_int_equal(world.log.n, 0);
    test_world_end(&world);
}

static void test_much(void **state) {
    (void)state;
    enum { LINE = 900, LINES = 300 };
    begin("");
    struct buf text = { 0 };
    for (int i = 0; i < LINES; i++)
        for (int n = 0; n < LINE; n++)
            buf_byte(&text, n == LINE - 1 ? '\n' : "abcdefghijklmnopqrstuvwxyz"[i % 26]);
    struct buf all = { 0 };
    buf_add(&all, buf_str(&text));
    buf_add(&all, STR("QUIT\n"));
    struct server s = { .flood = 400000 };
    struct test_client c = { .text = all.p };
    run_pair(&s, &c);
    assert_null(s.e);
    assert_int_equal(c.heard.n, text.n + s.flood);
    assert_memory_equal(c.heard.p, text.p, text.n);
    done(&s, &c);
    buf_free(&text);
    buf_free(&all);
    test_world_end(&world);
}

/* --- what is no handshake --- */
struct stranger {
    int fd;
    const char *text;
    bool stays;
};
static void stranger_run(void *arg) {
    struct stranger *x = arg;
    if (*x->text && write(x->fd, x->text, strlen(x->text)) < 0)
        abort();
    if (x->stays)
        wait_until(deadline_in(3));
    close(x->fd);
}
static void meet(struct server *s, struct stranger *x) {
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    s->fd = pair[0];
    x->fd = pair[1];
    s->arena = world.arena;
    assert_null(loop_init());
    assert_non_null(coro_spawn(stranger_run, x, "stranger"));
    assert_non_null(coro_spawn(server_run, s, "server"));
    assert_null(loop_run());
    loop_free();
}

static void test_strangers(void **state) {
    (void)state;
    begin("");
    struct server s = { 0 };
    meet(&s, &(struct stranger){ .text = "EHLO client.example\r\n\r\n" });
    assert_non_null(s.e);
    assert_true(test_logged(&world, "SSL_accept error from peer[192.0.2.1]: -1\n"));
    assert_true(
        test_logged(&world, "warning: TLS library problem: error:0A00010B:SSL routines::wrong version number:"));
    buf_clear(&world.log);
    s = (struct server){ 0 };
    meet(&s, &(struct stranger){ .text = "\x16\x03\x01" });
    assert_non_null(s.e);
    assert_str(buf_str(&world.log), "SSL_accept error from peer[192.0.2.1]: lost connection\n");
    buf_clear(&world.log);
    s = (struct server){ .seconds = 1 };
    meet(&s, &(struct stranger){ .text = "", .stays = true });
    assert_int_equal(s.e->kind, ERR_TIMEOUT);
    assert_str(buf_str(&world.log), "SSL_accept error from peer[192.0.2.1]: Connection timed out\n");
    test_world_end(&world);
}

/* --- input that is there already --- */
static struct {
    int fd;
    error e, read;
    struct str line;
    char text[32];
} injected;
static void injected_run(void *arg) {
    (void)arg;
    struct io *io = io_new(injected.fd);
    struct str line;
    struct tls *t;
    assert_null(io_line(io, 100, deadline_in(5), &line));
    injected.e = tls_accept(world.server, io, STR(""), STR("peer"), 0, deadline_in(5), &t);
    injected.read = io_line(io, 100, deadline_in(5), &line);
    snprintf(injected.text, sizeof injected.text, "%.*s", STR_ARG(line));
    io_close(io);
}

static void test_injection(void **state) {
    (void)state;
    begin("");
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(write(pair[1], "STARTTLS\r\nRSET\r\n", 16), 16);
    injected.fd = pair[0];
    assert_null(loop_init());
    assert_non_null(coro_spawn(injected_run, NULL, "server"));
    assert_null(loop_run());
    loop_free();
    assert_int_equal(injected.e->kind, ERR_SYNTAX);
    assert_null(injected.read); /* nothing has been changed */
    assert_string_equal(injected.text, "RSET\r\n");
    close(pair[1]);
    test_world_end(&world);
}

static void test_began(void **state) {
    (void)state;
    begin("");
    struct server s = { .before = "GET" };
    struct test_client c = { .text = "QUIT\n" };
    run_pair(&s, &c);
    assert_non_null(s.e); /* they were taken for the beginning */
    assert_true(test_logged(&world, "TLS library problem"));
    assert_false(c.shaken);
    done(&s, &c);
    test_world_end(&world);
}

/* --- certificates, names, tickets --- */
static void test_client_certificate(void **state) {
    (void)state;
    char more[256];
    snprintf(more, sizeof more, "smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = %s\ncompatibility_level = 3.6\n",
             other_chain);
    begin(more);
    struct server s = { 0 };
    struct test_client c = { .chain = other_chain, .text = "QUIT\n" };
    run_pair(&s, &c);
    assert_true(s.facts.trusted);
    assert_true(s.facts.requested_cert);
    assert_str(s.facts.subject, "other.example");
    assert_str(s.facts.issuer, "other.example");
    assert_str(s.facts.serial, "1267");
    assert_int_equal(s.facts.cert_print.n, 32 * 3 - 1);
    assert_int_equal(s.facts.key_print.n, 32 * 3 - 1);
    assert_int_equal(s.facts.cert_print.p[2], ':');
    done(&s, &c);
    s = (struct server){ 0 };
    c = (struct test_client){ .chain = chain, .text = "QUIT\n" }; /* unknown to the CA: taken all the same */
    run_pair(&s, &c);
    assert_null(s.e);
    assert_false(s.facts.trusted);
    assert_str(s.facts.subject, "mx.example");
    tls_log_summary(&s.facts, STR("peer[192.0.2.1]"));
    assert_true(test_logged(&world, "Untrusted TLS connection established from peer[192.0.2.1]: TLSv1.3 with cipher "));
    done(&s, &c);
    test_world_end(&world);
}

static void test_names(void **state) {
    (void)state;
    static const struct {
        const char *asked, *got, *fact;
    } cases[] = {
        { "sni.example", "other.example", "sni.example" },
        { "SNI.Example", "other.example", "SNI.Example" },
        { "a.b.sub.example", "other.example", "a.b.sub.example" },
        { "sub.example", "mx.example", "" },
        { "unknown.example", "mx.example", "" },
        { NULL, "mx.example", "" },
    };
    char more[256];
    snprintf(more, sizeof more, "tls_server_sni_maps = inline:{{sni.example=%s},{.sub.example=%s}}\n", other_chain,
             other_chain);
    begin(more);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct server s = { 0 };
        struct test_client c = { .sni = cases[i].asked, .text = "QUIT\n" };
        run_pair(&s, &c);
        assert_null(s.e);
        assert_string_equal(c.subject, cases[i].got);
        assert_str(s.facts.sni, cases[i].fact);
        done(&s, &c);
    }
    struct server s = { 0 };
    struct test_client c = { .sni = "not a\nname", .text = "QUIT\n" };
    run_pair(&s, &c);
    assert_string_equal(c.subject, "mx.example");
    assert_true(test_logged(&world, "warning: TLS SNI from peer[192.0.2.1] is invalid: not a?name\n"));
    done(&s, &c);
    test_world_end(&world);
}

static void test_tickets(void **state) {
    (void)state;
    begin("");
    assert_true(tls_server_wants_keys(world.server));
    struct tls_ticket_keys keys = { 0 };
    struct server s = { 0 };
    for (int version = 0; version < 2; version++) {
        struct test_client c = { .highest = version ? 0 : TLS1_2_VERSION, .text = "x\nQUIT\n" };
        run_pair(&s, &c); /* without keys: no ticket */
        buf_free(&s.heard);
        assert_false(SSL_SESSION_has_ticket(c.session));
        assert_true(ticket_keys_advance(&keys, sys->wall_us() / US_PER_S, 3600));
        tls_server_set_keys(world.server, &keys);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(c.resumed, i == 2);
            run_pair(&s, &c);
            buf_free(&s.heard);
            assert_true(SSL_SESSION_has_ticket(c.session));
        }
        assert_true(s.facts.reused);
        assert_str(s.facts.details, version ? "key-exchange X25519" : "");
        struct tls_ticket_keys others = { 0 }; /* those of another machine */
        assert_true(ticket_keys_advance(&others, sys->wall_us() / US_PER_S, 3600));
        tls_server_set_keys(world.server, &others);
        run_pair(&s, &c);
        assert_false(c.resumed);
        done(&s, &c);
        tls_server_set_keys(world.server, &(struct tls_ticket_keys){ 0 });
    }
    assert_int_equal(world.log.n, 0);
    test_world_end(&world);
}

/* --- settings that are no good --- */
static void test_bad_settings(void **state) {
    (void)state;
    static const struct {
        const char *settings, *logged;
    } cases[] = {
        { "", "warning: No server certs available. TLS won't be enabled\n" },
        { "smtpd_tls_cert_file = /nonexistent\n",
          "warning: cannot get RSA certificate from file \"/nonexistent\": disabling TLS support\n" },
        { "smtpd_tls_chain_files = /dev/null\n", "warning: No PEM data in /dev/null\n" },
        { "smtpd_tls_cert_file = none\nsmtpd_tls_ask_ccert = yes\n",
          "warning: Need a server cert to request client certs\n" },
        { "smtpd_tls_cert_file = none\nsmtpd_tls_protocols = >=TLSv1.9\n",
          "warning: Invalid TLS protocol list \">=TLSv1.9\": disabling TLS support\n" },
        { "smtpd_tls_cert_file = none\nsmtpd_tls_protocols = <=12345678\n", "warning: Invalid TLS protocol list" },
        { "smtpd_tls_cert_file = none\nsmtpd_tls_ciphers = best\n", "warning: invalid TLS cipher grade: \"best\"\n" },
        { "smtpd_tls_cert_file = none\nsmtpd_tls_exclude_ciphers = ALL\n",
          "warning: error setting cipher grade: \"medium\": disabling TLS support\n" },
        { "smtpd_tls_cert_file = none\nsmtpd_tls_fingerprint_digest = crc\n",
          "warning: Digest algorithm \"crc\" not found\n" },
        { "smtpd_tls_cert_file = none\nsmtpd_tls_CAfile = /nonexistent\n",
          "cannot load Certification Authority data, CAfile=\"/nonexistent\": disabling TLS support\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_world_begin(&world, cases[i].settings, false);
        assert_null(world.server);
        assert_true(test_logged(&world, cases[i].logged));
        assert_int_equal(ERR_peek_error(), 0);
        test_world_end(&world);
    }
    test_world_begin(&world, "smtpd_tls_cert_file = none\n", false); /* wanted so */
    assert_non_null(world.server);
    assert_int_equal(world.log.n, 0);
    test_world_end(&world);
}

/* Files with keys and certificates in any wrong order. */
static void test_broken_chains(void **state) {
    (void)state;
    struct buf pem = { 0 }, second = { 0 };
    test_chain(&pem, "a.example");
    test_chain(&second, "b.example");
    struct str all = buf_str(&pem), cert_at = str_from(all, (size_t)(strstr(pem.p, "-----BEGIN CERT") - pem.p));
    struct str key = str_sub(all, 0, all.n - cert_at.n);
    struct str other_cert = str_c(strstr(second.p, "-----BEGIN CERT"));
    const struct {
        struct str one, two;
        const char *logged;
    } cases[] = {
        { cert_at, key, "certificate without a private key in front of it in " },
        { key, STR(""), "key without a certificate behind it in " },
        { key, other_cert, "key and certificate behind it do not match in " },
        { str_sub(all, 0, all.n - 40), STR(""), "error loading private keys and certificates from: " },
        { STR("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), STR(""),
          "private key with a passphrase in " },
    };
    char path[] = "/tmp/angarium-tls-XXXXXX", settings[128];
    int fd = mkstemp(path);
    snprintf(settings, sizeof settings, "smtpd_tls_chain_files = %s\n", path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_true(pwrite(fd, cases[i].one.p, cases[i].one.n, 0) >= 0);
        assert_true(pwrite(fd, cases[i].two.p, cases[i].two.n, (off_t)cases[i].one.n) >= 0);
        test_world_begin(&world, settings, false);
        assert_null(world.server);
        if (!test_logged(&world, cases[i].logged))
            print_error("case %zu: %s", i, world.log.p);
        assert_true(test_logged(&world, cases[i].logged));
        assert_true(test_logged(&world, "disabling TLS support"));
        test_world_end(&world);
    }
    close(fd);
    unlink(path);
    buf_free(&pem);
    buf_free(&second);
}

static int setup(void **state) {
    (void)state;
    test_chain_file(chain, "mx.example");
    test_chain_file(other_chain, "other.example");
    return 0;
}
static int teardown(void **state) {
    (void)state;
    unlink(chain);
    unlink(other_chain);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_talk),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_much),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_injection),
        cmocka_unit_test(test_began),
        cmocka_unit_test(test_client_certificate),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_broken_chains),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
