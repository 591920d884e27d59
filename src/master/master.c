/* master(8): the one process that stays. Options, locks, signals; the services are in services.c, their processes in
 * workers.c. */
#include "master/master.h"

#include "base/die.h"
#include "base/log.h"
#include "build_config.h"
#include "service/logging.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct master master;

enum { STOP_YIELDS_MAX = 100 };

static struct {
    bool no_detach, init, keep_stdout, test, wait;
    int64_t exit_after;
    int ready_fd; /* -w: the parent waits here */
    bool reload, stop;
    bool drain; /* stop, but whatever runs may take as long as it needs */
    struct cond signalled;
} run = { .ready_fd = -1 };

/* --- locks: against a second master, of ours or Postfix's --- */
static int open_lock(const char *path, struct arena *a, bool *ret_held) {
    (void)a;
    *ret_held = false;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        *ret_held = errno == EWOULDBLOCK;
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}
static const char *lock_error(bool held) {
    static char text[200];
    if (held)
        snprintf(text, sizeof text, "unable to set exclusive lock: %s", strerror(EAGAIN));
    else
        snprintf(text, sizeof text, "%s", strerror(errno));
    return text;
}

static void take_locks(void) {
    struct arena *a = arena_new();
    bool held;
    struct str pid_path =
        arena_printf(a, "%.*s/master.pid", STR_ARG(conf_str(master.conf, PARAM_process_id_directory)));
    int fd = open_lock(pid_path.p, a, &held);
    if (run.test)
        exit(fd >= 0 || !held ? 0 : 1);
    if (fd < 0)
        log_fatal("open lock file %s: %s", pid_path.p, lock_error(held));
    struct str data_path = arena_printf(a, "%.*s/master.lock", STR_ARG(conf_str(master.conf, PARAM_data_directory)));
    /* The directory is mail_owner's, who could put anything in the file's place: open it with no more than its rights.
     */
    if (master.owner.root && (setegid(master.owner.mail_gid) < 0 || seteuid(master.owner.mail_uid) < 0))
        log_fatal("switch to the mail owner: %s", strerror(errno));
    int data_fd = open_lock(data_path.p, a, &held);
    const char *why = data_fd < 0 ? lock_error(held) : "";
    if (master.owner.root && (seteuid(0) < 0 || setegid(0) < 0))
        log_fatal("switch back from the mail owner: %s", strerror(errno));
    if (data_fd < 0)
        log_fatal("open lock file %s: %s", data_path.p, why);
    struct str line = arena_printf(a, "%*lu\n", (int)sizeof(unsigned long) * 4, (unsigned long)getpid());
    if (ftruncate(fd, 0) < 0 || write(fd, line.p, line.n) != (ssize_t)line.n)
        log_fatal("cannot update lock file %s: %s", pid_path.p, strerror(errno));
    arena_free(a); /* both descriptors stay open */
}

/* --- environment --- */

/* import_environment: names to keep, name=value to set; the rest of what we were started with is gone. */
static void make_environment(void) {
    arena_free(master.env_arena);
    struct arena *a = master.env_arena = arena_new();
    VEC(char *) env = { 0 };
    struct str list = conf_str(master.conf, PARAM_import_environment), word;
    while (str_word_braced(&list, STR_COMMA_SPACE, &word)) {
        if (str_starts(word, STR("{")) && str_ends(word, STR("}")))
            word = str_trim(str_sub(word, 1, word.n - 2));
        ptrdiff_t eq = str_index(word, '=');
        struct str name = eq < 0 ? word : str_trim(str_sub(word, 0, (size_t)eq));
        if (str_eq(name, STR("MAIL_CONFIG")) || str_eq(name, STR("POSTLOG_SERVICE")) ||
            str_eq(name, STR("POSTLOG_HOSTNAME")))
            continue; /* set below */
        const char *value = getenv(arena_cstr(a, name));
        if (eq >= 0)
            *vec_add(a, &env) = arena_cstr(
                a, arena_printf(a, "%.*s=%.*s", STR_ARG(name), STR_ARG(str_trim(str_from(word, (size_t)eq + 1)))));
        else if (value)
            *vec_add(a, &env) = arena_cstr(a, arena_printf(a, "%.*s=%s", STR_ARG(name), value));
    }
#if defined(__SANITIZE_ADDRESS__)
    static const char *const kept[] = { "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS" };
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (getenv(kept[i]))
            *vec_add(a, &env) = arena_cstr(a, arena_printf(a, "%s=%s", kept[i], getenv(kept[i])));
#endif
    *vec_add(a, &env) = arena_cstr(a, STR("PATH=/usr/bin:/bin:/usr/sbin:/sbin"));
    *vec_add(a, &env) = arena_cstr(a, arena_printf(a, "MAIL_CONFIG=%.*s", STR_ARG(conf_directory(master.conf))));
    if (conf_str(master.conf, PARAM_maillog_file).n) {
        *vec_add(a, &env) =
            arena_cstr(a, arena_printf(a, "POSTLOG_SERVICE=%.*s/public/%.*s", STR_ARG(master.queue_directory),
                                       STR_ARG(conf_str(master.conf, PARAM_postlog_service_name))));
        struct str host = logging_host(master.conf);
        *vec_add(a, &env) = arena_cstr(a, arena_printf(a, "POSTLOG_HOSTNAME=%.*s", STR_ARG(host)));
    }
    *vec_add(a, &env) = NULL;
    master.envp = env.at;
}

/* --- what signals ask for --- */
static void kill_all(void) {
    for (struct worker *w = master.workers; w; w = w->next) {
        w->killed = true;
        if (!w->reaped)
            kill(w->pid, SIGKILL);
    }
}

static void on_signal(int signo, void *arg) {
    (void)arg;
    if (signo == SIGCHLD) {
        workers_reap();
    } else if (signo == SIGHUP) {
        run.reload = true;
    } else {
        if (run.stop && !run.drain) /* once more: now */
            kill_all();
        run.drain = signo == SIGUSR1;
        run.stop = true;
        master.stop_signal = signo;
    }
    cond_broadcast(&run.signalled);
}

/* The order of the end: those who bring work, those who serve them, those who keep the log. */
enum stage { STAGE_FRONT, STAGE_BACK, STAGE_LOG };

static enum stage stage_of(const struct svc *svc) {
    if (svc->entry.type == SERVICE_UNIX_DGRAM)
        return STAGE_LOG;
    return service_is_front(svc) ? STAGE_FRONT : STAGE_BACK;
}

static void drain_up_to(enum stage last) {
    for (struct worker *w = master.workers; w; w = w->next)
        if (stage_of(w->svc) <= last)
            worker_drain(w);
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void report_warnings(const struct conf *c) {
    const struct str *warning;
    size_t n = conf_warnings(c, &warning);
    for (size_t i = 0; i < n; i++)
        log_warn("%.*s", STR_ARG(warning[i]));
}

static error load_conf(struct arena *err_arena, struct conf **ret) {
    struct conf_source source = { .process_name = STR("master") };
    error e = conf_load(&source, err_arena, ret);
    if (!e)
        socket_window((int)conf_int(*ret, PARAM_tcp_windowsize));
    return e;
}

/* A new generation: new workers on the same sockets, the old ones end in their own time. What cannot be read leaves
 * everything as it is (Postfix's master would end: nobody's mail is served by that). */
static void reload(void) {
    struct arena *a = arena_new();
    struct conf *c;
    error e = load_conf(a, &c);
    if (e) {
        log_error("%.*s -- going on with the old configuration", STR_ARG(e->text));
        arena_free(a);
        return;
    }
    struct conf *old = master.conf;
    master.conf = c;
    struct owner owner;
    if ((e = owner_lookup(c, a, &owner)) || (e = services_load(c, false, a))) {
        log_error("%.*s -- going on with the old configuration", STR_ARG(e->text));
        master.conf = old;
        conf_free(c);
        arena_free(a);
        return;
    }
    master.owner = owner;
    if ((e = logging_start(c, STR("master"), LOGGING_DIRECT, a)))
        log_error("%.*s", STR_ARG(e->text));
    if (!str_eq(conf_str(c, PARAM_queue_directory), master.queue_directory)) {
        log_warn("ignoring queue_directory parameter value change");
        log_warn("old value: \"%.*s\", new value: \"%.*s\"", STR_ARG(master.queue_directory),
                 STR_ARG(conf_str(c, PARAM_queue_directory)));
        log_warn("to change queue_directory, stop and start Postfix");
    }
    report_warnings(c);
    log_info("reload -- version %.*s, configuration %.*s", STR_ARG(conf_str(c, PARAM_mail_version)),
             STR_ARG(conf_directory(c)));
    make_environment();
    drain_up_to(STAGE_LOG);
    master.generation++;
    conf_free(old);
    arena_free(a);
    services_watch();
}

static error wait_workers(enum stage last, int64_t deadline) {
    for (;;) {
        size_t n = 0;
        for (const struct worker *w = master.workers; w; w = w->next)
            n += !w->reaped && stage_of(w->svc) <= last;
        if (n == 0)
            return NULL;
        error e = cond_wait(&run.signalled, deadline); /* SIGCHLD comes here */
        if (e)
            return e;
    }
}

/* What a drain waits for has its own time limits; another signal makes it an ordinary stop. */
static void wait_drained(enum stage last) {
    for (;;) {
        const struct worker *w = master.workers;
        while (w && (w->reaped || stage_of(w->svc) > last))
            w = w->next;
        if (!w || !run.drain || cond_wait(&run.signalled, DEADLINE_NEVER))
            return;
    }
}

/* Lines that wait for a log daemon that is not there would be lost with the socket. */
static void start_unread_log(void) {
    for (struct svc *svc = master.services; svc; svc = svc->next) {
        struct pollfd p = { .fd = svc->socket_count ? svc->sockets[0].fd : -1, .events = POLLIN };
        if (stage_of(svc) == STAGE_LOG && !svc->workers && p.fd >= 0 && poll(&p, 1, 0) > 0 && may_start(svc))
            workers_start(svc);
    }
}

/* First those who bring work, while those they need are there; then these; the log daemon sees the others go. */
static void stop(void) {
    log_info("terminating on signal %d", master.stop_signal);
    master.stopping = true;
    bool patient = run.drain;
    if (patient)
        services_close_ports();
    drain_up_to(STAGE_FRONT);
    wait_drained(STAGE_FRONT);
    int64_t end = deadline_in(STOP_ALL_SECONDS);
    wait_workers(STAGE_FRONT, deadline_in(STOP_FRONT_SECONDS));
    master.ending = true;
    drain_up_to(STAGE_BACK);
    wait_drained(STAGE_BACK);
    if (patient)
        end = deadline_in(STOP_ALL_SECONDS);
    error e = wait_workers(STAGE_BACK, end);
    if (!e) {
        start_unread_log();
        drain_up_to(STAGE_LOG);
        e = wait_workers(STAGE_LOG, end);
    }
    if (e) {
        kill_all();
        wait_workers(STAGE_LOG, DEADLINE_NEVER);
    }
    services_end();
    for (int i = 0; i < STOP_YIELDS_MAX && coro_count() > 1; i++)
        coro_yield(); /* what was cancelled ends */
    loop_stop();
}

static void tell_parent(void) {
    if (run.ready_fd < 0)
        return;
    ssize_t n = write(run.ready_fd, "", 1);
    (void)n;
    close(run.ready_fd);
    run.ready_fd = -1;
}

static void master_main(void *arg) {
    (void)arg;
    services_watch();
    log_info("daemon started -- version %.*s, configuration %.*s", STR_ARG(conf_str(master.conf, PARAM_mail_version)),
             STR_ARG(conf_directory(master.conf)));
    tell_parent();
    int64_t exit_at = run.exit_after ? deadline_in(run.exit_after) : DEADLINE_NEVER;
    for (;;) {
        if (!run.reload && !run.stop && cond_wait(&run.signalled, exit_at) == &err_timeout)
            run.stop = true;
        if (run.stop) {
            stop();
            return;
        }
        if (run.reload) {
            run.reload = false;
            reload();
            coro_yield(); /* what was cancelled or begun takes note before the next round */
        }
    }
}

/* --- start --- */
_Noreturn static void usage(void) {
    log_fatal(
        "usage: master [-c config_dir] [-D (debug)] [-d (don't detach from terminal)] [-e exit_time] [-i (init mode)] "
        "[-s (keep standard output)] [-t (test)] [-v] [-w (wait for initialization)]");
}

static void read_options(int argc, char **argv) {
    for (int c; (c = getopt(argc, argv, "c:Dde:istvw")) != -1;) {
        uint32_t seconds;
        switch (c) {
        case 'c':
            setenv("MAIL_CONFIG", optarg, 1);
            break;
        case 'D':
            master.debug = true;
            break;
        case 'd':
            run.no_detach = true;
            break;
        case 'e':
            if (!str_to_u32(str_c(optarg), INT32_MAX, &seconds))
                usage();
            run.exit_after = seconds;
            break;
        case 'i':
            if (getpid() != 1)
                log_fatal("-i is allowed only for PID 1 process");
            run.init = true;
            break;
        case 's':
            run.keep_stdout = true;
            break;
        case 't':
            run.test = true;
            break;
        case 'v':
            master.verbose++;
            break;
        case 'w':
            run.wait = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc)
        usage();
}

/* The parent of -w: leave with what has become of the child. */
_Noreturn static void wait_for_child(int fd, pid_t pid) {
    char byte;
    ssize_t n;
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1)
        _exit(0);
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    log_fatal("daemon initialization failure -- see logs for details");
}

static void detach(void) {
    int ready[2] = { -1, -1 };
    if (run.wait && pipe2(ready, O_CLOEXEC) < 0)
        log_fatal("pipe: %s", strerror(errno));
    if (!run.no_detach && !run.init) {
        pid_t pid = fork();
        if (pid < 0)
            log_fatal("fork: %s", strerror(errno));
        if (pid > 0) {
            if (!run.wait)
                _exit(0);
            close(ready[1]);
            wait_for_child(ready[0], pid);
        }
    }
    if (ready[0] >= 0)
        close(ready[0]);
    run.ready_fd = ready[1];
    setsid();
}

static void set_up_descriptors(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        log_fatal("open /dev/null: %s", strerror(errno));
    dup2(null, STDIN_FILENO);
    if (!run.keep_stdout)
        dup2(null, STDOUT_FILENO);
    if (!run.no_detach && !run.keep_stdout)
        dup2(null, STDERR_FILENO);
    if (null > STDERR_FILENO)
        close(null);
}

/* Where programs are locked into that need no files at all. Root's, so that they cannot put any there. */
static void make_empty_directory(void) {
    struct buf path = { 0 };
    buf_printf(&path, "%.*s/empty", STR_ARG(conf_str(master.conf, PARAM_process_id_directory)));
    if (mkdir(path.p, 0755) < 0 && errno != EEXIST)
        log_fatal("mkdir %s: %s", path.p, strerror(errno));
    buf_free(&path);
}

int main(int argc, char **argv) {
    struct arena *a = arena_new();
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    logging_start_early(STR("master"), LOGGING_COMMAND);
    if (getuid() != geteuid())
        log_fatal("the master command must not run as a set-uid process");
    read_options(argc, argv);
    log_set_verbose(master.verbose);
    error e = load_conf(a, &master.conf);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    master.queue_directory = arena_str(a, conf_str(master.conf, PARAM_queue_directory));
    if ((e = owner_lookup(master.conf, a, &master.owner)))
        log_fatal("%.*s", STR_ARG(e->text));
    if (chdir(master.queue_directory.p) < 0)
        log_fatal("chdir %.*s: %s", STR_ARG(master.queue_directory), strerror(errno));
    if (run.test)
        take_locks();
    detach();
    if ((e = logging_start(master.conf, STR("master"), LOGGING_DIRECT, a)))
        log_fatal("%.*s", STR_ARG(e->text));
    raise_descriptor_limit();
    take_locks();
    set_up_descriptors();
    make_empty_directory();
    make_environment();
    report_warnings(master.conf);
    if ((e = loop_init()))
        log_fatal("event loop: %.*s", STR_ARG(e->text));
    if ((e = services_load(master.conf, true, a)))
        log_fatal("%.*s", STR_ARG(e->text));
    const int signals[] = { SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGHUP, SIGCHLD };
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if ((e = loop_on_signal(signals[i], on_signal, NULL)))
            log_fatal("signals: %.*s", STR_ARG(e->text));
    if (!coro_spawn(master_main, NULL, "master"))
        die("no memory for the first coroutine");
    if ((e = loop_run()))
        log_fatal("event loop: %.*s", STR_ARG(e->text));
    loop_free();
    conf_free(master.conf);
    arena_free(master.env_arena);
    arena_free(a);
    return 0;
}
