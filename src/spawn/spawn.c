/* spawn.c - spawn(8): runs a program for each connection, as its standard input, output and error. */
#include "base/log.h"
#include "deliver/child.h"
#include "deliver/environment.h"
#include "service/service.h"
#include "spawn/attributes.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

static struct {
    struct arena *arena;
    struct spawn_attributes attributes;
    char **environment;
    int64_t time_limit; /* seconds */
} spawn;

static error spawn_init(struct service_ctx *ctx, struct arena *err_arena) {
    spawn.arena = arena_new();
    spawn.time_limit = conf_service_time(ctx->conf, ctx->name, STR("_time_limit"));
    struct environment env = { .arena = spawn.arena };
    environment_add(&env, "PATH", STR("/usr/bin:/bin"));
    environment_export(&env, conf_str(ctx->conf, PARAM_export_environment));
    spawn.environment = environment_end(&env);
    error e = spawn_attributes_parse(spawn.arena, ctx->args, ctx->arg_count, geteuid() == 0, ctx->mail_uid,
                                     ctx->mail_gid, &spawn.attributes);
    return e ? err_make(err_arena, ERR_CONFIG, "service %.*s: %.*s", STR_ARG(ctx->name), STR_ARG(e->text)) : NULL;
}

/* In the child. `out_fd` stays open in the command: when it is closed, the command has ended. */
static int run(void *arg, int out_fd) {
    int fd = *(int *)arg;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 || fcntl(out_fd, F_SETFD, 0) < 0)
        return EX_OSERR;
    for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
        if (dup2(fd, i) < 0)
            return EX_OSERR;
    close(fd);
    signal(SIGPIPE, SIG_DFL);
    execve(spawn.attributes.argv[0], spawn.attributes.argv, spawn.environment);
    dprintf(out_fd, "%s", strerror(errno));
    return EX_UNAVAILABLE;
}

static void spawn_session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer,
                          const struct endpoint *local) {
    (void)ctx, (void)peer, (void)local;
    const char *command = spawn.attributes.argv[0];
    int fd = io_fd(io);
    struct child_result result;
    const struct child child = { .uid = spawn.attributes.as.uid,
                                 .gid = spawn.attributes.as.gid,
                                 .keep_fd = fd,
                                 .deadline = deadline_in(spawn.time_limit),
                                 .run = run,
                                 .arg = &fd };
    struct arena *a = arena_new();
    error e = child_run(&child, a, &result);
    if (e && e != &err_cancelled)
        log_warn("command %s: %.*s", command, STR_ARG(e->text));
    else if (!e && result.timed_out)
        log_warn("command %s: killed after its time limit of %lld seconds (%.*s_time_limit)", command,
                 (long long)spawn.time_limit, STR_ARG(ctx->name));
    else if (!e && result.signal)
        log_warn("command %s killed by signal %d", command, result.signal);
    else if (!e && result.status == CHILD_EXIT_RIGHTS)
        log_warn("command %s: cannot take the rights of the user that master.cf names", command);
    else if (!e && result.output.n)
        log_warn("command %s cannot be run: %.*s", command, STR_ARG(result.output));
    else if (!e && result.status)
        log_warn("command %s exit status %d", command, result.status);
    arena_free(a);
}

int main(int argc, char **argv) {
    static const struct service service = {
        .program = "spawn", .confine = CONFINE_EXEC, .root = true, .init = spawn_init, .session = spawn_session
    };
    return service_main(argc, argv, &service);
}
