/* held.h - lines put in the order they were made.
 *
 * Each process sends its lines some at a time (service/log_send.h), so what comes in is in order for each process but
 * not among them: a delivery would be logged before the message came in. A line is held until all that are older must
 * have come. Times are microseconds since the epoch, and nobody is believed: one in the future counts as now. */
#ifndef ANGARIUM_POSTLOGD_HELD_H
#define ANGARIUM_POSTLOGD_HELD_H

#include "base/buf.h"

enum {
    HELD_US = 10000,              /* LOG_GATHER_US, and what a busy process may take to come round */
    HELD_FRESH_US = 5000,         /* lines younger than this may still be overtaken */
    HELD_BYTES_MAX = 1024 * 1024, /* more than this is not held but written */
    HELD_LINES_MAX = 8192,
};

struct held_line {
    int64_t made_us;
    size_t at, n; /* in `bytes` */
};
struct held {
    struct buf bytes;
    struct held_line *lines; /* in the order they came */
    size_t count, room;
    int64_t oldest_us;
};

/* `line` is without line end. */
void held_add(struct held *h, struct str line, int64_t made_us, int64_t now_us);
bool held_is_full(const struct held *h);
/* When something is to be written; INT64_MAX: nothing is held. */
int64_t held_due(const struct held *h);
/* Append the lines made up to `until_us`, in order and with line ends, to `out`, and forget them. */
void held_take(struct held *h, int64_t until_us, struct buf *out);
void held_free(struct held *h);
#endif
