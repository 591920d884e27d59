#include "mail/quoted_printable.h"

/* A soft line end goes before a byte for which, encoded, there might be no room: "=XX" and the "=" behind it. */
enum { FULL = QUOTED_LINE_MAX - 3 };

static void put(struct quoted_printable *q, char c, bool encode, void (*out)(void *ctx, struct str line), void *ctx) {
    static const char digits[] = "0123456789ABCDEF";
    if (q->n >= FULL) {
        q->line[q->n++] = '=';
        out(ctx, str_n(q->line, q->n));
        q->n = 0;
    }
    if (encode) {
        q->line[q->n++] = '=';
        q->line[q->n++] = digits[(unsigned char)c >> 4];
        q->line[q->n++] = digits[(unsigned char)c & 15];
    } else {
        q->line[q->n++] = c;
    }
}

void quoted_printable_add(struct quoted_printable *q, struct str piece, bool whole,
                          void (*out)(void *ctx, struct str line), void *ctx) {
    for (size_t i = 0; i < piece.n; i++) {
        char c = piece.p[i];
        if (q->blank)
            put(q, q->blank, false, out, ctx);
        q->blank = c == ' ' || c == '\t' ? c : 0;
        if (!q->blank)
            put(q, c, c == '=' || c <= ' ' || c > '~', out, ctx);
    }
    if (!whole)
        return;
    if (q->blank)
        put(q, q->blank, true, out, ctx);
    out(ctx, str_n(q->line, q->n));
    *q = (struct quoted_printable){ 0 };
}
