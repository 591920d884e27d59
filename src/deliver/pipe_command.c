#include "deliver/pipe_command.h"

#include "base/log.h"
#include "base/utf8.h"
#include "mail/dsn.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { PATH_ROOM = 4096 };

/* --- in the child, which may share the parent's memory (child.h, execs) --- */
struct job {
    const struct pipe_command *command;
    int in_fd;     /* has the whole message; -1: it is still to be made */
    char **script; /* arguments of a shell, with room for the name of a program that it must run */
};

static _Noreturn void refuse(const struct job *j, int out_fd, const char *what, const char *name) {
    char text[PATH_ROOM + 200];
    int n = snprintf(text, sizeof text, "%s: fatal: %s %s: %s\n", j->command->program, what, name, strerror(errno));
    ssize_t written = write(out_fd, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    _exit(written < 0 ? EX_OSERR : EX_TEMPFAIL);
}

static void take_place(const struct job *j, int out_fd) {
    const struct pipe_command *c = j->command;
    if (c->chroot && (chroot(c->chroot) != 0 || chdir("/") != 0))
        refuse(j, out_fd, "cannot chroot to", c->chroot);
    if (!child_become(c->uid, c->gid))
        refuse(j, out_fd, "cannot act as the user of", c->argv[0]);
    if (chdir(c->directory) != 0)
        refuse(j, out_fd, "cannot change directory to", c->directory);
    umask(077);
    if (c->file_limit) {
        const struct rlimit limit = { (rlim_t)c->file_limit, (rlim_t)c->file_limit };
        setrlimit(RLIMIT_FSIZE, &limit);
        signal(SIGXFSZ, SIG_IGN); /* it gets EFBIG */
    }
}

/* As execvp(3), whose own look at PATH would be at ours. */
static void execute(const struct job *j, char *path) {
    execve(path, j->command->argv, j->command->envp);
    if (errno != ENOEXEC)
        return;
    j->script[1] = path;
    execve("/bin/sh", j->script, j->command->envp);
}

static void execute_in_path(const struct job *j) {
    struct str path = STR("/usr/bin:/bin"), dir;
    for (char **var = j->command->envp; *var; var++)
        if (strncmp(*var, "PATH=", 5) == 0)
            path = str_c(*var + 5);
    bool denied = false;
    while (path.n) {
        char name[PATH_ROOM];
        ptrdiff_t colon = str_index(path, ':');
        dir = colon < 0 ? path : str_sub(path, 0, (size_t)colon);
        path = colon < 0 ? STR("") : str_from(path, (size_t)colon + 1);
        int n = snprintf(name, sizeof name, "%.*s/%s", STR_ARG(dir), j->command->argv[0]);
        if (!dir.n || n < 0 || (size_t)n >= sizeof name)
            continue;
        execute(j, name);
        denied |= errno == EACCES;
        if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
            return;
    }
    errno = denied ? EACCES : ENOENT;
}

static _Noreturn void start(const struct job *j, int in_fd, int out_fd) {
    const struct pipe_command *c = j->command;
    if (dup2(in_fd, STDIN_FILENO) < 0 || dup2(out_fd, STDOUT_FILENO) < 0 || dup2(out_fd, STDERR_FILENO) < 0)
        _exit(EX_OSERR);
    close_range(STDERR_FILENO + 1, ~0U, 0);
    signal(SIGPIPE, SIG_DFL);
    if (strchr(c->argv[0], '/'))
        execute(j, c->argv[0]);
    else
        execute_in_path(j);
    refuse(j, STDERR_FILENO, "execvp", c->argv[0]);
}

/* A command may end without having read everything: that is its business. */
static bool put_pipe(void *to, struct str s) {
    const int *fd = to;
    while (s.n) {
        ssize_t n = write(*fd, s.p, s.n);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            s = str_from(s, (size_t)n);
    }
    return true;
}

/* A message that a pipe does not hold needs a process that writes while the command reads. */
static int feed(const struct job *j, int out_fd) {
    int ends[2];
    if (pipe(ends) != 0)
        return EX_TEMPFAIL;
    pid_t pid = fork();
    if (pid < 0)
        return EX_TEMPFAIL;
    if (pid == 0) {
        close(ends[1]);
        start(j, ends[0], out_fd);
    }
    close(ends[0]);
    close(out_fd); /* so that the parent sees the end when the command closes its own */
    bool whole = j->command->message(j->command->arg, put_pipe, &ends[1]);
    if (!whole)
        kill(pid, SIGKILL);
    close(ends[1]);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return EX_TEMPFAIL;
    if (!whole)
        return EX_TEMPFAIL;
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
        return EX_TEMPFAIL;
    }
    return WEXITSTATUS(status);
}

static int run(void *arg, int out_fd) {
    const struct job *j = arg;
    take_place(j, out_fd);
    if (j->in_fd < 0)
        return feed(j, out_fd);
    start(j, j->in_fd, out_fd);
}

/* --- in the parent --- */
static bool put_buf(void *to, struct str piece) {
    buf_add(to, piece);
    return true;
}

/* The reading end of a pipe that holds the whole message; -1: it must be fed. */
static int filled_pipe(const struct pipe_command *c) {
    if (c->size > PIPE_COMMAND_BUFFERED)
        return -1;
    int ends[2], fd = -1;
    struct buf b = { 0 };
    if (c->message(c->arg, put_buf, &b) && pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) {
        fd = ends[0];
        if (b.n > 0 && write(ends[1], b.p, b.n) != (ssize_t)b.n) { /* what is too long is not written in part */
            close(fd);
            fd = -1;
        }
        close(ends[1]);
    }
    buf_free(&b);
    if (fd >= 0)
        fcntl(fd, F_SETFL, 0); /* the command's end must wait as any other pipe's */
    return fd;
}

error pipe_command_run(const struct pipe_command *c, struct arena *a, struct child_result *ret) {
    size_t n = 0;
    while (c->argv[n])
        n++;
    struct job job = { .command = c, .in_fd = filled_pipe(c), .script = arena_array(a, n + 2, sizeof(char *)) };
    job.script[0] = arena_cstr(a, STR("sh"));
    for (size_t i = 1; i < n; i++)
        job.script[i + 1] = c->argv[i];
    const struct child child = {
        .uid = c->uid,
        .gid = c->gid,
        .stay_root = geteuid() == 0,
        .keep_fd = job.in_fd >= 0 ? job.in_fd : c->message_fd,
        .deadline = c->deadline,
        .run = run,
        .arg = &job,
        .execs = job.in_fd >= 0,
    };
    error e = child_run(&child, a, ret);
    if (job.in_fd >= 0)
        close(job.in_fd);
    return e;
}

/* --- what it means --- */
static const struct {
    int status;
    const char *dsn, *text;
} statuses[] = {
    { EX_USAGE, "5.3.0", "command line usage error" },    { EX_DATAERR, "5.6.0", "data format error" },
    { EX_NOINPUT, "5.3.0", "cannot open input" },         { EX_NOUSER, "5.1.1", "user unknown" },
    { EX_NOHOST, "5.1.2", "host name unknown" },          { EX_UNAVAILABLE, "5.3.0", "service unavailable" },
    { EX_SOFTWARE, "5.3.0", "internal software error" },  { EX_OSERR, "4.3.0", "system resource problem" },
    { EX_OSFILE, "5.3.0", "critical OS file missing" },   { EX_CANTCREAT, "5.2.0", "can't create user output file" },
    { EX_IOERR, "5.3.0", "input/output error" },          { EX_TEMPFAIL, "4.3.0", "temporary failure" },
    { EX_PROTOCOL, "5.5.0", "remote error in protocol" }, { EX_NOPERM, "5.7.0", "permission denied" },
    { EX_CONFIG, "5.3.5", "local configuration error" },
};

bool pipe_command_status(int status, struct str *ret_dsn, struct str *ret_text) {
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i].status == status) {
            *ret_dsn = str_c(statuses[i].dsn);
            *ret_text = str_c(statuses[i].text);
            return true;
        }
    return false;
}

/* On one line: white space becomes blanks; other control bytes, and what is not UTF-8, '_'. */
static struct str one_line(struct arena *a, struct str output) {
    struct buf b = { 0 };
    for (size_t i = 0; i < output.n && b.n < PIPE_COMMAND_OUTPUT;) {
        size_t n = utf8_length(str_from(output, i));
        if (n > 1 && b.n + n > PIPE_COMMAND_OUTPUT)
            break;
        if (n > 1)
            buf_add(&b, str_sub(output, i, n));
        else
            buf_byte(&b, byte_is_print(output.p[i]) ? output.p[i] : byte_is_space(output.p[i]) ? ' ' : '_');
        i += n > 1 ? n : 1;
    }
    struct str s = arena_str(a, buf_str(&b));
    buf_free(&b);
    return s;
}

static struct str failure_text(struct arena *a, const struct child_result *result, struct str name, struct str *dsn) {
    if (result->timed_out) {
        *dsn = STR("5.3.0");
        return arena_printf(a, "Command time limit exceeded: \"%.*s\"", STR_ARG(name));
    }
    if (result->signal) {
        *dsn = STR("4.3.0");
        return arena_printf(a, "Command died with signal %d: \"%.*s\"", result->signal, STR_ARG(name));
    }
    struct str text;
    if (pipe_command_status(result->status, dsn, &text))
        return text;
    *dsn = STR("5.3.0");
    return arena_printf(a, "Command died with status %d: \"%.*s\"", result->status, STR_ARG(name));
}

void pipe_command_verdict(struct arena *a, const struct child_result *result, struct str name, struct agent_status *ret,
                          struct str *ret_output) {
    struct str output = one_line(a, result->output), dsn, text;
    *ret_output = output;
    bool exited = !result->timed_out && !result->signal;
    if (exited && result->status == 0) {
        ret->dsn = STR("2.0.0");
        ret->reason = STR("");
        return;
    }
    ret->reason = failure_text(a, result, name, &ret->dsn);
    dsn_split(output, STR(""), &dsn, &text);
    if (exited && dsn_status_length(output)) { /* the command knows better than its exit status */
        if (dsn.p[0] == '2') {
            log_warn("command %.*s failed: ignoring its status code %.*s", STR_ARG(name), STR_ARG(dsn));
            dsn = STR("5.0.0");
        }
        ret->dsn = dsn;
        ret->reason = output = text;
    } else if (output.n) {
        ret->reason = arena_printf(a, "%.*s. Command output: %.*s", STR_ARG(ret->reason), STR_ARG(output));
    }
    if (output.n) {
        ret->diagnostic_type = STR("x-unix");
        ret->diagnostic = output;
    }
}
