#include "test/test.h"

#include "cleanup/content.h"
#include "mail/address.h"

#include <stdlib.h>

struct got {
    struct buf out, ids;
};

static void take(void *ctx, struct str bytes) {
    struct got *g = ctx;
    buf_add(&g->out, bytes);
}

static void take_id(void *ctx, bool resent, struct str value) {
    struct got *g = ctx;
    buf_printf(&g->ids, "%s%.*s;", resent ? "resent " : "", STR_ARG(value));
}

static struct str complete(void *ctx, struct arena *a, struct str address, unsigned flags) {
    (void)ctx;
    (void)flags;
    return address_split(address).has_domain ? address : arena_cat(a, address, STR("@here.example"));
}

static struct content_rules rules(void) {
    struct content_rules r = { .replace_stray_cr = true,
                               .header_size_limit = 102400,
                               .address_tokens = 10240,
                               .drop_headers = STR("bcc, content-length, resent-bcc, return-path"),
                               .undisclosed = STR(""),
                               .host = STR("mx.example") };
    r.drop_ids = UINT64_C(1) << HEADER_BCC | UINT64_C(1) << HEADER_CONTENT_LENGTH | UINT64_C(1) << HEADER_RESENT_BCC |
                 UINT64_C(1) << HEADER_RETURN_PATH;
    return r;
}

/* `step`: bytes a feed; 0: all at once. Each piece is a copy of exact size, so that reading past it is seen. */
static void feed(struct content *c, struct str in, size_t step) {
    while (in.n > 0) {
        struct str piece = str_sub(in, 0, step ? step : in.n);
        char *copy = malloc(piece.n);
        memcpy(copy, piece.p, piece.n);
        content_feed(c, (struct str){ copy, piece.n });
        free(copy);
        in = str_from(in, piece.n);
    }
    content_end(c);
}

static void run(const struct content_rules *r, const struct content_message *base, struct str in, size_t step,
                struct got *g, unsigned *ret_hops, struct buf *ret_rejected) {
    struct content_message m = *base;
    m.ctx = g;
    m.write = take;
    m.address = complete;
    m.message_id = take_id;
    m.queue_id = STR("QID");
    m.now = 1795251600; /* 2026-11-21 09:00:00 UTC */
    struct content c;
    content_begin(&c, r, &m);
    feed(&c, in, step);
    if (ret_hops)
        *ret_hops = c.hops;
    if (ret_rejected && c.rejected)
        buf_add(ret_rejected, buf_str(&c.rejected_line));
    if (ret_rejected)
        buf_add(ret_rejected, buf_str(&c.unended));
    content_free(&c);
}

static void got_free(struct got *g) {
    buf_free(&g->out);
    buf_free(&g->ids);
}

static const size_t steps[] = { 0, 1, 2, 3, 7, 64 };
enum { STEP_COUNT = sizeof steps / sizeof steps[0] };

#define ID "<20261121090000.QID@mx.example>"
#define DATE "Sat, 21 Nov 2026 09:00:00 +0000 (UTC)"
#define ADDED "Message-Id: " ID "\nDate: " DATE "\nFrom: me@here.example\n"

/* What Postfix makes of the same input, seen with its own programs. */
static const struct {
    const char *in, *local, *remote, *local_ids;
} messages[] = {
    { "Subject: a\nTo: x\nCc: y@host, Foo Bar <z>\nBcc: secret@b.test\nReturn-Path: <q>\nContent-Length: 5\nX-To: "
      "x\n\nbody\n",
      "Subject: a\nTo: x@here.example\nCc: y@host, Foo Bar <z@here.example>\nX-To: x\n" ADDED "\nbody\n",
      "Subject: a\nTo: x\nCc: y@host, Foo Bar <z>\nX-To: x\n\nbody\n", ID ";" },
    /* resent mail, by a field that is dropped */
    { "From: me\nResent-Bcc: zz@t\n\nbody\n",
      "From: me@here.example\nResent-Message-Id: " ID "\nResent-Date: " DATE "\nResent-From: me@here.example\n\nbody\n",
      "From: me\n\nbody\n", "resent " ID ";;" },
    { "From: me@x\nMESSAGE-ID:\n <abc@d>\nDate: d\nResent-From: a@b\nResent-Date: e\nResent-Message-ID: <r>\n\n",
      "From: me@x\nMESSAGE-ID:\n <abc@d>\nDate: d\nResent-From: a@b\nResent-Date: e\nResent-Message-ID: <r>\n\n",
      "From: me@x\nMESSAGE-ID:\n <abc@d>\nDate: d\nResent-From: a@b\nResent-Date: e\nResent-Message-ID: <r>\n\n",
      "<abc@d>;resent <r>;" },
    /* a header section without its empty line */
    { "no header here\nbody: x\n", ADDED "\nno header here\nbody: x\n", "\nno header here\nbody: x\n", ID ";" },
    { "Subject: x\nnot a field\nmore: y\n\nbody", "Subject: x\n" ADDED "\nnot a field\nmore: y\n\nbody\n",
      "Subject: x\n\nnot a field\nmore: y\n\nbody\n", ID ";" },
    { " folded first\nSubject: x\n\nb\n", ADDED "\n folded first\nSubject: x\n\nb\n",
      "\n folded first\nSubject: x\n\nb\n", ID ";" },
    { "\n\nbody\n", ADDED "\n\nbody\n", "\n\nbody\n", ID ";" },
    { "", ADDED, "", ID ";" },
    { "Subject: only", "Subject: only\n" ADDED, "Subject: only\n", ID ";" },
    { "Subject", ADDED "\nSubject\n", "\nSubject\n", ID ";" },
    /* an empty field is there all the same */
    { "Subject: x\nFrom: \nMessage-Id: <abc>\n\nb", "Subject: x\nFrom: \nMessage-Id: <abc>\nDate: " DATE "\n\nb\n",
      "Subject: x\nFrom: \nMessage-Id: <abc>\n\nb\n", "<abc>;" },
    /* stray CR, in header and body */
    { "Subject: a\rBcc: b\n\nc\rd\n\r\n", "Subject: a Bcc: b\n" ADDED "\nc d\n \n", "Subject: a Bcc: b\n\nc d\n \n",
      ID ";" },
    /* what a header section cannot hide: a folded Bcc goes as a whole */
    { "Bcc: a@b,\n\tc@d\n \nSubject: x\n\n", "Subject: x\n" ADDED "\n", "Subject: x\n\n", ID ";" },
    { "bCC : a@b\nTo: \"A, B\" <a>, (c) d (e), f@g;\n\n",
      "To: \"A, B\" <a@here.example>, (c) d@here.example (e), f@g;\n" ADDED "\n",
      "To: \"A, B\" <a>, (c) d (e), f@g;\n\n", ID ";" },
};

static void test_messages(void **state) {
    (void)state;
    struct content_rules r = rules();
    const struct content_message local = { .add_missing = true, .rewrite = true, .sender = STR("me@here.example") };
    const struct content_message remote = { .sender = STR("me@here.example") };
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++)
        for (size_t s = 0; s < STEP_COUNT; s++) {
            struct got g = { 0 }, h = { 0 };
            run(&r, &local, str_c(messages[i].in), steps[s], &g, NULL, NULL);
            assert_str(buf_str(&g.out), messages[i].local);
            assert_str(buf_str(&g.ids), messages[i].local_ids);
            run(&r, &remote, str_c(messages[i].in), steps[s], &h, NULL, NULL);
            assert_str(buf_str(&h.out), messages[i].remote);
            got_free(&g);
            got_free(&h);
        }
}

static void test_from(void **state) {
    (void)state;
    static const struct {
        const char *sender, *name;
        bool obsolete;
        const char *want;
    } rows[] = {
        { "me@x", "", false, "From: me@x" },
        { "me@x", "Foo Bar", false, "From: Foo Bar <me@x>" },
        { "me@x", "Full \"Na\" Me", false, "From: \"Full \\\"Na\\\" Me\" <me@x>" },
        { "me@x", "B. \\ C", false, "From: \"B. \\\\ C\" <me@x>" },
        { "me@x", "ev\nil\x7f\tX", false, "From: ev il  X <me@x>" },
        { "me@x", " \n", false, "From: me@x" },
        { "me@x", "J\xc3\xb6rg", false, "From: =?utf-8?Q?J=C3=B6rg?= <me@x>" },
        { "me@x", "J\xc3\xb6rg (\"x\")", true, "From: me@x (=?utf-8?B?SsO2cmcgKCJ4Iik=?=)" },
        { "me@x", "\xe7\x94\xa8\xe6\x88\xb7\xe7\x94\xa8\xe6\x88\xb7", false,
          "From: =?utf-8?B?55So5oi355So5oi3?= <me@x>" },
        { "me@x", "J\xf6rg", false, "From: =?unknown-8bit?Q?J=F6rg?= <me@x>" },
        { "me@x",
          "\xc3\xb6"
          "bcdefghij bcdefghij bcdefghij bcdefghij bcdefghij bcdefghij b\xc3\xb6\xc3\xb6 z",
          false,
          "From: =?utf-8?Q?=C3=B6bcdefghij_bcdefghij_bcdefghij_bcdefghij_bcdefghij_bcdefgh?=\n "
          "=?utf-8?Q?ij_b=C3=B6=C3=B6_z?= <me@x>" },
        { "a b@x", "Foo", false, "From: Foo <\"a b\"@x>" },
        { "", "Foo", false, "From: MAILER-DAEMON" },
        { "me@x", "Foo (Bar)", true, "From: me@x (Foo \\(Bar\\))" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct str name = str_c(rows[i].name);
        char *copy = malloc(name.n ? name.n : 1); /* no terminator */
        memcpy(copy, name.p, name.n);
        struct str got = content_from(a, STR(""), str_c(rows[i].sender), (struct str){ copy, name.n }, STR("utf-8"),
                                      rows[i].obsolete);
        assert_str(got, rows[i].want);
        free(copy);
    }
    arena_free(a);
}

static void test_undisclosed(void **state) {
    (void)state;
    struct content_rules r = rules();
    r.undisclosed = STR("To: undisclosed-recipients:;");
    const struct content_message m = { .add_missing = true, .sender = STR("me@here.example") };
    static const char *const in[] = { "A: b\n\n", "To: x\n\n", "cc: x\n\n", "Bcc: x\n\n" };
    static const bool added[] = { true, false, false, true };
    for (size_t i = 0; i < sizeof in / sizeof in[0]; i++) {
        struct got g = { 0 };
        run(&r, &m, str_c(in[i]), 0, &g, NULL, NULL);
        assert_int_equal(str_contains(buf_str(&g.out), STR("\nTo: undisclosed-recipients:;\n\n")), added[i]);
        got_free(&g);
    }
}

/* Every row of the header table is told from the others, the last one too. */
static void test_hops_and_seen(void **state) {
    (void)state;
    struct content_rules r = rules();
    const struct content_message m = { .sender = STR("") };
    struct buf in = { 0 }, want = { 0 };
    for (int i = 0; i < 60; i++) {
        buf_printf(&in, "%s: from x by y;\n\tdate\n", i % 2 ? "Received" : "RECEIVED ");
        buf_printf(&want, "%s: from x by y;\n\tdate\n", i % 2 ? "Received" : "RECEIVED");
    }
    buf_printf(&in, "X-Received: no\n\nReceived : not in the header\n");
    buf_printf(&want, "X-Received: no\n\nReceived : not in the header\n");
    for (size_t s = 0; s < STEP_COUNT; s++) {
        struct got g = { 0 };
        unsigned hops;
        run(&r, &m, buf_str(&in), steps[s], &g, &hops, NULL);
        assert_int_equal(hops, 60);
        assert_true(str_eq(buf_str(&g.out), buf_str(&want)));
        assert_str(buf_str(&g.ids), ";");
        got_free(&g);
    }
    buf_free(&want);
    buf_free(&in);
}

static void test_limits(void **state) {
    (void)state;
    struct content_rules r = rules();
    r.header_size_limit = 20;
    const struct content_message m = { .sender = STR("") };
    static const struct {
        const char *in, *want;
    } rows[] = {
        { "Subject: 789012345678901234567890\nTo: b\n\n", "Subject: 78901234567\nTo: b\n\n" },
        { "Subject: a\n 23456789012345\n more\nTo: b\n\n", "Subject: a\n 23456789\nTo: b\n\n" },
        { "Subject: 78901234567\n more\nTo: b\n\n", "Subject: 78901234567\nTo: b\n\n" },
        { "not a field, and longer than the limit: x\nTo: b\n\n",
          "\nnot a field, and longer than the limit: x\nTo: b\n\n" },
        { "Subject: 789012345678901234567890", "Subject: 78901234567\n" },
        { "A: b\nnot a field, and longer than the limit", "A: b\n\nnot a field, and longer than the limit\n" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t s = 0; s < STEP_COUNT; s++) {
            struct got g = { 0 };
            run(&r, &m, str_c(rows[i].in), steps[s], &g, NULL, NULL);
            assert_str(buf_str(&g.out), rows[i].want);
            got_free(&g);
        }
}

/* Gigabytes need no memory: nothing of a body is kept, and no more of a field than its limit. */
static void test_memory(void **state) {
    (void)state;
    struct content_rules r = rules();
    const struct content_message m = { .sender = STR("") };
    static const char *const starts[] = { "X: ", "A: b\n ", "\n", "no field " };
    char block[4096];
    memset(block, 'x', sizeof block);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        struct got g = { 0 };
        struct content_message mine = m;
        mine.ctx = &g;
        mine.write = take;
        mine.message_id = take_id;
        mine.queue_id = STR("QID");
        struct content c;
        content_begin(&c, &r, &mine);
        content_feed(&c, str_c(starts[i]));
        for (int k = 0; k < 1000; k++) {
            content_feed(&c, (struct str){ block, sizeof block });
            buf_clear(&g.out);
            assert_true(c.field.room <= 4 * r.header_size_limit);
        }
        content_end(&c);
        content_free(&c);
        got_free(&g);
    }
}

static void test_characters(void **state) {
    (void)state;
    struct byte_set set = byte_set_parse(STR("\\0a\\r\\101\\\\"));
    assert_true(set.any && byte_set_has(&set, 0) && byte_set_has(&set, 'a') && byte_set_has(&set, '\r') &&
                byte_set_has(&set, 'A') && byte_set_has(&set, '\\'));
    assert_false(byte_set_has(&set, '0') || byte_set_has(&set, 'r') || byte_set_has(&set, 255));
    set = byte_set_parse(STR("\\377\\"));
    assert_true(byte_set_has(&set, 255) && byte_set_has(&set, '\\'));
    assert_false(byte_set_parse(STR("")).any);

    const struct content_message m = { .sender = STR("") };
    const struct str in = STR("Sub\0ject: a\0b\rc\n\nd\0\re\nf\0\n");
    struct content_rules r = rules();
    r.strip = byte_set_parse(STR("\\0"));
    for (size_t s = 0; s < STEP_COUNT; s++) {
        struct got g = { 0 };
        run(&r, &m, in, steps[s], &g, NULL, NULL);
        assert_str(buf_str(&g.out), "Subject: ab c\n\nd e\nf\n");
        got_free(&g);
    }
    r = rules();
    r.replace_stray_cr = false;
    r.reject = byte_set_parse(STR("\\0"));
    struct got g = { 0 };
    struct buf rejected = { 0 };
    run(&r, &m, in, 0, &g, NULL, &rejected);
    assert_true(str_eq(buf_str(&rejected), STR("Sub\0ject: a\0b\rc")));
    assert_true(str_contains(buf_str(&g.out), STR("d\0\re\nf\0\n"))); /* untouched */
    buf_clear(&rejected);
    got_free(&g);
    r.reject = byte_set_parse(STR("\\007"));
    struct got clean = { 0 };
    run(&r, &m, in, 0, &clean, NULL, &rejected);
    assert_int_equal(rejected.n, 0);
    got_free(&clean);
    buf_free(&rejected);
}

static void test_header_end(void **state) {
    (void)state;
    const struct content_message m = { .sender = STR("") };
    static const struct {
        enum header_end_action action;
        const char *in, *out, *refused;
    } cases[] = {
        { HEADER_END_FIX, "A: b\nno field\n", "A: b\n\nno field\n", "" },
        { HEADER_END_ADD_FIELD, "A: b\nno field\n", "A: b\nMIME-Error: " HEADER_END_TEXT "\n\nno field\n", "" },
        { HEADER_END_ADD_FIELD, "A: b\n\nno field\n", "A: b\n\nno field\n", "" },
        { HEADER_END_ADD_FIELD, "A: b\n", "A: b\n", "" },
        { HEADER_END_REJECT, "A: b\nno field\nmore\n", "A: b\n\nno field\nmore\n", "no field" },
        { HEADER_END_REJECT, "A: b\n\nno field\n", "A: b\n\nno field\n", "" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (size_t s = 0; s < STEP_COUNT; s++) {
            struct content_rules r = rules();
            struct got g = { 0 };
            struct buf refused = { 0 };
            r.header_end = cases[i].action;
            run(&r, &m, str_c(cases[i].in), steps[s], &g, NULL, &refused);
            assert_str(buf_str(&g.out), cases[i].out);
            assert_str(buf_str(&refused), cases[i].refused);
            got_free(&g);
            buf_free(&refused);
        }
}

/* One process makes very many of them. */
static void test_many_messages(void **state) {
    (void)state;
    struct content_rules r = rules();
    const struct content_message m = {
        .add_missing = true, .rewrite = true, .sender = STR("me@here.example"), .full_name = STR("A \"B\"")
    };
    struct got g = { 0 };
    for (int i = 0; i < 20000; i++) {
        run(&r, &m, STR("To: a\nSubject: x\n\nbody\n"), 0, &g, NULL, NULL);
        buf_clear(&g.out);
        buf_clear(&g.ids);
    }
    got_free(&g);
}

/* smtputf8_autodetect_classes: header fields count, the body does not. */
static void test_utf8(void **state) {
    (void)state;
    const struct {
        struct str in;
        bool detect, found;
    } rows[] = {
        { STR("A: b\n\nm\xc3\xbcller\n"), true, false },
        { STR("A: b\nSubject: m\xc3\xbcller\n\nx\n"), true, true },
        { STR("Bcc: m\xc3\xbcller@b\n\nx\n"), true, true },
        { STR("A: m\xc3\xbcller\n\nx\n"), false, false },
    };
    struct content_rules r = rules();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct got g = { 0 };
        struct content_message m = { .detect_utf8 = rows[i].detect, .ctx = &g, .write = take, .message_id = take_id };
        struct content c;
        content_begin(&c, &r, &m);
        feed(&c, rows[i].in, 1);
        assert_int_equal(c.utf8, rows[i].found);
        content_free(&c);
        got_free(&g);
    }
}

int main(void) {
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),          cmocka_unit_test(test_messages),      cmocka_unit_test(test_from),
        cmocka_unit_test(test_undisclosed),   cmocka_unit_test(test_hops_and_seen), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_characters),    cmocka_unit_test(test_header_end),
        cmocka_unit_test(test_many_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
