#include "cmd/child.h"

#include "base/log.h"
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t child_fork(const struct conf *c) {
    int64_t attempts = conf_int(c, PARAM_fork_attempts);
    for (int64_t i = 1;; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            static const int signals[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE };
            for (size_t s = 0; s < sizeof signals / sizeof *signals; s++)
                signal(signals[s], SIG_DFL);
            return 0;
        }
        if (pid > 0)
            return pid;
        if (i >= attempts)
            log_fatal("fork: %s", strerror(errno));
        log_warn("fork: %s", strerror(errno));
        sleep((unsigned)conf_time(c, PARAM_fork_delay));
    }
}

int child_wait(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            log_fatal("waitpid: %s", strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int child_command(const struct conf *c, char *const *argv) {
    pid_t pid = child_fork(c);
    if (pid == 0) {
        execvp(argv[0], argv);
        log_set_fatal_status(1);
        log_fatal("execvp %s: %s", argv[0], strerror(errno));
    }
    return child_wait(pid);
}
