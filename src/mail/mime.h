/* mime.h - a message, line by line, taken apart into headers and body lines (RFC 5322, RFC 2045, 2046).
 *
 * Without `parts`, one block of headers and then the body. With it also the headers of parts of a multipart and of
 * attached messages are headers. Whatever is malformed is body: nothing is refused here. Bounded: headers are cut at
 * `header_limit` bytes, parts deeper than `nesting_limit` are taken as text. */
#ifndef ANGARIUM_MAIL_MIME_H
#define ANGARIUM_MAIL_MIME_H

#include "base/str.h"

enum mime_class {
    MIME_PRIMARY, /* header of the message: header_checks */
    MIME_PART,    /* header of a part: mime_header_checks */
    MIME_NESTED,  /* header of an attached message: nested_header_checks */
};

struct mime_options {
    bool parts;
    size_t header_limit, nesting_limit, boundary_limit;
    /* A logical header: physical lines joined by a newline, without the last one; no blanks before its colon. */
    void (*header)(void *ctx, enum mime_class class, struct str header);
    /* A body line, also the empty one behind headers and the lines between parts. */
    void (*body)(void *ctx, struct str line);
    void *ctx;
};

struct mime;
/* The options are copied. */
struct mime *mime_new(const struct mime_options *o);
void mime_line(struct mime *m, struct str line); /* without its line end */
/* The end of the message: the last header, if the message ends in its headers. */
void mime_end(struct mime *m);
void mime_free(struct mime *m);
#endif
