#include "smtp/content.h"

size_t content_line_limit(int64_t parameter) {
    return parameter == 1 ? 2 : (size_t)parameter; /* a continuation is a blank and a byte: 1 would never end */
}

static void write_piece(struct content_writer *w, struct str piece) {
    while (piece.n) {
        if (w->column == 0 && piece.p[0] == '.')
            io_write(w->io, STR("."));
        size_t n = piece.n;
        if (w->line_limit && w->column + n > w->line_limit)
            n = w->column < w->line_limit ? w->line_limit - w->column : 0;
        io_write(w->io, str_sub(piece, 0, n));
        w->column += n;
        piece = str_from(piece, n);
        if (piece.n) { /* the blank keeps a broken header one header (RFC 5322, 2.2.3) */
            io_write(w->io, STR("\r\n "));
            w->column = 1;
        }
    }
}

void content_write(struct content_writer *w, struct str bytes) {
    while (bytes.n) {
        ptrdiff_t at = str_index_any(bytes, STR("\r\n"));
        size_t n = at < 0 ? bytes.n : (size_t)at;
        write_piece(w, str_sub(bytes, 0, n));
        bytes = str_from(bytes, n);
        if (bytes.n == 0)
            return;
        if (bytes.p[0] == '\n') {
            io_write(w->io, STR("\r\n"));
            w->column = 0;
        } else { /* RFC 5321, 2.3.8: a bare CR must not be sent; a blank stands for it */
            write_piece(w, STR(" "));
        }
        bytes = str_from(bytes, 1);
    }
}

void content_end(struct content_writer *w) {
    if (w->column)
        io_write(w->io, STR("\r\n"));
    w->column = 0;
}
