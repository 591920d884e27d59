/* postlogd(8): the one writer of maillog_file.
 *
 * Every local program of the mail system may send lines here (anybody who may enter public/), so a line is bytes and no
 * more: cut at POSTLOGD_LINE_MAX, made printable, written whole. Lines are held for a moment and written in the order
 * they were made, many by one call (held.h); a warning is written as it comes, with all that are older. Whether there
 * is a file or not changes nothing in how datagrams are read: what comes when maillog_file is empty, from a program
 * that has not seen the change yet, goes to syslog. */
#include "base/log.h"
#include "postlogd/held.h"
#include "postlogd/line.h"
#include "service/log_datagram.h"
#include "service/logging.h"
#include "service/service.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static struct {
    int fd; /* -1: no maillog_file */
    unsigned watchdog;
    bool failed;
    bool cut;    /* the last write ended within a line */
    bool urgent; /* a line that was just read */
    struct buf line, out;
    struct held held;
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

/* --- writing --- */

/* All of it or an error; `*ret_rest` is what was not written. */
static bool write_out(struct str s, struct str *ret_rest) {
    while (s.n) {
        ssize_t n = write(state.fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        s = str_from(s, (size_t)n);
    }
    *ret_rest = s;
    return s.n == 0;
}

static void write_until(int64_t until_us) {
    buf_clear(&state.out);
    if (state.cut) /* what there is of the cut line stays a line of its own */
        buf_byte(&state.out, '\n');
    size_t before = state.out.n;
    held_take(&state.held, until_us, &state.out);
    if (state.out.n == before)
        return;
    struct str rest;
    /* A file system that hangs would hold up every process that logs: better a new process than none. */
    alarm(state.watchdog);
    bool ok = write_out(buf_str(&state.out), &rest);
    alarm(0);
    if (!ok && !state.failed)
        dprintf(STDERR_FILENO, "postlogd: write to the log file: %s\n", strerror(errno));
    state.failed = !ok;
    size_t written = state.out.n - rest.n;
    if (written)
        state.cut = state.out.p[written - 1] != '\n';
    if (state.out.room > HELD_BYTES_MAX)
        buf_free(&state.out);
}

static void drain(struct service_ctx *ctx) {
    (void)ctx;
    write_until(INT64_MAX);
}

/* --- reading --- */

static void take(struct str text, int64_t made_us) {
    buf_clear(&state.line);
    postlogd_line(text, &state.line);
    struct str line = buf_str(&state.line);
    if (line.n == 0)
        return;
    if (state.fd >= 0)
        held_add(&state.held, line, made_us, sys->wall_us());
    else
        log_record(LOG_LEVEL_INFO, postlogd_strip(line));
}

static void datagram(struct service_ctx *ctx, struct str data) {
    (void)ctx;
    struct unpack u;
    bool urgent = false;
    if (log_datagram_open(data, &u, &urgent)) {
        int64_t made_us;
        struct str line;
        while (log_datagram_next(&u, &made_us, &line))
            take(line, made_us);
    } else {
        take(data, INT64_MAX);
    }
    if (urgent)
        state.urgent = true;
    if (held_is_full(&state.held))
        write_until(INT64_MAX);
}

static int64_t datagrams_read(struct service_ctx *ctx) {
    int64_t now = sys->wall_us(), left = held_due(&state.held) - now;
    if (state.urgent || ctx->draining || left > HELD_US /* the clock was set back */)
        write_until(INT64_MAX);
    else if (left <= 0)
        write_until(now - HELD_FRESH_US);
    state.urgent = false;
    return state.held.count ? held_due(&state.held) - now : 0;
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "postlogd",
        .confine = CONFINE_NO_FILES | CONFINE_NO_NETWORK,
        .resident = true,
        .init = init,
        .datagram = datagram,
        .datagrams_read = datagrams_read,
        .drain = drain,
    };
    return service_main(argc, argv, &s);
}
