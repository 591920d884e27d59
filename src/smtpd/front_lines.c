#include "smtpd/front_lines.h"

enum kind { ORDINARY, MAILBOX, UNDECIDED };

/* line = *">" "From " */
static enum kind kind_of(struct str line, bool last) {
    static const char word[] = "From ";
    size_t quotes = 0;
    while (quotes < line.n && line.p[quotes] == '>' && quotes < FRONT_UNDECIDED_MAX)
        quotes++;
    struct str rest = str_sub(line, quotes, sizeof word - 1);
    if (rest.n && memcmp(rest.p, word, rest.n) != 0)
        return ORDINARY;
    if (rest.n == sizeof word - 1)
        return MAILBOX;
    return last ? ORDINARY : UNDECIDED;
}

size_t front_lines(struct front_lines *f, struct buf *b, size_t from, bool last) {
    struct buf made = { 0 };
    struct str in = str_from(buf_str(b), from);
    while (in.n > 0 && f->state != FRONT_DONE) {
        enum kind kind = f->state == FRONT_INSIDE ? MAILBOX : kind_of(in, last);
        if (kind == UNDECIDED)
            break;
        if (kind == ORDINARY) {
            if (in.p[0] == ' ' || in.p[0] == '\t')
                buf_byte(&made, '\n');
            f->state = FRONT_DONE;
            break;
        }
        if (f->state != FRONT_INSIDE)
            buf_add(&made, STR("X-Mailbox-Line: "));
        ptrdiff_t end = str_index(in, '\n');
        size_t n = end < 0 ? in.n : (size_t)end + 1;
        buf_add(&made, str_sub(in, 0, n));
        in = str_from(in, n);
        f->state = end < 0 ? FRONT_INSIDE : FRONT_LINE;
    }
    size_t left = in.n;
    if (made.n) {
        buf_add(&made, in);
        buf_truncate(b, from);
        buf_add(b, buf_str(&made));
    }
    buf_free(&made);
    return f->state == FRONT_DONE ? b->n : b->n - left;
}
