/* log.h - one line per event, for programs (libraries return errors instead).
 *
 * The text is made printable, cut at LOG_LINE_MAX and sent whole. Where it goes is the program's choice:
 * standard error at first, then what service/ or cmd/ set. A sink that fails or logs itself is not entered twice. */
#ifndef ANGARIUM_BASE_LOG_H
#define ANGARIUM_BASE_LOG_H

#include "base/str.h"
#include <stdarg.h>

enum { LOG_LINE_MAX = 2000 };

/* The text of a record begins with "warning: ", "error: ", "fatal: ", "panic: "; nothing for info. */
enum log_level { LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR, LOG_LEVEL_FATAL, LOG_LEVEL_PANIC };

/* `tag` is what stands before the colon: "postfix/smtpd[123]". */
typedef void log_sink(void *ctx, enum log_level level, struct str tag, struct str text);

/* `name` is copied: "postfix/smtpd". The process id is added by the logger. */
void log_set_name(struct str name);
struct str log_tag(void);                     /* "postfix/smtpd[123]" */
void log_forked(void);                        /* in the child of a fork(): the process id is another */
void log_set_sink(log_sink *sink, void *ctx); /* NULL: standard error */
/* For the calling thread alone, until NULL: `text` comes without prefix and without tag. Sinks belong to the main
 * thread; a thread that may log keeps its records here until somebody there can write them. */
void log_set_thread_sink(log_sink *sink, void *ctx);
void log_set_verbose(int level); /* -v count */
int log_verbose(void);

void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Only when -v was given. */
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Logs and ends the process with status 1, as Postfix's programs do; log_set_fatal_status() for commands. */
_Noreturn void log_fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_set_fatal_status(int status);
/* Text that is already put together, e.g. from another program. */
void log_record(enum log_level level, struct str text);
struct str log_level_prefix(enum log_level level); /* "warning: " */
#endif
