#include "test/test.h"

#include "bounce/notice.h"
#include <errno.h>
#include <stdlib.h>

static struct str content;
static struct buf out;
static size_t read_max;
static bool read_fails;

static ssize_t read_it(void *ctx, uint64_t at, void *p, size_t n) {
    (void)ctx;
    if (read_fails && at > 10) {
        errno = EIO;
        return -1;
    }
    assert_true(at < content.n);
    size_t left = content.n - (size_t)at;
    n = n < left ? n : left;
    n = n < read_max ? n : read_max;
    memcpy(p, content.p + at, n);
    return (ssize_t)n;
}
static error put(void *ctx, struct str s) {
    (void)ctx;
    buf_add(&out, s);
    return NULL;
}

static struct envelope env;
static struct spool_failure failure;

static struct bounce_templates templates;

static void use(struct notice *n, enum template_kind kind) {
    n->template = &templates.at[kind];
    n->text = templates.at[kind].text;
}

static struct notice basic(void) {
    bounce_templates_builtin(&templates);
    env = (struct envelope){ .sender = STR("s@there.example"), .arrival_us = 1795256103 * US_PER_S };
    failure = (struct spool_failure){
        .address = STR("r@x.example"), .orig = STR("r@x.example"), .status = STR("5.1.1"), .reason = STR("no such user")
    };
    content = STR("Subject: x\nTo: y\n\nbody\n");
    read_max = 1000;
    read_fails = false;
    return (struct notice){
        .kind = BOUNCE_FAILED,
        .template = &templates.at[TEMPLATE_FAILURE],
        .text = STR("The mail system\n"),
        .full = true,
        .id = STR("ABC"),
        .own_id = STR("DEF"),
        .to = STR("s@there.example"),
        .host = STR("mx.example"),
        .origin = STR("example"),
        .mail_name = STR("Angarium"),
        .env = &env,
        .rcpts = &failure,
        .rcpt_count = 1,
        .now = 1795256104,
        .lifetime = 5 * 86400,
        .read = read_it,
    };
}

static struct str compose(struct notice *n) {
    struct arena *a = arena_new();
    buf_clear(&out);
    n->content_size = content.n;
    assert_null(notice_prepare(n, a));
    assert_null(notice_write(n, a, put, NULL));
    arena_free(a);
    return buf_str(&out);
}

static void has(struct str s, const char *text) {
    if (!str_contains(s, str_c(text)))
        print_error("no \"%s\" in:\n%.*s\n", text, STR_ARG(s));
    assert_true(str_contains(s, str_c(text)));
}
static void has_not(struct str s, const char *text) {
    assert_false(str_contains(s, str_c(text)));
}

static void test_failed(void **state) {
    (void)state;
    struct notice n = basic();
    struct str s = compose(&n);
    has(s, "Received: by mx.example (Angarium)\n\tid DEF; ");
    has(s, "\nFrom: Mail Delivery System <MAILER-DAEMON@example>\n");
    has(s, "\nSubject: Undelivered Mail Returned to Sender\nTo: s@there.example\nAuto-Submitted: auto-replied\n");
    has(s, "\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n"
           "\tboundary=\"ABC.1795256104/mx.example\"\n");
    has(s, "\n<r@x.example>: no such user\n\n--ABC.1795256104/mx.example\n");
    has(s, "Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example\nX-Postfix-Queue-ID: ABC\n"
           "X-Postfix-Sender: rfc822; s@there.example\nArrival-Date: ");
    has(s, "\n\nFinal-Recipient: rfc822; r@x.example\nOriginal-Recipient: rfc822;r@x.example\nAction: failed\n"
           "Status: 5.1.1\nDiagnostic-Code: X-Postfix; no such user\n\n--ABC");
    has(s, "Content-Type: message/rfc822\n\nReturn-Path: <s@there.example>\nSubject: x\nTo: y\n\nbody\n\n"
           "--ABC.1795256104/mx.example--\n");
    has_not(s, "8bit");
    assert_false(n.eight_bit);
    n.old_from = true;
    has(compose(&n), "\nFrom: MAILER-DAEMON@example (Mail Delivery System)\n");
}

static void test_details(void **state) {
    (void)state;
    struct notice n = basic();
    env.dsn_envid = STR("id+1");
    failure.orig = STR("list@x.example");
    failure.dsn_orcpt = STR("rfc822;First@y.example");
    failure.diagnostic_type = STR("smtp");
    failure.diagnostic = STR("550 5.1.1 <r@x.example>: User unknown\n550 really");
    failure.remote_type = STR("dns");
    failure.remote_mta = STR("mx.x.example");
    failure.reason = STR("host mx.x.example[192.0.2.1] said: 550 5.1.1 <r@x.example>: User unknown in local recipient "
                         "table (in reply to RCPT TO command)");
    struct str s = compose(&n);
    has(s, "\nOriginal-Envelope-Id: id+1\n");
    has(s, "\n<r@x.example> (expanded from <list@x.example>): host mx.x.example[192.0.2.1]\n"
           "    said: 550 5.1.1 <r@x.example>: User unknown in local recipient table (in\n"
           "    reply to RCPT TO command)\n");
    has(s, "\nOriginal-Recipient: rfc822;First@y.example\n");
    has(s,
        "\nRemote-MTA: dns; mx.x.example\nDiagnostic-Code: smtp; 550 5.1.1 <r@x.example>: User unknown 550 really\n");
}

static void test_kinds(void **state) {
    (void)state;
    struct notice n = basic();
    n.full = false;
    n.kind = BOUNCE_DELAYED;
    use(&n, TEMPLATE_DELAY);
    failure.status = STR("4.4.1");
    struct str s = compose(&n);
    has(s, "\nSubject: Delayed Mail (still being retried)\n");
    has(s, "charset=us-ascii\n\nThis is the mail system at host $myhostname.\n");
    has(s, "\nAction: delayed\nStatus: 4.4.1\nDiagnostic-Code: X-Postfix; no such user\nWill-Retry-Until: ");
    has(s, "Content-Type: text/rfc822-headers\n\nReturn-Path: <s@there.example>\nSubject: x\nTo: y\n\n--ABC");
    n.kind = BOUNCE_SUCCESS;
    use(&n, TEMPLATE_SUCCESS);
    failure.status = STR("2.0.0");
    s = compose(&n);
    has(s, "\nSubject: Successful Mail Delivery Report\n");
    has(s, "\nAction: delivered\nStatus: 2.0.0\n");
    failure.action = STR("relayed");
    has(compose(&n), "\nAction: relayed\n");
    n.kind = BOUNCE_FAILED;
    use(&n, TEMPLATE_FAILURE);
    n.postmaster = true;
    env.sender = STR("");
    s = compose(&n);
    has(s, "\nSubject: Postmaster Copy: Undelivered Mail\n");
    has(s, "\nAuto-Submitted: auto-generated\n");
    has(s, "X-Postfix-Sender: rfc822; MAILER-DAEMON@example\n");
    has_not(s, "The mail system");
}

static void test_template(void **state) {
    (void)state;
    struct notice n = basic();
    struct bounce_template own = { .charset = STR("iso-8859-1"),
                                   .from = STR("Post <post@example>"),
                                   .own_from = true,
                                   .subject = STR("Zur\"uck"),
                                   .postmaster_subject = STR("Kopie") };
    n.template = &own;
    n.text = STR("sch\366n\n");
    n.old_from = true; /* says nothing of a From: of one's own */
    struct str s = compose(&n);
    has(s, "\nFrom: Post <post@example>\nSubject: Zur\"uck\nTo: ");
    has(s, "\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\nsch\366n\n\n<r@x.");
    assert_true(n.eight_bit);
    n.postmaster = true;
    s = compose(&n);
    has(s, "\nSubject: Kopie\n");
    has_not(s, "sch\366n");
    assert_false(n.eight_bit);
}

/* What comes from others stays on its line, without control bytes. */
static void test_hostile(void **state) {
    (void)state;
    struct notice n = basic();
    failure.address = STR("a b\t@x.example");
    failure.reason = STR("one\r\n\r\n--ABC.1795256104/mx.example\r\nStatus: 2.0.0\0\033[2J");
    failure.remote_mta = STR("x\nEvil: 1");
    failure.diagnostic = STR("d\nEvil: 2");
    failure.dsn_orcpt = STR("rfc822;o\n\nEvil: 3");
    failure.action = STR("failed\nEvil: 4");
    failure.status = STR("5.1.1\nEvil: 5");
    env.dsn_envid = STR("e\nEvil: 6");
    env.sender = STR("s\nEvil: 7@x");
    struct str s = compose(&n);
    has_not(s, "\nEvil");
    has_not(s, "\nStatus: 2");
    has_not(s, "\033");
    has(s, "Status: 5.0.0\n");
    assert_null(memchr(s.p, 0, s.n));
    assert_null(memchr(s.p, '\r', s.n));
    /* the boundary that somebody guessed is not used */
    has(s, "boundary=\"ABC.1795256104.1/mx.example\"");
}

static void test_boundary_in_content(void **state) {
    (void)state;
    for (size_t max = 1; max < 40; max++) {
        struct notice n = basic();
        content = STR("Subject: x\n\n--ABC.1795256104/mx.example--\n\nABC.1795256104.1/mx.example");
        read_max = max;
        struct str s = compose(&n);
        has(s, "boundary=\"ABC.1795256104.2/mx.example\"");
        has(s, "ABC.1795256104.1/mx.example\n\n--ABC.1795256104.2/mx.example--\n");
    }
}

static void test_eight_bit(void **state) {
    (void)state;
    struct notice n = basic();
    content = STR("Subject: x\n\nb\303\266dy\n");
    struct str s = compose(&n);
    assert_true(n.eight_bit);
    has(s, "/mx.example\"\nContent-Transfer-Encoding: 8bit\n\n");
    has(s, "text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n");
    has(s, "b\303\266dy\n");
    n.full = false; /* the headers are ASCII */
    compose(&n);
    assert_false(n.eight_bit);
    /* BO-04: a UTF-8 address is not taken apart */
    env.sender = STR("j\303\266rg@x.example");
    env.flags = ENVELOPE_SMTPUTF8;
    failure.address = STR("\303\270@x.example");
    s = compose(&n);
    assert_true(n.eight_bit);
    has(s, "X-Postfix-Sender: utf-8; j\303\266rg@x.example\n");
    has(s, "Final-Recipient: utf-8; \303\270@x.example\n");
    has(s, "Content-Type: message/global-delivery-status\n");
    has(s, "report-type=global-delivery-status;");
    has(s, "Content-Type: message/global-headers\n");
}

static void test_headers_only(void **state) {
    (void)state;
    struct notice n = basic();
    n.full = false;
    content = STR("\nbody\n"); /* no header at all */
    has(compose(&n), "Return-Path: <s@there.example>\n\n--ABC");
    content = STR("A: b"); /* no body, no newline */
    has(compose(&n), "Return-Path: <s@there.example>\nA: b\n\n--ABC");
    content = STR("");
    has(compose(&n), "Return-Path: <s@there.example>\n\n--ABC");
    /* a header without end is cut at a line */
    size_t size = NOTICE_HEADERS_MAX + 100000;
    char *big = malloc(size);
    memset(big, 'x', size);
    for (size_t i = 99; i < size; i += 100)
        big[i] = '\n';
    content = str_n(big, size);
    read_max = 10000;
    struct str s = compose(&n);
    assert_true(n.copied <= NOTICE_HEADERS_MAX && n.copied > NOTICE_HEADERS_MAX - 101);
    assert_int_equal(n.copied % 100, 0);
    assert_true(s.n < NOTICE_HEADERS_MAX + 10000);
    free(big);
}

static size_t header_end(struct str s) {
    const char *end = memmem(s.p, s.n, "\n\n", 2);
    return end ? (size_t)(end - s.p) + 1 : s.n;
}

/* enable_threaded_bounces: one clean identifier or none. */
static void test_threaded(void **state) {
    (void)state;
    static const struct {
        struct str content;
        const char *id; /* NULL: no reference */
    } rows[] = {
        { STR_INIT("A: b\nMessage-ID: <m@x>\n\n"), "<m@x>" },
        { STR_INIT("message-id :\t<m@x>  \n\n"), "<m@x>" },
        { STR_INIT("Message-Id:\n <m@x>\nA: b\n\n"), "<m@x>" },
        { STR_INIT("Message-Id: <m\n @x>\n\n"), NULL },
        { STR_INIT("Message-Id: <m@x> <n@x>\n\n"), NULL },
        { STR_INIT("Message-Id: m@x\n\n"), NULL },
        { STR_INIT("Message-Id: <m@x\n\n"), NULL },
        { STR_INIT("Message-Id: <a\001b@x>\n\n"), NULL },
        { STR_INIT("Message-Id: <>\n\n"), NULL },
        { STR_INIT("A: b\n\nMessage-Id: <body@x>\n"), NULL },
        { STR_INIT(""), NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct notice n = basic();
        n.threaded = true;
        content = rows[i].content;
        struct str s = compose(&n), header = str_sub(s, 0, header_end(s));
        char line[100];
        snprintf(line, sizeof line, "\nReferences: %s\nIn-Reply-To: %s\n", rows[i].id, rows[i].id);
        if (rows[i].id)
            has(header, line);
        else
            has_not(header, "References:");
        n = basic();
        has_not(compose(&n), "References:");
    }
}

/* requiretls_redact_dsn: the report alone. */
static void test_redacted(void **state) {
    (void)state;
    struct notice n = basic();
    n.redacted = true;
    struct str s = compose(&n);
    has(s, "Final-Recipient: rfc822; r@x.example");
    has(s, "--ABC.1795256104/mx.example--\n");
    has_not(s, "Subject: x");
    has_not(s, "body");
    has_not(s, "Return-Path");
}

/* smtputf8_enable */
static void test_utf8_text(void **state) {
    (void)state;
    struct notice n = basic();
    n.utf8 = true;
    struct str s = compose(&n);
    has(s, "text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n");
    has(s, "message/delivery-status\n\n");
    has(s, "message/rfc822\nContent-Transfer-Encoding: 8bit\n");
    failure.reason = STR("caf\xc3\xa9");
    has(compose(&n), "message/delivery-status\nContent-Transfer-Encoding: 8bit\n");
}

/* Addresses are not folded, but for one that no line holds. */
static void test_long_address(void **state) {
    (void)state;
    struct notice n = basic();
    char name[1100];
    memset(name, 'x', sizeof name);
    failure.address = str_n(name, 200);
    struct str s = compose(&n);
    has(s, "\nFinal-Recipient: rfc822; xxx");
    failure.address = str_n(name, sizeof name);
    has(compose(&n), "\nFinal-Recipient: rfc822;\n    xxx");
}

static void test_read_error(void **state) {
    (void)state;
    struct notice n = basic();
    struct arena *a = arena_new();
    n.content_size = content.n;
    read_max = 8;
    read_fails = true;
    error e = notice_prepare(&n, a);
    assert_non_null(e);
    assert_true(str_contains(e->text, STR("error reading the message")));
    arena_free(a);
}

static void test_fold(void **state) {
    (void)state;
    static const struct {
        const char *in;
        size_t column;
        const char *want;
    } rows[] = {
        { "", 0, "" },
        { "a b", 0, "a b" },
        { "  a \t\r\n b  ", 0, "a b" },
        { "1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 ab", 0,
          "1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 ab" },
        { "1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 abc", 0,
          "1234567890 1234567890 1234567890 1234567890 1234567890 1234567890 1234567890\n    abc" },
        { "a b", 77, "a\n    b" },
        { "a\001b", 0, "a?b" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct buf b = { 0 };
        notice_fold(&b, str_c(rows[i].in), rows[i].column);
        assert_str(buf_str(&b), rows[i].want);
        buf_free(&b);
    }
}

static int done(void **state) {
    (void)state;
    buf_free(&out);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed),     cmocka_unit_test(test_details),
        cmocka_unit_test(test_kinds),      cmocka_unit_test(test_template),
        cmocka_unit_test(test_hostile),    cmocka_unit_test(test_boundary_in_content),
        cmocka_unit_test(test_eight_bit),  cmocka_unit_test(test_headers_only),
        cmocka_unit_test(test_threaded),   cmocka_unit_test(test_redacted),
        cmocka_unit_test(test_utf8_text),  cmocka_unit_test(test_long_address),
        cmocka_unit_test(test_read_error), cmocka_unit_test(test_fold),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
