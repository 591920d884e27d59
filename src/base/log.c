#include "base/log.h"

#include "base/buf.h"
#include "base/die.h"
#include <stdio.h>
#include <unistd.h>

static struct {
    char name[128];
    log_sink *sink;
    void *ctx;
    int verbose, fatal_status;
} logger = { .name = "postfix", .fatal_status = 1 };

static _Thread_local bool busy; /* a sink that logs must not come back here (no endless recursion) */
static _Thread_local struct {
    log_sink *sink;
    void *ctx;
} of_thread;

void log_set_name(struct str name) {
    snprintf(logger.name, sizeof logger.name, "%.*s", STR_ARG(name));
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
    of_thread.sink = sink;
    of_thread.ctx = ctx;
}

struct str log_level_prefix(enum log_level level) {
    static const struct str prefix[] = { STR_INIT(""), STR_INIT("warning: "), STR_INIT("error: "), STR_INIT("fatal: "),
                                         STR_INIT("panic: ") };
    return prefix[level];
}

void log_record(enum log_level level, struct str text) {
    if (busy)
        return;
    busy = true;
    struct buf line = { 0 };
    buf_add(&line, log_level_prefix(level));
    buf_printable(&line, text, LOG_LINE_MAX);
    if (of_thread.sink) {
        of_thread.sink(of_thread.ctx, level, STR(""), text);
    } else if (logger.sink) {
        char tag[160];
        int n = snprintf(tag, sizeof tag, "%s[%d]", logger.name, (int)getpid());
        logger.sink(logger.ctx, level, str_n(tag, n > 0 ? (size_t)n : 0), buf_str(&line));
    } else {
        fprintf(stderr, "%s: %.*s\n", logger.name, STR_ARG(buf_str(&line)));
    }
    buf_free(&line);
    busy = false;
}

__attribute__((format(printf, 2, 0))) static void log_v(enum log_level level, const char *format, va_list ap) {
    struct buf text = { 0 };
    buf_vprintf(&text, format, ap);
    log_record(level, buf_str(&text));
    buf_free(&text);
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
