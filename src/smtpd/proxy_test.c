/* proxy_test.c - the content filter: time, faults, and what only a peer that is watched byte by byte can show. What it
 * is told in ordinary conversations is compared with Postfix in tests/proxyfilter. */
#include "test/test.h"

#include "smtpd/harness.h"
#include "smtpd/proxy.h"
#include "test/fake_sys.h"
#include <errno.h>

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

#define FILTER "smtpd_proxy_filter = 127.0.0.1:10025\nsmtpd_proxy_timeout = 20s\n"
#define ADJUST FILTER "smtpd_proxy_options = speed_adjust\n"
#define ENVELOPE                                                                                                       \
    "< 220 *\n> EHLO helo.example\n<< 250\n> MAIL FROM:<a@there.example>\n<< 250\n> RCPT TO:<user@here.example>\n"
#define DATA "<< 250\n> DATA\n<< 354\n> Subject: x\n> \n> body\n> .\n"
#define QUIT "> QUIT\n<< 221\neof\n"
#define OPEN                                                                                                           \
    "> 220 filter\n< EHLO mx.here.example\n> 250 filter\n< MAIL FROM:<a@there.example>\n> 250 ok\n"                    \
    "< RCPT TO:<user@here.example>\n> 250 ok\n< DATA\n> 354 go\n"
#define CONTENT "skip Subject: x\n< \n< body\n< .\n"
#define WRITE_ERROR "<< 451 4.3.0 Error: queue file write error\n"

static void play(const char *options, const char *filter, const char *script) {
    static const char *servers[3];
    servers[0] = filter;
    servers[1] = filter;
    harness_begin(&h, options);
    h.servers = servers;
    harness_script(&h, "192.0.2.1", script);
}

static void test_passes_on(void **state) {
    (void)state;
    play(FILTER, OPEN CONTENT "> 250 2.0.0 taken\n< QUIT\neof\n", ENVELOPE DATA "<< 250 2.0.0 taken\n" QUIT);
    assert_str(buf_str(&h.dialled), "inet:127.0.0.1:10025\n");
    assert_logged("proxy-accept: END-OF-MESSAGE: 250 2.0.0 taken; from=<a@there.example> to=<user@here.example> "
                  "proto=ESMTP helo=<helo.example>");
    assert_int_equal(h.message_count, 0);
}

/* smtpd_proxy_timeout: for the banner, and for each reply */
static void test_timeouts(void **state) {
    (void)state;
    static const struct {
        const char *filter, *script;
    } rows[] = {
        { "quiet 19\neof\n", ENVELOPE "quiet 19\n" WRITE_ERROR QUIT },
        { "slow 3\n> 220 filter\nslow\n", ENVELOPE "quiet 19\n" WRITE_ERROR QUIT },
        { "wait 15\n> 220 filter\n< EHLO *\nwait 15\n> 250 filter\n< MAIL *\nquiet 19\neof\n",
          ENVELOPE "quiet 49\n" WRITE_ERROR QUIT },
        { OPEN CONTENT "quiet 19\neof\n", ENVELOPE DATA "quiet 19\n" WRITE_ERROR QUIT },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        play(FILTER, rows[i].filter, rows[i].script);
        assert_logged("warning: timeout talking to proxy 127.0.0.1:10025");
        if (i + 1 < sizeof rows / sizeof *rows)
            harness_end(&h);
    }
}

/* What is no reply is passed over, but not without end; a reply has limits. */
static void test_garbage(void **state) {
    (void)state;
    play(FILTER, "> hello\n> 999 what\n" OPEN CONTENT "> 250 2.0.0 taken\n< QUIT\neof\n",
         ENVELOPE DATA "<< 250 2.0.0 taken\n" QUIT);
    assert_logged("warning: received garbage from proxy 127.0.0.1:10025: hello");
    harness_end(&h);
    struct buf endless = { 0 };
    for (int i = 0; i < PROXY_GARBAGE_MAX; i++)
        buf_add(&endless, STR("> hello\n"));
    buf_add(&endless, STR("eof\n"));
    play(FILTER, endless.p, ENVELOPE WRITE_ERROR QUIT);
    assert_int_equal(harness_log_count(&h, "warning: received garbage*"), PROXY_GARBAGE_MAX);
    buf_free(&endless);
}

/* Attributes that do not fit into one line take two. */
static void test_long_xforward(void **state) {
    (void)state;
    struct buf script = { 0 }, options = { 0 };
    buf_printf(&options, FILTER "smtpd_authorized_xforward_hosts = 192.0.2.1\n");
    buf_add(&script, STR("< 220 *\n> EHLO helo.example\n<< 250\n> XFORWARD HELO="));
    for (int i = 0; i < 80; i++)
        buf_add(&script, STR("+2B"));
    buf_add(&script, STR("\n<< 250\n> XFORWARD IDENT="));
    for (int i = 0; i < 80; i++)
        buf_add(&script, STR("+3D"));
    buf_add(&script,
            STR("\n<< 250\n> MAIL FROM:<a@there.example>\n<< 250\n> RCPT TO:<user@here.example>\n<< 250\n" QUIT));
    play(options.p,
         "> 220 filter\n< EHLO mx.here.example\n> 250-filter\n> 250 XFORWARD NAME ADDR HELO IDENT PROTO\n"
         "< XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] HELO=+2B+2B*\n> 250 ok\n"
         "< XFORWARD IDENT=+3D*+3D PROTO=[UNAVAILABLE]\n> 250 ok\n"
         "< MAIL FROM:<a@there.example>\n> 250 ok\n< RCPT *\n> 250 ok\n< QUIT\neof\n",
         script.p);
    buf_free(&script);
    buf_free(&options);
}

/* speed_adjust: the file cannot be had, or is full */
static void test_waiting_faults(void **state) {
    (void)state;
    struct buf script = { 0 };
    buf_add(&script, STR(ENVELOPE "<< 250\n> DATA\n<< 354\n"));
    for (int i = 0; i < 70; i++) {
        buf_add(&script, STR(">| "));
        for (int n = 0; n < 1022; n++)
            buf_byte(&script, 'x');
        buf_add(&script, STR("\\r\\n\n"));
    }
    buf_add(&script, STR("> .\n" WRITE_ERROR QUIT));
    harness_begin(&h, ADJUST);
    h.scratch_fails = true;
    harness_script(&h, "192.0.2.1", script.p);
    assert_int_equal(h.scratch_files, 1);
    assert_logged("warning: smtpd_proxy_options = speed_adjust: file for a waiting message in queue_directory: *");
    assert_logged("proxy-reject: END-OF-MESSAGE: 451 4.3.0 Error: queue file write error; *");
    harness_end(&h);
    static const char *const faults[] = { "pwrite", "pread" };
    for (size_t i = 0; i < 2; i++) {
        static const char *const servers[] = { OPEN "drop\n", NULL };
        harness_begin(&h, ADJUST);
        h.servers = servers;
        fake_sys_fail(faults[i], 1, EIO);
        harness_script(&h, "192.0.2.1", script.p);
        assert_logged("*file for a waiting message in queue_directory: Input/output error");
        if (i == 0)
            harness_end(&h);
    }
    buf_free(&script);
}

/* A message of a few lines needs no file. */
static void test_waiting(void **state) {
    (void)state;
    play(ADJUST, OPEN CONTENT "> 250 2.0.0 taken\n< QUIT\neof\n", ENVELOPE DATA "<< 250 2.0.0 taken\n" QUIT);
    assert_int_equal(h.scratch_files, 0);
}

/* The client leaves in the middle: nothing is said to the filter that could be content. */
static void test_broken_off(void **state) {
    (void)state;
    play(FILTER, OPEN "eof\n", ENVELOPE "<< 250\n> DATA\n<< 354\nclose\n");
    assert_logged("NOQUEUE: lost connection after DATA*");
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define PROXY_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        PROXY_TEST(test_passes_on),     PROXY_TEST(test_timeouts),       PROXY_TEST(test_garbage),
        PROXY_TEST(test_long_xforward), PROXY_TEST(test_waiting_faults), PROXY_TEST(test_waiting),
        PROXY_TEST(test_broken_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
