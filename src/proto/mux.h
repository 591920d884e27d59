/* mux.h - one connection on which many coroutines ask and are answered: the client's half of submit.h, and
 * of questions.h.
 *
 * It has no coroutine of its own. Who waits for an answer reads for all who wait, one at a time; who is the first to
 * have something to say sends for all, when the others that are ready have said theirs. So 50 questions asked in one
 * round of the loop are one write, and their answers, given in one, one read. */
#ifndef ANGARIUM_PROTO_MUX_H
#define ANGARIUM_PROTO_MUX_H

#include "run/ipc.h"

struct mux_waiter { /* `{0}`; lives as long as somebody waits with it */
    struct cond changed;
    struct mux_waiter *prev, *next;
};

struct mux {
    struct ipc *ipc; /* say things with ipc_send(), then mux_flush() */
    /* A frame has come: see whom it is for, and wake that one with mux_wake(). Must not wait. An error breaks the
     * connection. */
    error (*take)(void *ctx, const struct ipc_msg *f);
    void *ctx;
    error broken; /* of no more use: why. ERR_EOF, or what was wrong with it */
    /* its own */
    bool reading, flushing;
    struct cond room;
    struct mux_waiter *first, *last; /* who waits while another reads */
};
/* Set `ipc`, `take` and `ctx`, zero the rest. Nobody may be waiting when it is closed; the ipc is closed with it. */
void mux_close(struct mux *m);

/* Wait until `done(arg)`, which is also looked at first. What stops one who waits (deadline, cancellation) does not
 * stop the others. */
error mux_wait(struct mux *m, struct mux_waiter *w, bool (*done)(const void *arg), const void *arg, int64_t deadline);
void mux_wake(struct mux_waiter *w);
/* See that what was said is sent; it may be another who does it, a moment later. */
error mux_flush(struct mux *m, int64_t deadline);
/* Wait until at most `unsent` bytes have not been sent. */
error mux_room(struct mux *m, size_t unsent, int64_t deadline);
/* Everybody who waits gets the error. */
void mux_break(struct mux *m, error e);

/* The same for the other half, which has one reader: send what was said, once for all who call it in one round of the
 * loop. `*flushing` is the connection's. */
error mux_flush_once(struct ipc *ipc, bool *flushing, int64_t deadline);
#endif
