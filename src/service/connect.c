#include "base/log.h"
#include "service/internal.h"
#include "service/logging.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { LOG_RETRY_SECONDS = 1 /* between two requests for a log socket */ };

struct pending { /* a service_connect() that waits; lives on its stack */
    struct pending *next;
    uint32_t id;
    struct cond answered;
    bool done, denied;
    int fd;
    char why[256];
};

static struct {
    struct control *control;
    struct coro *reader;
    struct link_events events;
    struct pending *pending;
    uint32_t next_id;
    bool log_wanted;
} link_;

static void answer(uint32_t id, int fd, bool denied, struct str why) {
    for (struct pending *p = link_.pending; p; p = p->next) {
        if (p->id != id || p->done)
            continue;
        p->done = true;
        p->fd = fd;
        p->denied = denied;
        snprintf(p->why, sizeof p->why, "%.*s", STR_ARG(why));
        cond_broadcast(&p->answered);
        return;
    }
    if (fd >= 0) /* whoever asked has stopped waiting */
        close(fd);
}

static void on_message(struct ipc_msg *m) {
    struct unpack u = unpack_from(m->payload);
    uint32_t id;
    switch (m->type) {
    case CONTROL_DRAIN:
        link_.events.drain(link_.events.arg);
        return;
    case CONTROL_WAKEUP: {
        struct str request = unpack_str(&u);
        if (unpack_done(&u))
            link_.events.wakeup(link_.events.arg, request);
        return;
    }
    case CONTROL_CONNECTED:
        id = unpack_u32(&u);
        if (unpack_done(&u) && m->fd >= 0) {
            answer(id, m->fd, false, STR(""));
            m->fd = -1;
        }
        return;
    case CONTROL_REFUSED: {
        id = unpack_u32(&u);
        bool denied = unpack_u8(&u);
        struct str why = unpack_str(&u);
        if (unpack_done(&u))
            answer(id, -1, denied, why);
        return;
    }
    case CONTROL_LOGGER:
        if (m->fd >= 0) {
            logging_set_socket(m->fd);
            m->fd = -1;
        }
        return;
    case CONTROL_KEPT:
        link_.events.kept(link_.events.arg, m->payload);
        return;
    case CONTROL_STRESS: {
        uint32_t seconds = unpack_u32(&u);
        if (unpack_done(&u))
            link_.events.stress(link_.events.arg, seconds);
        return;
    }
    case CONTROL_ACCEPT:
        link_.events.accept(link_.events.arg);
        return;
    default:
        log_warn("unexpected message of type %u from master", m->type);
    }
}

static void read_control(void *arg) {
    (void)arg;
    struct ipc_msg m = { .fd = -1 };
    error e = NULL;
    while (!(e = control_recv(link_.control, DEADLINE_NEVER, &m))) {
        on_message(&m);
        ipc_msg_drop(&m);
    }
    for (struct pending *p = link_.pending; p; p = p->next)
        if (!p->done)
            answer(p->id, -1, false, STR("master has ended"));
    link_.reader = NULL;
    control_close(link_.control);
    link_.control = NULL;
    logging_on_lost(NULL, NULL);
    if (e != &err_cancelled)
        link_.events.drain(link_.events.arg);
}

/* Not at once: this is called from within the logger, and a syslogd takes a moment to come back. */
static void ask_for_log(void *arg) {
    (void)arg;
    error e = wait_until(deadline_in(LOG_RETRY_SECONDS));
    link_.log_wanted = false;
    if (!e && link_.control)
        control_send(link_.control, CONTROL_LOG, STR(""), -1);
}
static void log_lost(void *arg) {
    (void)arg;
    if (link_.log_wanted)
        return;
    link_.log_wanted = coro_spawn(ask_for_log, NULL, "log socket") != NULL;
}

void link_start(const struct link_events *events) {
    link_.events = *events;
    link_.control = control_new(WORKER_FD_CONTROL);
    if (!link_.control)
        log_fatal("control socket: out of descriptors");
    link_.reader = coro_spawn(read_control, NULL, "control");
    if (!link_.reader)
        log_fatal("control socket: out of memory");
    logging_on_lost(log_lost, NULL);
}
void link_may_dial(struct str path) {
    if (link_.control)
        control_send(link_.control, CONTROL_MAY_DIAL, path, -1);
}
void link_ready(void) {
    if (link_.control)
        control_send(link_.control, CONTROL_READY, STR(""), -1);
}
void link_sessions(uint32_t n, bool full) {
    if (!link_.control)
        return;
    struct buf b = { 0 };
    pack_u32(&b, n);
    pack_u8(&b, full);
    control_send(link_.control, CONTROL_SESSIONS, buf_str(&b), -1);
    buf_free(&b);
}
void link_leaving(void) {
    if (link_.control)
        control_send(link_.control, CONTROL_LEAVING, STR(""), -1);
}
void service_keep(struct service_ctx *ctx, struct str bytes) {
    if (!ctx->standalone && link_.control)
        control_send(link_.control, CONTROL_KEEP, bytes, -1);
}
void link_stop(void) {
    if (link_.reader)
        coro_cancel(link_.reader);
}

/* --- the contract of service.h --- */

/* Ask master for a connection, by a CONTROL_CONNECT or CONTROL_DIAL of this text, or for a CONTROL_SCRATCH. */
static error ask_for_connection(uint8_t type, struct str what, int64_t deadline, int *ret_fd) {
    /* The text must outlive this call and has no arena: one per process is enough, callers log it at once. */
    static struct err refused = { .kind = ERR_TEMP };
    static char text[256];
    if (!link_.control)
        return &err_eof;
    struct pending p = { .next = link_.pending, .id = link_.next_id++, .fd = -1 };
    struct buf b = { 0 };
    pack_u32(&b, p.id);
    pack_str(&b, what);
    control_send(link_.control, type, buf_str(&b), -1);
    buf_free(&b);
    link_.pending = &p;
    error e = NULL;
    while (!p.done && !e)
        e = cond_wait(&p.answered, deadline);
    for (struct pending **at = &link_.pending; *at; at = &(*at)->next)
        if (*at == &p) {
            *at = p.next;
            break;
        }
    if (p.done && p.fd >= 0) {
        if (e)
            close(p.fd);
        else
            *ret_fd = p.fd;
        return e;
    }
    if (!p.done)
        return e;
    snprintf(text, sizeof text, "%s", p.why);
    refused.kind = p.denied ? ERR_PERM : ERR_TEMP;
    refused.text = str_c(text);
    return &refused;
}

error service_connect(struct service_ctx *ctx, struct str endpoint, int64_t deadline, struct ipc **ret) {
    if (ctx->standalone)
        return ipc_connect(endpoint, deadline, ret);
    int fd = -1;
    error e = ask_for_connection(CONTROL_CONNECT, endpoint, deadline, &fd);
    if (!e)
        *ret = ipc_new(fd);
    return e;
}

error link_dial(struct str path, int64_t deadline, int *ret_fd) {
    return ask_for_connection(CONTROL_DIAL, path, deadline, ret_fd);
}

error service_scratch_file(struct service_ctx *ctx, int64_t deadline, int *ret_fd) {
    return ctx->standalone ? &err_limit : ask_for_connection(CONTROL_SCRATCH, STR(""), deadline, ret_fd);
}

void service_trigger(struct service_ctx *ctx, struct str endpoint, struct str request) {
    if (!ctx->standalone) {
        if (!link_.control)
            return;
        struct buf b = { 0 };
        pack_str(&b, endpoint);
        pack_str(&b, request);
        control_send(link_.control, CONTROL_TRIGGER, buf_str(&b), -1);
        buf_free(&b);
        return;
    }
    struct endpoint at;
    struct io *io;
    if (!endpoint_unix(endpoint, &at) || io_connect(&at, NULL, deadline_in(1), &io))
        return;
    io_write(io, request);
    io_flush(io, deadline_in(1));
    io_close(io);
}
