/* checks.h - header_checks(5), body_checks(5): what tables of patterns say of one header field or body line.
 *
 * Asking may wait as table_get() does. Results live as long as the arena. */
#ifndef ANGARIUM_INSPECT_CHECKS_H
#define ANGARIUM_INSPECT_CHECKS_H

#include "table/table.h"

enum check_action {
    CHECK_NONE, /* the table does not have it, or what it says is no action (`fault`) */
    CHECK_BCC,
    CHECK_DISCARD,
    CHECK_FILTER,
    CHECK_HOLD,
    CHECK_IGNORE,
    CHECK_INFO,
    CHECK_PASS,
    CHECK_PREPEND,
    CHECK_REDIRECT,
    CHECK_REJECT,
    CHECK_REPLACE,
    CHECK_STRIP,
    CHECK_WARN,
};

struct check {
    enum check_action action;
    struct str log;   /* how a log record of it begins: "reject", "warning", ...; empty: it is not logged */
    struct str value; /* what stands behind the action, trimmed */
    struct str dsn;   /* REJECT: its status, "5.7.1" where it has none; `value` is what follows it */
    struct str fault; /* why the answer is none: for a warning; else empty */
};

/* `parameter` names the tables in faults. `is_header`: PREPEND and REPLACE must give header fields. TABLE_ERROR: the
 * mail has to wait; else `ret` is set. An empty `text` is never asked about. */
enum table_result check_find(struct maps *tables, struct str parameter, bool is_header, struct str text,
                             struct arena *a, struct check *ret);
#endif
