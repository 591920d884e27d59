#include "sasl/fields.h"

#include "base/arena.h"

bool field_next(struct str *rest, struct str *ret) {
    return rest->n && str_next(rest, STR("\t"), ret);
}

struct str field_unescape(struct arena *a, struct str s) {
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == 1 && i + 1 < s.n) {
            c = s.p[++i];
            c = c == '0' ? 0 : c == '1' ? 1 : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'n' ? '\n' : c;
        }
        out[n++] = c;
    }
    out[n] = 0;
    return str_n(out, n);
}

void field_add(struct buf *b, const char *name, struct str value) {
    if (value.n == 0)
        return;
    buf_printf(b, "\t%s=", name);
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        char letter = c == 0 ? '0' : c == 1 ? '1' : c == '\t' ? 't' : c == '\r' ? 'r' : c == '\n' ? 'n' : 0;
        if (letter)
            buf_byte(b, 1);
        buf_byte(b, letter ? letter : c);
    }
}

error line_read(struct io *io, size_t limit, int64_t deadline, struct str *ret) {
    error e = io_line(io, limit, deadline, ret);
    if (!e && ret->n) {
        ret->n--; /* LF */
        if (ret->n && ret->p[ret->n - 1] == '\r')
            ret->n--;
    }
    return e;
}

void line_write(struct line_writer *w, struct buf *line, int64_t deadline) {
    error e = NULL;
    while (w->writing && !e)
        e = cond_wait(&w->turn, deadline);
    if (!e) {
        w->writing = true;
        io_set_write_deadline(w->io, deadline);
        io_write(w->io, buf_str(line));
        (void)io_flush(w->io, deadline);
        w->writing = false;
        cond_signal(&w->turn);
    }
    buf_wipe(line);
}
