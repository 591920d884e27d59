/* err.h - the one error type: what class of failure, what the peer hears, what the log says.
 *
 * Functions return `const struct err *`; NULL is success. The named ones below are static and may be compared by
 * address; err_errno() values are static too; err_make() and err_smtp() values live as long as their arena. */
#ifndef ANGARIUM_BASE_ERR_H
#define ANGARIUM_BASE_ERR_H

#include "base/arena.h"
#include "base/str.h"

enum err_kind {
    ERR_SYS = 1,   /* a system call failed; `sys` is its errno */
    ERR_TIMEOUT,   /* the deadline passed */
    ERR_EOF,       /* the peer closed */
    ERR_CANCELLED, /* the coroutine was told to stop */
    ERR_LIMIT,     /* over a named limit */
    ERR_SYNTAX,    /* malformed input */
    ERR_CONFIG,    /* the administrator must act: `text` has file, line, parameter */
    ERR_TEMP,      /* try later */
    ERR_PERM,      /* never will work */
};

struct err {
    enum err_kind kind;
    int sys;           /* errno, or 0 */
    int code;          /* SMTP reply code (RFC 5321, 4.2), or 0 */
    struct str dsn;    /* enhanced status code "5.1.1" (RFC 3463), or empty */
    struct str text;   /* for the peer, or for the log where there is no peer; one line */
    struct str detail; /* for the log only; may be empty */
};

typedef const struct err *error; /* the one typedef of the project: it reads as `error f(...)` */

extern const struct err err_timeout, err_eof, err_cancelled, err_limit;

/* Never NULL, also for 0. The text is strerror's. */
error err_errno(int errnum);
error err_make(struct arena *a, enum err_kind kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* kind follows from code: 4xx ERR_TEMP, 5xx ERR_PERM. `dsn` is copied. */
error err_smtp(struct arena *a, int code, const char *dsn, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#endif
