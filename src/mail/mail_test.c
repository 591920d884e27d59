/* Unit tests of mail/: dates, status codes, xtext, replies, envelopes. */
#include "mail/date.h"
#include "mail/dsn.h"
#include "mail/envelope.h"
#include "mail/reply.h"
#include "test/test.h"
#include <stdlib.h>
#include <time.h>

static void dates(void **state) {
    (void)state;
    struct arena *a = arena_new();
    static const struct {
        const char *zone;
        int64_t when;
        const char *want;
    } rows[] = {
        { "UTC0", 1795251600, "Sat, 21 Nov 2026 09:00:00 +0000 (UTC)" },
        { "UTC0", 0, "Thu,  1 Jan 1970 00:00:00 +0000 (UTC)" },
        { "EST5", 1795251600, "Sat, 21 Nov 2026 04:00:00 -0500 (EST)" },
        { "NST3:30", 1795251600, "Sat, 21 Nov 2026 05:30:00 -0330 (NST)" },
        { "<+0545>-5:45", 1795251600, "Sat, 21 Nov 2026 14:45:00 +0545 (+0545)" },
        { "XYZ0:10", 1795251600, "Sat, 21 Nov 2026 08:50:00 -0010 (XYZ)" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        setenv("TZ", rows[i].zone, 1);
        tzset();
        assert_str(date_rfc5322(a, rows[i].when), rows[i].want);
    }
    setenv("TZ", "EST5", 1);
    tzset();
    assert_str(message_id(a, 1795251600, STR("4F2"), STR("mx.example")), "<20261121090000.4F2@mx.example>");
    assert_str(date_syslog(a, 1795251600), "Nov 21 04:00:00");
    assert_str(date_syslog(a, 1793523600), "Nov  1 04:00:00");
    arena_free(a);
}

static void status_codes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t n;
    } rows[] = {
        { "4.7.1", 5 },    { "5.7.1 x", 5 }, { "2.0.0\tx", 5 }, { "4.777.123 x", 9 }, { "3.0.0", 0 },
        { "4.7", 0 },      { "4.7.", 0 },    { "4..1", 0 },     { "4.7.1x", 0 },      { "4.7.1234", 0 },
        { "4.1234.1", 0 }, { "4.7.1.", 0 },  { "", 0 },         { "44.1.1", 0 },      { "x4.7.1", 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (dsn_status_length(str_c(rows[i].text)) != rows[i].n)
            fail_msg("%s", rows[i].text);
    struct str status, text;
    dsn_split(STR(" 4.7.1  no  "), STR("5.0.0"), &status, &text);
    assert_str(status, "4.7.1");
    assert_str(text, "no  ");
    dsn_split(STR("plain"), STR("5.0.0"), &status, &text);
    assert_str(status, "5.0.0");
    assert_str(text, "plain");
    struct arena *a = arena_new();
    assert_str(dsn_with_class(a, STR("4.5.2"), '5'), "5.5.2");
    arena_free(a);
}

static void notify(void **state) {
    (void)state;
    struct arena *a = arena_new();
    assert_int_equal(dsn_notify_parse(STR("success,Failure,DELAY")),
                     DSN_NOTIFY_SUCCESS | DSN_NOTIFY_FAILURE | DSN_NOTIFY_DELAY);
    assert_int_equal(dsn_notify_parse(STR("NEVER")), DSN_NOTIFY_NEVER);
    const char *bad[] = {
        "", ",", "NEVER,DELAY", "DELAY,NEVER", "DELAY,", "DELAY,DELAY", "SOMETIMES", "DELAY, FAILURE"
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (dsn_notify_parse(str_c(bad[i])))
            fail_msg("%s", bad[i]);
    assert_str(dsn_notify_format(a, DSN_NOTIFY_FAILURE | DSN_NOTIFY_SUCCESS), "SUCCESS,FAILURE");
    assert_str(dsn_notify_format(a, 0), "");
    arena_free(a);
}

static void xtext(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct str out;
    assert_str(xtext_encode(a, STR("a+b=c d\0\xff")), "a+2Bb+3Dc+20d+00+FF");
    assert_true(xtext_decode(a, STR("a+2Bb+3dc+20d"), &out));
    assert_str(out, "a+b=c d");
    assert_true(xtext_decode(a, STR(""), &out));
    assert_true(xtext_decode(a,
                             STR("b\xc3\xbc"
                                 "b"),
                             &out));
    assert_str(out, "b\xc3\xbc"
                    "b");
    /* an encoded NUL would cut the value for every C program further on */
    const struct str bad[] = { STR("a+00"), STR("+00"), STR("+"),    STR("a+2"),   STR("+2G"),  STR("+GG"),
                               STR("a=b"),  STR("a b"), STR("a\0b"), STR("a\x01"), STR("\xc3"), STR("\xc3(") };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *copy = malloc(bad[i].n);
        assert_non_null(copy);
        memcpy(copy, bad[i].p, bad[i].n);
        if (xtext_decode(a, str_n(copy, bad[i].n), &out))
            fail_msg("row %zu", i);
        free(copy);
    }
    assert_true(unitext_decode(a, STR("utf-8;m\\x{FC}ller\\x{1f600}@b\\x{20}"), &out));
    assert_str(out, "utf-8;m\xc3\xbcller\xf0\x9f\x98\x80@b ");
    const struct str bad_unitext[] = { STR("\\"),     STR("\\x"),          STR("\\x{"),      STR("\\x{}"),
                                       STR("\\x{0}"), STR("\\x{41}"),      STR("\\x{D800}"), STR("\\x{110000}"),
                                       STR("\\x{FC"), STR("\\x{00000FC}"), STR("\xff") };
    for (size_t i = 0; i < sizeof bad_unitext / sizeof *bad_unitext; i++)
        if (unitext_decode(a, bad_unitext[i], &out))
            fail_msg("unitext row %zu", i);
    assert_true(dsn_orcpt_valid(STR("rfc822;a@b")));
    assert_true(dsn_orcpt_valid(STR("rfc822;\"a b\"@c")));
    assert_true(dsn_orcpt_valid(STR("utf-8;m\xc3\xbcller@b")));
    assert_true(dsn_orcpt_valid(STR("UTF-8;a@b")));
    const struct str bad_orcpt[] = { STR(""),           STR("rfc822"),      STR("rfc822;"),
                                     STR(";a@b"),       STR("r f;a@b"),     STR("rfc822;a\0@b"),
                                     STR("utf-8;a\0b"), STR("utf-8;\xc3("), STR("rfc822;m\xc3\xbcller@b"),
                                     STR("x;a\nb"),     STR("\0;a") };
    for (size_t i = 0; i < sizeof bad_orcpt / sizeof bad_orcpt[0]; i++)
        if (dsn_orcpt_valid(bad_orcpt[i]))
            fail_msg("row %zu", i);
    arena_free(a);
}

static enum reply_state feed(struct reply_reader *r, const char *line, struct reply *ret) {
    size_t n = strlen(line);
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, line, n);
    enum reply_state s = reply_line(r, str_n(copy, n), ret);
    free(copy);
    return s;
}

static void replies(void **state) {
    (void)state;
    struct reply_reader r = { 0 };
    struct reply got = { 0 };
    assert_int_equal(feed(&r, "250 2.1.0 Ok\r\n", &got), REPLY_DONE);
    assert_int_equal(got.code, 250);
    assert_str(got.dsn, "2.1.0");
    assert_str(got.text, "250 2.1.0 Ok");
    reply_reset(&r);
    assert_int_equal(feed(&r, "550-first", &got), REPLY_MORE);
    assert_int_equal(feed(&r, "550-5.1.1 sec\x01ond\n", &got), REPLY_MORE);
    assert_int_equal(feed(&r, "550", &got), REPLY_DONE);
    assert_int_equal(got.lines, 3);
    assert_str(got.dsn, "5.1.1");
    assert_str(got.text, "550-first\n550-5.1.1 sec?ond\n550");
    reply_reset(&r);
    assert_int_equal(feed(&r, "450 5.1.1 class differs", &got), REPLY_DONE);
    assert_str(got.dsn, "");
    reply_reset(&r);
    assert_int_equal(feed(&r, "250-x", &got), REPLY_MORE);
    assert_int_equal(feed(&r, "251 x", &got), REPLY_BAD);
    const char *bad[] = { "",     "2",    "25",     "25x",    "150 x", "650 x", "050 x",
                          "2500", "250x", "250\tx", " 250 x", "-250",  "\xff" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        reply_reset(&r);
        if (feed(&r, bad[i], &got) != REPLY_BAD)
            fail_msg("%s", bad[i]);
    }
    reply_reset(&r);
    for (int i = 0; i < REPLY_LINES_MAX; i++)
        assert_int_equal(feed(&r, "250-x", &got), REPLY_MORE);
    assert_int_equal(feed(&r, "250 x", &got), REPLY_BAD);
    reply_reset(&r);
    char long_line[REPLY_BYTES_MAX];
    memset(long_line, 'a', sizeof long_line);
    memcpy(long_line, "250 ", 4);
    assert_int_equal(reply_line(&r, str_n(long_line, sizeof long_line), &got), REPLY_BAD);
    assert_int_equal(reply_line(&r, str_n(long_line, sizeof long_line - 1), &got), REPLY_DONE);
    reply_free(&r);
}

static void orcpt_is_passed_on(void **state) {
    (void)state;
    static const struct {
        const char *orcpt, *sent;
    } rows[] = {
        { "rfc822;a@b.example", "rfc822;a@b.example" },
        { "rfc822;a+b=c@x.example", "rfc822;a+2Bb+3Dc@x.example" },
        { "rfc822;\"a b\"@x.example", "rfc822;\"a+20b\"@x.example" },
        { "utf-8;\xc3\xbc@x.example", "utf-8;\\x{FC}@x.example" },
        { "rfc822;\xc3\xbc+\xe2\x82\xac\\@x", "utf-8;\\x{FC}\\x{2B}\\x{20AC}\\x{5C}@x" },
        { "utf-8;\xf0\x9f\x93\xa7@x", "utf-8;\\x{1F4E7}@x" },
        { "rfc822;\xff@x", "" },
        { "nothing", "" },
        { ";x", "" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_str(dsn_orcpt_encode(a, str_c(rows[i].orcpt)), rows[i].sent);
    arena_free(a);
}

static void envelopes(void **state) {
    (void)state;
    struct envelope e = {
        .arrival_us = -5,
        .sender = STR("a@b"),
        .dsn_envid = STR("x\0y"),
        .dsn_ret = DSN_RET_HDRS,
        .flags = ENVELOPE_8BIT | ENVELOPE_REMOTE,
        .size = 1ull << 40,
        .client = { STR("name"), STR("rname"), STR("addr"), STR("port"), STR("helo"), STR("ESMTP"), STR("ident"),
                    STR("method"), STR("user"), STR("sender") },
        .content_filter = STR("smtp:x"),
        .verp_delimiters = { '~', ' ' },
    };
    struct rcpt r = { STR("to"), STR("orig"), STR("rfc822;o"), DSN_NOTIFY_DELAY, RCPT_DONE }, r2;
    struct buf b = { 0 };
    envelope_pack(&b, &e);
    size_t envelope_end = b.n;
    rcpt_pack(&b, &r);
    struct envelope e2;
    struct unpack u = unpack_from(buf_str(&b));
    envelope_unpack(&u, &e2);
    rcpt_unpack(&u, &r2);
    assert_true(unpack_done(&u));
    assert_int_equal(e2.arrival_us, -5);
    assert_true(str_eq(e2.dsn_envid, e.dsn_envid));
    assert_true(e2.size == e.size && e2.flags == e.flags && e2.dsn_ret == e.dsn_ret);
    assert_str(e2.sender, "a@b");
    assert_str(e2.client.name, "name");
    assert_str(e2.client.reverse_name, "rname");
    assert_str(e2.client.sasl_sender, "sender");
    assert_str(e2.content_filter, "smtp:x");
    assert_memory_equal(e2.verp_delimiters, "~ ", VERP_DELIMITERS);
    assert_str(r2.address, "to");
    assert_str(r2.orig, "orig");
    assert_str(r2.dsn_orcpt, "rfc822;o");
    assert_int_equal(r2.dsn_notify, DSN_NOTIFY_DELAY);
    assert_int_equal(r2.state, RCPT_DONE);
    /* cut anywhere: bad, and no value is left unset */
    for (size_t n = 0; n < b.n; n++) {
        u = unpack_from(str_sub(buf_str(&b), 0, n));
        envelope_unpack(&u, &e2);
        assert_int_equal(u.bad, n < envelope_end);
        rcpt_unpack(&u, &r2);
        assert_true(u.bad);
        assert_non_null(r2.address.p);
    }
    static const char delimiters[][2] = { "\0+", "+\0", "+\n", "\x80+" };
    for (size_t i = 0; i < sizeof delimiters / sizeof *delimiters; i++) {
        struct buf bad = { 0 };
        memcpy(e.verp_delimiters, delimiters[i], VERP_DELIMITERS);
        envelope_pack(&bad, &e);
        u = unpack_from(buf_str(&bad));
        envelope_unpack(&u, &e2);
        assert_true(u.bad);
        buf_free(&bad);
    }
    b.p[b.n - 1] = 7; /* no such state */
    u = unpack_from(str_from(buf_str(&b), envelope_end));
    rcpt_unpack(&u, &r2);
    assert_true(u.bad);
    buf_free(&b);
}

static void verp(void **state) {
    (void)state;
    static const struct {
        const char *text, *filter;
        bool good;
    } delimiters[] = {
        { "+=", "-=+", true }, { "=-", "-=+", true },   { "++", "+", true },    { "", "-=+", false },
        { "+", "-=+", false }, { "+=-", "-=+", false }, { "+a", "-=+", false }, { "a+", "-=+", false },
        { "+=", "", false },   { "\t\t", "\t", false },
    };
    for (size_t i = 0; i < sizeof delimiters / sizeof *delimiters; i++) {
        char got[VERP_DELIMITERS] = { 'x', 'y' };
        const char *want = delimiters[i].good ? delimiters[i].text : "xy";
        assert_int_equal(verp_delimiters_parse(str_c(delimiters[i].text), str_c(delimiters[i].filter), got),
                         delimiters[i].good);
        assert_memory_equal(got, want, VERP_DELIMITERS);
    }
    static const struct {
        const char *sender, *recipient, *made;
    } senders[] = {
        { "list@origin.example", "user@dest.example", "list+user=dest.example@origin.example" },
        { "list@origin.example", "user", "list+user@origin.example" },
        { "list", "user@dest.example", "list+user=dest.example" },
        { "a@b@origin.example", "c@d@dest.example", "a@b+c@d=dest.example@origin.example" },
        { "", "user@dest.example", "" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof senders / sizeof *senders; i++)
        assert_str(verp_sender(a, "+=", str_c(senders[i].sender), str_c(senders[i].recipient)), senders[i].made);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates),
        cmocka_unit_test(status_codes),
        cmocka_unit_test(notify),
        cmocka_unit_test(xtext),
        cmocka_unit_test(replies),
        cmocka_unit_test(envelopes),
        cmocka_unit_test(orcpt_is_passed_on),
        cmocka_unit_test(verp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
