#include "test/test.h"

#include "cmd/mail_input.h"

#include <stdlib.h>

static void take(void *ctx, struct str bytes) {
    buf_add(ctx, bytes);
}

struct options {
    bool dot, extract;
    enum line_endings endings;
};

static void run(struct options o, struct str s, size_t step, struct buf *out, struct str *ret_names, struct arena *a) {
    struct mail_input in = { .arena = a,
                             .dot_ends = o.dot,
                             .extract = o.extract,
                             .endings = o.endings,
                             .field_max = 100000,
                             .content = take,
                             .ctx = out };
    while (s.n > 0) {
        struct str piece = str_sub(s, 0, step ? step : s.n);
        char *copy = malloc(piece.n);
        memcpy(copy, piece.p, piece.n);
        mail_input_feed(&in, (struct str){ copy, piece.n });
        free(copy);
        s = str_from(s, piece.n);
    }
    mail_input_end(&in);
    *ret_names = STR("");
    for (size_t i = 0; i < in.plain.n; i++)
        *ret_names = arena_printf(a, "%.*s %.*s", STR_ARG(*ret_names), STR_ARG(in.plain.at[i]));
    *ret_names = arena_printf(a, "%.*s |", STR_ARG(*ret_names));
    for (size_t i = 0; i < in.resent.n; i++)
        *ret_names = arena_printf(a, "%.*s %.*s", STR_ARG(*ret_names), STR_ARG(in.resent.at[i]));
    if (in.too_many)
        *ret_names = arena_cat(a, *ret_names, STR(" too many"));
    mail_input_free(&in);
}

static const struct {
    struct options o;
    const char *in, *out, *names;
} rows[] = {
    { { true, false, LINE_ENDINGS_ALWAYS }, "a\nb\n.\nc\n", "a\nb\n", " |" },
    { { true, false, LINE_ENDINGS_ALWAYS }, "a\n..\n. \nb", "a\n..\n. \nb\n", " |" },
    { { true, false, LINE_ENDINGS_ALWAYS }, "a\r\n.\r\nc\n", "a\n", " |" },
    { { false, false, LINE_ENDINGS_ALWAYS }, "a\n.\nb\n", "a\n.\nb\n", " |" },
    { { true, false, LINE_ENDINGS_ALWAYS }, ".", "", " |" },
    { { true, false, LINE_ENDINGS_ALWAYS }, "", "", " |" },
    { { false, false, LINE_ENDINGS_ALWAYS }, "a\nb\r\nc\rd\r", "a\nb\nc\rd\n", " |" },
    { { false, false, LINE_ENDINGS_STRICT }, "a\nb\r\n", "a\nb\r\n", " |" },
    { { false, false, LINE_ENDINGS_STRICT }, "a\r\nb\r\nc\n", "a\nb\nc\n", " |" },
    { { false, false, LINE_ENDINGS_NEVER }, "a\r\nb\r\n", "a\r\nb\r\n", " |" },
    /* mailbox lines at the beginning only */
    { { false, false, LINE_ENDINGS_ALWAYS }, "From foo bar\n>From baz\nA: b\n\nFrom x\n", "A: b\n\nFrom x\n", " |" },
    { { false, false, LINE_ENDINGS_ALWAYS }, "From: x\n", "From: x\n", " |" },
    { { false, false, LINE_ENDINGS_ALWAYS }, "From ", "", " |" },
    { { false, false, LINE_ENDINGS_ALWAYS }, "From", "From\n", " |" },
    /* -t */
    { { true, true, LINE_ENDINGS_ALWAYS },
      "From: me\nTo: a@t, \"B C\" <b@t>\nCC : c@t\nBcc:\n d@t\nX-To: no\n\nTo: body@t\n",
      "From: me\nTo: a@t, \"B C\" <b@t>\nCC : c@t\nBcc:\n d@t\nX-To: no\n\nTo: body@t\n",
      " a@t b@t c@t d@t |" },
    { { true, true, LINE_ENDINGS_ALWAYS },
      "To: a@t\r\nResent-Bcc: z@t\r\n\r\n",
      "To: a@t\nResent-Bcc: z@t\n\n",
      " a@t | z@t" },
    { { true, true, LINE_ENDINGS_ALWAYS }, "To: a@t\nno field\nCc: b@t\n", "To: a@t\nno field\nCc: b@t\n", " a@t |" },
    { { true, true, LINE_ENDINGS_ALWAYS }, "To: a@t\n.\nCc: b@t\n", "To: a@t\n", " a@t |" },
    { { false, true, LINE_ENDINGS_ALWAYS }, "To: a@t\n.\nCc: b@t\n", "To: a@t\n.\nCc: b@t\n", " a@t |" },
    { { false, true, LINE_ENDINGS_ALWAYS }, " To: a@t\n\n", " To: a@t\n\n", " |" },
    { { false, true, LINE_ENDINGS_ALWAYS }, "To: a@t", "To: a@t\n", " a@t |" },
};

static void test_rows(void **state) {
    (void)state;
    static const size_t steps[] = { 0, 1, 2, 5 };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            struct arena *a = arena_new();
            struct buf out = { 0 };
            struct str names;
            run(rows[i].o, str_c(rows[i].in), steps[k], &out, &names, a);
            assert_str(buf_str(&out), rows[i].out);
            assert_str(names, rows[i].names);
            buf_free(&out);
            arena_free(a);
        }
}

/* Lines longer than a piece, with what matters at every place around the cut. */
static void test_long_lines(void **state) {
    (void)state;
    for (size_t n = 4090; n < 4100; n++) {
        struct arena *a = arena_new();
        struct buf in = { 0 }, out = { 0 }, want = { 0 };
        struct str names;
        for (int i = 0; i < 3; i++) {
            for (size_t k = 0; k < n; k++)
                buf_byte(&in, 'x');
            buf_add(&in, STR("\r\n"));
            for (size_t k = 0; k < n; k++)
                buf_byte(&want, 'x');
            buf_add(&want, STR("\n"));
        }
        buf_add(&in, STR(".\n"));
        run((struct options){ true, true, LINE_ENDINGS_ALWAYS }, buf_str(&in), 0, &out, &names, a);
        assert_true(str_eq(buf_str(&out), buf_str(&want)));
        buf_free(&in);
        buf_free(&out);
        buf_free(&want);
        arena_free(a);
    }
}

/* A header that names more than can be looked at is refused, not cut short. */
static void test_too_many(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct buf in = { 0 }, out = { 0 };
    struct str names;
    buf_add(&in, STR("To: a@b"));
    while (in.n < 120000)
        buf_add(&in, STR(",\n a@b"));
    buf_add(&in, STR("\n\n"));
    run((struct options){ true, true, LINE_ENDINGS_ALWAYS }, buf_str(&in), 0, &out, &names, a);
    assert_true(str_ends(names, STR("too many")));
    assert_true(str_eq(buf_str(&out), buf_str(&in)));
    buf_free(&in);
    buf_free(&out);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
