#include "deliver/child.h"

#include "base/buf.h"
#include "run/coro.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Descriptors of other sessions must not live on in here. */
static void close_others(int a, int b) {
    int low = a < b ? a : b, high = a < b ? b : a;
    unsigned from = STDERR_FILENO + 1;
    if (low >= (int)from) {
        if (low > (int)from)
            close_range(from, (unsigned)low - 1, 0);
        from = (unsigned)low + 1;
    }
    if (high >= (int)from) {
        if (high > (int)from)
            close_range(from, (unsigned)high - 1, 0);
        from = (unsigned)high + 1;
    }
    close_range(from, ~0U, 0);
}

static _Noreturn void child_main(const struct child *c, int out_fd) {
    setpgid(0, 0);
    for (int signo = 1; signo < NSIG; signo++)
        signal(signo, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* what the user's mail looks like must not end in a file */
    const struct rlimit no_core = { 0, 0 };
    setrlimit(RLIMIT_CORE, &no_core);
    close_others(c->keep_fd, out_fd);
    if (!c->stay_root && !child_become(c->uid, c->gid))
        _exit(CHILD_EXIT_RIGHTS);
    _exit(c->run(c->arg, out_fd));
}

/* Read until the child closes its end. */
static error collect(int fd, int64_t deadline, size_t max, struct buf *out) {
    char bytes[4096];
    for (;;) {
        ssize_t n = sys->read(fd, bytes, sizeof(bytes));
        if (n == 0)
            return NULL;
        if (n > 0) {
            size_t room = max - out->n;
            buf_add(out, str_n(bytes, (size_t)n < room ? (size_t)n : room));
            if (sys->mono_us() >= deadline) /* it writes faster than we read */
                return &err_timeout;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return err_errno(errno);
        error e = wait_readable(fd, deadline);
        if (e)
            return e;
    }
}

/* The child has closed its output or has been killed, so this is mostly over at the first look. */
static error reap(pid_t pid, int64_t deadline, int *ret_status) {
    enum { FIRST_US = 500, LAST_US = 100000 };
    int64_t pause = FIRST_US;
    for (;;) {
        pid_t got = waitpid(pid, ret_status, WNOHANG);
        if (got == pid)
            return NULL;
        if (got < 0 && errno != EINTR)
            return err_errno(errno);
        int64_t next = deadline_in_us(pause);
        if (next > deadline)
            return &err_timeout;
        error e = wait_until(next);
        if (e)
            return e;
        if (pause < LAST_US)
            pause *= 2;
    }
}

/* --- start --- */
struct start {
    const struct child *c;
    int out_fd;
    _Atomic pid_t pid; /* 0: not yet, -1: failed */
    int code;          /* errno then */
    bool back;
};

static void kill_all(pid_t pid) {
    if (pid <= 0)
        return;
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
}

/* In a thread, which the kernel stops until the program runs: a home on a server that does not answer stops no others.
 */
static void start_program(void *arg) {
    struct start *s = arg;
    pid_t pid = vfork(); /* NOLINT: what is allowed in between is in child.h */
    if (pid == 0) {
        s->pid = getpid();           /* NOLINT(clang-analyzer-unix.Vfork) */
        child_main(s->c, s->out_fd); /* NOLINT(clang-analyzer-unix.Vfork) */
    }
    s->code = errno;
    s->pid = pid;
}

static void came_back(void *arg) {
    ((struct start *)arg)->back = true;
}

/* &err_timeout: it has a pid all the same, and has been killed. */
static error start(struct start *s) {
    if (!s->c->execs) {
        pid_t pid = fork();
        if (pid == 0)
            child_main(s->c, s->out_fd);
        s->code = errno;
        s->pid = pid;
    } else if (!offload_until(start_program, s, came_back, s->c->deadline)) {
        int old = coro_shield(1);
        while (!s->back) {
            kill_all(s->pid);
            wait_until(deadline_in_us(1000));
        }
        coro_shield(old);
        return s->pid > 0 ? &err_timeout : err_errno(s->code);
    }
    if (s->pid < 0)
        return err_errno(s->code);
    setpgid(s->pid, s->pid); /* both sides, so that a kill can never come too early */
    return NULL;
}

error child_run(const struct child *c, struct arena *a, struct child_result *ret) {
    *ret = (struct child_result){ .output = STR("") };
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_errno(errno);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    struct start s = { .c = c, .out_fd = ends[1] };
    error e = start(&s);
    pid_t pid = s.pid;
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return e;
    }
    struct buf out = { 0 };
    int status = 0;
    if (!e)
        e = collect(ends[0], c->deadline, c->output_max ? c->output_max : CHILD_OUTPUT_MAX, &out);
    if (!e)
        e = reap(pid, c->deadline, &status);
    if (e) {
        kill_all(pid);
        int old = coro_shield(1);
        reap(pid, DEADLINE_NEVER, &status);
        coro_shield(old);
    }
    close(ends[0]);
    ret->output = arena_str(a, buf_str(&out));
    buf_free(&out);
    if (e == &err_timeout) {
        ret->timed_out = true;
        e = NULL;
    }
    if (WIFSIGNALED(status))
        ret->signal = WTERMSIG(status);
    else
        ret->status = WEXITSTATUS(status);
    return e;
}
