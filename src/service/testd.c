/* testd - a daemon for the tests of master and of this skeleton: does what a line tells it to.
 *
 * One line, one answer. "pid", "uid", "name", "limit", "echo TEXT", "log TEXT", "open PATH", "hold" (until drained),
 * "thread" (works in one for ever), "crash", "exit N", "connect ENDPOINT LINE" (passes the line on and the answer
 * back), "trigger ENDPOINT BYTES", "dial TARGET LINE" (as connect). Wakeups and datagrams are logged. master.cf
 * arguments: "fail" (init fails), "multi", "dial=TARGET" (declared in init).
 */
#include "base/log.h"
#include "service/dial.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct cond drained;

static struct str word(struct str *line) {
    struct str w;
    return str_word(line, STR(" "), &w) ? w : STR("");
}

static void reply_open(struct io *io, struct str path) {
    char name[256];
    snprintf(name, sizeof name, "%.*s", STR_ARG(path));
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    io_printf(io, "%s\n", fd < 0 ? strerror(errno) : "opened");
    if (fd >= 0)
        close(fd);
}

static void reply_connect(struct service_ctx *ctx, struct io *io, struct str line) {
    struct ipc *ipc;
    struct str endpoint = word(&line), answer;
    error e = service_connect(ctx, endpoint, deadline_in(30), &ipc);
    if (e) {
        io_printf(io, "%s: %.*s\n", e->kind == ERR_PERM ? "denied" : "failed", STR_ARG(e->text));
        return;
    }
    struct io *other = ipc_into_io(ipc);
    io_printf(other, "%.*s\n", STR_ARG(str_trim(line)));
    e = io_line(other, 1000, deadline_in(30), &answer);
    io_printf(io, "%.*s\n", STR_ARG(e ? e->text : str_trim(answer)));
    io_close(other);
}

/* "inet:host:port" or a unix socket that init() has declared. */
static void reply_dial(struct service_ctx *ctx, struct io *io, struct str line) {
    struct arena *a = arena_new();
    struct dial_target to;
    struct io *other = NULL;
    struct str answer;
    error e = dial_parse(a, word(&line), &to);
    if (!e)
        e = dial(ctx, NULL, &to, deadline_in(30), &other);
    if (e) {
        io_printf(io, "%s: %.*s\n", e->kind == ERR_PERM ? "denied" : "failed", STR_ARG(e->text));
    } else {
        io_printf(other, "%.*s\n", STR_ARG(str_trim(line)));
        e = io_line(other, 1000, deadline_in(30), &answer);
        io_printf(io, "%.*s\n", STR_ARG(e ? e->text : str_trim(answer)));
    }
    io_close(other);
    arena_free(a);
}

static void libraries_end(void) {
    log_info("libraries end");
}

static void work(void *arg) {
    (void)arg;
    for (;;)
        poll(NULL, 0, -1);
}

static bool act(struct service_ctx *ctx, struct io *io, struct str line) {
    struct str verb = word(&line), rest = str_trim(line);
    if (str_eq(verb, STR("pid")))
        io_printf(io, "%d\n", (int)getpid());
    else if (str_eq(verb, STR("uid")))
        io_printf(io, "%u\n", (unsigned)geteuid());
    else if (str_eq(verb, STR("name")))
        io_printf(io, "%.*s\n", STR_ARG(ctx->name));
    else if (str_eq(verb, STR("limit")))
        io_printf(io, "%u\n", ctx->session_limit);
    else if (str_eq(verb, STR("echo")))
        io_printf(io, "%.*s\n", STR_ARG(rest));
    else if (str_eq(verb, STR("log")))
        log_info("%.*s", STR_ARG(rest));
    else if (str_eq(verb, STR("open")))
        reply_open(io, rest);
    else if (str_eq(verb, STR("crash")))
        abort();
    else if (str_eq(verb, STR("exit")))
        _exit(3);
    else if (str_eq(verb, STR("connect")))
        reply_connect(ctx, io, rest);
    else if (str_eq(verb, STR("dial")))
        reply_dial(ctx, io, rest);
    else if (str_eq(verb, STR("thread"))) {
        atexit(libraries_end);
        io_printf(io, "working\n");
        io_flush(io, deadline_in(10));
        offload(work, NULL);
    } else if (str_eq(verb, STR("hold"))) {
        io_printf(io, "holding\n");
        io_flush(io, deadline_in(10));
        while (!ctx->draining && !cond_wait(&drained, DEADLINE_NEVER))
            ;
        io_printf(io, "drained\n");
    } else if (str_eq(verb, STR("trigger"))) {
        struct str endpoint = word(&rest);
        service_trigger(ctx, endpoint, str_trim(rest));
        io_printf(io, "sent\n");
    } else
        return false;
    return true;
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    struct str line;
    (void)peer;
    (void)local;
    if (ctx->arg_count && str_eq(ctx->args[0], STR("wake")) && service_trigger_session(ctx, io))
        return;
    while (!io_line(io, 1000, DEADLINE_NEVER, &line) && act(ctx, io, str_trim(line)))
        ;
    io_flush(io, deadline_in(10));
}
static void datagram(struct service_ctx *ctx, struct str data) {
    (void)ctx;
    log_info("datagram %.*s", STR_ARG(data));
}
static void wakeup(struct service_ctx *ctx, struct str request) {
    (void)ctx;
    log_info("wakeup %.*s", STR_ARG(request));
}
static void drain(struct service_ctx *ctx) {
    (void)ctx;
    cond_broadcast(&drained);
}
static error init(struct service_ctx *ctx, struct arena *err_arena) {
    if (ctx->arg_count && str_eq(ctx->args[0], STR("fail")))
        return err_make(err_arena, ERR_CONFIG, "told to fail");
    for (size_t i = 0; i < ctx->arg_count; i++) {
        struct dial_target named;
        if (!str_starts(ctx->args[i], STR("dial=")))
            continue;
        error e = dial_parse(err_arena, str_from(ctx->args[i], 5), &named);
        if (e || (e = dial_declare(ctx, &named)))
            return e;
    }
    return NULL;
}

int main(int argc, char **argv) {
    const char *last = argc > 1 ? argv[argc - 1] : "";
    struct service s = {
        .program = "testd",
        .confine = CONFINE_READ_FILES,
        .init = init,
        .session = session,
        .datagram = datagram,
        .drain = drain,
    };
    if (strcmp(last, "wake") == 0 || strcmp(last, "trigger") == 0)
        s.wakeup = wakeup;
    if (strcmp(last, "trigger") == 0)
        s.session = NULL;
    if (strcmp(last, "empty") == 0) {
        s.empty_chroot = true;
        s.confine = CONFINE_NO_FILES;
    }
    s.multi_client = strcmp(last, "multi") == 0;
    return service_main(argc, argv, &s);
}
