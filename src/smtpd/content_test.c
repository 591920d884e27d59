/* content_test.c - the end of content against a slow and obvious model, cut into pieces in every way. */
#include "test/test.h"

#include "base/buf.h"
#include "smtpd/content.h"
#include <stdlib.h>

struct outcome {
    struct buf out;
    size_t used;
    bool ended, bare;
    uint64_t size, ahead;
};

static struct outcome feed(struct str in, size_t piece, bool lenient) {
    struct outcome r = { 0 };
    struct content c = { .lenient = lenient, .out = &r.out };
    while (r.used < in.n && !c.ended) {
        struct str s = str_sub(in, r.used, piece);
        char *copy = malloc(s.n);
        assert_non_null(copy);
        memcpy(copy, s.p, s.n);
        size_t n = content_feed(&c, str_n(copy, s.n));
        free(copy);
        assert_true(n > 0 && (n == s.n || c.ended));
        r.used += n;
    }
    r.ended = c.ended;
    r.bare = c.bare_newline;
    r.size = c.size;
    r.ahead = content_size_ahead(&c);
    return r;
}

static uint64_t size_of(struct str content) {
    uint64_t n = 0, whole = 0;
    for (size_t i = 0; i < content.n; i++) {
        n++;
        if (content.p[i] == '\n')
            whole = ++n;
    }
    return whole;
}

/* The rules of content.h, a line at a time. */
static struct outcome model(struct str in, bool lenient) {
    struct outcome r = { 0 };
    bool before_crlf = true;
    while (r.used < in.n) {
        struct str rest = str_from(in, r.used);
        ptrdiff_t lf = str_index(rest, '\n');
        if (lf < 0)
            break;
        r.used += (size_t)lf + 1;
        struct str line = str_sub(rest, 0, (size_t)lf);
        bool crlf = line.n && line.p[line.n - 1] == '\r';
        r.bare = r.bare || !crlf;
        if (crlf)
            line.n--;
        while (lenient && line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (str_eq(line, STR("."))) {
            if (lenient || (crlf && before_crlf)) {
                r.ended = true;
                return r;
            }
        } else {
            buf_add(&r.out, line.n && line.p[0] == '.' ? str_from(line, 1) : line);
            buf_byte(&r.out, '\n');
        }
        before_crlf = crlf;
    }
    return r;
}

static void compare(struct str in, bool lenient) {
    struct outcome want = model(in, lenient);
    for (size_t piece = 1; piece <= in.n; piece++) {
        struct outcome got = feed(in, piece, lenient);
        if (got.ended != want.ended || (want.ended && (got.used != want.used || got.bare != want.bare)) ||
            (want.ended && !str_eq(buf_str(&got.out), buf_str(&want.out))) ||
            !str_starts(buf_str(&got.out), buf_str(&want.out)))
            fail_msg("\"%.*s\" in pieces of %zu, lenient %d: got \"%.*s\" %d, want \"%.*s\" %d", STR_ARG(in), piece,
                     lenient, STR_ARG(buf_str(&got.out)), got.ended, STR_ARG(buf_str(&want.out)), want.ended);
        assert_int_equal(got.size, size_of(buf_str(&got.out)));
        buf_free(&got.out);
    }
    buf_free(&want.out);
}

/* Every string of up to seven of these bytes: 4 ** 7 of the longest. */
static void test_every_short_content(void **state) {
    (void)state;
    static const char alphabet[] = { '\r', '\n', '.', 'x' };
    enum { LENGTH = 7 };
    char s[LENGTH];
    for (size_t n = 1; n <= LENGTH; n++)
        for (unsigned code = 0; code < 1u << (2 * n); code++) {
            for (size_t i = 0; i < n; i++)
                s[i] = alphabet[code >> (2 * i) & 3];
            compare(str_n(s, n), false);
            compare(str_n(s, n), true);
        }
}

static void test_rows(void **state) {
    (void)state;
    static const struct {
        struct str in;
        bool lenient, ended, bare;
        const char *out;
    } rows[] = {
        { STR_INIT("a\r\n.\r\nQUIT\r\n"), false, true, false, "a\n" },
        { STR_INIT(".\r\n"), false, true, false, "" },
        { STR_INIT("a\n.\n"), false, false, true, "a\n" },
        { STR_INIT("a\n.\r\n"), false, false, true, "a\n" },
        { STR_INIT("a\r\n.\n"), false, false, true, "a\n" },
        { STR_INIT("a\r\n.\r\r\n"), false, false, false, "a\n\r\n" },
        { STR_INIT("a\r\n.\n"), true, true, true, "a\n" },
        { STR_INIT("a\r\r\n.\r\r\n"), true, true, false, "a\n" },
        { STR_INIT("..\r\n.\r\n"), false, true, false, ".\n" },
        { STR_INIT("a\rb\r\n.\r\n"), false, true, false, "a\rb\n" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome r = feed(rows[i].in, rows[i].in.n, rows[i].lenient);
        assert_str(buf_str(&r.out), rows[i].out);
        assert_int_equal(r.ended, rows[i].ended);
        assert_int_equal(r.bare, rows[i].bare);
        buf_free(&r.out);
    }
}

static void test_nul_stays(void **state) {
    (void)state;
    struct outcome r = feed(STR("a\0b\r\n.\r\n"), 100, false);
    assert_true(str_eq(buf_str(&r.out), STR("a\0b\n")));
    buf_free(&r.out);
}

/* A limit on the size counts the end of a line that has begun, and not a dot that may be the end of everything. */
static void test_size(void **state) {
    (void)state;
    static const struct {
        struct str in;
        uint64_t size, ahead;
    } rows[] = {
        { STR_INIT("ab"), 0, 4 },        { STR_INIT("ab\r"), 0, 4 },
        { STR_INIT("ab\r\n"), 4, 4 },    { STR_INIT("ab\r\n."), 4, 4 },
        { STR_INIT("ab\r\n.\r"), 4, 4 }, { STR_INIT("ab\r\n..c"), 4, 8 },
        { STR_INIT("ab\r\n\r"), 4, 6 },  { STR_INIT("ab\r\n\r\n.\r\n"), 6, 6 },
        { STR_INIT("ab\n"), 4, 4 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t piece = 1; piece <= rows[i].in.n; piece++) {
            struct outcome r = feed(rows[i].in, piece, false);
            assert_int_equal(r.size, rows[i].size);
            assert_int_equal(r.ahead, rows[i].ahead);
            buf_free(&r.out);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_short_content),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_nul_stays),
        cmocka_unit_test(test_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
