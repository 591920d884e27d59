#include "cmd/mail_input.h"

#include "mail/address.h"
#include "mail/header.h"

enum { PIECE_MAX = 4096 /* a longer line is passed on in pieces */ };

/* A header field is whole: whom does it name? */
static void field_done(struct mail_input *in) {
    struct str name, value, field = buf_str(&in->field);
    if (header_split(field, &name, &value)) {
        const struct header_row *row = header_find(name);
        if (row->flags & HEADER_EXTRACT) {
            struct arena *scratch = arena_new();
            struct header_addresses list = header_addresses_parse(scratch, value);
            in->too_many = in->too_many || list.truncated;
            for (size_t i = 0; i < list.n; i++) {
                struct str address = arena_str(in->arena, list.at[i].address);
                if (row->flags & HEADER_RESENT)
                    *vec_add(in->arena, &in->resent) = address;
                else
                    *vec_add(in->arena, &in->plain) = address;
            }
            arena_free(scratch);
        }
    }
    buf_clear(&in->field);
}

static void look_at_header(struct mail_input *in, struct str piece, bool first, bool last) {
    bool folded = piece.n > 0 && (piece.p[0] == ' ' || piece.p[0] == '\t');
    if (first && !(folded && in->field_open)) {
        field_done(in);
        struct str name, value;
        in->field_open = header_split(piece, &name, &value);
        if (!in->field_open) {
            in->past_header = true;
            return;
        }
    }
    size_t room = in->field.n < in->field_max ? in->field_max - in->field.n : 0;
    if (piece.n > room) {
        in->too_many = true; /* names that would not be seen */
        piece.n = room;
    }
    buf_add(&in->field, piece);
    if (last)
        buf_byte(&in->field, '\n');
}

/* Part of a line without its LF; `first` and `last`: its beginning, its end. */
static void take(struct mail_input *in, struct str piece, bool first, bool last) {
    bool cr = last && piece.n > 0 && piece.p[piece.n - 1] == '\r';
    if (first && last) {
        struct str bare = cr ? str_sub(piece, 0, piece.n - 1) : piece;
        if (in->dot_ends && str_eq(bare, STR("."))) {
            in->done = true;
            return;
        }
    }
    if (first) {
        struct str mark = piece;
        while (mark.n > 0 && mark.p[0] == '>')
            mark = str_from(mark, 1);
        in->skipping = !in->started && str_starts(mark, STR("From "));
    }
    if (in->skipping)
        return;
    if (last && !in->started)
        in->crlf = cr;
    in->started = true;
    if (cr && (in->endings == LINE_ENDINGS_ALWAYS || (in->endings == LINE_ENDINGS_STRICT && in->crlf)))
        piece.n--;
    if (in->extract && !in->past_header)
        look_at_header(in, piece, first, last);
    if (piece.n > 0)
        in->content(in->ctx, piece);
    if (last)
        in->content(in->ctx, STR("\n"));
}

void mail_input_feed(struct mail_input *in, struct str bytes) {
    while (bytes.n > 0 && !in->done) {
        ptrdiff_t lf = str_index(bytes, '\n');
        struct str piece = lf >= 0 ? str_sub(bytes, 0, (size_t)lf) : bytes;
        if (piece.n > PIECE_MAX - in->line.n) {
            piece = str_sub(bytes, 0, PIECE_MAX - in->line.n);
            lf = -1;
        }
        bytes = str_from(bytes, piece.n + (lf >= 0 ? 1 : 0));
        buf_add(&in->line, piece);
        if (lf >= 0) {
            take(in, buf_str(&in->line), !in->in_line, true);
            in->in_line = false;
            buf_clear(&in->line);
        } else if (in->line.n == PIECE_MAX) {
            /* a CR at the end of a piece waits for what comes behind it */
            bool cr = in->line.p[in->line.n - 1] == '\r';
            take(in, str_sub(buf_str(&in->line), 0, in->line.n - cr), !in->in_line, false);
            in->in_line = true;
            buf_clear(&in->line);
            if (cr)
                buf_byte(&in->line, '\r');
        }
    }
}

void mail_input_end(struct mail_input *in) {
    if (!in->done && (in->line.n > 0 || in->in_line))
        take(in, buf_str(&in->line), !in->in_line, true);
    if (in->extract)
        field_done(in);
    buf_clear(&in->line);
    in->in_line = false;
}

void mail_input_free(struct mail_input *in) {
    buf_free(&in->line);
    buf_free(&in->field);
}
