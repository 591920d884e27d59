#include "deliver/mailbox.h"

/* The bytes that match so far are held back; `matched` past the length means that this line is known. */
static const struct str mark = STR_INIT("From ");
enum { KNOWN = 6 };

void mbox_quote_add(struct mbox_quote *q, struct buf *out, struct str in) {
    for (size_t i = 0; i < in.n;) {
        if (q->matched < mark.n) {
            char c = in.p[i];
            if (c == mark.p[q->matched]) {
                i++;
                if (++q->matched == mark.n) {
                    buf_byte(out, '>');
                    buf_add(out, mark);
                    q->matched = KNOWN;
                }
            } else {
                buf_add(out, str_sub(mark, 0, q->matched));
                q->matched = KNOWN;
            }
            q->started = true;
            q->at_line_start = false;
            continue;
        }
        struct str rest = str_from(in, i);
        ptrdiff_t lf = str_index(rest, '\n');
        size_t n = lf < 0 ? rest.n : (size_t)lf + 1;
        buf_add(out, str_sub(rest, 0, n));
        i += n;
        if (lf >= 0) {
            q->matched = 0;
            q->at_line_start = true;
        }
    }
}

void mbox_quote_end(struct mbox_quote *q, struct buf *out) {
    if (q->matched < mark.n)
        buf_add(out, str_sub(mark, 0, q->matched));
    if (q->started && !q->at_line_start)
        buf_byte(out, '\n');
    *q = (struct mbox_quote){ 0 };
}
