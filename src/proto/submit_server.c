#include "proto/submit.h"

#include "base/die.h"
#include "proto/mux.h"
#include <stdlib.h>
#include <unistd.h>

enum {
    RECORD_HEAD = 5,
    TEXT_MAX = 2000,
    REPLY_SECONDS = 100, /* for the client to take what is said to it */
};

struct submit_conn {
    struct submit_server *server;
    struct ipc *ipc;
    struct coro *reader;
    struct submit_in *slots[SUBMIT_STREAMS_MAX];
    size_t live;          /* messages, also those that were cancelled and have not ended yet */
    struct group running; /* the same */
    struct cond room;     /* live has gone down */
    bool flushing;
    bool gone; /* nothing can be said to the client */
    struct submit_conn *next, **back;
};

struct submit_in {
    struct submit_conn *conn;
    uint32_t number;
    bool gone; /* nothing more comes: cancelled, or the client has gone */
    bool answered;
    struct buf in;   /* received */
    struct buf now;  /* being read: what is given out stays where it is while more comes */
    size_t at, end;  /* of `now`: read; given out */
    size_t unread;   /* bytes of both */
    uint32_t credit; /* bytes read of which the client has not been told */
    struct cond more;
    int fds[SUBMIT_FDS_MAX];
    size_t fd_count;
};

static const struct err malformed = {
    .kind = ERR_SYNTAX, .dsn = STR_INIT(""), .text = STR_INIT("malformed request"), .detail = STR_INIT("")
};
static const struct err over_window = { .kind = ERR_SYNTAX,
                                        .dsn = STR_INIT(""),
                                        .text = STR_INIT("more content sent than was asked for"),
                                        .detail = STR_INIT("") };

/* --- sending --- */

static void conn_flush(struct submit_conn *c) {
    if (c->flushing || c->gone)
        return;
    error e = mux_flush_once(c->ipc, &c->flushing, deadline_in(REPLY_SECONDS));
    if (e && !c->gone) {
        c->gone = true;
        coro_cancel(c->reader);
    }
}

static void say(struct submit_in *m, enum submit_frame type, const struct buf *rest) {
    struct submit_conn *c = m->conn;
    if (m->gone || c->gone)
        return;
    ipc_send_numbered(c->ipc, (uint8_t)type, m->number, buf_str(rest));
    conn_flush(c);
}

size_t submit_in_descriptors(struct submit_in *m, int ret[SUBMIT_FDS_MAX]) {
    size_t n = m->fd_count;
    memcpy(ret, m->fds, n * sizeof *ret);
    m->fd_count = 0;
    return n;
}

void submit_in_opened(struct submit_in *m, const struct queue_id *id) {
    struct buf b = { 0 };
    pack_str(&b, queue_id_str(id));
    say(m, SUBMIT_FRAME_OPENED, &b);
    buf_free(&b);
}

static void forget_number(struct submit_in *m) {
    struct submit_in **slot = &m->conn->slots[m->number % SUBMIT_STREAMS_MAX];
    if (*slot == m)
        *slot = NULL;
}

void submit_in_result(struct submit_in *m, const struct submit_result *r) {
    if (m->answered)
        return;
    m->answered = true;
    forget_number(m);
    struct buf b = { 0 }, text = { 0 };
    if (r->status == SUBMIT_REPLY)
        buf_add(&text, r->text); /* lines, and printable */
    else
        buf_printable(&text, r->text, TEXT_MAX);
    pack_u8(&b, (uint8_t)r->status);
    pack_str(&b, queue_id_str(&r->id));
    pack_u64(&b, r->size);
    pack_str(&b, r->dsn);
    pack_str(&b, buf_str(&text));
    say(m, SUBMIT_FRAME_RESULT, &b);
    buf_free(&b);
    buf_free(&text);
}

/* --- receiving --- */
int submit_record_next(struct str *bytes, struct submit_record *ret) {
    if (bytes->n < RECORD_HEAD)
        return 0;
    struct unpack u = unpack_from(*bytes);
    uint32_t size = unpack_u32(&u);
    uint8_t type = unpack_u8(&u);
    if (size > SUBMIT_RECORD_MAX)
        return -1;
    if (u.rest.n < size)
        return 0;
    *ret = (struct submit_record){ type, str_sub(u.rest, 0, size) };
    *bytes = str_from(u.rest, size);
    return 1;
}

/* `n` bytes will not be looked at again. */
static void release(struct submit_in *m, size_t n) {
    struct submit_server *s = m->conn->server;
    m->unread -= n;
    s->held -= n;
    cond_broadcast(&s->room);
}

static void tell_credit(struct submit_in *m) {
    if (m->credit < SUBMIT_WINDOW / 2)
        return;
    struct buf b = { 0 };
    pack_u32(&b, m->credit);
    m->credit = 0;
    say(m, SUBMIT_FRAME_CREDIT, &b);
    buf_free(&b);
}

/* What has come meanwhile, behind what is left. */
static void take_in(struct submit_in *m) {
    buf_consume(&m->now, m->at);
    m->at = 0;
    if (m->now.n > 0) {
        buf_add(&m->now, buf_str(&m->in));
        buf_clear(&m->in);
        return;
    }
    struct buf empty = m->now;
    m->now = m->in;
    m->in = empty;
}

error submit_in_next(struct submit_in *m, struct submit_record *ret) {
    for (;;) {
        struct str rest = str_from(buf_str(&m->now), m->at);
        size_t before = rest.n;
        int got = submit_record_next(&rest, ret);
        if (got < 0)
            return &malformed;
        if (got > 0) {
            size_t n = before - rest.n;
            m->at += n;
            m->credit += (uint32_t)n;
            release(m, n);
            tell_credit(m);
            return NULL;
        }
        if (m->in.n == 0) {
            if (m->gone)
                return &err_eof;
            error e = cond_wait(&m->more, DEADLINE_NEVER);
            if (e)
                return e;
            continue;
        }
        take_in(m);
    }
}

/* --- one message --- */
static void message_main(void *arg) {
    struct submit_in *m = arg;
    struct submit_conn *c = m->conn;
    c->server->message(c->server->ctx, m);
    submit_in_result(m, &(struct submit_result){
                            .status = SUBMIT_BAD, .dsn = STR("4.3.0"), .text = STR("Error: internal protocol error") });
    for (size_t i = 0; i < m->fd_count; i++)
        close(m->fds[i]);
    release(m, m->unread);
    buf_free(&m->in);
    buf_free(&m->now);
    free(m);
    c->live--;
    cond_signal(&c->room);
    if (c->server->draining && c->live == 0)
        coro_cancel(c->reader);
    group_leave(&c->running);
}

static error begin(struct submit_conn *c, uint32_t number, struct submit_in **ret) {
    struct submit_in **slot = &c->slots[number % SUBMIT_STREAMS_MAX];
    if (*slot)
        return &malformed;
    while (c->live >= SUBMIT_STREAMS_MAX) { /* cancelled ones that have not noticed yet */
        error e = cond_wait(&c->room, DEADLINE_NEVER);
        if (e)
            return e;
    }
    struct submit_in *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    m->conn = c;
    m->number = number;
    if (!coro_spawn(message_main, m, "message")) {
        free(m);
        return err_errno(12); /* ENOMEM */
    }
    c->live++;
    group_enter(&c->running);
    *ret = *slot = m;
    return NULL;
}

static error take_frame(struct submit_conn *c, struct ipc_msg *f) {
    struct unpack u = unpack_from(f->payload);
    uint32_t number = unpack_u32(&u);
    if (u.bad)
        return &malformed;
    struct submit_in *m = c->slots[number % SUBMIT_STREAMS_MAX];
    if (f->type == SUBMIT_FRAME_BEGIN) {
        error e = begin(c, number, &m);
        if (e)
            return e;
    } else if (f->type != SUBMIT_FRAME_DATA && f->type != SUBMIT_FRAME_CANCEL && f->type != SUBMIT_FRAME_DESCRIPTOR) {
        return &malformed;
    } else if (!m || m->number != number) {
        return NULL; /* it was answered before all of it had come */
    }
    if (f->type == SUBMIT_FRAME_DESCRIPTOR) {
        if (f->fd < 0 || m->fd_count == SUBMIT_FDS_MAX || u.rest.n > 0)
            return &malformed;
        m->fds[m->fd_count++] = f->fd;
        f->fd = -1;
        return NULL;
    }
    if (f->type == SUBMIT_FRAME_CANCEL) {
        forget_number(m);
        m->gone = true;
    } else {
        if (u.rest.n > SUBMIT_WINDOW - m->unread - m->credit)
            return &over_window;
        buf_add(&m->in, u.rest);
        m->unread += u.rest.n;
        c->server->held += u.rest.n;
    }
    cond_signal(&m->more);
    return NULL;
}

static error receive(struct submit_conn *c) {
    struct submit_server *s = c->server;
    for (;;) {
        error e = NULL;
        while (!e && s->held > s->held_max)
            e = cond_wait(&s->room, DEADLINE_NEVER);
        struct ipc_msg f;
        if (!e)
            e = ipc_recv(c->ipc, DEADLINE_NEVER, &f);
        if (e)
            return e;
        e = take_frame(c, &f);
        ipc_msg_drop(&f); /* a descriptor that nobody wants */
        if (e)
            return e;
    }
}

error submit_serve(struct submit_server *s, struct ipc *ipc) {
    struct submit_conn *c = calloc(1, sizeof *c);
    if (!c)
        die_no_memory(sizeof *c);
    *c = (struct submit_conn){ .server = s, .ipc = ipc, .reader = coro_self(), .next = s->conns, .back = &s->conns };
    s->conns = c;
    if (c->next)
        c->next->back = &c->next;

    error e = s->draining ? &err_eof : receive(c);
    c->gone = true;
    for (size_t i = 0; i < SUBMIT_STREAMS_MAX; i++)
        if (c->slots[i]) {
            c->slots[i]->gone = true;
            cond_signal(&c->slots[i]->more);
        }
    int shield = coro_shield(1); /* what was committed is finished whatever happens to us */
    group_wait(&c->running, DEADLINE_NEVER);
    coro_shield(shield);

    *c->back = c->next;
    if (c->next)
        c->next->back = c->back;
    free(c);
    return e->kind == ERR_SYNTAX ? e : NULL;
}

void submit_drain(struct submit_server *s) {
    s->draining = true;
    for (struct submit_conn *c = s->conns; c; c = c->next) {
        if (c->live == 0)
            coro_cancel(c->reader);
        else if (!c->gone)
            ipc_send(c->ipc, SUBMIT_FRAME_CLOSING, STR(""), -1); /* goes with the next answer */
    }
}
