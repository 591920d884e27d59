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

/* A line without its end, with CRs in it or too long. */
static void add_odd_line(struct content_writer *w, struct str line) {
    const char *cr;
    while ((cr = memchr(line.p, '\r', line.n))) { /* RFC 5321, 2.3.8: not alone; a blank stands for it */
        size_t before = (size_t)(cr - line.p);
        add_part(w, str_sub(line, 0, before));
        add_part(w, STR(" "));
        line = str_from(line, before + 1);
    }
    add_part(w, line);
}

void content_add(struct content_writer *w, struct str bytes) {
    enum { LINE_EXTRA = 3 }; /* a dot, CRLF */
    struct buf *out = w->out;
    bool has_cr = bytes.n && memchr(bytes.p, '\r', bytes.n);
    buf_reserve(out, bytes.n + bytes.n / 16 + LINE_EXTRA); /* enough for lines of usual length */
    while (bytes.n) {
        const char *lf = memchr(bytes.p, '\n', bytes.n);
        struct str line = str_n(bytes.p, lf ? (size_t)(lf - bytes.p) : bytes.n);
        size_t taken = line.n + (lf != NULL);
        bytes = str_n(bytes.p + taken, bytes.n - taken);
        if (has_cr || (w->line_limit && w->column + line.n > w->line_limit)) {
            add_odd_line(w, line);
            line.n = 0;
        }
        if (out->room - out->n <= line.n + LINE_EXTRA)
            buf_reserve(out, line.n + LINE_EXTRA);
        char *to = out->p + out->n;
        if (line.n && w->column == 0 && line.p[0] == '.')
            *to++ = '.';
        memcpy(to, line.p, line.n);
        to += line.n;
        w->column += line.n;
        if (lf) {
            *to++ = '\r';
            *to++ = '\n';
            w->column = 0;
        }
        out->n = (size_t)(to - out->p);
    }
}

void content_end(struct content_writer *w) {
    if (w->column)
        buf_add(w->out, STR("\r\n"));
    buf_add(w->out, STR(".\r\n"));
    w->column = 0;
}
