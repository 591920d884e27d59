/* rfc822.h - the words addresses are written in (RFC 5322, 3.2), shared by the SMTP path and the header parser.
 *
 * A cursor over borrowed bytes; nothing is copied until a token's value is asked for. Comments (nested, counted and
 * not recursed into) and white space separate tokens and are skipped. Each byte is looked at once. */
#ifndef ANGARIUM_MAIL_RFC822_H
#define ANGARIUM_MAIL_RFC822_H

#include "base/buf.h"

enum rfc822_type {
    RFC822_END,
    RFC822_ATOM,    /* bytes that are no special, "\x" pairs included; 8-bit bytes count as letters */
    RFC822_QUOTED,  /* "..." */
    RFC822_LITERAL, /* [...] */
    RFC822_SPECIAL, /* one of < > @ , ; : . */
};

struct rfc822_token {
    enum rfc822_type type;
    char special;
    struct str raw; /* as written, quotes included */
};

struct rfc822_cursor {
    struct str in;
    size_t at;
    bool unterminated; /* a quoted string, literal, comment or '\' ran into the end */
    bool comment;      /* at least one comment was skipped */
};

/* RFC822_END at the end, and again each time after it. */
struct rfc822_token rfc822_next(struct rfc822_cursor *c);
/* Append what the token stands for: quotes and '\' removed, the brackets of a literal kept. */
void rfc822_value(struct buf *b, const struct rfc822_token *t);
#endif
