/* content.h - a stored message on the wire: LF becomes CRLF, a leading dot is doubled (RFC 5321, 4.5.2), a line longer
 * than the limit is broken with CRLF and a blank, stray CR never reaches the wire as part of a line end (smuggling). */
#ifndef ANGARIUM_SMTP_CONTENT_H
#define ANGARIUM_SMTP_CONTENT_H

#include "run/io.h"

struct content_writer {
    struct io *io;
    size_t line_limit; /* bytes of a line; 0: none */
    size_t column;     /* bytes of the current line so far */
};
void content_write(struct content_writer *w, struct str bytes);
/* The end: the last line gets its end if it has none; the lone dot is not written. */
void content_end(struct content_writer *w);
#endif
