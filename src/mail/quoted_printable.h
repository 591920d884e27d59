/* quoted_printable.h - lines in quoted-printable (RFC 2045, 6.7). Bounded: one line of output. Neither waits nor fails.
 *
 * What is encoded: bytes that are neither printable ASCII nor blanks, "=", and a blank at the end of a line. Output
 * lines have at most QUOTED_LINE_MAX bytes. */
#ifndef ANGARIUM_MAIL_QUOTED_PRINTABLE_H
#define ANGARIUM_MAIL_QUOTED_PRINTABLE_H

#include "base/str.h"

enum { QUOTED_LINE_MAX = 76 };

struct quoted_printable { /* all zero: at the beginning of a line */
    char line[QUOTED_LINE_MAX];
    size_t n;
    char blank; /* one that may be the last byte of the line: not in `line` yet; 0: none */
};
/* More of a line of input, without its end; `whole`: it ends here. `out` gets each line of output, without its end. */
void quoted_printable_add(struct quoted_printable *q, struct str piece, bool whole,
                          void (*out)(void *ctx, struct str line), void *ctx);
#endif
