/* log_send.h - log lines on their way out of the process (inside this room).
 *
 * Each line goes at once, except while gathering: then a daemon's lines are kept and sent by one call for many, when
 *   - the loop is about to sleep: to syslog always, so that a round's lines are one call; to postlogd, which puts the
 *     lines of all processes in the order they were made, when LOG_GATHER_US have passed since the last call, so that
 *     a quiet system logs at once and a busy one a few hundred times a second,
 *   - LOG_GATHER_SEND bytes have come together,
 *   - one is a warning or worse (errors that end the process wait until it is taken),
 *   - gathering or the process ends, also by a signal of its own making (SIGSEGV, SIGABRT, ...).
 * A reader that is behind finds up to LOG_GATHER_MAX bytes kept for it; only then does a process wait for it, and not
 * for long.
 *
 * Lines may come from any thread; those of others than the loop's are never kept. */
#ifndef ANGARIUM_SERVICE_LOG_SEND_H
#define ANGARIUM_SERVICE_LOG_SEND_H

#include "base/log.h"
#include "service/logging.h"

enum {
    LOG_GATHER_US = 5000,
    LOG_GATHER_SEND = 8 * 1024,
    LOG_GATHER_MAX = 48 * 1024,
    LOG_GATHER_LINES = 512,
    LOG_SEND_TIMEOUT_MS = 1000, /* how long a full log may hold us up ... */
    LOG_STUCK_US = 5000000,     /* ... and for how long we then do not wait for it at all */
};
enum log_target { LOG_TO_NOTHING, LOG_TO_SYSLOG, LOG_TO_POSTLOG, LOG_TO_FILE };

/* `fd` is taken over. What was gathered goes to the old one first. */
void log_send_to(enum log_target target, int fd);
enum log_target log_send_target(void);
void log_send_host(struct str host);  /* of lines to postlogd and the file */
void log_send_facility(int facility); /* of lines to syslog: LOG_MAIL */
/* False: the file did not take it. */
bool log_send(enum log_level level, struct str tag, struct str text);
#endif
