#include "run/loop.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Signals come in by a descriptor, between two rounds of the loop: no code of ours ever runs in a handler. */

static struct {
    void (*fn)(int signo, void *arg);
    void *arg;
} handlers[NSIG];
static sigset_t handled;
static int signal_fd = -1;

static void signals_read(void) {
    struct signalfd_siginfo info[16];
    ssize_t n;
    while ((n = read(signal_fd, info, sizeof info)) > 0) {
        for (size_t i = 0; i < (size_t)n / sizeof info[0]; i++) {
            uint32_t signo = info[i].ssi_signo;
            if (signo < NSIG && handlers[signo].fn)
                handlers[signo].fn((int)signo, handlers[signo].arg);
        }
    }
}

error loop_on_signal(int signo, void (*fn)(int signo, void *arg), void *arg) {
    if (signo <= 0 || signo >= NSIG)
        return err_errno(EINVAL);
    if (signal_fd < 0)
        sigemptyset(&handled);
    sigset_t wanted = handled;
    sigaddset(&wanted, signo);
    /* blocked first: one that arrives now waits in the kernel for the descriptor */
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signo);
    if (sigprocmask(SIG_BLOCK, &one, NULL))
        return err_errno(errno);
    int fd = signalfd(signal_fd, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return err_errno(errno);
    if (signal_fd < 0) {
        error e = loop_watch(fd, signals_read);
        if (e) {
            close(fd);
            return e;
        }
        signal_fd = fd;
    }
    handled = wanted;
    handlers[signo].fn = fn;
    handlers[signo].arg = arg;
    return NULL;
}

void signal_free(void) {
    if (signal_fd < 0)
        return;
    loop_unwatch(signal_fd);
    close(signal_fd);
    signal_fd = -1;
    sigprocmask(SIG_UNBLOCK, &handled, NULL);
    for (int i = 0; i < NSIG; i++)
        handlers[i].fn = NULL;
}
