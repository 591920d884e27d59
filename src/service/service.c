#include "service/service.h"

#include "base/die.h"
#include "base/log.h"
#include "conf/master_cf.h"
#include "mail/address.h"
#include "run/loop.h"
#include "service/args.h"
#include "service/internal.h"
#include "service/logging.h"
#include "service/lookup_client.h"
#include "service/owner.h"
#include "table/table.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ACCEPT_BATCH = 64, /* connections taken before the sessions get their turn */
    DATAGRAM_CALL = 8, /* taken by one call */
    DATAGRAM_BATCH = 64,
    DATAGRAM_NAP_BUSY_US = 1000,
    DATAGRAM_LAST = 10000, /* when draining: a flood must not keep us */
    DATAGRAM_MAX = 65536,
    TRIGGER_SECONDS = 2,   /* to say why one has come */
    HANDOVER_SECONDS = 10, /* pass services: for the descriptor to arrive */
    NO_RESOURCES_WAIT_US = 1000000,
    NO_RESOURCES_WARN_SECONDS = 60,
    TERM_SECONDS = 2, /* after SIGTERM: for cancelled sessions to unwind */
    LOCK_RETRY_US = 100000,
    TABLES_LOOK_US = 500000, /* between two looks whether a table has changed */
};

struct session_run {
    struct session_run *next, **back;
    struct coro *coro;
    struct io *io;
    struct ipc *ipc;
    struct endpoint peer, local;
};
struct listener {
    int fd;
    struct coro *coro;
    struct endpoint at; /* where all its connections come in; len 0: at any address of the host */
};

/* One service in a process: master.cf's way of life, so this is the process's state. */
static struct {
    const struct service *s;
    struct service_ctx ctx;
    struct service_args args;
    enum service_type type;
    struct listener listeners[SERVICE_SOCKETS_MAX];
    struct session_run *sessions;
    struct group running;  /* sessions */
    struct group triggers; /* trigger connections and wakeups at work */
    struct group listening;
    struct cond room; /* a session has ended */
    struct coro *starter;
    bool full; /* as last told to master */
    int64_t idle_since;
    int64_t warned; /* out of resources, monotonic us; 0: never */
    bool terminated;
    struct ipc *standalone_ipc; /* of the one session, when it speaks frames */
    bool has_tables;            /* of which some could change out of our reach */
} run;

/* --- sessions --- */
static struct session_run *session_of(const struct io *io) {
    for (struct session_run *r = run.sessions; r; r = r->next)
        if (r->io == io)
            return r;
    return NULL;
}

/* The transport of an io whose descriptor an ipc has: one that needed another could be refused it (EMFILE). */
static ssize_t lent_read(void *ctx, void *p, size_t n, uint32_t *ret_wait) {
    (void)ctx, (void)p, (void)n, (void)ret_wait;
    errno = EBADF;
    return -1;
}
static ssize_t lent_write(void *ctx, const void *p, size_t n, uint32_t *ret_wait) {
    (void)ctx, (void)p, (void)n, (void)ret_wait;
    errno = EBADF;
    return -1;
}
static void lent_close(void *ctx) {
    (void)ctx;
}

struct ipc *service_ipc(struct io *io) {
    static const struct io_transport lent = { lent_read, lent_write, lent_close };
    struct session_run *r = session_of(io);
    struct ipc **own = r ? &r->ipc : &run.standalone_ipc;
    if (*own)
        return *own;
    int fd = io_fd(io);
    if (io_switch(io, &lent, NULL))
        die("frames over a connection that was read from");
    *own = ipc_new(fd);
    return *own;
}

bool service_peer_is_master(struct io *io) {
    struct ucred cred;
    socklen_t n = sizeof cred;
    return getsockopt(io_fd(io), SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0 || cred.pid == getppid();
}

bool service_peer_uid(struct io *io, uid_t *ret) {
    struct ucred cred;
    socklen_t n = sizeof cred;
    if (getsockopt(io_fd(io), SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0 || cred.uid == (uid_t)-1)
        return false;
    *ret = cred.uid;
    return true;
}

static void report_load(void) {
    bool full = run.ctx.session_limit && run.ctx.sessions >= run.ctx.session_limit;
    if (full != run.full) {
        run.full = full;
        link_sessions(run.ctx.sessions, full);
    }
}

void service_pack_handover(struct buf *b, const struct endpoint *peer, const struct endpoint *local) {
    const struct endpoint *ends[] = { peer, local };
    for (size_t i = 0; i < 2; i++) {
        char text[INET6_ADDRSTRLEN];
        pack_str(b, endpoint_address(ends[i], text));
        pack_u32(b, endpoint_port(ends[i]));
    }
}

static bool unpack_end(struct unpack *u, struct endpoint *ret) {
    struct str address = unpack_str(u);
    uint32_t port = unpack_u32(u);
    return !u->bad && port <= UINT16_MAX && endpoint_ip(address, (uint16_t)port, ret);
}

/* A pass service: the connection is one over which somebody (postscreen) hands us the client's. */
static struct io *take_handover(struct session_run *r) {
    struct ipc *ipc = service_ipc(r->io);
    struct ipc_msg m = { .fd = -1 };
    error e = ipc_recv(ipc, deadline_in(HANDOVER_SECONDS), &m);
    if (e || m.fd < 0) {
        log_warn("no descriptor came over the pass socket: %.*s", e ? (int)e->text.n : 0, e ? e->text.p : "");
        return NULL;
    }
    struct unpack u = unpack_from(m.payload);
    struct endpoint peer, local;
    bool told = m.payload.n && unpack_end(&u, &peer) && unpack_end(&u, &local) && unpack_done(&u);
    ipc_close(r->ipc);
    r->ipc = NULL;
    if (told) {
        r->peer = peer;
        r->local = local;
        return io_new(m.fd);
    }
    r->peer = (struct endpoint){ .len = sizeof r->peer.u };
    if (getpeername(m.fd, &r->peer.u.sa, &r->peer.len) < 0)
        r->peer.len = 0;
    r->local = (struct endpoint){ .len = sizeof r->local.u };
    if (getsockname(m.fd, &r->local.u.sa, &r->local.len) < 0)
        r->local.len = 0;
    return io_new(m.fd);
}

static void read_trigger(struct io *io) {
    struct str request;
    if (!io_some(io, CONTROL_TRIGGER_MAX, deadline_in(TRIGGER_SECONDS), &request))
        run.s->wakeup(&run.ctx, request);
}

static void session_main(void *arg) {
    struct session_run *r = arg;
    if (run.type == SERVICE_PASS) {
        struct io *io = take_handover(r);
        io_close(r->io);
        r->io = io;
    }
    if (r->io) {
        if (run.s->session)
            run.s->session(&run.ctx, r->io, &r->peer, &r->local);
        else
            read_trigger(r->io);
    }
    io_close(r->io);
    ipc_close(r->ipc);
    *r->back = r->next;
    if (r->next)
        r->next->back = r->back;
    free(r);
    run.ctx.sessions--;
    run.idle_since = sys->mono_us();
    report_load();
    cond_broadcast(&run.room); /* each listening socket waits for itself */
    group_leave(&run.running);
}

static bool session_start(struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    struct session_run *r = calloc(1, sizeof *r);
    if (!r)
        die_no_memory(sizeof *r);
    r->io = io;
    r->peer = *peer;
    r->local = *local;
    r->coro = coro_spawn(session_main, r, "session");
    if (!r->coro) {
        free(r);
        return false;
    }
    r->next = run.sessions;
    r->back = &run.sessions;
    if (r->next)
        r->next->back = &r->next;
    run.sessions = r;
    run.ctx.sessions++;
    group_enter(&run.running);
    report_load();
    return true;
}

bool service_trigger_session(struct service_ctx *ctx, struct io *io) {
    char first;
    error e = wait_readable(io_fd(io), deadline_in(TRIGGER_SECONDS));
    if (e)
        return e == &err_timeout; /* nothing to say, or ended: no frames either */
    if (recv(io_fd(io), &first, 1, MSG_PEEK | MSG_DONTWAIT) != 1)
        return true;
    if (first < 'A' || first > 'Z')
        return false;
    struct str request;
    if (!io_some(io, CONTROL_TRIGGER_MAX, deadline_in(TRIGGER_SECONDS), &request))
        run.s->wakeup(ctx, request);
    return true;
}

/* --- taking connections --- */

/* Out of descriptors or stacks: a session that ends gives some back. */
static error no_resources(const char *what, int why) {
    int64_t now = sys->mono_us();
    if (!run.warned || now - run.warned >= NO_RESOURCES_WARN_SECONDS * US_PER_S) {
        run.warned = now;
        log_warn("%s: %s -- taking no connections until a session has ended", what, strerror(why));
    }
    error e = cond_wait(&run.room, deadline_in_us(NO_RESOURCES_WAIT_US));
    return e == &err_timeout ? NULL : e;
}

static error wait_for_room(void) {
    error e = NULL;
    while (!e && run.ctx.session_limit && run.ctx.sessions >= run.ctx.session_limit)
        e = cond_wait(&run.room, DEADLINE_NEVER);
    return e;
}

static void local_end(int fd, struct endpoint *ret) {
    ret->len = sizeof ret->u;
    if (getsockname(fd, &ret->u.sa, &ret->len) < 0)
        ret->len = 0;
}

/* What each connection would be asked or told otherwise is found out and set at the listening socket: its connections
 * have its options from it. Replies are written whole, so waiting for more of them gains nothing; and as a reply
 * follows to what the client says, its acknowledgement is not sent ahead in a segment of its own. */
static void prepare_listener(struct listener *l) {
    int on = 1, off = 0;
    local_end(l->fd, &l->at);
    if (l->at.len && endpoint_is_any(&l->at))
        l->at.len = 0;
    if (run.type == SERVICE_INET) {
        setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(l->fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
    }
}

/* One round: what is there now, as far as there is room for it. */
static error accept_some(const struct listener *l) {
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        if (run.ctx.session_limit && run.ctx.sessions >= run.ctx.session_limit)
            return NULL;
        struct endpoint peer = { .len = sizeof peer.u }, local = l->at;
        int fd = sys->accept4(l->fd, &peer.u.sa, &peer.len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                return no_resources("accept connection", errno);
            if (errno == ECONNABORTED || errno == EINTR)
                continue;
            /* The others are a client's that gave up, or another worker was quicker. */
            return NULL;
        }
        if (!local.len)
            local_end(fd, &local);
        struct io *io = io_new_nonblocking(fd);
        if (!session_start(io, &peer, &local)) {
            io_close(io);
            return no_resources("start session", ENOMEM);
        }
    }
    return NULL;
}

/* How long those that come next are to wait, in microseconds; 0: they wake us. */
static int64_t read_datagrams(int fd, int most) {
    static char *bytes; /* touched only as far as datagrams reach */
    if (!bytes && !(bytes = malloc((size_t)DATAGRAM_CALL * DATAGRAM_MAX)))
        die_no_memory((size_t)DATAGRAM_CALL * DATAGRAM_MAX);
    struct iovec iov[DATAGRAM_CALL];
    struct mmsghdr messages[DATAGRAM_CALL];
    for (size_t i = 0; i < DATAGRAM_CALL; i++) {
        iov[i] = (struct iovec){ bytes + i * DATAGRAM_MAX, DATAGRAM_MAX };
        messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &iov[i], .msg_iovlen = 1 } };
    }
    int all = 0;
    for (int got = DATAGRAM_CALL; got == DATAGRAM_CALL && all < most;) { /* fewer: there are no more, or it failed */
        got = recvmmsg(fd, messages, DATAGRAM_CALL, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++)
            run.s->datagram(&run.ctx, str_n(iov[i].iov_base, messages[i].msg_len));
        all += got > 0 ? got : 0;
    }
    int64_t nap = run.s->datagrams_read ? run.s->datagrams_read(&run.ctx) : 0;
    /* the socket has room for few: senders may be waiting */
    return all >= DATAGRAM_CALL && nap > DATAGRAM_NAP_BUSY_US ? DATAGRAM_NAP_BUSY_US : nap;
}

/* Reads until cancelled. */
static error read_all_datagrams(int fd) {
    error e = NULL;
    while (!e && !run.ctx.draining) {
        wait_keep(fd);
        e = wait_readable(fd, DEADLINE_NEVER);
        int64_t nap = e ? 0 : read_datagrams(fd, DATAGRAM_BATCH);
        wait_forget(fd);
        while (!e && nap > 0 && !run.ctx.draining) {
            e = wait_until(deadline_in_us(nap));
            nap = read_datagrams(fd, DATAGRAM_BATCH);
        }
    }
    return e;
}

static error read_fifo(int fd) {
    char bytes[CONTROL_TRIGGER_MAX];
    ssize_t n = sys->read(fd, bytes, sizeof bytes);
    if (n > 0 && run.s->wakeup)
        run.s->wakeup(&run.ctx, str_n(bytes, (size_t)n));
    return NULL;
}

static void listen_main(void *arg) {
    struct listener *l = arg;
    error e = NULL;
    if (run.type == SERVICE_UNIX_DGRAM)
        e = read_all_datagrams(l->fd);
    while (!e && !run.ctx.draining) {
        if ((e = wait_for_room()) || (e = wait_listener(l->fd, DEADLINE_NEVER)) || run.ctx.draining)
            break;
        if (run.type == SERVICE_FIFO)
            e = read_fifo(l->fd);
        else
            e = accept_some(l);
        coro_yield();
    }
    if (e && e != &err_cancelled)
        log_warn("listening socket: %.*s", STR_ARG(e->text));
    if (run.type == SERVICE_UNIX_DGRAM && run.ctx.draining) /* what was sent before we go is still ours */
        read_datagrams(l->fd, DATAGRAM_LAST);
    close(l->fd);
    l->fd = -1;
    l->coro = NULL;
    group_leave(&run.listening);
}

static void accept_main(void *arg) {
    (void)arg;
    for (uint32_t i = 0; i < run.args.sockets && !run.ctx.draining; i++)
        accept_some(&run.listeners[i]);
    group_leave(&run.triggers);
}
static void accept_now(void *arg) {
    (void)arg;
    if (run.ctx.draining || run.type == SERVICE_UNIX_DGRAM || run.type == SERVICE_FIFO)
        return;
    if (coro_spawn(accept_main, NULL, "accept"))
        group_enter(&run.triggers);
}

static void kept(void *arg, struct str bytes) {
    (void)arg;
    if (run.s->kept)
        run.s->kept(&run.ctx, bytes);
}

static void stress(void *arg, uint32_t seconds) {
    (void)arg;
    run.ctx.stress_until = deadline_in(seconds);
}

error service_stressed_conf(const struct service_ctx *ctx, struct arena *a, struct conf **ret) {
    struct conf_override *overrides = arena_array(a, ctx->override_count + 1, sizeof *overrides);
    for (size_t i = 0; i < ctx->override_count; i++)
        overrides[i] = ctx->overrides[i];
    overrides[ctx->override_count] = (struct conf_override){ STR("stress"), STR("yes") };
    struct conf_source source = { .config_directory = conf_directory(ctx->conf),
                                  .overrides = overrides,
                                  .override_count = ctx->override_count + 1,
                                  .process_name = ctx->program,
                                  .service_name = ctx->name };
    return conf_load(&source, a, ret);
}

/* --- wakeups --- */
struct wake {
    size_t n;
    char bytes[CONTROL_TRIGGER_MAX];
};
static void wake_main(void *arg) {
    struct wake *w = arg;
    run.s->wakeup(&run.ctx, str_n(w->bytes, w->n));
    free(w);
    run.idle_since = sys->mono_us();
    group_leave(&run.triggers);
}
static void wakeup(void *arg, struct str request) {
    (void)arg;
    if (!run.s->wakeup || run.ctx.draining)
        return;
    struct wake *w = calloc(1, sizeof *w);
    if (!w)
        die_no_memory(sizeof *w);
    w->n = request.n < sizeof w->bytes ? request.n : sizeof w->bytes;
    memcpy(w->bytes, request.p, w->n);
    if (coro_spawn(wake_main, w, "wakeup"))
        group_enter(&run.triggers);
    else
        free(w); /* it will come again */
}

/* --- the end --- */
static void end_main(void *arg) {
    (void)arg;
    group_wait(&run.listening, DEADLINE_NEVER);
    group_wait(&run.running, DEADLINE_NEVER);
    group_wait(&run.triggers, DEADLINE_NEVER);
    group_wait(&run.ctx.work, DEADLINE_NEVER);
    if (run.starter)
        coro_cancel(run.starter);
    link_stop();
    loop_stop();
}
static void drain(void *arg) {
    (void)arg;
    if (run.ctx.draining)
        return;
    run.ctx.draining = true;
    for (uint32_t i = 0; i < run.args.sockets; i++)
        if (run.listeners[i].coro)
            coro_cancel(run.listeners[i].coro);
    if (run.s->drain)
        run.s->drain(&run.ctx);
    if (run.s->drain_cancels)
        for (struct session_run *r = run.sessions; r; r = r->next)
            coro_cancel(r->coro);
    if (!coro_spawn(end_main, NULL, "end"))
        loop_stop();
}
static void term_main(void *arg) {
    (void)arg;
    for (struct session_run *r = run.sessions; r; r = r->next)
        coro_cancel(r->coro);
    wait_until(deadline_in(TERM_SECONDS));
    loop_stop();
}
static void on_term(int signo, void *arg) {
    (void)signo;
    (void)arg;
    if (run.terminated) {
        loop_stop();
        return;
    }
    run.terminated = true;
    drain(NULL);
    if (!coro_spawn(term_main, NULL, "term"))
        loop_stop();
}

/* max_idle: a worker with nothing to do gives its memory back; master starts another when a client comes. */
static void idle_main(void *arg) {
    (void)arg;
    int64_t limit = conf_time(run.ctx.conf, PARAM_max_idle) * US_PER_S;
    run.idle_since = sys->mono_us();
    while (!run.ctx.draining) {
        if (wait_until(run.idle_since + limit))
            return;
        if (run.ctx.sessions || run.triggers.running || run.ctx.work.running)
            run.idle_since = sys->mono_us();
        else if (sys->mono_us() - run.idle_since >= limit)
            drain(NULL);
    }
}

/* A table or a file has changed that we may not read any more: a new process may. Sessions under way end with the old
 * one. */
static void tables_main(void *arg) {
    (void)arg;
    const struct table *t = NULL;
    const char *file = NULL;
    while (!run.ctx.draining && !t && !file) {
        if (wait_until(deadline_in_us(TABLES_LOOK_US)))
            return;
        t = tables_outdated();
        if (!t && run.s->outdated)
            file = run.s->outdated(&run.ctx);
    }
    if ((!t && !file) || run.ctx.draining)
        return;
    if (t) {
        struct str name = table_name(t);
        log_info("table %.*s has changed -- restarting", STR_ARG(name));
    } else {
        log_info("file %s has changed -- restarting", file);
    }
    link_leaving();
}

static void start_main(void *arg) {
    (void)arg;
    run.s->start(&run.ctx);
    run.starter = NULL;
}

/* --- the beginning --- */
static enum service_type type_of(struct str name) {
    for (enum service_type t = SERVICE_INET; t <= SERVICE_PASS; t++)
        if (str_eq(name, service_type_name(t)))
            return t;
    log_fatal("unsupported transport type: %.*s", STR_ARG(name));
}

/* Only one process at a time has the service's state: its predecessor may still be ending, also one whose master was
 * killed. The lock is the process's and ends with it. */
static void take_lock(void) {
    struct buf path = { 0 };
    buf_printf(&path, "%.*s/%.*s.%.*s", STR_ARG(conf_str(run.ctx.conf, PARAM_process_id_directory)),
               STR_ARG(run.args.type), STR_ARG(run.args.name));
    int fd = open(path.p, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        log_fatal("open lock file %s: %s", path.p, strerror(errno));
    bool told = false;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            log_fatal("lock %s: %s", path.p, strerror(errno));
        if (!told)
            log_debug("waiting for the last process of this service to end");
        told = true;
        /* Master gone: so is the need for us. */
        struct pollfd p = { .fd = WORKER_FD_CONTROL, .events = POLLRDHUP };
        if (!run.args.stdio && poll(&p, 1, LOCK_RETRY_US / 1000) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)))
            exit(0);
        if (run.args.stdio)
            usleep(LOCK_RETRY_US);
    }
    buf_free(&path); /* the descriptor stays open as long as the process */
}

static void confine_service(const struct owner *owner) {
    const struct service *s = run.s;
    struct confine c = { .flags = s->confine & ~run.ctx.confine_off, .writable = s->writable };
    struct buf empty = { 0 };
    if (owner->root) {
        if (s->empty_chroot) {
            buf_printf(&empty, "%.*s/empty", STR_ARG(conf_str(run.ctx.conf, PARAM_process_id_directory)));
            c.chroot_dir = empty.p;
        } else if (run.args.chroot && !s->no_chroot) {
            c.chroot_dir = conf_str(run.ctx.conf, PARAM_queue_directory).p;
        }
    }
    run.ctx.stay_root = owner->root && s->root && !run.args.unprivileged;
    if (!run.ctx.stay_root && !(run.ctx.standalone && s->own_rights)) {
        c.uid = owner->mail_uid;
        c.gid = owner->mail_gid;
        if (s->opens_tables) /* reads what the administrator has opened to mail_owner by a group */
            c.user = conf_str(run.ctx.conf, PARAM_mail_owner).p;
    }
    if (c.chroot_dir || (c.uid && owner->root) || (c.flags & CONFINE_NO_FILES))
        run.has_tables = tables_confine(!c.chroot_dir && !(c.flags & CONFINE_NO_FILES)) > 0;
    struct confined got;
    error e = worker_confine(&c, &got);
    if (e)
        log_fatal("confinement: %.*s", STR_ARG(e->text));
    log_debug("confined: chroot %d, user %d, no_new_privs %d, seccomp %d, landlock %d", got.chroot, got.uid,
              got.no_new_privs, got.seccomp, got.landlock);
    buf_free(&empty);
}

/* -D: debugger_command, which attaches to us and says when we may go on. */
static void run_debugger(void) {
    struct str command = conf_str(run.ctx.conf, PARAM_debugger_command);
    if (command.n == 0)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command.p, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (pid < 0 || status != 0)
        log_warn("debugger_command: %.*s: failed", STR_ARG(command));
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void spawn_or_die(void (*fn)(void *arg), void *arg, const char *name, struct coro **ret) {
    struct coro *c = coro_spawn(fn, arg, name);
    if (!c)
        log_fatal("start of %s: out of memory", name);
    if (ret)
        *ret = c;
}

/* By hand, or below `sendmail -bs`: one session with whoever is on standard input. */
static void standalone_main(void *arg) {
    (void)arg;
    struct endpoint peer = { .len = sizeof peer.u }, local = { .len = sizeof local.u };
    if (getpeername(STDIN_FILENO, &peer.u.sa, &peer.len) < 0 || getsockname(STDIN_FILENO, &local.u.sa, &local.len) < 0)
        peer.len = local.len = 0;
    struct io *io = io_stdio();
    run.ctx.sessions = 1;
    run.s->session(&run.ctx, io, &peer, &local);
    ipc_close(run.standalone_ipc);
    run.standalone_ipc = NULL;
    io_flush(io, deadline_in(TERM_SECONDS));
    io_close(io);
    run.ctx.sessions = 0;
    drain(NULL);
}

static void start_loop(void) {
    error e = loop_init();
    if (!e)
        e = loop_on_signal(SIGTERM, on_term, NULL);
    if (e)
        log_fatal("event loop: %.*s", STR_ARG(e->text));
    if (!run.ctx.standalone) {
        link_start(&(struct link_events){
            .drain = drain, .wakeup = wakeup, .accept = accept_now, .kept = kept, .stress = stress });
        for (uint32_t i = 0; i < run.args.sockets; i++) {
            run.listeners[i].fd = WORKER_FD_LISTEN + (int)i;
            if (run.type != SERVICE_FIFO)
                prepare_listener(&run.listeners[i]);
            spawn_or_die(listen_main, &run.listeners[i], "listen", &run.listeners[i].coro);
            group_enter(&run.listening);
        }
        /* what has work of its own stays */
        if (!run.s->resident && !run.s->wakeup && !run.s->start)
            spawn_or_die(idle_main, NULL, "idle", NULL);
        if (run.has_tables || run.s->outdated)
            spawn_or_die(tables_main, NULL, "tables", NULL);
    }
    if (run.s->start)
        spawn_or_die(start_main, NULL, "start", &run.starter);
    if (run.ctx.standalone)
        spawn_or_die(standalone_main, NULL, "session", NULL);
    dial_tell();
    link_ready();
}

/* Everything master's workers need of us is on descriptors it gave; a user at a terminal has none of them. */
static bool started_by_master(void) {
    struct stat st;
    if (fstat(WORKER_FD_CONTROL, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    for (uint32_t i = 0; i < run.args.sockets; i++)
        if (fcntl(WORKER_FD_LISTEN + (int)i, F_SETFD, FD_CLOEXEC) < 0)
            return false;
    return fcntl(WORKER_FD_CONTROL, F_SETFD, FD_CLOEXEC) == 0;
}

int service_main(int argc, char **argv, const struct service *s) {
    run.s = s;
    struct str program = str_c(s->program);
    struct arena *a = arena_new();
    struct owner owner;
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    logging_start_early(program, LOGGING_DAEMON);
    error e = service_args_parse(argc, argv, a, &run.args);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    run.ctx.standalone = run.args.stdio;
    if (!run.args.stdio && !started_by_master()) {
        logging_start_early(program, LOGGING_COMMAND);
        log_fatal("do not run this command by hand");
    }
    if (!run.args.stdio)
        run.type = type_of(run.args.type);
    if (run.args.stdio ? !s->session : run.type == SERVICE_UNIX_DGRAM ? !s->datagram : !s->session && !s->wakeup)
        log_fatal("service type %.*s is not supported by this program", STR_ARG(run.args.type));
    log_set_verbose(run.args.verbose);
    raise_descriptor_limit();

    struct conf_source source = { .overrides = run.args.overrides,
                                  .override_count = run.args.override_count,
                                  .process_name = program,
                                  .service_name = run.args.name };
    bool of_command = run.ctx.standalone && s->own_rights;
    enum logging_role kind = of_command ? LOGGING_COMMAND : LOGGING_DAEMON;
    if ((e = conf_load(&source, a, &run.ctx.conf)) || (e = logging_start(run.ctx.conf, program, kind, a)) ||
        (e = owner_lookup(run.ctx.conf, a, &owner)))
        log_fatal("%.*s", STR_ARG(e->text));
    struct str format = conf_str(run.ctx.conf, PARAM_info_log_address_format);
    if (!str_eq_icase(format, STR("external")) && !str_eq_icase(format, STR("internal")))
        log_fatal("bad parameter value: 'info_log_address_format = %.*s': specify external or internal",
                  STR_ARG(format));
    address_log_internal(str_eq_icase(format, STR("internal")));
    socket_window((int)conf_int(run.ctx.conf, PARAM_tcp_windowsize));
    struct str queue = conf_str(run.ctx.conf, PARAM_queue_directory);
    if (!of_command && chdir(queue.p) < 0)
        log_fatal("chdir %.*s: %s", STR_ARG(queue), strerror(errno));
    run.ctx.name = run.args.name;
    run.ctx.program = program;
    run.ctx.overrides = run.args.overrides;
    run.ctx.override_count = run.args.override_count;
    run.ctx.args = run.args.args;
    run.ctx.arg_count = run.args.arg_count;
    run.ctx.session_limit = s->multi_client || s->wakeup ? 0 : run.args.sessions;
    run.ctx.mail_uid = owner.mail_uid;
    run.ctx.mail_gid = owner.mail_gid;
    if (run.args.debug)
        run_debugger();
    if (run.args.single)
        take_lock();
    if (!s->opens_tables)
        lookup_client_start(&run.ctx);
    if (s->init && (e = s->init(&run.ctx, a)))
        log_fatal("%.*s", STR_ARG(e->text));
    confine_service(&owner);
    start_loop();
    logging_gather_start();
    e = loop_run();
    logging_gather_end();
    if (e)
        log_fatal("event loop: %.*s", STR_ARG(e->text));
    if (offload_busy() > 0) /* what their threads use, also of the libraries, is not taken away under them */
        _exit(0);
    lookup_client_stop();
    conf_free(run.ctx.conf);
    arena_free(a);
    return 0;
}
