/* line.h - what comes in as a datagram and goes out as a line. */
#ifndef ANGARIUM_POSTLOGD_LINE_H
#define ANGARIUM_POSTLOGD_LINE_H

#include "base/buf.h"

enum { POSTLOGD_LINE_MAX = 4096 /* bytes; the rest of a longer datagram is dropped */ };

/* Append `data` to `line` as one printable line without its end. `data` need not end in anything and may hold any byte.
 */
void postlogd_line(struct str data, struct buf *line);
/* Without the date and the host at its front ("Nov  2 09:20:47 host tag: text" -> "tag: text"); a line that does not
 * look like this is returned whole. */
struct str postlogd_strip(struct str line);
#endif
