/* Unit tests of mime.h. */
#include "base/buf.h"
#include "mail/mime.h"
#include "test/test.h"

static struct buf seen;

static void on_header(void *ctx, enum mime_class class, struct str header) {
    (void)ctx;
    buf_printf(&seen, "%c<%.*s>", "HPN"[class], STR_ARG(header));
}
static void on_body(void *ctx, struct str line, size_t offset, bool whole) {
    (void)ctx, (void)offset, (void)whole;
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
    /* two levels more than the limit says, as Postfix counts */
    static const char deep[] =
        "Content-Type: multipart/x; boundary=a\n\n--a\nContent-Type: multipart/x; boundary=b\n\n--b\n"
        "Content-Type: multipart/x; boundary=c\n\n--c\nA: b";
    assert_true(str_contains(str_c(parse(deep, true, 1000, 0)), STR("[--c][A: b]")));
    assert_true(str_contains(str_c(parse(deep, true, 1000, 1)), STR("[--c]P<A: b>")));
    assert_string_equal(parse("A: bcdef\n ghi\n jkl\n\nx", false, 6, 10), "H<A: bcd>[][x]");
    assert_string_equal(parse("A: bc\n ghi\n jkl\n\nx", false, 6, 10), "H<A: bc\n >[][x]");
}

static struct buf faults;
static void on_error(void *ctx, enum mime_error e, struct str about) {
    (void)ctx;
    buf_printf(&faults, "%u:%.*s;", (unsigned)e, STR_ARG(about));
}
static void on_offset(void *ctx, struct str line, size_t offset, bool whole) {
    (void)ctx;
    buf_printf(&seen, "%zu[%.*s]%s", offset, STR_ARG(line), whole ? "" : "-");
}

/* Lines in pieces of three bytes, as they come and as errors see them. */
static void pieces(void **state) {
    (void)state;
    static const struct {
        const char *message, *want, *faults;
    } table[] = {
        { "A: bcd\n\nefghi\n", "H<A: bcd>0[]1[efg]-4[hi]", "" },
        { "A: b\nContent-Type: multipart/x; boundary=b\n\n--b\n\nx\n--b--\nend\n", "", "" },
        { "A: \xc3\xbc\n\nx\n", "H<A: \xc3\xbc>0[]1[x]", "0:A: \xc3\xbc;" },
        { "A: b\n\n\xc3\xbc\n", "H<A: b>0[]1[\xc3\xbc]", "1:\xc3\xbc;" },
        { "Content-Transfer-Encoding: 8bit\n\n\xc3\xbc\n", "H<Content-Transfer-Encoding: 8bit>0[]1[\xc3\xbc]", "" },
        { "Content-Transfer-Encoding: base64\nContent-Type: message/x\n\nx\n",
          "H<Content-Transfer-Encoding: base64>H<Content-Type: message/x>0[]1[x]", "2:Content-Type: message/x;" },
        { "Content-Type: multipart/x\nContent-Transfer-Encoding: BASE64\n\nx\n",
          "H<Content-Type: multipart/x>H<Content-Transfer-Encoding: BASE64>0[]1[x]", "2:BASE64;" },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct mime_options o = { .parts = true,
                                  .header_limit = 1000,
                                  .nesting_limit = 10,
                                  .boundary_limit = 20,
                                  .header = on_header,
                                  .body = on_offset,
                                  .error = on_error };
        struct mime *m = mime_new(&o);
        struct str rest = str_c(table[i].message), line;
        buf_clear(&seen);
        buf_clear(&faults);
        while (rest.n && str_next(&rest, STR("\n"), &line)) {
            size_t first = str_index(line, ':') >= 0 ? line.n : 3; /* a name must be whole */
            mime_piece(m, str_sub(line, 0, first), true, line.n <= first);
            for (size_t at = first; at < line.n; at += 3)
                mime_piece(m, str_sub(line, at, 3), false, line.n - at <= 3);
        }
        mime_end(m);
        mime_free(m);
        if (*table[i].want)
            assert_string_equal(buf_str(&seen).p, table[i].want);
        assert_str(buf_str(&faults), table[i].faults);
    }
    buf_free(&faults);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(rows), cmocka_unit_test(limits), cmocka_unit_test(pieces) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_free(&seen);
    return failed;
}
