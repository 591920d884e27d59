#include "proto/questions.h"

#include "base/die.h"
#include <stdlib.h>

static error take_answer(void *ctx, const struct ipc_msg *f) {
    struct questions *l = ctx;
    struct unpack u = unpack_from(f->payload);
    uint32_t number = unpack_u32(&u);
    if (u.bad || f->type != l->answer_type)
        return l->malformed;
    struct pending_question *q = l->at[number % l->max];
    if (q && q->number != number)
        q = NULL;
    if (!l->take(q, &u))
        return l->malformed;
    if (q) {
        q->answered = true;
        mux_wake(&q->waiter);
    }
    return NULL;
}

void questions_init(struct questions *l) {
    l->mux.take = take_answer;
    l->mux.ctx = l;
    if (!(l->at = calloc(l->max, sizeof(struct pending_question *))))
        die_no_memory(l->max * sizeof *l->at);
}

void questions_end(struct questions *l) {
    if (l->count > 0)
        die("a connection is closed while %zu questions are under way", l->count);
    mux_close(&l->mux);
    free(l->at);
}

static bool is_answered(const void *q) {
    return ((const struct pending_question *)q)->answered;
}

static error ask(struct questions *l, struct pending_question *q, uint8_t type, struct str body, int64_t deadline) {
    error e = l->mux.broken;
    while (!e && l->under_way == l->max) {
        e = cond_wait(&l->turn, deadline);
        if (!e)
            e = l->mux.broken;
    }
    if (e)
        return e;
    while (l->at[l->next % l->max])
        l->next++;
    q->number = l->next++;
    struct pending_question **place = &l->at[q->number % l->max];
    *place = q;
    l->under_way++;
    struct buf b = { 0 };
    pack_u32(&b, q->number);
    buf_add(&b, body);
    ipc_send(l->mux.ipc, type, buf_str(&b), -1);
    buf_free(&b);
    e = mux_flush(&l->mux, deadline);
    if (!e)
        e = mux_wait(&l->mux, &q->waiter, is_answered, q, deadline);
    *place = NULL;
    l->under_way--;
    cond_signal(&l->turn);
    return e;
}

error questions_ask(struct questions *l, struct pending_question *q, uint8_t type, struct str body, int64_t deadline) {
    l->count++;
    error e = ask(l, q, type, body, deadline);
    l->count--;
    if (l->mux.broken) /* those that wait for their turn will not get it */
        cond_broadcast(&l->turn);
    return e;
}
