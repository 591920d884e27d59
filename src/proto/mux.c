#include "proto/mux.h"

static void list_add(struct mux *m, struct mux_waiter *w) {
    w->next = NULL;
    w->prev = m->last;
    if (m->last)
        m->last->next = w;
    else
        m->first = w;
    m->last = w;
}

static void list_remove(struct mux *m, struct mux_waiter *w) {
    if (w->prev)
        w->prev->next = w->next;
    else
        m->first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        m->last = w->prev;
}

void mux_wake(struct mux_waiter *w) {
    cond_signal(&w->changed);
}

void mux_break(struct mux *m, error e) {
    if (m->broken)
        return;
    /* what stopped one in the middle of a frame is none of the others' business */
    m->broken = e->kind == ERR_CANCELLED || e->kind == ERR_TIMEOUT ? &err_eof : e;
    for (struct mux_waiter *w = m->first; w; w = w->next)
        mux_wake(w);
    cond_broadcast(&m->room);
}

void mux_close(struct mux *m) {
    ipc_close(m->ipc);
    m->ipc = NULL;
}

/* Something has come, for whomever, or the deadline. Only one reads at a time. */
static error wait_once(struct mux *m, struct mux_waiter *w, int64_t deadline) {
    if (m->reading) {
        list_add(m, w);
        error e = cond_wait(&w->changed, deadline);
        list_remove(m, w);
        return e;
    }
    struct ipc_msg f;
    m->reading = true;
    error e = ipc_recv(m->ipc, deadline, &f);
    m->reading = false;
    if (e && (e->kind == ERR_TIMEOUT || e->kind == ERR_CANCELLED))
        return e;
    if (!e) {
        ipc_msg_drop(&f); /* nobody sends descriptors here */
        e = m->take(m->ctx, &f);
    }
    if (e)
        mux_break(m, e);
    return e;
}

error mux_wait(struct mux *m, struct mux_waiter *w, bool (*done)(const void *arg), const void *arg, int64_t deadline) {
    error e = NULL;
    while (!e && !done(arg))
        e = m->broken ? m->broken : wait_once(m, w, deadline);
    if (!m->reading && m->first) /* another has to read now */
        mux_wake(m->first);
    return done(arg) ? NULL : e;
}

error mux_flush_once(struct ipc *ipc, bool *flushing, int64_t deadline) {
    *flushing = true;
    if (coro_self())
        coro_yield(); /* the others that are ready speak first */
    error e = ipc_flush(ipc, deadline);
    *flushing = false;
    return e;
}

error mux_flush(struct mux *m, int64_t deadline) {
    if (m->broken || m->flushing)
        return m->broken;
    error e = mux_flush_once(m->ipc, &m->flushing, deadline);
    cond_broadcast(&m->room);
    if (e)
        mux_break(m, e);
    return m->broken;
}

error mux_room(struct mux *m, size_t unsent, int64_t deadline) {
    error e = m->broken;
    while (!e && ipc_unsent(m->ipc) > unsent) {
        e = m->flushing ? cond_wait(&m->room, deadline) : mux_flush(m, deadline);
        if (!e)
            e = m->broken;
    }
    return e;
}
