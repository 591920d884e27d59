#include "base/err.h"

#include <errno.h>

const struct err err_timeout = { .kind = ERR_TIMEOUT, .sys = ETIMEDOUT, .text = STR_INIT("timeout") };
const struct err err_eof = { .kind = ERR_EOF, .text = STR_INIT("connection closed") };
const struct err err_cancelled = { .kind = ERR_CANCELLED, .sys = ECANCELED, .text = STR_INIT("cancelled") };
const struct err err_limit = { .kind = ERR_LIMIT, .text = STR_INIT("size limit exceeded") };

enum { ERRNO_MAX = 256 };

error err_errno(int errnum) {
    static _Thread_local struct err table[ERRNO_MAX];
    if (errnum < 0 || errnum >= ERRNO_MAX)
        errnum = EIO;
    struct err *e = &table[errnum];
    if (!e->kind) {
        const char *text = strerrordesc_np(errnum);
        *e = (struct err){ .kind = ERR_SYS, .sys = errnum, .text = str_c(text ? text : "Unknown error") };
    }
    return e;
}

error err_make(struct arena *a, enum err_kind kind, const char *format, ...) {
    struct err *e = ARENA_NEW(a, struct err);
    va_list ap;
    va_start(ap, format);
    *e = (struct err){ .kind = kind, .dsn = STR(""), .text = arena_vprintf(a, format, ap), .detail = STR("") };
    va_end(ap);
    return e;
}

error err_smtp(struct arena *a, int code, const char *dsn, const char *format, ...) {
    struct err *e = ARENA_NEW(a, struct err);
    va_list ap;
    va_start(ap, format);
    *e = (struct err){ .kind = code >= 500 ? ERR_PERM : ERR_TEMP,
                       .code = code,
                       .dsn = arena_str(a, str_c(dsn)),
                       .text = arena_vprintf(a, format, ap),
                       .detail = STR("") };
    va_end(ap);
    return e;
}
