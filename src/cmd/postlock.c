/* postlock(1): run a command while a mailbox file is locked as local deliveries lock it. With its caller's rights. */
#include "base/log.h"
#include "cmd/child.h"
#include "deliver/mbox_file.h"
#include "service/logging.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static volatile sig_atomic_t running; /* the command's process id */

/* The command is told, and the lock file goes only when it has ended: not the other way round. */
static void pass_on(int signal_number) {
    if (running > 0)
        kill((pid_t)running, signal_number);
}

static void catch_signals(void) {
    /* SIGINT and SIGQUIT come from a terminal, which sends them to the command as well */
    struct sigaction pass = { .sa_handler = pass_on, .sa_flags = SA_RESTART };
    sigaction(SIGHUP, &pass, NULL);
    sigaction(SIGTERM, &pass, NULL);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
}

struct locked {
    int fd;
    struct str lock; /* the lock file; empty: none */
};

static struct locked take(const struct conf *c, const char *path, unsigned kinds, struct arena *a) {
    struct locked ret = { .fd = -1 };
    struct mbox_wait wait = {
        .attempts = (int)conf_int(c, PARAM_deliver_lock_attempts),
        .delay = conf_time(c, PARAM_deliver_lock_delay),
        .stale = conf_time(c, PARAM_stale_lock_time),
    };
    int code;
    if (kinds & MAILBOX_DOTLOCK) {
        ret.lock = arena_printf(a, "%s.lock", path);
        if ((code = mbox_dotlock(ret.lock.p, &wait)))
            log_fatal("open file %s: unable to create lock file %.*s: %s", path, STR_ARG(ret.lock), strerror(code));
    }
    const char *what = "";
    bool is_new;
    struct stat st = { 0 };
    ret.fd = mbox_open(path, &is_new);
    code = ret.fd < 0 || fstat(ret.fd, &st) < 0 ? errno : 0;
    if (!code && !S_ISREG(st.st_mode)) {
        what = "not a regular file: ";
        code = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    } else if (!code && (code = mbox_lock(ret.fd, kinds, &wait))) {
        what = "unable to lock for exclusive access: ";
    }
    if (code) {
        if (ret.lock.n)
            unlink(ret.lock.p);
        log_fatal("open file %s: %s%s", path, what, strerror(code));
    }
    return ret;
}

int main(int argc, char **argv) {
    const char *style = NULL;
    int verbose = 0;
    bool bad = false;
    log_set_fatal_status(EX_TEMPFAIL);
    logging_start_early(STR("postlock"), LOGGING_COMMAND);
    for (int o; (o = getopt(argc, argv, "+c:l:v")) != -1;) {
        if (o == 'c')
            setenv("MAIL_CONFIG", optarg, 1);
        else if (o == 'l')
            style = optarg;
        else if (o == 'v')
            verbose++;
        else
            bad = true;
    }
    if (bad || argc < optind + 2)
        log_fatal("usage: postlock [-c config_dir] [-l lock_style] [-v] folder command...");
    log_set_verbose(verbose);
    struct arena *a = arena_new();
    struct conf_source source = { .process_name = STR("postlock") };
    struct conf *c;
    error e = conf_load(&source, a, &c);
    if (!e)
        e = logging_start(c, STR("postlock"), LOGGING_COMMAND, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    struct str locks = style ? str_c(style) : conf_str(c, PARAM_mailbox_delivery_lock);
    unsigned kinds;
    if (!mailbox_locks_parse(locks, &kinds))
        log_fatal("unknown mailbox_delivery_lock value \"%.*s\": use fcntl, flock, dotlock", STR_ARG(locks));
    catch_signals();
    struct locked held = take(c, argv[optind], kinds, a);
    log_debug("%s: locked by %.*s", argv[optind], STR_ARG(locks));
    pid_t pid = child_fork(c);
    if (pid == 0) {
        execvp(argv[optind + 1], argv + optind + 1);
        log_set_fatal_status(1);
        log_fatal("execvp %s: %s", argv[optind + 1], strerror(errno));
    }
    running = pid;
    int status = child_wait(pid);
    if (held.lock.n && unlink(held.lock.p) < 0)
        log_warn("remove lock file %.*s: %s", STR_ARG(held.lock), strerror(errno));
    close(held.fd);
    conf_free(c);
    arena_free(a);
    return status;
}
