#include "run/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Descriptors from `first` on do not survive exec. */
static void cloexec_from(unsigned first) {
    if (close_range(first, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
        return;
    /* kernels before 5.11 */
    struct rlimit limit = { 0 };
    unsigned end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536 ? (unsigned)limit.rlim_cur : 65536;
    for (unsigned fd = first; fd < end; fd++)
        fcntl((int)fd, F_SETFD, FD_CLOEXEC);
}

static void signals_to_default(void) {
    for (int signo = 1; signo < NSIG; signo++)
        signal(signo, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The child's half. Only async-signal-safe calls: other threads of the parent may hold any lock. */
_Noreturn static void child(const struct worker_start *w, int report, int *moved) {
    /* Sources go above every target first, so that no dup2() below can hit one that is still needed. */
    int above = WORKER_FD_LISTEN + (int)w->listen_count + 1;
    int std[3] = { w->stdin_fd, w->stdout_fd, w->stderr_fd };
    report = fcntl(report, F_DUPFD_CLOEXEC, above);
    if (report < 0)
        _exit(127);
    for (int i = 0; i < 3; i++) {
        if (std[i] >= 0)
            std[i] = fcntl(std[i], F_DUPFD_CLOEXEC, above);
        else if (i < 2)
            std[i] = fcntl(open("/dev/null", O_RDWR | O_CLOEXEC), F_DUPFD_CLOEXEC, above);
        else
            std[i] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, above);
        if (std[i] < 0 && i == 2 && w->stderr_fd < 0) /* the parent has none either */
            std[i] = fcntl(open("/dev/null", O_RDWR | O_CLOEXEC), F_DUPFD_CLOEXEC, above);
        if (std[i] < 0)
            goto failed;
    }
    int control = -1;
    if (w->control_fd >= 0 && (control = fcntl(w->control_fd, F_DUPFD_CLOEXEC, above)) < 0)
        goto failed;
    for (size_t i = 0; i < w->listen_count; i++)
        if ((moved[i] = fcntl(w->listen_fds[i], F_DUPFD_CLOEXEC, above)) < 0)
            goto failed;
    for (int i = 0; i < 3; i++)
        if (dup2(std[i], i) < 0)
            goto failed;
    if (control >= 0 && dup2(control, WORKER_FD_CONTROL) < 0)
        goto failed;
    for (size_t i = 0; i < w->listen_count; i++)
        if (dup2(moved[i], WORKER_FD_LISTEN + (int)i) < 0)
            goto failed;
    cloexec_from(WORKER_FD_LISTEN + (unsigned)w->listen_count);
    if (control < 0)
        fcntl(WORKER_FD_CONTROL, F_SETFD, FD_CLOEXEC);
    if (w->directory && chdir(w->directory) < 0)
        goto failed;
    signals_to_default();
    execve(w->path, w->argv, w->envp);
failed:;
    int why = errno;
    ssize_t sent = write(report, &why, sizeof why);
    _exit(sent == sizeof why ? 127 : 126);
}

error worker_start(const struct worker_start *w, pid_t *ret_pid) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0)
        return err_errno(errno);
    int *moved = calloc(w->listen_count + 1, sizeof *moved);
    if (!moved) {
        close(report[0]);
        close(report[1]);
        return err_errno(ENOMEM);
    }
    /* No handler of ours may run in the child before it has put the signals back. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = fork();
    int fork_errno = errno;
    if (pid == 0)
        child(w, report[1], moved);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    free(moved);
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return err_errno(fork_errno);
    }
    /* End of file: exec has closed the other end. */
    int why = 0;
    ssize_t n;
    do
        n = read(report[0], &why, sizeof why);
    while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n == (ssize_t)sizeof why) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return err_errno(why);
    }
    *ret_pid = pid;
    return NULL;
}
