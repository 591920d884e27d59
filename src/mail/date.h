/* date.h - dates as mail writes them (RFC 5322, 3.3) and message ids (3.6.4). Times are seconds since the epoch. */
#ifndef ANGARIUM_MAIL_DATE_H
#define ANGARIUM_MAIL_DATE_H

#include "base/arena.h"

/* "Sat, 21 Nov 2026 09:00:00 +0000 (UTC)" in local time; the zone name is left out when it is not printable. */
struct str date_rfc5322(struct arena *a, int64_t when);
/* "Nov 21 09:00:00": log files. */
struct str date_syslog(struct arena *a, int64_t when);
/* "<20261121090000.QUEUEID@host>" in UTC. */
struct str message_id(struct arena *a, int64_t when, struct str queue_id, struct str host);
/* A time that passed, for log lines: "0.12", "3.4", "45" seconds of `us` microseconds: two significant digits, at most
 * `resolution_limit` (delay_logging_resolution_limit) behind the point. */
struct str delay_format(struct arena *a, int64_t us, int resolution_limit);
#endif
