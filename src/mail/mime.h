/* mime.h - a message, line by line, taken apart into headers and body lines (RFC 5322, RFC 2045, 2046).
 *
 * Without `parts`, one block of headers and then the body. With it also the headers of parts of a multipart and of
 * attached messages are headers. Whatever is malformed is body: nothing is refused here, but the caller is told of it.
 * With `downgrade` what says that it is in 8 bits or binary comes in 7 bits (RFC 6152, 3; RFC 2045, 6): leaves in
 * quoted-printable, and fields tell of it. What only is 8-bit, and does not say so, stays.
 *
 * Bounded: headers are cut at `header_limit` bytes, multiparts deeper than `nesting_limit` + 2 (mime_nesting_limit
 * counts so) are taken as text; lines come in pieces of the caller's size. */
#ifndef ANGARIUM_MAIL_MIME_H
#define ANGARIUM_MAIL_MIME_H

#include "base/str.h"
#include "mail/header.h"

enum mime_class {
    MIME_PRIMARY, /* header of the message: header_checks */
    MIME_PART,    /* header of a part: mime_header_checks */
    MIME_NESTED,  /* header of an attached message: nested_header_checks */
};

/* What strict_8bitmime and its like refuse. */
enum mime_error { MIME_8BIT_HEADER, MIME_8BIT_BODY, MIME_DOMAIN, MIME_NESTING };
/* For replies and logs. */
struct str mime_error_text(enum mime_error e);

struct mime_options {
    bool parts;
    bool downgrade; /* with `parts` */
    size_t header_limit, nesting_limit, boundary_limit;
    /* A logical header: physical lines joined by a newline, without the last one; no blanks before its colon. */
    void (*header)(void *ctx, enum mime_class class, struct str header);
    /* A body line, also the empty one behind headers and the lines between parts; or a piece of one. `offset`: the
     * bytes of this body, of the message or of a part, that came before, line ends included (as they were, with
     * `downgrade`). `whole`: the line ends here. */
    void (*body)(void *ctx, struct str line, size_t offset, bool whole);
    /* NULL: of no interest. `about` is the header, the line, or the encoding in question. Each time it happens. */
    void (*error)(void *ctx, enum mime_error e, struct str about);
    void *ctx;
};

struct mime;
/* The options are copied. */
struct mime *mime_new(const struct mime_options *o);
void mime_line(struct mime *m, struct str line); /* without its line end */
/* The same for a line that comes in pieces: `first` and `whole` say whether this one begins and ends it. */
void mime_piece(struct mime *m, struct str piece, bool first, bool whole);
/* For a caller who reads the headers of the message itself: one that it has read, with its LFs, and the end of them.
 * `header` is not called for these. False: `downgrade` takes it away. */
bool mime_own_header(struct mime *m, struct str header);
/* The field that `downgrade` puts behind the last one, without its LF, or empty; before mime_own_headers_end(). */
struct str mime_new_field(const struct mime *m);
/* Is what `header` was called with such a field (the very string), and none of the message? */
bool mime_is_new_field(struct str header);
void mime_own_headers_end(struct mime *m);
/* Is it one that mime_header_checks are asked about, wherever it stands: Content-Type: and its like? */
bool mime_is_mime_header(enum header_id id);
/* The end of the message: the last header, if the message ends in its headers. */
void mime_end(struct mime *m);
void mime_free(struct mime *m);
#endif
