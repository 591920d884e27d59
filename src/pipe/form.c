#include "pipe/form.h"

#define FROM STR("From ")

struct pipe_form pipe_form_start(const struct pipe_attributes *attributes) {
    return (struct pipe_form){ .eol = attributes->eol,
                               .dot = attributes->flags & PIPE_DOT,
                               .from = attributes->flags & PIPE_QUOTE_FROM,
                               .blank_line = attributes->flags & PIPE_BLANK_LINE };
}

bool pipe_form_is_plain(const struct pipe_form *f) {
    return !f->dot && !f->from && str_eq(f->eol, STR("\n"));
}

/* The bytes of "From " that turned out to be something else. */
static void give_back(struct pipe_form *f, struct buf *out) {
    buf_add(out, str_sub(FROM, 0, f->matched));
    f->inside |= f->matched > 0;
    f->matched = 0;
}

/* At the start of a line: take what decides about it off the front of `*in`. */
static void line_start(struct pipe_form *f, struct buf *out, struct str *in) {
    while (f->from && in->n && in->p[0] == FROM.p[f->matched]) {
        *in = str_from(*in, 1);
        if (++f->matched == FROM.n) {
            buf_byte(out, '>');
            give_back(f, out);
            return;
        }
    }
    if (!in->n)
        return; /* the next piece decides */
    if (f->dot && !f->matched && in->p[0] == '.')
        buf_byte(out, '.');
    give_back(f, out);
    f->inside = true;
}

void pipe_form_add(struct pipe_form *f, struct buf *out, struct str in) {
    while (in.n) {
        if (!f->inside)
            line_start(f, out, &in);
        ptrdiff_t lf = str_index(in, '\n');
        if (lf < 0) {
            buf_add(out, in);
            return;
        }
        buf_add(out, str_sub(in, 0, (size_t)lf));
        buf_add(out, f->eol);
        in = str_from(in, (size_t)lf + 1);
        f->inside = false;
    }
}

void pipe_form_end(struct pipe_form *f, struct buf *out) {
    give_back(f, out);
    if (f->inside)
        buf_add(out, f->eol);
    if (f->blank_line)
        buf_add(out, f->eol);
}
