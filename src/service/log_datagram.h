/* log_datagram.h - many log lines in one datagram to postlogd.
 *
 * From any other program a datagram is one line, as with Postfix. Ours begin with LOG_DATAGRAM_MARK, which no printable
 * line does: u8 mark, u8 urgent, and for each line i64 when it was made (microseconds since the epoch) and the line as
 * a string (base/pack.h), "Nov  2 09:20:47 host tag: text". Anybody who may enter public/ may send this, so the reader
 * trusts nothing. */
#ifndef ANGARIUM_SERVICE_LOG_DATAGRAM_H
#define ANGARIUM_SERVICE_LOG_DATAGRAM_H

#include "base/pack.h"

enum {
    LOG_DATAGRAM_MARK = 0x01,
    LOG_DATAGRAM_HEAD = 2, /* bytes before the first line, */
    LOG_DATAGRAM_LINE = 12 /* and before the text of each */
};

/* Urgent: to be written at once, and all that is older with it. */
void log_datagram_begin(struct buf *b);
void log_datagram_line(struct buf *b, int64_t made_us, struct str line);
void log_datagram_set_urgent(struct buf *b);

/* False: not such a datagram. */
bool log_datagram_open(struct str datagram, struct unpack *ret, bool *ret_urgent);
/* The next line; false at the end or where the rest makes no sense. */
bool log_datagram_next(struct unpack *u, int64_t *ret_made_us, struct str *ret_line);
#endif
