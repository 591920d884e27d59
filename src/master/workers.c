#include "base/die.h"
#include "base/log.h"
#include "master/master.h"
#include "master/roles.h"
#include "run/worker.h"
#include "service/control.h"
#include "service/logging.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static bool single(const struct svc *svc) {
    /* Two queue managers agree among themselves (queue/spool.h, spool_take_over()): the old one may finish its
     * deliveries while the new one goes on with the queue. Two of postscreen share the cache only: nobody waits at the
     * door until the last client of the old one has had its say. */
    if (str_eq(svc->entry.command, STR("qmgr")) || str_eq(svc->entry.command, STR("oqmgr")) ||
        str_eq(svc->entry.command, STR("postscreen")))
        return false;
    return svc->entry.maxproc == 1;
}

bool may_start(const struct svc *svc) {
    if (svc->gone || svc->workers || (master.stopping && service_is_front(svc)))
        return false;
    if (master.ending && svc->entry.type != SERVICE_UNIX_DGRAM) /* the log is there to the last */
        return false;
    if (single(svc) && svc->old_workers)
        return false;
    return !svc->not_before || sys->mono_us() >= svc->not_before;
}

struct worker *worker_of(const struct svc *svc) {
    for (struct worker *w = master.workers; w; w = w->next)
        if (w->svc == svc && w->generation == master.generation && !w->reaped && !w->draining)
            return w;
    return NULL;
}

/* Programs that take work from outside or set it going; the rest serves them. */
bool service_is_front(const struct svc *svc) {
    static const struct str back[] = { STR_INIT("qmgr"), STR_INIT("oqmgr"), STR_INIT("pickup") };
    if (svc->entry.type == SERVICE_INET || svc->entry.type == SERVICE_PASS)
        return true;
    for (size_t i = 0; i < sizeof back / sizeof *back; i++)
        if (str_eq(svc->entry.command, back[i]))
            return true;
    return false;
}

static void worker_free_if_done(struct worker *w) {
    if (!w->settled || w->reader || w->connects)
        return;
    for (struct worker **at = &master.workers; *at; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            break;
        }
    for (size_t i = 0; i < w->may_dial_count; i++)
        free(w->may_dial[i]);
    free(w->may_dial);
    control_close(w->control);
    free(w);
}

/* --- requests of workers --- */
static void refuse(struct worker *w, uint32_t id, bool denied, const char *why) {
    struct buf b = { 0 };
    pack_u32(&b, id);
    pack_u8(&b, denied);
    pack_str(&b, str_c(why));
    control_send(w->control, CONTROL_REFUSED, buf_str(&b), -1);
    buf_free(&b);
}

static void connected(struct worker *w, uint32_t id, int fd) {
    struct buf b = { 0 };
    pack_u32(&b, id);
    control_send(w->control, CONTROL_CONNECTED, buf_str(&b), fd);
    buf_free(&b);
}

/* 0: connected, the descriptor is on its way; else errno. EAGAIN: the other service's backlog is full. */
static int connect_once(struct worker *w, uint32_t id, const struct endpoint *at) {
    int fd = sys->socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    if (sys->connect(fd, &at->u.sa, at->len) < 0) {
        int why = errno;
        close(fd);
        return why;
    }
    connected(w, id, fd);
    return 0;
}

struct connecting {
    struct worker *w;
    uint32_t id;
    struct endpoint at;
};
static void connect_main(void *arg) {
    struct connecting *c = arg;
    int64_t deadline = deadline_in(CONNECT_SECONDS);
    int why = EAGAIN;
    while (why == EAGAIN && !c->w->reaped && sys->mono_us() < deadline) {
        if (wait_until(deadline_in_us(CONNECT_RETRY_US)))
            break;
        why = connect_once(c->w, c->id, &c->at);
    }
    if (why && !c->w->reaped)
        refuse(c->w, c->id, false, strerror(why));
    c->w->connects--;
    worker_free_if_done(c->w);
    free(c);
}

/* A worker that has been broken into may ask without end: that is said once a while, and how often it was. */
static void log_refusal(struct worker *w, const char *what, struct str endpoint) {
    int64_t now = sys->mono_us();
    if (++w->refusals > REFUSALS_LOGGED && now - w->refused_us < REFUSAL_WARN_SECONDS * US_PER_S)
        return;
    log_warn("process %.*s pid %d: %s to %.*s refused: %.*s has no business there (%u so far)", STR_ARG(w->svc->path),
             (int)w->pid, what, STR_ARG(endpoint), STR_ARG(w->svc->entry.command), w->refusals);
    w->refused_us = now;
}

/* Now, or as soon as its backlog has room. */
static void connect_for(struct worker *w, uint32_t id, const struct endpoint *at) {
    int why = connect_once(w, id, at);
    if (why == 0)
        return;
    struct connecting *c = why == EAGAIN && w->connects < CONNECTS_MAX ? calloc(1, sizeof *c) : NULL;
    if (c) {
        *c = (struct connecting){ w, id, *at };
        if (coro_spawn(connect_main, c, "connect")) {
            w->connects++;
            return;
        }
        free(c);
    }
    refuse(w, id, false, strerror(why));
}

static void on_connect(struct worker *w, struct unpack *u) {
    uint32_t id = unpack_u32(u);
    struct str endpoint = unpack_str(u);
    if (!unpack_done(u) || endpoint.n > CONTROL_ENDPOINT_MAX)
        return;
    if (!role_may_connect(master.conf, &w->svc->entry, endpoint)) {
        log_refusal(w, "connection", endpoint);
        refuse(w, id, true, "not allowed");
        return;
    }
    struct svc *to = service_at(endpoint);
    struct endpoint at;
    if (!to || (to->entry.type != SERVICE_UNIX && to->entry.type != SERVICE_PASS) ||
        !endpoint_unix(to->endpoint, &at)) {
        refuse(w, id, false, strerror(ENOENT));
        return;
    }
    connect_for(w, id, &at);
}

/* --- servers that the administrator names (service/dial.h) --- */
static void on_may_dial(struct worker *w, struct str path) {
    struct endpoint at;
    if (w->ready || w->may_dial_count == CONTROL_DIALS_MAX || !endpoint_unix(path, &at)) {
        log_refusal(w, "a later wish for a connection", path);
        return;
    }
    if (!w->may_dial && !(w->may_dial = calloc(CONTROL_DIALS_MAX, sizeof *w->may_dial)))
        die_no_memory(CONTROL_DIALS_MAX * sizeof *w->may_dial);
    char *copy = strndup(path.p, path.n);
    if (!copy)
        die_no_memory(path.n);
    w->may_dial[w->may_dial_count++] = copy;
}

static void on_dial(struct worker *w, struct unpack *u) {
    uint32_t id = unpack_u32(u);
    struct str path = unpack_str(u);
    struct endpoint at;
    if (!unpack_done(u) || !endpoint_unix(path, &at))
        return;
    for (size_t i = 0; i < w->may_dial_count; i++)
        if (str_eq(str_c(w->may_dial[i]), path)) {
            connect_for(w, id, &at);
            return;
        }
    log_refusal(w, "connection", path);
    refuse(w, id, true, "not allowed: its configuration did not name it when it started");
}

static void on_scratch(struct worker *w, struct unpack *u) {
    char path[] = "pid/scratch.XXXXXX"; /* in a directory that is root's */
    uint32_t id = unpack_u32(u);
    (void)unpack_str(u);
    if (!unpack_done(u))
        return;
    if (!role_may_scratch(&w->svc->entry)) {
        log_refusal(w, "file", STR("pid"));
        refuse(w, id, true, "not allowed");
        return;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        refuse(w, id, false, strerror(errno));
        return;
    }
    (void)unlink(path);
    connected(w, id, fd);
}

static void on_trigger(struct worker *w, struct unpack *u) {
    struct str endpoint = unpack_str(u), bytes = unpack_str(u);
    if (!unpack_done(u) || endpoint.n > CONTROL_ENDPOINT_MAX || bytes.n > CONTROL_TRIGGER_MAX)
        return;
    if (!role_may_trigger(master.conf, &w->svc->entry, endpoint)) {
        log_refusal(w, "trigger", endpoint);
        return;
    }
    struct svc *to = service_at(endpoint);
    if (to)
        service_wake(to, bytes);
}

/* --- stress --- */

/* May strangers come in there? Behind a loopback address there is only what this host lets in: sending it away faster
 * would not help. */
static bool is_public(const struct svc *svc) {
    for (size_t i = 0; i < svc->socket_count; i++)
        if (!endpoint_is_loopback(&svc->sockets[i].at))
            return true;
    return false;
}

static void tell_stress(struct worker *w) {
    int64_t left = (w->svc->stress_until - sys->mono_us()) / US_PER_S;
    struct buf b = { 0 };
    if (left <= 0)
        return;
    pack_u32(&b, (uint32_t)left);
    control_send(w->control, CONTROL_STRESS, buf_str(&b), -1);
    buf_free(&b);
}

/* STRESS_README: all sessions there may be are there. */
static void stress(struct svc *svc) {
    int64_t now = sys->mono_us();
    if (!is_public(svc) || now < svc->stress_until - (STRESS_SECONDS - STRESS_RENEW_SECONDS) * US_PER_S)
        return;
    svc->stress_until = now + STRESS_SECONDS * US_PER_S;
    for (struct worker *w = master.workers; w; w = w->next)
        if (w->svc == svc && !w->reaped && !w->draining)
            tell_stress(w);
}

/* The session limit of all workers is reached, or one of several is: the others must look, since the connection that
 * found the full one has woken nobody else. */
static void on_sessions(struct worker *w, struct unpack *u) {
    uint32_t n = unpack_u32(u);
    bool full = unpack_u8(u);
    if (!unpack_done(u))
        return;
    (void)n;
    w->full = full;
    if (!full)
        return;
    bool all = true;
    for (struct worker *other = master.workers; other; other = other->next) {
        if (other->svc != w->svc || other->draining || other->reaped || other->full)
            continue;
        all = false;
        control_send(other->control, CONTROL_ACCEPT, STR(""), -1);
    }
    struct svc *svc = w->svc;
    int64_t now = sys->mono_us();
    if (!all || svc->entry.type != SERVICE_INET)
        return;
    stress(svc);
    if ((svc->warned_us && now - svc->warned_us < LIMIT_WARN_SECONDS * US_PER_S))
        return;
    svc->warned_us = now;
    log_warn(
        "service \"%.*s\" (%.*s) has reached its process limit \"%d\": new clients may experience noticeable delays",
        STR_ARG(svc->entry.name), STR_ARG(svc->entry.name), svc->entry.maxproc);
    log_warn("to avoid this condition, increase the process count in master.cf or reduce the service time per client");
    log_warn("see https://www.postfix.org/STRESS_README.html for examples of stress-adapting configuration settings");
}

/* Another takes its place as soon as there is need: a service with work of its own has that always. */
static void on_leaving(struct worker *w) {
    if (w->draining)
        return;
    worker_drain(w);
    cond_broadcast(&w->svc->changed);
    if (w->svc->entry.wakeup)
        service_wake(w->svc, STR("W"));
}

static void on_keep(struct worker *w, struct str bytes) {
    if (!role_may_keep(&w->svc->entry) || bytes.n > sizeof w->svc->kept) {
        log_refusal(w, "keeping", STR("master"));
        return;
    }
    memcpy(w->svc->kept, bytes.p, bytes.n);
    w->svc->kept_n = bytes.n;
}

static void on_message(struct worker *w, const struct ipc_msg *m) {
    struct unpack u = unpack_from(m->payload);
    switch (m->type) {
    case CONTROL_READY:
        w->ready = true;
        return;
    case CONTROL_SESSIONS:
        on_sessions(w, &u);
        return;
    case CONTROL_CONNECT:
        on_connect(w, &u);
        return;
    case CONTROL_MAY_DIAL:
        on_may_dial(w, m->payload);
        return;
    case CONTROL_DIAL:
        on_dial(w, &u);
        return;
    case CONTROL_SCRATCH:
        on_scratch(w, &u);
        return;
    case CONTROL_TRIGGER:
        on_trigger(w, &u);
        return;
    case CONTROL_LOG:
        control_send(w->control, CONTROL_LOGGER, STR(""), logging_socket(master.conf));
        return;
    case CONTROL_KEEP:
        on_keep(w, m->payload);
        return;
    case CONTROL_LEAVING:
        on_leaving(w);
        return;
    default:
        log_refusal(w, "unexpected message", STR("master"));
    }
}

static void reader_main(void *arg) {
    struct worker *w = arg;
    struct ipc_msg m = { .fd = -1 };
    error e = NULL;
    while (!e) {
        if (control_is_jammed(w->control)) {
            e = wait_until(deadline_in_us(CONNECT_RETRY_US));
            continue;
        }
        if ((e = control_recv(w->control, DEADLINE_NEVER, &m)))
            break;
        if (!w->reaped)
            on_message(w, &m);
        else if (m.type == CONTROL_READY) /* its last words count */
            w->ready = true;
        ipc_msg_drop(&m); /* a worker has no descriptors to give us */
    }
    w->reader = NULL;
    worker_free_if_done(w);
}

/* --- start --- */
static void throttle(struct svc *svc) {
    int64_t seconds = conf_time(master.conf, PARAM_service_throttle_time);
    log_warn("%.*s: bad command startup -- throttling", STR_ARG(svc->path));
    svc->not_before = deadline_in(seconds);
    cond_broadcast(&svc->changed); /* so that those who wait see until when */
}

static bool start_one(struct svc *svc) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        log_warn("socketpair: %s", strerror(errno));
        return false;
    }
    struct arena *a = arena_new();
    const struct master_entry *e = &svc->entry;
    struct service_args args = {
        .name = e->name,
        .type = service_type_name(e->type),
        .chroot = e->chroot && master.owner.root,
        .unprivileged = e->unprivileged,
        .single = single(svc),
        .debug = master.debug,
        .sockets = (uint32_t)svc->socket_count,
        .sessions = e->maxproc ? ((uint32_t)e->maxproc + svc->worker_limit - 1) / svc->worker_limit : 0,
        .verbose = e->verbose + master.verbose,
        .overrides = e->overrides,
        .override_count = e->override_count,
        .args = e->args,
        .arg_count = e->arg_count,
    };
    int *fds = arena_array(a, svc->socket_count + 1, sizeof *fds);
    for (size_t i = 0; i < svc->socket_count; i++)
        fds[i] = svc->sockets[i].fd;
    struct worker_start start = {
        .path = svc->path.p,
        .argv = service_args_make(&args, e->command, a),
        .envp = master.envp,
        .control_fd = pair[1],
        .listen_fds = fds,
        .listen_count = svc->socket_count,
        .stdin_fd = -1,
        .stdout_fd = STDOUT_FILENO, /* postlogd writes there when maillog_file = /dev/stdout; else it is /dev/null */
        .stderr_fd = -1,
    };
    pid_t pid;
    error failed = worker_start(&start, &pid);
    close(pair[1]);
    arena_free(a);
    if (failed) {
        log_warn("exec %.*s: %.*s", STR_ARG(svc->path), STR_ARG(failed->text));
        close(pair[0]);
        return false;
    }
    struct worker *w = calloc(1, sizeof *w);
    if (!w)
        die_no_memory(sizeof *w);
    *w = (struct worker){
        .next = master.workers, .svc = svc, .pid = pid, .generation = master.generation, .started_us = sys->mono_us()
    };
    master.workers = w;
    svc->workers++;
    svc->used = true;
    w->control = control_new(pair[0]);
    if (w->control && role_may_keep(&svc->entry))
        control_send(w->control, CONTROL_KEPT, str_n(svc->kept, svc->kept_n), -1);
    if (w->control && svc->stress_until)
        tell_stress(w);
    if (w->control)
        w->reader = coro_spawn(reader_main, w, "worker");
    if (!w->reader) { /* no descriptor or stack to be had: it cannot work like this */
        log_warn("start of %.*s: out of resources", STR_ARG(svc->path));
        w->killed = true;
        kill(pid, SIGKILL);
    }
    return true;
}

bool workers_start(struct svc *svc) {
    svc->not_before = 0;
    for (uint32_t i = 0; i < svc->worker_limit; i++) {
        if (start_one(svc))
            continue;
        if (svc->workers == 0)
            throttle(svc);
        break;
    }
    cond_broadcast(&svc->changed);
    return svc->workers > 0;
}

/* --- end --- */
void worker_drain(struct worker *w) {
    if (w->draining || w->reaped)
        return;
    w->draining = true;
    if (w->generation == master.generation) {
        w->svc->workers--;
        w->svc->old_workers++;
    }
    if (w->control)
        control_send(w->control, CONTROL_DRAIN, STR(""), -1);
}

/* A worker that crashes in its work is started again at once, and more slowly if it goes on crashing; one that does not
 * even come up waits for service_throttle_time, since only the administrator can mend that. */
static void slow_down(struct svc *svc, const struct worker *w) {
    if (!w->ready) {
        throttle(svc);
        return;
    }
    if (sys->mono_us() - w->started_us >= QUICK_DEATH_US) {
        svc->backoff_us = 0;
        return;
    }
    svc->not_before = svc->backoff_us ? deadline_in_us(svc->backoff_us) : 0;
    svc->backoff_us = svc->backoff_us ? svc->backoff_us * 2 : BACKOFF_FIRST_US;
    if (svc->backoff_us > BACKOFF_MAX_US)
        svc->backoff_us = BACKOFF_MAX_US;
}

/* The books, once a worker has ended and all it had to say is read. */
static void settle(struct worker *w) {
    struct svc *svc = w->svc;
    if (w->draining)
        svc->old_workers--;
    else
        svc->workers--;
    w->settled = true;
    if (w->abnormal && !w->killed && !w->draining && !master.ending && !svc->gone)
        slow_down(svc, w);
    cond_broadcast(&svc->changed);
    if (w->reader)
        coro_cancel(w->reader);
    worker_free_if_done(w);
    service_free_if_gone(svc);
}

/* The signal may be here before the frames are: has it been ready? Its children may hold the socket open, so that the
 * end of the stream does not come. */
static void settle_main(void *arg) {
    struct worker *w = arg;
    int64_t until = deadline_in_us(SETTLE_US);
    while (w->reader && !w->ready && sys->mono_us() < until)
        if (wait_until(deadline_in_us(SETTLE_STEP_US)))
            break;
    settle(w);
}

static void ended(struct worker *w, int status) {
    w->abnormal = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    w->reaped = true;
    if (w->abnormal && !w->killed) {
        if (WIFEXITED(status))
            log_warn("process %.*s pid %d exit status %d", STR_ARG(w->svc->path), (int)w->pid, WEXITSTATUS(status));
        else
            log_warn("process %.*s pid %d killed by signal %d", STR_ARG(w->svc->path), (int)w->pid, WTERMSIG(status));
    }
    if (!w->abnormal || w->ready || !w->reader || !coro_spawn(settle_main, w, "settle"))
        settle(w);
}

void workers_reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct worker *w = master.workers;
        while (w && w->pid != pid)
            w = w->next;
        if (w && !w->reaped) /* else an orphan that we inherited as process 1 */
            ended(w, status);
    }
}
