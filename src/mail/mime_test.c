/* Unit tests of mime.h. */
#include "base/buf.h"
#include "mail/mime.h"
#include "test/test.h"

static struct buf seen;

static void on_header(void *ctx, enum mime_class class, struct str header) {
    (void)ctx;
    buf_printf(&seen, "%c<%.*s>", "HPN"[class], STR_ARG(header));
}
static void on_body(void *ctx, struct str line) {
    (void)ctx;
    buf_printf(&seen, "[%.*s]", STR_ARG(line));
}

static const char *parse(const char *message, bool parts, size_t header_limit, size_t nesting_limit) {
    struct mime_options o = { .parts = parts,
                              .header_limit = header_limit,
                              .nesting_limit = nesting_limit,
                              .boundary_limit = 20,
                              .header = on_header,
                              .body = on_body };
    struct mime *m = mime_new(&o);
    struct str rest = str_c(message), line;
    buf_clear(&seen);
    while (str_next(&rest, STR("\n"), &line))
        mime_line(m, line);
    mime_end(m);
    mime_free(m);
    return buf_str(&seen).p;
}

static void rows(void **state) {
    (void)state;
    static const struct {
        const char *message, *want;
    } table[] = {
        { "A: b\n c\nD : e\n\nx\n\ny", "H<A: b\n c>H<D: e>[][x][][y]" },
        { "A: b", "H<A: b>" },
        { "A: b\nnone", "H<A: b>[][none]" },
        { " x", "[][ x]" },
        { "", "[]" },
        { "Content-Type: multipart/mixed; boundary=b\n\n--b\nA: b\n\nx\n--b--\nend\n--b\nq",
          "H<Content-Type: multipart/mixed; boundary=b>[][--b]P<A: b>[][x][--b--][end][--b][q]" },
        { "Content-Type: multipart/mixed; boundary=\"b \\\"c\" (;)\n\n--b \"c\nA: b",
          "H<Content-Type: multipart/mixed; boundary=\"b \\\"c\" (;)>[][--b \"c]P<A: b>" },
        { "Content-Type: (x (y) \\)) Multipart / Mixed ; a=b; BOUNDARY=a.b-=c\n\n--a.b-\nA: b",
          "H<Content-Type: (x (y) \\)) Multipart / Mixed ; a=b; BOUNDARY=a.b-=c>[][--a.b-]P<A: b>" },
        /* the end of the outer one ends the inner one */
        { "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/mixed; "
          "boundary=i\n\n--i\n\n--o\nA: "
          "b\n\n--i\nC: d",
          "H<Content-Type: multipart/mixed; boundary=o>[][--o]P<Content-Type: multipart/mixed; "
          "boundary=i>[][--i][][--o]P<A: b>[][--i][C: d]" },
        { "Content-Type: message/rfc822\n\nA: b\n\nC: d", "H<Content-Type: message/rfc822>[]N<A: b>[][C: d]" },
        { "Content-Type: multipart/digest; boundary=b\n\n--b\n\nA: b\n\nC: d",
          "H<Content-Type: multipart/digest; boundary=b>[][--b][]N<A: b>[][C: d]" },
        /* cut at the limit of 20 bytes, and found by what is left */
        { "Content-Type: multipart/mixed; boundary=12345678901234567890abc\n\n--12345678901234567890xyz\nA: b",
          "H<Content-Type: multipart/mixed; boundary=12345678901234567890abc>[][--12345678901234567890xyz]P<A: b>" },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_string_equal(parse(table[i].message, true, 1000, 10), table[i].want);
}

static void limits(void **state) {
    (void)state;
    static const char nested[] = "Content-Type: multipart/x; boundary=b\n\n--b\nA: b";
    assert_string_equal(parse(nested, false, 1000, 10), "H<Content-Type: multipart/x; boundary=b>[][--b][A: b]");
    assert_string_equal(parse(nested, true, 1000, 0), "H<Content-Type: multipart/x; boundary=b>[][--b][A: b]");
    assert_string_equal(parse("A: bcdef\n ghi\n jkl\n\nx", false, 6, 10), "H<A: bcd>[][x]");
    assert_string_equal(parse("A: bc\n ghi\n jkl\n\nx", false, 6, 10), "H<A: bc\n >[][x]");
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(rows), cmocka_unit_test(limits) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_free(&seen);
    return failed;
}
