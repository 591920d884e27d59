/* session_test.c - what dialogues cannot say: time, faults, limits, other clients. */
#include "test/test.h"

#include "mail/dsn.h"
#include "run/loop.h"
#include "smtpd/clients.h"
#include "smtpd/command.h"
#include "smtpd/harness.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include <stdlib.h>
#include <unistd.h>

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

#define SESSION_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define OPENING                                                                                                        \
    "< 220 *\n"                                                                                                        \
    "> EHLO client.example\n"                                                                                          \
    "<< 250\n"                                                                                                         \
    "> MAIL FROM:<a@there.example>\n"                                                                                  \
    "<< 250\n"
#define RECIPIENT                                                                                                      \
    "> RCPT TO:<user@here.example>\n"                                                                                  \
    "<< 250\n"
#define CONTENT                                                                                                        \
    "> DATA\n"                                                                                                         \
    "<< 354\n"                                                                                                         \
    "> Subject: x\n"                                                                                                   \
    "> .\n"

static void play(const char *options, const char *address, const char *script) {
    harness_begin(&h, options);
    harness_script(&h, address, script);
}

#define assert_logged(pattern)                                                                                         \
    do {                                                                                                               \
        if (!harness_logged(&h, pattern))                                                                              \
            fail_msg("no record like \"%s\" in\n%s", pattern, h.log.p);                                                \
    } while (0)

/* --- time --- */
static void test_idle_client(void **state) {
    (void)state;
    play("", "192.0.2.9", "< 220 *\nquiet 299\n<< 421 4.4.2 mx.here.example Error: timeout exceeded\neof\n");
    assert_logged("NOQUEUE: timeout after CONNECT from unknown?192.0.2.9?");
}

static void test_timeout_in_content(void **state) {
    (void)state;
    play("smtpd_timeout = 10", "192.0.2.1",
         OPENING RECIPIENT "> DATA\n<< 354\n> foo\n>| bar\nquiet 9\n"
                           "<< 421 4.4.2 mx.here.example Error: timeout exceeded\neof\n");
    assert_logged("[0-9A-F]*: timeout after DATA (5 bytes) from client.example?192.0.2.1?");
    assert_true(h.messages[0].aborted);
}

/* smtpd_per_request_deadline: so much time for all of the content, and more for more of it */
static void test_slow_content(void **state) {
    (void)state;
    static const char script[] = OPENING RECIPIENT "> DATA\n<< 354\nwait 6\n> 12345678\nwait 6\n"
                                                   "> 12345678\n> .\n<< %s\n> QUIT\ndrop\n";
    static const struct {
        const char *options, *reply;
    } rows[] = {
        { "smtpd_timeout = 10\nsmtpd_per_request_deadline = no", "250" },
        { "smtpd_timeout = 10\nsmtpd_per_request_deadline = yes\nsmtpd_min_data_rate = 10", "421 4.4.2" },
        { "smtpd_timeout = 10\nsmtpd_per_request_deadline = yes\nsmtpd_min_data_rate = 2", "250" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = { 0 };
        struct str text = str_c(script);
        ptrdiff_t at = str_index(text, '%');
        buf_add(&b, str_sub(text, 0, (size_t)at));
        buf_add(&b, str_c(rows[i].reply));
        buf_add(&b, str_from(text, (size_t)at + 2));
        play(rows[i].options, "192.0.2.1", b.p);
        buf_free(&b);
        if (i + 1 < sizeof rows / sizeof *rows)
            harness_end(&h);
    }
}

/* A byte now and then does not keep a command line open for ever. */
static void test_trickle(void **state) {
    (void)state;
    play("smtpd_timeout = 30", "192.0.2.1", "< 220 *\nslow 20\n>| NOOP\nslow\n<< 421 4.4.2\neof\n");
    assert_logged("NOQUEUE: timeout after CONNECT from client.example?192.0.2.1?");
}

static void test_error_delay(void **state) {
    (void)state;
    play("smtpd_soft_error_limit = 2\nsmtpd_error_sleep_time = 5s", "192.0.2.1",
         "< 220 *\n> FOO\n<< 500\n> FOO\n<< 500\n> FOO\nquiet 4.9\n<< 500\n> NOOP\nquiet 4.9\n<< 250\n> QUIT\n<< "
         "221\neof\n");
}

/* --- connections that break --- */
static void test_lost_before_mail(void **state) {
    (void)state;
    play("", "192.0.2.1", "< 220 *\n> EHLO x\n<< 250\nclose\n");
    assert_logged("NOQUEUE: lost connection after EHLO from client.example?192.0.2.1?");
    assert_logged("disconnect from client.example?192.0.2.1? ehlo=1 commands=1");
}

static void test_lost_after_rcpt(void **state) {
    (void)state;
    play("", "192.0.2.1", OPENING RECIPIENT ">| DAT\nclose\n");
    assert_logged("[0-9A-F]*: lost connection after RCPT from client.example?192.0.2.1?");
    assert_true(h.messages[0].aborted);
}

static void test_lost_in_content(void **state) {
    (void)state;
    play("", "192.0.2.1", OPENING RECIPIENT "> DATA\n<< 354\n> 123\nclose\n");
    assert_logged("[0-9A-F]*: lost connection after DATA (5 bytes) from client.example?192.0.2.1?");
    assert_true(h.messages[0].aborted);
    assert_false(h.messages[0].ended);
}

static void test_cancelled_transactions(void **state) {
    (void)state;
    play("", "192.0.2.1",
         OPENING RECIPIENT "> RSET\n<< 250\n> MAIL FROM:<>\n<< 250\n" RECIPIENT
                           "> EHLO again\n<< 250\n> MAIL FROM:<>\n<< 250\n" RECIPIENT "> QUIT\n<< 221\neof\n");
    assert_int_equal(h.message_count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(h.messages[i].aborted);
    assert_int_equal(harness_log_count(&h, "*lost connection*"), 0);
}

/* --- long lines --- */
struct flood {
    int fd;
    const char *head, *tail;
    size_t middle;
    struct buf got;
};

static void flood(void *arg) {
    struct flood *f = arg;
    struct io *io = io_new(f->fd);
    struct str some;
    (void)io_line(io, 1000, deadline_in(5), &some); /* the greeting */
    io_write(io, str_c(f->head));
    static const char x[1000] = { [0 ... 999] = 'x' };
    for (size_t n = 0; n < f->middle; n += sizeof x)
        io_write(io, str_n(x, sizeof x));
    io_write(io, str_c(f->tail));
    (void)io_flush(io, deadline_in(1000));
    while (io_some(io, 8192, deadline_in(1000), &some) == NULL)
        buf_add(&f->got, some);
    io_close(io);
}

static void run_flood(struct flood *f, const char *options) {
    int pair[2];
    harness_begin(&h, options);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    f->fd = pair[1];
    assert_non_null(coro_spawn(flood, f, "flood"));
    harness_session(&h, "192.0.2.1", pair[0]);
}

static void test_long_command(void **state) {
    (void)state;
    struct flood f = { .head = "NOOP ", .middle = 3000, .tail = "\r\nQUIT\r\n" };
    run_flood(&f, "smtpd_forbid_unauth_pipelining = no");
    assert_str(buf_str(&f.got), "250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n");
    assert_logged("warning: client.example?192.0.2.1?: request longer than 2048: NOOP xxxxxxxxxxxxxxxxxxxxxxxxx...");
    buf_free(&f.got);
}

/* IN-05 */
static void test_endless_command(void **state) {
    (void)state;
    struct flood f = { .head = "MAIL FROM:<", .middle = 10 * 1000 * 1000, .tail = "" };
    run_flood(&f, "");
    assert_str(buf_str(&f.got), "500 5.5.2 mx.here.example Error: command too long\r\n");
    assert_logged("disconnect from *");
    buf_free(&f.got);
}

static void test_long_content_line(void **state) {
    (void)state;
    struct flood f = { .head = "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<user@here.example>\r\nDATA\r\n",
                       .middle = 10 * 1000 * 1000,
                       .tail = "\r\n.\r\nQUIT\r\n" };
    run_flood(&f, "smtpd_forbid_unauth_pipelining = no\nmessage_size_limit = 0");
    assert_true(h.messages[0].ended);
    assert_true(h.messages[0].content.n > 10 * 1000 * 1000);
    assert_true(str_ends(buf_str(&f.got), STR("221 2.0.0 Bye\r\n")));
    buf_free(&f.got);
}

/* --- cleanup in trouble: never 250 --- */
static void test_no_cleanup(void **state) {
    (void)state;
    harness_begin(&h, "");
    h.open_fails = true;
    harness_script(&h, "192.0.2.1",
                   OPENING "> RCPT TO:<user@here.example>\n<< 451 4.3.0 Error: queue file write error\n"
                           "> DATA\n<< 554 5.5.1 Error: no valid recipients\n> QUIT\n<< 221\neof\n");
}

static void test_no_space(void **state) {
    (void)state;
    harness_begin(&h, "");
    h.open_result.status = SUBMIT_NO_SPACE;
    harness_script(&h, "192.0.2.1",
                   OPENING "> RCPT TO:<user@here.example>\n<< 452 4.3.1 Insufficient system storage\n> QUIT\n<< 221\n");
}

/* The message is begun anew with the next recipient. */
static void test_cleanup_dies_at_rcpt(void **state) {
    (void)state;
    harness_begin(&h, "");
    h.rcpt_fails = true;
    harness_script(&h, "192.0.2.1",
                   OPENING "> RCPT TO:<user@here.example>\n<< 451 4.3.0 Error: queue file write error\n"
                           "> RCPT TO:<user@here.example>\n<< 451 4.3.0 Error: queue file write error\n"
                           "> DATA\n<< 554 5.5.1 Error: no valid recipients\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.message_count, 3); /* and the postmaster's transcript: a matter of resources */
    assert_true(h.messages[0].aborted && h.messages[1].aborted && !h.messages[2].aborted);
    assert_true(harness_logged(&h, "warning: *: write to the cleanup service: connection closed"));
}

/* What access tables want done with a message is said to cleanup when all of it is known. */
static void test_access_actions(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_recipient_restrictions = check_recipient_access static:{BCC copy@here.example}, "
                      "check_recipient_access static:{PREPEND X-Seen: yes}, check_client_access static:HOLD\n"
                      "smtpd_end_of_data_restrictions = check_client_access static:{REDIRECT else@here.example}, "
                      "check_client_access static:{FILTER smtp:x}");
    harness_script(&h, "192.0.2.1", OPENING RECIPIENT CONTENT "<< 250\n> QUIT\n<< 221\neof\n");
    const struct harness_message *m = &h.messages[0];
    assert_true(str_eq(buf_str(&m->actions), STR("hold()filter(smtp:x)redirect(else@here.example)")));
    assert_int_equal(m->rcpt_count, 2);
    assert_true(str_eq(m->rcpts[1], STR("copy@here.example")));
    assert_true(str_starts(buf_str(&m->content), STR("X-Seen: yes\nReceived: ")));
    harness_end(&h);
    /* the next message has none of it */
    harness_begin(&h, "smtpd_sender_restrictions = check_sender_access inline:{ {a@there.example = DISCARD} }");
    harness_script(&h, "192.0.2.1",
                   OPENING RECIPIENT CONTENT "<< 250\n> MAIL FROM:<b@there.example>\n<< 250\n" RECIPIENT CONTENT
                                             "<< 250\n> QUIT\n<< 221\neof\n");
    assert_true(str_eq(buf_str(&h.messages[0].actions), STR("discard()")));
    assert_int_equal(h.messages[1].actions.n, 0);
    harness_end(&h);
    /* VRFY asks the same restrictions, without a message */
    harness_begin(&h, "smtpd_recipient_restrictions = check_client_access static:HOLD, check_client_access static:BCC");
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> EHLO c.example\n<< 250\n> VRFY user@here.example\n<< 252\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.message_count, 0);
}

/* One question a recipient: is it ours, and does it exist. Without restrictions that ask, none. */
static void test_questions(void **state) {
    (void)state;
    harness_begin(&h, "");
    harness_script(&h, "192.0.2.1", OPENING RECIPIENT "> RCPT TO:<user2@here.example>\n<< 250\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.questions, 2);
    harness_end(&h);
    harness_begin(&h, "smtpd_reject_unlisted_recipient = no\nsmtpd_reject_unlisted_sender = yes");
    harness_script(&h, "192.0.2.1", OPENING "> RCPT TO:<nobody@here.example>\n<< 250\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.questions, 2); /* the sender's */
    harness_end(&h);
    harness_begin(&h, "smtpd_reject_unlisted_recipient = no\n"
                      "smtpd_recipient_restrictions = reject_unlisted_recipient, permit_mynetworks");
    harness_script(&h, "192.0.2.1", OPENING "> RCPT TO:<nobody@here.example>\n<< 550 5.1.1 *\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.questions, 2);
}

static void test_cleanup_dies_in_content(void **state) {
    (void)state;
    harness_begin(&h, "");
    h.content_fails = true;
    harness_script(&h, "192.0.2.1",
                   OPENING RECIPIENT CONTENT "<< 451 4.3.0 Error: queue file write error\n> NOOP\n<< 250\n> QUIT\n"
                                             "<< 221\neof\n");
    assert_true(h.messages[0].aborted);
}

static void test_cleanup_dies_at_the_end(void **state) {
    (void)state;
    harness_begin(&h, "");
    h.end_fails = true;
    harness_script(&h, "192.0.2.1",
                   OPENING RECIPIENT CONTENT
                   "<< 451 4.3.0 Error: queue file write error\n> DATA\n<< 503\n> QUIT\n<< 221\n");
    assert_false(h.messages[0].ended);
}

static void test_cleanup_refuses(void **state) {
    (void)state;
    static const struct {
        enum submit_status status;
        struct str dsn, text;
        const char *reply;
    } rows[] = {
        { SUBMIT_TEMP, STR_INIT("4.6.0"), STR_INIT("aliases"), "451 4.6.0 aliases" },
        { SUBMIT_TEMP, STR_INIT(""), STR_INIT(""), "451 4.3.0 Error: queue file write error" },
        { SUBMIT_NO_SPACE, STR_INIT(""), STR_INIT(""), "452 4.3.1 Insufficient system storage" },
        { SUBMIT_TOO_LARGE, STR_INIT(""), STR_INIT(""), "552 5.3.4 Error: message file too big" },
        { SUBMIT_HOPS, STR_INIT("5.4.0"), STR_INIT("x"), "554 5.4.0 Error: too many hops" },
        { SUBMIT_CONTENT, STR_INIT("5.7.1"), STR_INIT("no such thing"), "550 5.7.1 no such thing" },
        { SUBMIT_CONTENT, STR_INIT("4.7.1"), STR_INIT("later"), "451 4.7.1 later" },
        { SUBMIT_BAD, STR_INIT(""), STR_INIT(""), "451 4.3.0 Error: queue file write error" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        harness_begin(&h, "");
        h.end_result = (struct submit_result){ .status = rows[i].status, .dsn = rows[i].dsn, .text = rows[i].text };
        char script[1000];
        snprintf(script, sizeof script, OPENING RECIPIENT CONTENT "<< %s\n> QUIT\n<< 221\neof\n", rows[i].reply);
        harness_script(&h, "192.0.2.1", script);
        if (i + 1 < sizeof rows / sizeof *rows)
            harness_end(&h);
    }
}

/* --- who the client is --- */
static void test_names(void **state) {
    (void)state;
    static const struct {
        const char *address, *record;
    } rows[] = {
        { "192.0.2.1", "connect from client.example?192.0.2.1?" },
        { "192.0.2.9", "connect from unknown?192.0.2.9?" },
        { "192.0.2.2", "warning: hostname liar.example does not resolve to address 192.0.2.2: *" },
        { "::ffff:192.0.2.1", "connect from client.example?192.0.2.1?" }, /* IN-14 */
        { "2001:db8::1", "connect from unknown?2001:db8::1?" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        play("", rows[i].address, "< 220 *\n> QUIT\n<< 221\neof\n");
        assert_logged(rows[i].record);
        if (i + 1 < sizeof rows / sizeof *rows)
            harness_end(&h);
    }
}

static void test_port_logging(void **state) {
    (void)state;
    play("smtpd_client_port_logging = yes", "192.0.2.1", OPENING RECIPIENT "> QUIT\n<< 221\n");
    assert_logged("connect from client.example?192.0.2.1?:4711");
    assert_logged("*: client=client.example?192.0.2.1?:4711");
}

static void test_no_name_lookup(void **state) {
    (void)state;
    play("smtpd_peername_lookup = no\nsmtpd_client_restrictions = reject_unknown_client_hostname", "192.0.2.1",
         OPENING "> RCPT TO:<user@here.example>\n<< 450 4.7.25 Client host rejected: cannot find your hostname, "
                 "[192.0.2.1]\n> QUIT\n<< 221\n");
}

static void test_mapped_mynetworks(void **state) {
    (void)state;
    play("", "::ffff:127.0.0.2", OPENING "> RCPT TO:<x@elsewhere.example>\n<< 250\n> QUIT\n<< 221\n");
}

static void test_unknown_client_codes(void **state) {
    (void)state;
    static const char options[] = "smtpd_client_restrictions = reject_unknown_client_hostname\n"
                                  "unknown_client_reject_code = 550\n";
    play(options, "192.0.2.9",
         OPENING "> RCPT TO:<user@here.example>\n<< 550 5.7.25 Client host rejected: cannot find "
                 "your hostname, [192.0.2.9]\n> QUIT\n<< 221\n");
    harness_end(&h);
    play(options, "192.0.2.3", OPENING "> RCPT TO:<user@here.example>\n<< 450 4.7.25\n> QUIT\n<< 221\n");
    harness_end(&h);
    play("smtpd_client_restrictions = reject_unknown_reverse_client_hostname", "192.0.2.2",
         OPENING RECIPIENT "> QUIT\n<< 221\n");
}

static void test_lookup_failures(void **state) {
    (void)state;
    play("smtpd_reject_unlisted_sender = yes", "192.0.2.1",
         OPENING "> RCPT TO:<x@temp.example>\n<< 451 4.3.0 <x@temp.example>: Temporary lookup failure\n"
                 "> RCPT TO:<x@gone.example>\n<< 451 4.3.0 <x@gone.example>: Temporary lookup failure\n"
                 "> RSET\n<< 250\n> MAIL FROM:<x@temp.example>\n<< 250\n"
                 "> RCPT TO:<user@here.example>\n<< 451 4.3.0 <x@temp.example>: Temporary lookup failure\n"
                 "> QUIT\n<< 221\n");
    assert_logged("NOQUEUE: reject: RCPT from client.example?192.0.2.1?: 451 4.3.0 <x@temp.example>: Temporary lookup "
                  "failure; from=<a@there.example> to=<x@temp.example> proto=ESMTP helo=<client.example>");
}

/* --- what cleanup is told --- */
static void expect_received(const char *options, const char *address, const char *commands_, const char *received) {
    harness_begin(&h, options);
    char script[2000];
    snprintf(script, sizeof script, "< 220 *\n%s" CONTENT "<< 250\n> QUIT\n<< 221\neof\n", commands_);
    setenv("TZ", "UTC", 1);
    harness_script(&h, address, script);
    struct str content = buf_str(&h.messages[0].content);
    if (!str_starts(content, str_c(received)))
        fail_msg("got \"%.*s\", want \"%s\"", STR_ARG(content), received);
    assert_true(str_ends(content, STR("\nSubject: x\n")));
}

static void test_received(void **state) {
    (void)state;
    expect_received("", "192.0.2.1", "> HELO a.example\n<< 250\n> MAIL FROM:<>\n<< 250\n" RECIPIENT,
                    "Received: from a.example (client.example [192.0.2.1])\n"
                    "\tby mx.here.example (Angarium) with SMTP id 000001\n"
                    "\tfor <user@here.example>; Fri, 15 Jan 2027 08:00:00 +0000 (UTC)\n");
    harness_end(&h);
    expect_received("", "2001:db8::1", "> EHLO a.example\n<< 250\n> MAIL FROM:<>\n<< 250\n" RECIPIENT RECIPIENT,
                    "Received: from a.example (unknown [IPv6:2001:db8::1])\n"
                    "\tby mx.here.example (Angarium) with ESMTP id 000001;\n"
                    "\tFri, 15 Jan 2027 08:00:00 +0000 (UTC)\n");
    harness_end(&h);
    expect_received("", "192.0.2.1", "> MAIL FROM:<>\n<< 250\n" RECIPIENT,
                    "Received: from client.example (client.example [192.0.2.1])\n");
    harness_end(&h);
    expect_received("smtpd_hide_client_session = yes", "192.0.2.1",
                    "> EHLO a.example\n<< 250\n> MAIL FROM:<>\n<< 250\n" RECIPIENT,
                    "Received: by mx.here.example (Angarium) id 000001\n\tfor <user@here.example>; Fri, ");
}

static void test_envelope(void **state) {
    (void)state;
    play("", "192.0.2.1",
         "< 220 *\n> EHLO x\n<< 250\n> MAIL FROM:<\"a b\"@there.example> BODY=8BITMIME\n<< 250\n" RECIPIENT
         "> RCPT TO:<postmaster>\n<< 250\n" CONTENT "<< 250 2.0.0 Ok: queued as 000001\n> QUIT\n<< 221\neof\n");
    const struct harness_message *m = &h.messages[0];
    assert_str(m->sender, "a b@there.example");
    assert_int_equal(m->rcpt_count, 2);
    assert_str(m->rcpts[1], "postmaster");
    assert_int_equal(m->envelope_flags, ENVELOPE_8BIT | ENVELOPE_REMOTE);
    assert_int_equal(m->flags, SUBMIT_FILTER | SUBMIT_MAP);
}

/* RFC 3461, RFC 6531: what the client asked for is in the envelope, decoded. */
static void test_dsn_and_utf8(void **state) {
    (void)state;
    play("", "192.0.2.1",
         "< 220 *\n> EHLO x\n<< 250\n> MAIL FROM:<a@there.example> SMTPUTF8 RET=HDRS ENVID=q+2By\n<< 250\n"
         "> RCPT TO:<user@here.example> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;m\\\\x{FC}+40b\n<< 250\n"
         "> RCPT TO:<user2@here.example>\n<< 250\n" CONTENT "<< 250\n> QUIT\n<< 221\neof\n");
    const struct harness_message *m = &h.messages[0];
    assert_int_equal(m->envelope_flags, ENVELOPE_SMTPUTF8 | ENVELOPE_REMOTE);
    assert_str(m->envid, "q+y");
    assert_int_equal(m->ret, DSN_RET_HDRS);
    assert_int_equal(m->notify[0], DSN_NOTIFY_SUCCESS | DSN_NOTIFY_DELAY);
    assert_str(m->orcpt[0], "utf-8;m\xc3\xbc@b");
    assert_int_equal(m->notify[1], 0);
    assert_str(m->orcpt[1], "");
    assert_true(str_contains(buf_str(&m->content), STR(" with UTF8SMTP id ")));
}

/* RFC 8689, 2: REQUIRETLS is for sessions with TLS only, and requiretls_enable. */
static void test_xverp(void **state) {
    (void)state;
    static const struct {
        const char *options, *param, *delimiters;
    } rows[] = {
        { "", "", "\0" },
        { "", " XVERP", "+=" },
        { "", " XVERP=-=", "-=" },
        { "default_verp_delimiters = ==", " XVERP", "==" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf options = { 0 }, script = { 0 };
        buf_printf(&options, "smtpd_authorized_verp_clients = 192.0.2.1\n%s", rows[i].options);
        buf_printf(&script,
                   "< 220 *\n> EHLO x\n<< 250\n> MAIL FROM:<a@there.example>%s\n<< 250\n" RECIPIENT "> QUIT\ndrop\n",
                   rows[i].param);
        play(options.p, "192.0.2.1", script.p);
        assert_memory_equal(h.messages[0].verp, rows[i].delimiters, VERP_DELIMITERS);
        if (i + 1 < sizeof rows / sizeof *rows)
            harness_end(&h);
        buf_free(&options);
        buf_free(&script);
    }
}

static void test_requiretls(void **state) {
    (void)state;
    harness_begin(&h, "");
    h.tls.active = true;
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> EHLO x\n< 250-mx.here.example\n< 250-PIPELINING\n< 250-SIZE *\n< 250-VRFY\n< 250-ETRN\n"
                   "< 250-ENHANCEDSTATUSCODES\n< 250-8BITMIME\n< 250-DSN\n< 250-SMTPUTF8\n< 250-REQUIRETLS\n"
                   "< 250 CHUNKING\n> MAIL FROM:<a@there.example> REQUIRETLS\n<< 250\n" RECIPIENT CONTENT
                   "<< 250\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.messages[0].envelope_flags, ENVELOPE_REQUIRETLS | ENVELOPE_REMOTE);
    assert_true(str_contains(buf_str(&h.messages[0].content), STR(" with ESMTPS id ")));
    harness_end(&h);
    harness_begin(&h, "requiretls_enable = no");
    h.tls.active = true;
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> EHLO x\n<< 250 CHUNKING\n> MAIL FROM:<a@there.example> REQUIRETLS\n"
                   "<< 555 5.5.4 Unsupported option: REQUIRETLS\n> QUIT\n<< 221\neof\n");
}

/* smtpd_client_*_rate_limit: what has a limit is asked, and refused above it. */
static void test_rates(void **state) {
    (void)state;
    static const struct {
        const char *limit, *script, *log;
        enum anvil_event event;
    } rows[] = {
        { "smtpd_client_connection_rate_limit = 3",
          "< 421 4.7.0 mx.here.example Error: too many connections from client.example[192.0.2.1]\neof\n",
          "warning: Connection rate limit exceeded: 4 from client.example?192.0.2.1? for service smtp", ANVIL_CONNECT },
        { "smtpd_client_message_rate_limit = 3",
          "< 220 *\n> EHLO x\n<< 250\n> MAIL FROM:<a@there.example>\n<< 450 4.7.1 Error: too much mail from "
          "client.example*\n"
          "> RCPT TO:<user@here.example>\n<< 503\n> QUIT\n<< 221\neof\n",
          "warning: Message delivery request rate limit exceeded: 4 from client.example?192.0.2.1? for service smtp",
          ANVIL_MESSAGE },
        { "smtpd_client_recipient_rate_limit = 3",
          OPENING "> RCPT TO:<user@here.example>\n<< 450 4.7.1 Error: too many recipients from client.example*\n"
                  "> QUIT\n<< 221\neof\n",
          "warning: Recipient address rate limit exceeded: 4 from client.example?192.0.2.1? for service smtp",
          ANVIL_RECIPIENT },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct arena *a = arena_new();
        harness_begin(&h, rows[i].limit);
        h.anvil_says.rate = 4;
        harness_script(&h, "192.0.2.1", rows[i].script);
        assert_logged(rows[i].log);
        struct str asked = arena_printf(a, "%u smtp:192.0.2.1?;", (unsigned)rows[i].event);
        assert_true(str_contains(buf_str(&h.anvil_told), asked));
        harness_clear(&h);
        h.anvil_says.rate = 3; /* within */
        loop_free();
        harness_resume(&h);
        harness_script(&h, "192.0.2.1", OPENING RECIPIENT "> QUIT\n<< 221\neof\n");
        assert_true(str_contains(buf_str(&h.anvil_told), asked));
        assert_true(str_ends(buf_str(&h.anvil_told), STR("2 smtp:192.0.2.1;")));
        harness_clear(&h);
        h.anvil_fails = true; /* nobody is refused because nobody can count */
        loop_free();
        harness_resume(&h);
        harness_script(&h, "192.0.2.1", OPENING RECIPIENT "> QUIT\n<< 221\neof\n");
        harness_end(&h);
        arena_free(a);
    }
    harness_begin(&h, "smtpd_client_message_rate_limit = 3\nsmtpd_client_event_limit_exceptions = 192.0.2.1");
    h.anvil_says.rate = 4;
    harness_script(&h, "192.0.2.1", OPENING "> QUIT\n<< 221\neof\n");
    assert_int_equal(h.anvil_told.n, 0);
    harness_clear(&h);
    loop_free();
    harness_resume(&h);
    harness_script(&h, "2001:db8:1:2:3:4567::1", "< 220 *\n> QUIT\n<< 221\neof\n");
    assert_str(buf_str(&h.anvil_told), "1 smtp:2001:db8:1:2:3:4000::/84;2 smtp:2001:db8:1:2:3:4000::/84;");
}

/* What is refused is read to its end, but not without end. */
static void test_bdat_skips_no_more(void **state) {
    (void)state;
    play("", "192.0.2.1", "< 220 *\n> EHLO x\n<< 250\n> BDAT 67108865\n<< 503 5.5.1 Error: need RCPT command\neof\n");
    harness_end(&h);
    play("", "192.0.2.1",
         "< 220 *\n> EHLO x\n<< 250\n> BDAT 0\n<< 503 5.5.1\n> BDAT 67108865\n"
         "<< 551 5.0.0 Discarded 67108865 bytes after earlier error\neof\n");
}

/* Chunks that never come: each command has smtpd_timeout, and the log says how much there was. */
static void test_bdat_timeout(void **state) {
    (void)state;
    play("smtpd_timeout = 10", "192.0.2.1",
         OPENING RECIPIENT
         "> BDAT 20\n> 12345678\nquiet 9\n<< 421 4.4.2 mx.here.example Error: timeout exceeded\neof\n");
    assert_logged("[0-9A-F]*: timeout after BDAT (10 bytes) from client.example?192.0.2.1?");
    assert_true(h.messages[0].aborted);
}

static void test_local_rewrite(void **state) {
    (void)state;
    play("receive_override_options = no_header_body_checks, no_address_mappings", "127.0.0.1",
         OPENING RECIPIENT "> QUIT\n<< 221\n");
    assert_int_equal(h.messages[0].flags, SUBMIT_LOCAL_HEADERS); /* permit_inet_interfaces: it is our own address */
    assert_int_equal(h.messages[0].envelope_flags, 0);
    harness_end(&h);
    play("local_header_rewrite_clients =", "127.0.0.1", OPENING RECIPIENT "> QUIT\n<< 221\n");
    assert_int_equal(h.messages[0].envelope_flags, ENVELOPE_REMOTE);
}

static void test_no_unknown_checks(void **state) {
    (void)state;
    play("receive_override_options = no_unknown_recipient_checks", "192.0.2.1",
         OPENING "> RCPT TO:<nobody@here.example>\n<< 250\n> QUIT\n<< 221\n");
}

static void test_open_at_mail(void **state) {
    (void)state;
    play("smtpd_delay_open_until_valid_rcpt = no", "192.0.2.1",
         OPENING "> RCPT TO:<x@elsewhere.example>\n<< 454\n> QUIT\n<< 221\n");
    assert_logged("[0-9A-F]*: reject: RCPT from client.example?192.0.2.1?: 454 *");
    assert_true(h.messages[0].aborted);
}

static void test_standard_input(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_client_restrictions = reject");
    h.standard_input = true;
    harness_script(&h, "",
                   OPENING "> RCPT TO:<x@elsewhere.example>\n<< 250\n> VRFY nobody@here.example\n<< 252\n" CONTENT
                           "<< 250\n> QUIT\n<< 221\neof\n");
    assert_logged("connect from localhost?127.0.0.1?");
    assert_true(
        str_starts(buf_str(&h.messages[0].content), STR("Received: from client.example (localhost [127.0.0.1])\n")));
    assert_int_equal(h.messages[0].envelope_flags, 0);
}

/* --- limits --- */
static void test_connection_limit(void **state) {
    (void)state;
    struct clients others = { 0 };
    struct endpoint e;
    uint32_t n;
    assert_true(endpoint_ip(STR("192.0.2.1"), 1, &e));
    struct client_count *count[2] = { client_enter(&others, &e, 32, 84, &n), client_enter(&others, &e, 32, 84, &n) };
    harness_begin(&h, "smtpd_client_connection_count_limit = 2\n"
                      "smtpd_client_event_limit_exceptions = 192.0.2.7");
    h.clients = &others;
    harness_script(&h, "192.0.2.1",
                   "<< 421 4.7.0 mx.here.example Error: too many connections from client.example[192.0.2.1]\neof\n");
    assert_logged("warning: Connection concurrency limit exceeded: 3 from client.example?192.0.2.1? for service smtp");
    harness_script(&h, "192.0.2.9", "< 220 *\n> QUIT\n<< 221\neof\n");
    client_leave(&others, count[0]);
    harness_script(&h, "192.0.2.1", "< 220 *\n> QUIT\n<< 221\neof\n");
    client_leave(&others, count[1]);
    assert_int_equal(others.map.n, 0);
}

/* A table of exceptions that fails excepts nobody. */
static void test_connection_limit_exceptions_fail(void **state) {
    (void)state;
    struct clients others = { 0 };
    struct endpoint e;
    uint32_t n;
    assert_true(endpoint_ip(STR("192.0.2.1"), 1, &e));
    struct client_count *count = client_enter(&others, &e, 32, 84, &n);
    harness_begin(&h, "smtpd_client_connection_count_limit = 1\n"
                      "smtpd_client_event_limit_exceptions = fail:exceptions");
    h.clients = &others;
    harness_script(&h, "192.0.2.1",
                   "<< 421 4.7.0 mx.here.example Error: too many connections from client.example[192.0.2.1]\neof\n");
    client_leave(&others, count);
}

/* RX-01: a whole /64 is one client */
static void test_client_blocks(void **state) {
    (void)state;
    harness_begin(&h, "");
    static const struct {
        const char *address;
        unsigned v4, v6;
        uint32_t count;
    } rows[] = {
        { "2001:db8::1", 32, 64, 1 },       { "2001:db8::ffff:1", 32, 64, 2 }, { "2001:db8:0:1::1", 32, 64, 1 },
        { "192.0.2.1", 24, 64, 1 },         { "192.0.2.255", 24, 64, 2 },      { "192.0.3.1", 24, 64, 1 },
        { "::ffff:192.0.2.77", 24, 64, 3 }, { "2001:db8::1", 32, 0, 1 },       { "198.51.100.1", 32, 64, 1 },
        { "198.51.100.2", 32, 64, 1 },
    };
    enum { N = sizeof rows / sizeof *rows };
    struct clients c = { 0 };
    struct client_count *held[N];
    for (size_t i = 0; i < N; i++) {
        struct endpoint e;
        uint32_t n;
        assert_true(endpoint_ip(str_c(rows[i].address), 25, &e));
        held[i] = client_enter(&c, &e, rows[i].v4, rows[i].v6, &n);
        assert_int_equal(n, rows[i].count);
    }
    for (size_t i = 0; i < N; i++)
        client_leave(&c, held[i]);
    assert_int_equal(c.map.n, 0);
}

static void test_many_greetings(void **state) {
    (void)state;
    harness_begin(&h, "smtpd_junk_command_limit = 100000\nsmtpd_forbid_unauth_pipelining = no");
    struct buf script = { 0 };
    buf_add(&script, STR("< 220 *\n"));
    for (int i = 0; i < 2000; i++) {
        buf_add(&script, STR("> HELO "));
        for (int k = 0; k < 50; k++)
            buf_add(&script, STR("0123456789"));
        buf_add(&script, STR("\n"));
    }
    buf_add(&script, STR("skip 421 *\ndrop\n"));
    harness_script(&h, "192.0.2.1", script.p);
    buf_free(&script);
}

static void test_draining(void **state) {
    (void)state;
    harness_begin(&h, "");
    h.drain_at_open = true;
    harness_script(&h, "192.0.2.1",
                   OPENING RECIPIENT CONTENT "<< 250 2.0.0 Ok: queued\n> MAIL FROM:<>\n<< 421 4.3.2\neof\n");
    assert_true(h.messages[0].ended);
    harness_script(&h, "192.0.2.1", "< 220 *\n> QUIT\n<< 221\neof\n");
}

static void test_size_of_a_session(void **state) {
    (void)state;
    harness_begin(&h, "");
    assert_true(sizeof(struct session) <= 1024);
}

static void test_configuration(void **state) {
    (void)state;
    harness_begin(&h, "");
    static const struct {
        const char *name, *value, *text;
    } rows[] = {
        { "smtpd_forbid_bare_newline", "maybe", "invalid smtpd_forbid_bare_newline value: \"maybe\"" },
        { "receive_override_options", "no_x", "unknown receive_override_options value \"no_x\" in \"no_x\"" },
        { "smtpd_relay_restrictions", "permit_mynetworks",
          "in parameter smtpd_relay_restrictions or smtpd_recipient_restrictions, specify at least one working "
          "instance "
          "of: reject_unauth_destination, defer_unauth_destination, reject, defer, defer_if_permit or "
          "check_relay_domains" },
        { "verp_delimiter_filter", "=-", "bad parameter value: 'default_verp_delimiters = +=': specify" },
        { "smtpd_relay_restrictions", "permit, reject_unauth_destination", "in parameter smtpd_relay_restrictions" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf_override o = { str_c(rows[i].name), str_c(rows[i].value) };
        struct conf_source source = {
            .config_directory = STR("/nonexistent"), .overrides = &o, .override_count = 1, .missing_is_empty = true
        };
        struct conf *c;
        struct settings *s;
        assert_null(conf_load(&source, h.arena, &c));
        error e = settings_load(c, STR("smtp"), h.arena, &s);
        assert_non_null(e);
        assert_true(str_starts(e->text, str_c(rows[i].text)));
        conf_free(c);
    }
}

/* Stress: only paces differ, and all else is shared; or a list does, and everything is its own. */
static void test_stressed_settings(void **state) {
    (void)state;
    static const struct {
        const char *list;
        bool shared;
    } rows[] = { { "permit", true }, { "${stress?{reject}:{permit}}", false } };
    harness_begin(&h, "");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf_override o[] = { { STR("smtpd_client_restrictions"), str_c(rows[i].list) },
                                     { STR("smtpd_relay_restrictions"), STR("reject") },
                                     { STR("stress"), STR("yes") } };
        struct conf_source source = {
            .config_directory = STR("/nonexistent"), .overrides = o, .override_count = 2, .missing_is_empty = true
        };
        struct conf *calm, *stressed;
        struct settings *s, *t;
        assert_null(conf_load(&source, h.arena, &calm));
        source.override_count = 3;
        assert_null(conf_load(&source, h.arena, &stressed));
        assert_null(settings_load(calm, STR("smtp"), h.arena, &s));
        assert_null(settings_load_stressed(s, stressed, h.arena, &t));
        assert_int_equal(t->client.at == s->client.at, rows[i].shared);
        assert_str(t->client.at[0].name, rows[i].shared ? "permit" : "reject");
        assert_str(s->client.at[0].name, "permit");
        assert_int_equal(s->timeout, 300);
        assert_int_equal(t->timeout, 10);
        assert_int_equal(s->tls.timeout, 300);
        assert_int_equal(t->tls.timeout, 10);
        assert_int_equal(t->hard_errors, 1);
        assert_int_equal(t->junk_commands, 1);
        assert_int_equal(t->verify_polls, 1);
        assert_true(t->request_deadline && !s->request_deadline);
        assert_true(t->tls.server == s->tls.server);
        assert_str(conf_str(t->conf, PARAM_stress), "yes");
        settings_free(t);
        settings_free(s);
        conf_free(stressed);
        conf_free(calm);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        SESSION_TEST(test_idle_client),
        SESSION_TEST(test_timeout_in_content),
        SESSION_TEST(test_slow_content),
        SESSION_TEST(test_trickle),
        SESSION_TEST(test_error_delay),
        SESSION_TEST(test_lost_before_mail),
        SESSION_TEST(test_lost_after_rcpt),
        SESSION_TEST(test_lost_in_content),
        SESSION_TEST(test_cancelled_transactions),
        SESSION_TEST(test_long_command),
        SESSION_TEST(test_endless_command),
        SESSION_TEST(test_long_content_line),
        SESSION_TEST(test_no_cleanup),
        SESSION_TEST(test_no_space),
        SESSION_TEST(test_cleanup_dies_at_rcpt),
        SESSION_TEST(test_access_actions),
        SESSION_TEST(test_questions),
        SESSION_TEST(test_cleanup_dies_in_content),
        SESSION_TEST(test_cleanup_dies_at_the_end),
        SESSION_TEST(test_cleanup_refuses),
        SESSION_TEST(test_names),
        SESSION_TEST(test_port_logging),
        SESSION_TEST(test_no_name_lookup),
        SESSION_TEST(test_mapped_mynetworks),
        SESSION_TEST(test_unknown_client_codes),
        SESSION_TEST(test_lookup_failures),
        SESSION_TEST(test_received),
        SESSION_TEST(test_envelope),
        SESSION_TEST(test_dsn_and_utf8),
        SESSION_TEST(test_xverp),
        SESSION_TEST(test_requiretls),
        SESSION_TEST(test_rates),
        SESSION_TEST(test_bdat_skips_no_more),
        SESSION_TEST(test_bdat_timeout),
        SESSION_TEST(test_local_rewrite),
        SESSION_TEST(test_no_unknown_checks),
        SESSION_TEST(test_open_at_mail),
        SESSION_TEST(test_standard_input),
        SESSION_TEST(test_connection_limit),
        SESSION_TEST(test_connection_limit_exceptions_fail),
        SESSION_TEST(test_client_blocks),
        SESSION_TEST(test_many_greetings),
        SESSION_TEST(test_draining),
        SESSION_TEST(test_size_of_a_session),
        SESSION_TEST(test_stressed_settings),
        SESSION_TEST(test_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
