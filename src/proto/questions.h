/* questions.h - numbered questions over one connection (mux.h), each answered once, in any order: the client's half of
 * rewrite.h and anvil.h. An answer begins with the u32 number of its question. */
#ifndef ANGARIUM_PROTO_QUESTIONS_H
#define ANGARIUM_PROTO_QUESTIONS_H

#include "proto/mux.h"

/* On the stack of who asks, first in a struct that has room for the answer. */
struct pending_question {
    uint32_t number;
    struct mux_waiter waiter;
    bool answered;
};

struct questions { /* set `mux.ipc`, `max`, `answer_type`, `take` and `malformed`, zero the rest; then questions_init()
                    */
    struct mux mux;
    uint32_t max;        /* under way at a time; more wait for their turn */
    uint8_t answer_type; /* of frames */
    /* What follows the number. `q` NULL: who asked has stopped waiting. False: malformed. */
    bool (*take)(struct pending_question *q, struct unpack *u);
    error malformed;
    size_t count; /* of those who ask, or wait for their turn */
    /* its own */
    struct pending_question **at; /* by number, modulo their number */
    size_t under_way;
    uint32_t next;
    struct cond turn; /* under_way has gone down */
};
void questions_init(struct questions *l);
/* Nobody may be asking. */
void questions_end(struct questions *l);
/* `body` follows the number. Back with NULL, `q` has been given to take(). */
error questions_ask(struct questions *l, struct pending_question *q, uint8_t type, struct str body, int64_t deadline);
#endif
