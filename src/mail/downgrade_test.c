/* Unit tests of quoted_printable.h, and of mime.h's `downgrade`. */
#include "base/buf.h"
#include "mail/mime.h"
#include "mail/quoted_printable.h"
#include "test/test.h"

static struct buf seen;

static void on_line(void *ctx, struct str line) {
    (void)ctx;
    buf_printf(&seen, "%.*s\n", STR_ARG(line));
}

/* Each line in pieces of 1, 2, ... bytes, and whole: the same comes out. */
static void check_lines(struct str in, const char *want) {
    for (size_t step = 1; step <= in.n + 1; step++) {
        struct quoted_printable q = { 0 };
        struct str rest = in, line;
        buf_clear(&seen);
        while (str_next(&rest, STR("\n"), &line)) {
            for (; line.n > step; line = str_from(line, step))
                quoted_printable_add(&q, str_sub(line, 0, step), false, on_line, NULL);
            quoted_printable_add(&q, line, true, on_line, NULL);
        }
        assert_str(buf_str(&seen), want);
    }
}

#define X10 "xxxxxxxxxx"
#define X70 X10 X10 X10 X10 X10 X10 X10

static void lines(void **state) {
    (void)state;
    static const struct {
        struct str in;
        const char *want;
    } table[] = {
        { STR_INIT(""), "\n" },
        { STR_INIT("a=b \t"), "a=3Db =09\n" },
        { STR_INIT("a \n b\n "), "a=20\n b\n=20\n" },
        { STR_INIT("\xc3\xbc\x01~\x7f"), "=C3=BC=01~=7F\n" },
        { STR_INIT("a\0b\r"), "a=00b=0D\n" },
        { STR_INIT(X70 "123"), X70 "123\n" },
        { STR_INIT(X70 "1234"), X70 "123=\n4\n" },
        { STR_INIT(X70 "12="), X70 "12=3D\n" },
        { STR_INIT(X70 "12=3"), X70 "12=3D=\n3\n" },
        { STR_INIT(X70 "12 "), X70 "12=20\n" },
        { STR_INIT(X70 "123 "), X70 "123=\n=20\n" },
        { STR_INIT(X70 "12 .x"), X70 "12 =\n.x\n" },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        check_lines(table[i].in, table[i].want);
}

static void on_header(void *ctx, enum mime_class class, struct str header) {
    (void)ctx;
    buf_printf(&seen, "%c<%.*s>", "HPN"[class], STR_ARG(header));
}
static void on_body(void *ctx, struct str line, size_t offset, bool whole) {
    (void)ctx;
    buf_printf(&seen, "%zu[%.*s]%s", offset, STR_ARG(line), whole ? "" : "-");
}

#define E8 "Content-Transfer-Encoding: 8bit"
#define TO_QP "<Content-Transfer-Encoding: quoted-printable>"
#define TO_7 "<Content-Transfer-Encoding: 7bit>"
#define MIXED "Content-Type: multipart/mixed; boundary=b"

static void messages(void **state) {
    (void)state;
    static const struct {
        const char *message, *want;
    } table[] = {
        { "A: b\n" E8 "\nC: d\n\n=\n\n =", "H<A: b>H<C: d>H" TO_QP "0[]1[=3D]3[]4[ =3D]" },
        { "Content-Transfer-Encoding: Binary (x)\n\n=", "H" TO_QP "0[]1[=3D]" },
        { "Content-Transfer-Encoding: \"8bit\"\n\n=", "H<Content-Transfer-Encoding: \"8bit\">0[]1[=]" },
        { "Content-Transfer-Encoding: 8bit/x\n\n=", "H<Content-Transfer-Encoding: 8bit/x>0[]1[=]" },
        { "A: b\n\n=\xc3", "H<A: b>0[]1[=\xc3]" }, /* does not say so */
        { E8, "H" TO_QP },
        { "Content-Type: multipart/mixed\n" E8 "\n\n=", "H<Content-Type: multipart/mixed>H" TO_7 "0[]1[=]" },
        { MIXED "\n" E8 "\n\n=\n--b\n\n=\n--b\n" E8 "\n\n=\n--b--\n=",
          "H<" MIXED ">H" TO_7 "0[]1[=]0[--b]0[]1[=]0[--b]P" TO_QP "0[]1[=3D]0[--b--]6[=]" },
        { MIXED "\n\n--b\n" E8 "\n--b\n" E8 "\nx=\n", "H<" MIXED ">0[]0[--b]P" TO_QP "0[--b]P" TO_QP "0[x=3D]3[]" },
        { "Content-Type: message/rfc822\n" E8 "\n\nA: b\n" E8 "\n\n=",
          "H<Content-Type: message/rfc822>H" TO_7 "0[]N<A: b>N" TO_QP "0[]1[=3D]" },
        { MIXED "\n\n--b\nContent-Type: message/rfc822\n" E8 "\n=\n\nA: b\n",
          "H<" MIXED ">0[]0[--b]P<Content-Type: message/rfc822>P" TO_7 "0[=3D]2[]3[A: b]8[]" },
        { "Content-Type: message/partial\n" E8 "\n\nA: b\n" E8 "\n\n=",
          "H<Content-Type: message/partial>H" TO_7 "0[]1[A: b]6[Content-Transfer-Encoding: 8bit]38[]39[=3D]" },
        { "Content-Type: message/global\n" E8 "\n\nA=: b\n",
          "H<Content-Type: message/global>H" TO_QP "0[]1[A=3D: b]7[]" },
    };
    struct mime_options o = { .parts = true,
                              .downgrade = true,
                              .header_limit = 1000,
                              .nesting_limit = 10,
                              .boundary_limit = 20,
                              .header = on_header,
                              .body = on_body };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct mime *m = mime_new(&o);
        struct str rest = str_c(table[i].message), line;
        buf_clear(&seen);
        while (str_next(&rest, STR("\n"), &line))
            mime_line(m, line);
        mime_end(m);
        mime_free(m);
        assert_str(buf_str(&seen), table[i].want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(lines), cmocka_unit_test(messages) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_free(&seen);
    return failed;
}
