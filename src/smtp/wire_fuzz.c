/* wire_fuzz.c - any content, cut anywhere, over the wire: byte for byte what a slow and simple writer makes of it, and
 * nothing in it that a server could take for the end. Input: the line limit, the size of the pieces, the content. */
#include "smtp/content.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void simple(struct buf *out, struct str in, size_t limit) {
    size_t column = 0;
    for (size_t i = 0; i < in.n; i++) {
        if (in.p[i] == '\n') {
            buf_add(out, STR("\r\n"));
            column = 0;
            continue;
        }
        char c = in.p[i] == '\r' ? ' ' : in.p[i];
        if (limit && column == limit) {
            buf_add(out, STR("\r\n "));
            column = 1;
        }
        if (column == 0 && c == '.')
            buf_byte(out, '.');
        buf_byte(out, c);
        column++;
    }
    buf_add(out, column ? STR("\r\n.\r\n") : STR(".\r\n"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    size_t limit = content_line_limit(data[0]), piece = data[1] + 1U;
    struct str in = str_n((const char *)data + 2, size - 2), line;
    struct buf out = { 0 }, want = { 0 };
    struct content_writer w = { .out = &out, .line_limit = limit };
    for (size_t at = 0; at < in.n; at += piece) {
        struct str part = str_sub(in, at, piece);
        char *alone = malloc(part.n); /* so that a byte too many is seen */
        if (!alone)
            abort();
        memcpy(alone, part.p, part.n);
        content_add(&w, str_n(alone, part.n));
        free(alone);
    }
    content_end(&w);
    simple(&want, in, limit);
    if (!str_eq(buf_str(&out), buf_str(&want)))
        abort();
    struct str rest = buf_str(&out);
    for (size_t ends = 0; rest.n;) {
        if (ends || !str_next(&rest, STR("\n"), &line) || line.n == 0 || line.p[line.n - 1] != '\r' ||
            memchr(line.p, '\r', line.n) != line.p + line.n - 1)
            abort();
        ends += str_eq(line, STR(".\r"));
        if (limit && line.n - 1 > limit + 1)
            abort();
    }
    buf_free(&out);
    buf_free(&want);
    return 0;
}
