/* Fuzz: messages in 8 bits. The first byte says how: one text that says so, whose lines come out in 7 bits, short, and
 * decoded as they were; or a whole message of any form, with its header. Lines come in pieces of any length. */
#include "base/buf.h"
#include "base/die.h"
#include "mail/mime.h"
#include "mail/quoted_printable.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SOFT_MAX = QUOTED_LINE_MAX };

struct result {
    bool text;
    size_t fields;
    struct buf decoded;
};

static void on_header(void *ctx, enum mime_class class, struct str header) {
    struct result *r = ctx;
    if (header.n == 0 || class > MIME_NESTED)
        die("bad header");
    r->fields++;
    if (r->text && !str_eq(header, STR("Content-Transfer-Encoding: quoted-printable")))
        die("the field is not the new one");
}

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* RFC 2045, 6.7 */
static void decode(struct buf *out, struct str line) {
    if (line.n > SOFT_MAX)
        die("too long a line");
    if (line.n && byte_is_space(line.p[line.n - 1]))
        die("a blank at the end");
    for (size_t i = 0; i < line.n; i++) {
        if ((line.p[i] < ' ' && line.p[i] != '\t') || line.p[i] > '~')
            die("not printable");
        if (line.p[i] != '=') {
            buf_byte(out, line.p[i]);
        } else if (i + 1 == line.n) {
            return;
        } else {
            if (i + 2 >= line.n || digit(line.p[i + 1]) < 0 || digit(line.p[i + 2]) < 0)
                die("not quoted-printable");
            buf_byte(out, (char)(digit(line.p[i + 1]) << 4 | digit(line.p[i + 2])));
            i += 2;
        }
    }
    buf_byte(out, '\n');
}

static void on_body(void *ctx, struct str line, size_t offset, bool whole) {
    struct result *r = ctx;
    (void)offset;
    if (str_index(line, '\n') >= 0)
        die("bad line");
    if (!r->text)
        return;
    if (!whole)
        die("half a line");
    decode(&r->decoded, line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    size_t step = data[0] / 2 + 1U;
    struct result r = { .text = data[0] & 1 };
    struct mime_options o = { .parts = true,
                              .downgrade = true,
                              .header_limit = 1000,
                              .nesting_limit = 4,
                              .boundary_limit = 70,
                              .header = on_header,
                              .body = on_body,
                              .ctx = &r };
    struct str in = str_n((const char *)data + 1, size - 1), rest = in, line;
    struct mime *m = mime_new(&o);
    if (r.text) {
        mime_line(m, STR("content-transfer-encoding: 8bit"));
        mime_line(m, STR(""));
    }
    while (str_next(&rest, STR("\n"), &line)) {
        bool first = true;
        for (; line.n > step; line = str_from(line, step), first = false)
            mime_piece(m, str_sub(line, 0, step), first, false);
        mime_piece(m, line, first, true);
    }
    mime_end(m);
    mime_free(m);
    if (r.text) {
        struct buf want = { 0 };
        buf_byte(&want, '\n');
        for (rest = in; str_next(&rest, STR("\n"), &line);) {
            buf_add(&want, line);
            buf_byte(&want, '\n');
        }
        if (r.fields != 1 || !str_eq(buf_str(&want), buf_str(&r.decoded)))
            die("decoded, it is something else");
        buf_free(&want);
    }
    buf_free(&r.decoded);
    return 0;
}
