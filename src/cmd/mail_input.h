/* mail_input.h - a message as sendmail reads it from standard input: mailbox "From " lines at its beginning dropped,
 * the dot that ends it, CRLF made LF, and (-t) the recipients its header names. Constant memory but for one header
 * field and the recipients. */
#ifndef ANGARIUM_CMD_MAIL_INPUT_H
#define ANGARIUM_CMD_MAIL_INPUT_H

#include "base/arena.h"
#include "base/buf.h"

enum line_endings { /* sendmail_fix_line_endings */
                    LINE_ENDINGS_ALWAYS,
                    LINE_ENDINGS_STRICT, /* only when the first line ends in CRLF */
                    LINE_ENDINGS_NEVER,
};

struct mail_input {
    /* set before the first byte */
    struct arena *arena; /* recipients live in it */
    bool dot_ends, extract;
    enum line_endings endings;
    size_t field_max; /* header_size_limit */
    void (*content)(void *ctx, struct str bytes);
    void *ctx;
    /* results: addresses in internal form */
    VEC(struct str) plain, resent; /* of To, Cc, Bcc; of Resent-To, -Cc, -Bcc */
    bool too_many;                 /* a field named more than can be taken */
    bool done;                     /* the dot was read: what follows is no part of the message */
    /* state */
    struct buf line, field;
    bool in_line; /* a piece of the line has been passed on already */
    bool started, skipping, past_header, field_open, crlf;
};

/* Anything may be fed after `done`; it is ignored. */
void mail_input_feed(struct mail_input *in, struct str bytes);
void mail_input_end(struct mail_input *in);
void mail_input_free(struct mail_input *in);
#endif
