/* content.h - message content as it comes behind DATA: where it ends, and what it is without its transport form.
 *
 * Lines become LF lines, the dot that was added is taken away (RFC 5321, 4.5.2). A CR that ends no line, NUL and
 * everything else stay. A line may have any length: nothing of it is kept here.
 *
 * Strict: only CRLF "." CRLF ends the content; a bare LF ends a line, but a lone dot beside one is dropped and goes on
 * being content. (Servers that take LF "." CRLF for the end can be made to see a second message that was smuggled
 * inside the first.) Lenient: any LF ends a line with all the CRs before it, and a lone dot ends the content: for
 * clients known to be old and honest. */
#ifndef ANGARIUM_SMTPD_CONTENT_H
#define ANGARIUM_SMTPD_CONTENT_H

#include "base/buf.h"

enum content_state { CONTENT_LINE, CONTENT_DOT, CONTENT_INSIDE };

struct content { /* `{0}` with `out` set is ready for use */
    bool lenient;
    bool chunk;        /* BDAT: a dot is content, the end is the caller's business (RFC 3030, 2) */
    struct buf *out;   /* what the content is, is added here */
    uint64_t size;     /* of its whole lines, each LF counted as CRLF */
    bool ended;        /* the end was seen; nothing behind it was touched */
    bool bare_newline; /* a line ended without CR */
    /* its own */
    enum content_state state;
    bool after_bare; /* the line before ended without CR */
    uint64_t line;   /* bytes of the line under way */
    size_t crs;      /* CRs held back until we know whether an LF follows */
};

/* BDAT: all has come. A last line without its end gets one. */
void content_finish(struct content *c);
/* Take bytes; returns how many were used: all of them unless the end came. */
size_t content_feed(struct content *c, struct str bytes);
/* What `size` will be at the least: with the line under way, which needs an end. */
static inline uint64_t content_size_ahead(const struct content *c) {
    return c->size + c->line + (c->state == CONTENT_INSIDE ? 2 : 0);
}
#endif
