/* content.h - a stored message as it goes over the wire: LF becomes CRLF, a leading dot is doubled (RFC 5321, 4.5.2), a
 * line longer than the limit is broken with CRLF and a blank, a stray CR never reaches the wire as part of a line end
 * (smuggling). In one pass, into a buffer of the caller. */
#ifndef ANGARIUM_SMTP_CONTENT_H
#define ANGARIUM_SMTP_CONTENT_H

#include "base/buf.h"

struct content_writer {
    struct buf *out;
    size_t line_limit; /* bytes of a line; 0: none; at least 2: a continuation begins with a blank */
    size_t column;     /* bytes of the current line so far */
};
/* smtp_line_length_limit as a limit that can be kept. */
size_t content_line_limit(int64_t parameter);
/* The next piece of the message, cut anywhere. */
void content_add(struct content_writer *w, struct str bytes);
/* The end: the last line gets its end if it has none, and the lone dot follows. */
void content_end(struct content_writer *w);
#endif
