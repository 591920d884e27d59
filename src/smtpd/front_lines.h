/* front_lines.h - what programs leave in front of a message that is no header: lines of a mailbox file ("From user
 * date", also quoted as ">From "), which become header fields X-Mailbox-Line: so that the header behind them is one;
 * and white space in front of the first line, which would make it go on a field of ours. */
#ifndef ANGARIUM_SMTPD_FRONT_LINES_H
#define ANGARIUM_SMTPD_FRONT_LINES_H

#include "base/buf.h"

enum {
    FRONT_UNDECIDED_MAX = 2048, /* quotes that are looked at */
};

struct front_lines { /* `{0}` is ready for use */
    enum { FRONT_LINE, FRONT_INSIDE, FRONT_DONE } state;
};

/* Content, LF lines, that has come stands in `b` from `from` on; it is made what it should be. Returns where in `b`
 * what is not decided yet begins: to be kept there and given again when more has come. `last`: nothing will come. */
size_t front_lines(struct front_lines *f, struct buf *b, size_t from, bool last);
#endif
