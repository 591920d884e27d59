/* postfix logrotate: set maillog_file aside under a name with the time in it, then compress that. */
#include "base/buf.h"
#include "base/log.h"
#include "cmd/child.h"
#include "cmd/postfix.h"
#include "cmd/running.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
    SUFFIX_MAX = 256,
    REOPEN_US = 1000000, /* for the log daemon to open the file anew: the last line goes into the old one */
};

_Noreturn static void rotation_failed(struct str file, const char *why) {
    log_fatal("logfile '%.*s' rotation failed: %s", STR_ARG(file), why);
}

/* The format is main.cf's, for strftime() alone. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static size_t add_time(char *to, size_t room, const char *format) {
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    return strftime(to, room, format, &tm);
}
#pragma GCC diagnostic pop

int postfix_logrotate(const struct postfix_command *m) {
    struct str file = conf_str(m->c, PARAM_maillog_file), suffix = conf_str(m->c, PARAM_maillog_file_rotate_suffix);
    if (file.n == 0)
        log_fatal("empty 'maillog_file' parameter value - logfile rotation failed");
    if (str_starts(file, STR("/dev/")))
        log_fatal("not rotating '%.*s'", STR_ARG(file));
    char stamp[SUFFIX_MAX];
    if (add_time(stamp, sizeof stamp, suffix.p) == 0 || strchr(stamp, '/'))
        rotation_failed(file, "bad maillog_file_rotate_suffix");
    struct buf name = { 0 };
    buf_printf(&name, "%.*s.%s", STR_ARG(file), stamp);
    if (access(name.p, F_OK) == 0)
        rotation_failed(file, "the name is taken");
    if (rename(file.p, name.p) < 0)
        rotation_failed(file, strerror(errno));
    pid_t pid = master_pid_of(m->c);
    if (pid > 0 && kill(pid, SIGHUP) == 0)
        usleep(REOPEN_US);
    struct str compressor = conf_str(m->c, PARAM_maillog_file_compressor);
    struct arena *a = arena_new();
    if (child_command(m->c, (char *const[]){ arena_cstr(a, compressor), name.p, NULL }) != 0)
        log_warn("logfile '%.*s': %.*s %s failed", STR_ARG(file), STR_ARG(compressor), name.p);
    arena_free(a);
    buf_free(&name);
    return 0;
}
