#include "base/log.h"

#include "base/buf.h"
#include "base/die.h"
#include "base/format.h"
#include <stdio.h>
#include <unistd.h>

enum { PREFIX_MAX = 16, UTF8_MAX = 4 };

static struct {
    char name[128], tag[160];
    size_t tag_n; /* 0: to be made, with the process id of today */
    log_sink *sink;
    void *ctx;
    int verbose, fatal_status;
} logger = { .name = "postfix", .fatal_status = 1 };

/* Memory of the thread and not of the stack: a coroutine that logs once must not have touched pages for it. */
static _Thread_local struct {
    bool busy; /* a sink that logs must not come back here (no endless recursion) */
    log_sink *sink;
    void *ctx;
    char text[LOG_LINE_MAX + UTF8_MAX], line[PREFIX_MAX + LOG_LINE_MAX + 1];
} thread;

void log_set_name(struct str name) {
    snprintf(logger.name, sizeof logger.name, "%.*s", STR_ARG(name));
    logger.tag_n = 0;
}
void log_forked(void) {
    logger.tag_n = 0;
}
struct str log_tag(void) {
    if (logger.tag_n == 0) {
        int n = snprintf(logger.tag, sizeof logger.tag, "%s[%d]", logger.name, (int)getpid());
        logger.tag_n = n > 0 ? (size_t)n : 0;
    }
    return str_n(logger.tag, logger.tag_n);
}
void log_set_verbose(int level) {
    logger.verbose = level;
}
int log_verbose(void) {
    return logger.verbose;
}
void log_set_fatal_status(int status) {
    logger.fatal_status = status;
}

static void panic_hook(const char *text) {
    log_record(LOG_LEVEL_PANIC, str_c(text));
}

void log_set_sink(log_sink *sink, void *ctx) {
    logger.sink = sink;
    logger.ctx = ctx;
    die_set_hook(panic_hook);
}

void log_set_thread_sink(log_sink *sink, void *ctx) {
    thread.sink = sink;
    thread.ctx = ctx;
}

struct str log_level_prefix(enum log_level level) {
    static const struct str prefix[] = { STR_INIT(""), STR_INIT("warning: "), STR_INIT("error: "), STR_INIT("fatal: "),
                                         STR_INIT("panic: ") };
    return prefix[level];
}

/* `busy` is set by the caller. */
static void pass_on(enum log_level level, struct str text) {
    if (thread.sink) {
        thread.sink(thread.ctx, level, STR(""), text);
        return;
    }
    struct buf line = { .p = thread.line, .room = sizeof thread.line }; /* never more: it does not grow */
    buf_add(&line, log_level_prefix(level));
    buf_printable(&line, text, LOG_LINE_MAX);
    if (logger.sink)
        logger.sink(logger.ctx, level, log_tag(), buf_str(&line));
    else
        fprintf(stderr, "%s: %.*s\n", logger.name, STR_ARG(buf_str(&line)));
}

void log_record(enum log_level level, struct str text) {
    if (thread.busy)
        return;
    thread.busy = true;
    pass_on(level, text);
    thread.busy = false;
}

__attribute__((format(printf, 2, 0))) static void log_v(enum log_level level, const char *format, va_list ap) {
    if (thread.busy)
        return;
    thread.busy = true;
    int n = format_v(thread.text, sizeof thread.text, format, ap);
    size_t most = sizeof thread.text - 1;
    pass_on(level, n < 0 ? str_c(format) : str_n(thread.text, (size_t)n < most ? (size_t)n : most));
    thread.busy = false;
}

#define LOG_WITH(level)                                                                                                \
    va_list ap;                                                                                                        \
    va_start(ap, format);                                                                                              \
    log_v(level, format, ap);                                                                                          \
    va_end(ap)

void log_info(const char *format, ...) {
    LOG_WITH(LOG_LEVEL_INFO);
}
void log_warn(const char *format, ...) {
    LOG_WITH(LOG_LEVEL_WARN);
}
void log_error(const char *format, ...) {
    LOG_WITH(LOG_LEVEL_ERROR);
}
void log_debug(const char *format, ...) {
    if (!logger.verbose)
        return;
    LOG_WITH(LOG_LEVEL_INFO);
}
void log_fatal(const char *format, ...) {
    LOG_WITH(LOG_LEVEL_FATAL);
    /* Nothing is freed and no library's exit handler runs: the program gives up where it stands, maybe in a child. What
     * it has printed still goes out. */
    fflush(NULL);
    _exit(logger.fatal_status);
}
