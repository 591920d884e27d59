/* postlogd(8): the one writer of maillog_file.
 *
 * Every local program of the mail system may send lines here (anybody who may enter public/), so a line is bytes and no
 * more: cut at the datagram's length, made printable, written whole. Whether there is a file or not changes nothing in
 * how it is read: what comes when maillog_file is empty, from a program that has not seen the change yet, goes to
 * syslog. */
#include "base/log.h"
#include "postlogd/line.h"
#include "service/logging.h"
#include "service/service.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static struct {
    int fd; /* -1: no maillog_file */
    unsigned watchdog;
    bool failed;
    struct buf line;
} state = { .fd = -1 };

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    /* our own lines must not wait for ourselves to read them */
    error e = logging_start(ctx->conf, ctx->program, LOGGING_DIRECT, err_arena);
    if (e)
        return e;
    state.watchdog = (unsigned)conf_time(ctx->conf, PARAM_postlogd_watchdog_timeout);
    if (conf_str(ctx->conf, PARAM_maillog_file).n)
        return logging_open_file(ctx->conf, err_arena, &state.fd);
    return NULL;
}

static void datagram(struct service_ctx *ctx, struct str data) {
    (void)ctx;
    buf_clear(&state.line);
    postlogd_line(data, &state.line);
    if (state.line.n == 0)
        return;
    if (state.fd < 0) {
        log_record(LOG_LEVEL_INFO, postlogd_strip(buf_str(&state.line)));
        return;
    }
    buf_byte(&state.line, '\n');
    /* A file system that hangs would hold up every process that logs: better a new process than none. */
    alarm(state.watchdog);
    bool ok = write(state.fd, state.line.p, state.line.n) == (ssize_t)state.line.n;
    alarm(0);
    if (!ok && !state.failed)
        dprintf(STDERR_FILENO, "postlogd: write to the log file: %s\n", strerror(errno));
    state.failed = !ok;
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "postlogd",
        .confine = CONFINE_NO_FILES | CONFINE_NO_NETWORK,
        .resident = true,
        .init = init,
        .datagram = datagram,
    };
    return service_main(argc, argv, &s);
}
