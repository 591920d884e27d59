#include "smtp/content.h"

size_t content_line_limit(int64_t parameter) {
    return parameter == 1 ? 2 : (size_t)parameter; /* a continuation is a blank and a byte: 1 would never end */
}

/* Part of a line: no CR, no LF. */
static void add_part(struct content_writer *w, struct str part) {
    while (part.n) {
        if (w->column == 0 && part.p[0] == '.')
            buf_byte(w->out, '.');
        size_t n = part.n;
        if (w->line_limit && w->column + n > w->line_limit)
            n = w->column < w->line_limit ? w->line_limit - w->column : 0;
        buf_add(w->out, str_sub(part, 0, n));
        w->column += n;
        part = str_from(part, n);
        if (part.n) { /* the blank keeps a broken header one header (RFC 5322, 2.2.3) */
            buf_add(w->out, STR("\r\n "));
            w->column = 1;
        }
    }
}

void content_add(struct content_writer *w, struct str bytes) {
    buf_reserve(w->out, bytes.n + bytes.n / 16); /* enough for lines of usual length */
    struct str line;
    while (bytes.n) {
        const char *lf = memchr(bytes.p, '\n', bytes.n);
        line = lf ? str_sub(bytes, 0, (size_t)(lf - bytes.p)) : bytes;
        bytes = str_from(bytes, line.n + (lf != NULL));
        const char *cr;
        while ((cr = memchr(line.p, '\r', line.n))) { /* RFC 5321, 2.3.8: not alone; a blank stands for it */
            size_t before = (size_t)(cr - line.p);
            add_part(w, str_sub(line, 0, before));
            add_part(w, STR(" "));
            line = str_from(line, before + 1);
        }
        add_part(w, line);
        if (lf) {
            buf_add(w->out, STR("\r\n"));
            w->column = 0;
        }
    }
}

void content_end(struct content_writer *w) {
    if (w->column)
        buf_add(w->out, STR("\r\n"));
    buf_add(w->out, STR(".\r\n"));
    w->column = 0;
}
