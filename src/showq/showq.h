/* showq.h - the queue as people see it: walked, and written as mailq writes it (postqueue(1)). */
#ifndef ANGARIUM_SHOWQ_SHOWQ_H
#define ANGARIUM_SHOWQ_SHOWQ_H

#include "conf/conf.h"
#include "proto/listing.h"
#include "queue/queue_edit.h"
#include "queue/spool.h"

/* --- walking --- */
/* Called for each message; `e` lives until it returns. False: enough. May wait. */
typedef bool showq_sink(void *ctx, const struct listing_entry *e);

struct showq {
    struct spool *spool; /* a LISTER */
    struct spool_peek *peek;
    int maildrop_fd; /* -1: cannot be read */
    bool no_reasons; /* leave delay_reason empty */
    bool bounces;    /* there are bounce logs: set by the walk */
};
error showq_open(struct showq *q, const struct conf *c, struct arena *err_arena);
void showq_close(struct showq *q);
/* `queues`: a mask of queue_states() and SHOWQ_MAILDROP. Messages that come, go or move meanwhile may be seen twice or
 * not at all. Damaged ones are passed over. */
enum { SHOWQ_MAILDROP = 1 << SPOOL_STATES };
#define SHOWQ_ALL (QUEUE_STATES_ALL | SHOWQ_MAILDROP)
void showq_walk(struct showq *q, unsigned queues, showq_sink *sink, void *ctx);
/* All of the queue for who sends it on: what is deferred comes in the packed form of listing.h, many at a time, read by
 * the offload threads while what was read before goes out. */
typedef bool showq_packed_sink(void *ctx, struct str entries);
void showq_walk_packed(struct showq *q, showq_sink *sink, showq_packed_sink *packed, void *ctx);
/* The same without looking into messages: queue_name and id alone are set, and damaged ones are given, too. */
void showq_walk_ids(struct showq *q, unsigned queues, showq_sink *sink, void *ctx);

/* --- writing --- */
enum showq_form { SHOWQ_TABLE, SHOWQ_JSON };
struct showq_writer { /* `{0}` but for the first two */
    enum showq_form form;
    bool long_ids; /* enable_long_queue_ids: wider columns */
    size_t messages;
    uint64_t bytes;
    bool open;         /* a message has been begun */
    size_t rcpts;      /* of the one begun */
    struct buf reason; /* the one written last */
    char when[40];     /* the time written last, of when_s */
    int64_t when_s;
};
/* Appends to `out`. */
void showq_write_begin(struct showq_writer *w, struct buf *out, const struct listing_entry *e);
/* More recipients of the same message; showq_write_begin() has written those it was given. */
void showq_write_rcpts(struct showq_writer *w, struct buf *out, const struct listing_rcpt *rcpts, size_t count);
/* After the last message: the totals, or that the queue is empty. Frees what the writer holds. */
void showq_write_end(struct showq_writer *w, struct buf *out);
#endif
