/* postfix(1): start, stop and the rest of running the mail system. */
#include "base/log.h"
#include "cmd/layout.h"
#include "cmd/trigger.h"
#include "service/logging.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    POLL_US = 100000,
    STOP_SECONDS = 9,  /* master itself gives its processes five */
    FORCE_SECONDS = 5, /* after the second signal */
};

struct command {
    const struct conf *c;
    char *const *args;
    int verbose;
    bool debug;
};

/* --- is it running? Only the lock knows: a pid file alone may be from before a crash --- */
static pid_t master_pid(const struct conf *c) {
    struct buf path = { 0 };
    buf_printf(&path, "%.*s/%.*s/master.pid", STR_ARG(conf_str(c, PARAM_queue_directory)),
               STR_ARG(conf_str(c, PARAM_process_id_directory)));
    pid_t pid = 0;
    int fd = open(path.p, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        struct buf text = { 0 };
        uint32_t n;
        if (buf_read_file(&text, path.p, 100) && str_to_u32(str_trim(buf_str(&text)), INT32_MAX, &n))
            pid = (pid_t)n;
        buf_free(&text);
    }
    if (fd >= 0)
        close(fd);
    buf_free(&path);
    return pid;
}

static pid_t must_run(const struct conf *c) {
    pid_t pid = master_pid(c);
    if (pid <= 0)
        log_fatal("the Postfix mail system is not running");
    return pid;
}

static bool wait_until_stopped(const struct conf *c, int seconds, bool say) {
    for (int i = 1; i <= seconds * (1000000 / POLL_US); i++) {
        if (!master_pid(c))
            return true;
        usleep(POLL_US);
        if (say && i % (1000000 / POLL_US) == 0)
            log_info("waiting for the Postfix mail system to terminate");
    }
    return !master_pid(c);
}

/* --- start --- */
static void prepare(const struct command *m) {
    if (master_pid(m->c))
        log_fatal("the Postfix mail system is already running");
    if (!layout_prepare(m->c))
        log_fatal("Postfix integrity check failed!");
    layout_review(m->c);
    log_info("starting the Postfix mail system");
}

enum { MASTER_ARGS_MAX = 40 };

_Noreturn static void exec_master(const struct command *m, const char *const *options) {
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

static int cmd_start(const struct command *m) {
    if (str_eq(conf_str(m->c, PARAM_maillog_file), STR("/dev/stdout")))
        log_fatal("maillog_file = /dev/stdout needs 'postfix start-fg': there is no standard output to log to later");
    prepare(m);
    pid_t pid = fork();
    if (pid < 0)
        log_fatal("fork: %s", strerror(errno));
    if (pid == 0)
        exec_master(m, (const char *const[]){ "-w", NULL });
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        log_fatal("mail system startup failed");
    return 0;
}

static int cmd_start_fg(const struct command *m) {
    prepare(m);
    exec_master(m,
                getpid() == 1 ? (const char *const[]){ "-i", "-s", NULL } : (const char *const[]){ "-d", "-s", NULL });
}

/* --- stop --- */
static int end(const struct command *m, pid_t pid, int seconds) {
    kill(pid, SIGTERM);
    if (seconds && wait_until_stopped(m->c, seconds, true))
        return 0;
    if (seconds)
        log_warn("stopping the Postfix mail system with force");
    /* A second signal means at once. It has to come after the first has been seen. */
    for (int i = 0; i < FORCE_SECONDS; i++) {
        usleep(POLL_US);
        if (master_pid(m->c) == pid)
            kill(pid, SIGTERM);
        if (wait_until_stopped(m->c, 1, false))
            return 0;
    }
    if (master_pid(m->c) == pid)
        kill(pid, SIGKILL);
    return wait_until_stopped(m->c, 1, false) ? 0 : 1;
}
static int cmd_stop(const struct command *m) {
    pid_t pid = must_run(m->c);
    log_info("stopping the Postfix mail system");
    return end(m, pid, STOP_SECONDS);
}
static int cmd_quick_stop(const struct command *m) {
    pid_t pid = must_run(m->c);
    log_info("stopping the Postfix mail system");
    return end(m, pid, 0);
}
static int cmd_abort(const struct command *m) {
    pid_t pid = must_run(m->c);
    log_info("aborting the Postfix mail system");
    return end(m, pid, 0);
}

/* --- while it runs --- */
static int cmd_reload(const struct command *m) {
    pid_t pid = must_run(m->c);
    log_info("refreshing the Postfix mail system");
    return kill(pid, SIGHUP) == 0 ? 0 : 1;
}
static int cmd_status(const struct command *m) {
    pid_t pid = master_pid(m->c);
    if (pid <= 0) {
        log_info("the Postfix mail system is not running");
        return 1;
    }
    log_info("the Postfix mail system is running: PID: %d", (int)pid);
    return 0;
}
static int cmd_flush(const struct command *m) {
    /* everything deferred is due, dead destinations get another chance, and what has just come is taken up */
    error e = trigger_send(m->c, STR("public"), conf_str(m->c, PARAM_queue_service_name), STR("FADI"));
    if (e)
        log_fatal("Cannot flush mail queue - mail system is down");
    return 0;
}
static int cmd_check(const struct command *m) {
    if (!layout_prepare(m->c))
        return 1;
    layout_review(m->c);
    return 0;
}

/* --- logrotate --- */
_Noreturn static void rotation_failed(struct str file, const char *why) {
    log_fatal("logfile '%.*s' rotation failed: %s", STR_ARG(file), why);
}

static void compress(const struct conf *c, struct str file, char *name) {
    struct str compressor = conf_str(c, PARAM_maillog_file_compressor);
    pid_t pid = fork();
    if (pid < 0)
        rotation_failed(file, strerror(errno));
    if (pid == 0) {
        execlp(compressor.p, compressor.p, name, (char *)NULL);
        _exit(127);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status != 0)
        log_warn("logfile '%.*s': %.*s %s failed", STR_ARG(file), STR_ARG(compressor), name);
}

static int cmd_logrotate(const struct command *m) {
    struct str file = conf_str(m->c, PARAM_maillog_file), suffix = conf_str(m->c, PARAM_maillog_file_rotate_suffix);
    if (file.n == 0)
        log_fatal("empty 'maillog_file' parameter value - logfile rotation failed");
    if (str_starts(file, STR("/dev/")))
        log_fatal("not rotating '%.*s'", STR_ARG(file));
    char stamp[256];
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    /* not a literal: it is main.cf's, for strftime() alone */
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wformat-nonliteral\"") size_t n =
        strftime(stamp, sizeof stamp, suffix.p, &tm);
    _Pragma("GCC diagnostic pop") if (n == 0) rotation_failed(file, "bad maillog_file_rotate_suffix");
    struct buf name = { 0 };
    buf_printf(&name, "%.*s.%s", STR_ARG(file), stamp);
    if (access(name.p, F_OK) == 0)
        rotation_failed(file, "the name is taken");
    if (rename(file.p, name.p) < 0)
        rotation_failed(file, strerror(errno));
    /* The log daemon opens the file anew; compress only when the last line has gone into the old one. */
    pid_t pid = master_pid(m->c);
    if (pid > 0 && kill(pid, SIGHUP) == 0)
        usleep(10 * POLL_US);
    compress(m->c, file, name.p);
    buf_free(&name);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(const struct command *m);
} commands[] = {
    { "start", cmd_start }, { "start-fg", cmd_start_fg },   { "stop", cmd_stop },     { "quick-stop", cmd_quick_stop },
    { "abort", cmd_abort }, { "reload", cmd_reload },       { "status", cmd_status }, { "flush", cmd_flush },
    { "check", cmd_check }, { "logrotate", cmd_logrotate },
};

/* An ordinary user may run a mail system of her own, whose queue is hers. */
static bool may_run(const struct conf *c) {
    struct stat st;
    if (getuid() == 0)
        return true;
    if (stat(conf_str(c, PARAM_queue_directory).p, &st) < 0)
        return errno == ENOENT;
    return st.st_uid == getuid();
}

int main(int argc, char **argv) {
    struct command m = { 0 };
    bool bad = false;
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    logging_start_early(STR("postfix"), LOGGING_COMMAND_QUIET);
    if (getuid() != geteuid())
        log_fatal("the postfix command must not run as a set-uid process");
    for (int c; (c = getopt(argc, argv, "+c:Dv")) != -1;) {
        if (c == 'c')
            setenv("MAIL_CONFIG", optarg, 1);
        else if (c == 'D')
            m.debug = true;
        else if (c == 'v')
            m.verbose++;
        else
            bad = true;
    }
    if (bad || argc == optind)
        log_fatal("usage: postfix [-c config_dir] [-Dv] command");
    log_set_verbose(m.verbose);
    struct arena *a = arena_new();
    struct conf_source source = { .process_name = STR("postfix") };
    struct conf *conf;
    error e = conf_load(&source, a, &conf);
    if (!e && !may_run(conf))
        log_fatal("to submit mail, use the Postfix sendmail command");
    if (!e)
        e = logging_start(conf, STR("postfix-script"), LOGGING_COMMAND_QUIET, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    setenv("MAIL_CONFIG", conf_directory(conf).p, 1);
    m.c = conf;
    m.args = argv + optind + 1;
    const char *name = argv[optind];
    int status = -1;
    for (size_t i = 0; i < sizeof commands / sizeof *commands && status < 0; i++) {
        if (strcmp(commands[i].name, name) != 0)
            continue;
        if (m.args[0])
            log_fatal("usage postfix %s (no arguments)", name);
        status = commands[i].run(&m);
    }
    if (status < 0)
        log_fatal(
            "unknown command: '%s'. Usage: postfix start (or start-fg, stop, reload, abort, flush, check, status, "
            "logrotate)",
            name);
    conf_free(conf);
    arena_free(a);
    return status;
}
