/* policy_test.c - policy servers: what they are told, how their connections live, what comes of their answers. */
#include "test/test.h"

#include "smtpd/harness.h"
#include "smtpd/policy.h"
#include "test/fake_sys.h"

static struct harness h;

static int set_up(void **state) {
    (void)state;
    fake_sys_install();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    harness_end(&h);
    fake_sys_remove();
    return 0;
}

#define assert_logged(pattern)                                                                                         \
    do {                                                                                                               \
        if (!harness_logged(&h, pattern))                                                                              \
            fail_msg("no record like \"%s\" in\n%s", pattern, h.log.p);                                                \
    } while (0)

#define CONF(service) "smtpd_recipient_restrictions = check_policy_service " service
#define ENVELOPE "< 220 *\n> EHLO helo.example\n<< 250\n> MAIL FROM:<a@there.example>\n<< 250\n"
#define RCPT(n, reply) "> RCPT TO:<user" n "@here.example>\n< " reply "\n"
#define QUIT "> QUIT\n<< 221\neof\n"
/* one request, and its answer */
#define ASKED "lf\n< request=smtpd_access_policy\nskip mail_version=\n< \n"
#define DUNNO ASKED ">| action=DUNNO\\n\\n\n"

static void play(const char *options, const char *const *servers, const char *script) {
    harness_begin(&h, options);
    h.servers = servers;
    harness_script(&h, "192.0.2.1", script);
}

static void test_attributes(void **state) {
    (void)state;
    static const char *const servers[] = {
        "lf\n< request=smtpd_access_policy\n< protocol_state=RCPT\n< protocol_name=ESMTP\n< client_address=192.0.2.1\n"
        "< client_name=client.example\n< client_port=4711\n< reverse_client_name=client.example\n< server_address=\n"
        "< server_port=\n< helo_name=helo.example\n< sender=a@there.example\n< recipient=user@here.example\n"
        "< recipient_count=0\n< queue_id=\n< instance=*\n< size=1234\n< etrn_domain=\n< stress=\n"
        "< sasl_method=PLAIN\n< sasl_username=joe\n< sasl_sender=\n"
        "< ccert_subject=Joe+20Doe\n< ccert_issuer=CA\n< ccert_fingerprint=AA:BB\n< ccert_pubkey_fingerprint=CC:DD\n"
        "< encryption_protocol=TLSv1.3\n< encryption_cipher=TLS_AES_256_GCM_SHA384\n< encryption_keysize=256\n< "
        "tls_sni=mx.example\n"
        "< policy_context=here\n< compatibility_level=3.6\n< mail_version=3.*\n< \n"
        ">| action=450 4.2.0 Greylisted\\n\\n\neof\n",
        NULL
    };
    harness_begin(&h, CONF("inet:127.0.0.1:10023\nsmtpd_policy_service_policy_context = here"));
    h.servers = servers;
    h.login = (struct session_login){ STR("PLAIN"), STR("joe"), STR("") };
    h.tls = (struct tls_facts){ .active = true,
                                .trusted = true,
                                .protocol = STR("TLSv1.3"),
                                .cipher = STR("TLS_AES_256_GCM_SHA384"),
                                .bits = 256,
                                .subject = STR("Joe Doe"),
                                .issuer = STR("CA"),
                                .cert_print = STR("AA:BB"),
                                .key_print = STR("CC:DD"),
                                .sni = STR("mx.example") };
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> EHLO helo.example\n<< 250\n> MAIL FROM:<a@there.example> SIZE=1234\n<< 250\n" RCPT(
                       "", "450 4.2.0 <user@here.example>: Recipient address rejected: Greylisted") QUIT);
    assert_string_equal(h.dialled.p, "inet:127.0.0.1:10023\n");
    assert_logged("NOQUEUE: reject: RCPT from client.example?192.0.2.1?: 450 4.2.0 <user@here.example>: Recipient "
                  "address rejected: Greylisted; from=<a@there.example> to=<user@here.example> *");
}

/* At the end of content its true size, and how many recipients. */
static void test_end_of_message(void **state) {
    (void)state;
    static const char *const servers[] = {
        "lf\n< request=\n< protocol_state=END-OF-MESSAGE\nskip recipient=\n< recipient_count=2\n< queue_id=*\n"
        "skip size=12\nskip mail_version=\n< \n>| action=PREPEND X: y\\n\\n\neof\n",
        NULL
    };
    play("smtpd_end_of_data_restrictions = check_policy_service unix:private/policy", servers,
         ENVELOPE RCPT("", "250 *") RCPT("2", "250 *") "> DATA\n<< 354\n> Subject: x\n> .\n<< 250\n" QUIT);
    assert_string_equal(h.dialled.p, "unix:private/policy\n");
}

/* All requests about a message have the same instance and the same connection; the next session uses it, too. */
static void test_connection_is_kept(void **state) {
    (void)state;
    static const char *const servers[] = { DUNNO DUNNO DUNNO "eof\n", NULL };
    play(CONF("unix:p"), servers,
         ENVELOPE RCPT("", "250 *") RCPT("2", "250 *") "> RSET\n<< 250\n> MAIL FROM:<b@x>\n"
                                                       "<< 250\n" RCPT("", "250 *") QUIT);
    assert_int_equal(h.dials, 1);
}

static void test_request_limit(void **state) {
    (void)state;
    static const char *const servers[] = { DUNNO "eof\n", DUNNO "eof\n", NULL };
    play(CONF("{ unix:p, request_limit=1 }"), servers, ENVELOPE RCPT("", "250 *") RCPT("2", "250 *") QUIT);
    assert_int_equal(h.dials, 2);
}

/* An unused connection is closed after max_idle, in the middle of a session, and an old one after max_ttl. */
static void test_idle(void **state) {
    (void)state;
    static const char *const servers[] = { DUNNO "quiet 19\neof\n", DUNNO "eof\n", NULL };
    play(CONF("{ unix:p max_idle=20s }"), servers, ENVELOPE RCPT("", "250 *") "wait 30\n" RCPT("2", "250 *") QUIT);
    assert_int_equal(h.dials, 2);
}

static void test_old(void **state) {
    (void)state;
    static const char *const servers[] = { DUNNO "quiet 5\n" DUNNO "eof\n", DUNNO DUNNO "eof\n", NULL };
    play(CONF("{ unix:p, max_ttl=10s }"), servers,
         ENVELOPE RCPT("", "250 *") "wait 7\n" RCPT("2", "250 *") "wait 7\n" RCPT("3", "550 *") RCPT("", "250 *") QUIT);
    assert_int_equal(h.dials, 2);
}

/* The server had gone while nobody asked: a new connection at once, and nobody notices. */
static void test_stale(void **state) {
    (void)state;
    static const char *const servers[] = { DUNNO "close\n", DUNNO "eof\n", NULL };
    play(CONF("{ unix:p, try_limit=1 }"), servers, ENVELOPE RCPT("", "250 *") "wait 1\n" RCPT("2", "250 *") QUIT);
    assert_int_equal(h.dials, 2);
    assert_int_equal(harness_log_count(&h, "warning:*"), 0);
}

static void test_nobody_there(void **state) {
    (void)state;
    static const char *const none[] = { NULL };
    play(CONF("inet:127.0.0.1:10023"), none,
         ENVELOPE "> RCPT TO:<user@here.example>\nquiet 0.9\n"
                  "< 451 4.3.5 <user@here.example>: Recipient address rejected: Server configuration problem\n" QUIT);
    assert_int_equal(harness_log_count(&h, "warning: connect to 127.0.0.1:10023: Connection refused"), 2);
    assert_int_equal(harness_log_count(&h, "warning: problem talking to server 127.0.0.1:10023: Connection refused"),
                     2);
}

static void test_default_action(void **state) {
    (void)state;
    static const char *const none[] = { NULL };
    play(CONF("{ unix:p, try_limit=1, { default_action = DUNNO } }, defer"), none,
         ENVELOPE RCPT("", "450 4.3.2 *") QUIT);
    assert_int_equal(harness_log_count(&h, "warning: problem talking to server p: *"), 1);
}

static void test_silence(void **state) {
    (void)state;
    static const char *const servers[] = { ASKED "quiet 4.9\neof\n", DUNNO "eof\n", NULL };
    play(CONF("{ unix:p, timeout=5s, retry_delay=3s }"), servers,
         ENVELOPE "> RCPT TO:<user@here.example>\nquiet 7.9\n< 250 *\n" QUIT);
    assert_logged("warning: problem talking to server p: *");
}

static void test_second_try(void **state) {
    (void)state;
    static const char *const servers[] = { ASKED "close\n", DUNNO "eof\n", NULL };
    play(CONF("unix:p"), servers, ENVELOPE RCPT("", "250 *") QUIT);
}

static void test_malformed(void **state) {
    (void)state;
    static const char *const replies[] = {
        ">| \\n\n",
        ">| action\\n\\n\n",
        ">| status=ok\\n\\n\n",
        ">| action=OK\\naction=OK\\n\\n\n",
        ">| action=OK\\nmore=x\\n\\n\n",
        ">| action=a\\0b\\n\\n\n",
    };
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        char server[400];
        snprintf(server, sizeof server, "%s%sdrop\n", ASKED, replies[i]);
        const char *const servers[] = { server, NULL };
        play(CONF("{ unix:p, try_limit=1 }"), servers, ENVELOPE RCPT("", "451 4.3.5 *") QUIT);
        assert_logged("warning: problem talking to server p: malformed reply: *");
        if (i + 1 < sizeof replies / sizeof *replies)
            harness_end(&h);
    }
}

static void test_endless_line(void **state) {
    (void)state;
    struct buf server = { 0 };
    buf_add(&server, STR(ASKED ">| action="));
    for (int i = 0; i < POLICY_LINE_MAX; i++)
        buf_byte(&server, 'x');
    buf_add(&server, STR("\ndrop\n"));
    const char *const servers[] = { server.p, NULL };
    play(CONF("{ unix:p, try_limit=1 }"), servers, ENVELOPE RCPT("", "451 4.3.5 *") QUIT);
    buf_free(&server);
}

static void test_bad_utf8(void **state) {
    (void)state;
    static const char *const servers[] = { ASKED ">| action=REJECT \\xff\\n\\n\neof\n", NULL };
    play(CONF("unix:p"), servers, ENVELOPE RCPT("", "451 4.3.5 *") QUIT);
    assert_logged("warning: malformed UTF-8 in policy server p response: *");
}

/* An action may be a restriction or a class. */
static void test_named_restrictions(void **state) {
    (void)state;
    static const char *const servers[] = { ASKED ">| action=strict\\n\\n\n" ASKED
                                                 ">| action=permit_inet_interfaces\\n\\n\neof\n",
                                           NULL };
    play(CONF("unix:p, defer\nsmtpd_restriction_classes = strict\nstrict = reject_non_fqdn_helo_hostname, reject"),
         servers,
         ENVELOPE RCPT("", "554 5.7.1 <user@here.example>: Recipient address rejected: Access denied")
             RCPT("2", "450 4.3.2 *") QUIT);
}

/* The line behind the argument is not part of it. */
static void test_bad_arguments(void **state) {
    (void)state;
    static const char *const arguments[] = {
        "",
        "nowhere",
        "tcp:x:1",
        "{ }",
        "{ unix:p, timeout=0s }",
        "{ unix:p, try_limit=0 }",
        "{ unix:p, colour=red }",
        "{ unix:p, timeout }",
        "inet:h:port-that-is-none",
    };
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++) {
        char options[200];
        snprintf(options, sizeof options, CONF("%s"), arguments[i]);
        static const char *const none[] = { NULL };
        play(options, none, ENVELOPE RCPT("", "451 4.3.5 Server configuration error") QUIT);
        assert_logged("warning: restriction check_policy_service*");
        assert_null(h.dialled.p);
        if (i + 1 < sizeof arguments / sizeof *arguments)
            harness_end(&h);
    }
}

/* Two messages at a time have two connections, and one message only its own. */
static void test_two_messages(void **state) {
    (void)state;
    static const char *const servers[] = { DUNNO "quiet 5\n" DUNNO "drop\n", DUNNO "drop\n", NULL };
    harness_begin(&h, CONF("unix:p"));
    h.servers = servers;
    harness_script2(&h, "192.0.2.1", ENVELOPE RCPT("", "250 *") "wait 10\n" RCPT("2", "250 *") QUIT,
                    "< 220 *\nwait 2\n> EHLO x\n<< 250\n> MAIL FROM:<b@x>\n<< 250\n" RCPT("2", "250 *") QUIT);
    assert_int_equal(h.dials, 2);
}

#define POLICY_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        POLICY_TEST(test_attributes),    POLICY_TEST(test_end_of_message), POLICY_TEST(test_connection_is_kept),
        POLICY_TEST(test_request_limit), POLICY_TEST(test_idle),           POLICY_TEST(test_old),
        POLICY_TEST(test_stale),         POLICY_TEST(test_nobody_there),   POLICY_TEST(test_default_action),
        POLICY_TEST(test_silence),       POLICY_TEST(test_second_try),     POLICY_TEST(test_malformed),
        POLICY_TEST(test_endless_line),  POLICY_TEST(test_bad_utf8),       POLICY_TEST(test_named_restrictions),
        POLICY_TEST(test_bad_arguments), POLICY_TEST(test_two_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
