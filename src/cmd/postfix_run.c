/* postfix(1): start, stop and what is said to the running mail system. */
#include "base/buf.h"
#include "base/log.h"
#include "cmd/child.h"
#include "cmd/layout.h"
#include "cmd/postfix.h"
#include "cmd/running.h"
#include "cmd/trigger.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    POLL_US = 100000,
    STOP_SECONDS = 9,  /* master itself gives its processes five */
    FORCE_SECONDS = 5, /* after the second signal */
    MASTER_ARGS_MAX = 40,
};

static pid_t must_run(const struct conf *c) {
    pid_t pid = master_pid_of(c);
    if (pid <= 0)
        log_fatal("the Postfix mail system is not running");
    return pid;
}

static bool wait_until_stopped(const struct conf *c, int seconds, bool say) {
    for (int i = 1; i <= seconds * (1000000 / POLL_US); i++) {
        if (!master_pid_of(c))
            return true;
        usleep(POLL_US);
        if (say && i % (1000000 / POLL_US) == 0)
            log_info("waiting for the Postfix mail system to terminate");
    }
    return !master_pid_of(c);
}

/* --- start --- */
static void prepare(const struct postfix_command *m) {
    if (master_pid_of(m->c))
        log_fatal("the Postfix mail system is already running");
    if (!layout_prepare(m->c))
        log_fatal("Postfix integrity check failed!");
    layout_review(m->c, m->shared, false);
    log_info("starting the Postfix mail system");
}

_Noreturn static void exec_master(const struct postfix_command *m, const char *const *options) {
    struct buf path = { 0 };
    char *argv[MASTER_ARGS_MAX] = { 0 };
    size_t n = 0;
    buf_printf(&path, "%.*s/master", STR_ARG(conf_str(m->c, PARAM_daemon_directory)));
    argv[n++] = path.p;
    for (; *options; options++)
        argv[n++] = strdup(*options);
    if (m->debug)
        argv[n++] = strdup("-D");
    for (int i = 0; i < m->verbose && n < MASTER_ARGS_MAX - 1; i++)
        argv[n++] = strdup("-v");
    execv(path.p, argv);
    log_fatal("exec %s: %s", path.p, strerror(errno));
}

int postfix_start(const struct postfix_command *m) {
    if (str_eq(conf_str(m->c, PARAM_maillog_file), STR("/dev/stdout")))
        log_fatal("maillog_file = /dev/stdout needs 'postfix start-fg': there is no standard output to log to later");
    prepare(m);
    pid_t pid = child_fork(m->c);
    if (pid == 0)
        exec_master(m, (const char *const[]){ "-w", NULL });
    if (child_wait(pid) != 0)
        log_fatal("mail system startup failed");
    return 0;
}

int postfix_start_fg(const struct postfix_command *m) {
    /* there is one foreground, and further instances would not be started */
    if (conf_str(m->c, PARAM_multi_instance_directories).n)
        log_fatal("start-fg does not support multi_instance_directories");
    prepare(m);
    exec_master(m,
                getpid() == 1 ? (const char *const[]){ "-i", "-s", NULL } : (const char *const[]){ "-d", "-s", NULL });
}

/* --- stop --- */
static int end(const struct postfix_command *m, pid_t pid, int seconds) {
    kill(pid, SIGTERM);
    if (seconds && wait_until_stopped(m->c, seconds, true))
        return 0;
    if (seconds)
        log_warn("stopping the Postfix mail system with force");
    /* A second signal means at once. It has to come after the first has been seen. */
    for (int i = 0; i < FORCE_SECONDS; i++) {
        usleep(POLL_US);
        if (master_pid_of(m->c) == pid)
            kill(pid, SIGTERM);
        if (wait_until_stopped(m->c, 1, false))
            return 0;
    }
    if (master_pid_of(m->c) == pid)
        kill(pid, SIGKILL);
    return wait_until_stopped(m->c, 1, false) ? 0 : 1;
}

int postfix_stop(const struct postfix_command *m) {
    pid_t pid = must_run(m->c);
    log_info("stopping the Postfix mail system");
    return end(m, pid, STOP_SECONDS);
}

int postfix_quick_stop(const struct postfix_command *m) {
    pid_t pid = must_run(m->c);
    log_info("stopping the Postfix mail system");
    return end(m, pid, 0);
}

int postfix_abort(const struct postfix_command *m) {
    pid_t pid = must_run(m->c);
    log_info("aborting the Postfix mail system");
    return end(m, pid, 0);
}

/* Nobody waits for the end of it: sessions may take their time. */
int postfix_drain(const struct postfix_command *m) {
    pid_t pid = must_run(m->c);
    log_info("stopping the Postfix mail system");
    return kill(pid, SIGUSR1) == 0 ? 0 : 1;
}

/* --- while it runs --- */
int postfix_reload(const struct postfix_command *m) {
    pid_t pid = must_run(m->c);
    log_info("refreshing the Postfix mail system");
    return kill(pid, SIGHUP) == 0 ? 0 : 1;
}

int postfix_status(const struct postfix_command *m) {
    int pid = master_pid_of(m->c);
    if (pid <= 0) {
        log_info("the Postfix mail system is not running");
        return 1;
    }
    log_info("the Postfix mail system is running: PID: %d", pid);
    return 0;
}

int postfix_flush(const struct postfix_command *m) {
    /* everything deferred is due, dead destinations get another chance, and what has just come is taken up */
    error e = trigger_send(m->c, STR("public"), conf_str(m->c, PARAM_queue_service_name), STR("FADI"));
    if (e)
        log_fatal("Cannot flush mail queue - mail system is down");
    return 0;
}
