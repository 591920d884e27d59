/* qmgr.h - the queue manager's parts and what they share.
 *
 *   feed.c       which messages are taken up, from where, when
 *   active.c     one message while it is active: taken up, its content, its end
 *   assign.c     its recipients: read, sorted by destination
 *   scheduler.c  which delivery is next (knows no messages)
 *   destination.c  how many deliveries at a time, and when none
 *   transport.c  parameters of transports, connections to their agents
 *   deliver.c    one delivery: the conversation with an agent
 *   control.c    changes an administrator asks for
 *   defer.c      what is written down about recipients; next tries, notices, the end of patience
 *   fast_flush.c flush is told of what was deferred
 *   main.c       the service
 *
 * Everything runs in one thread; a struct message may be touched by several coroutines, never across a wait without
 * `pending` held. */
#ifndef ANGARIUM_QMGR_QMGR_H
#define ANGARIUM_QMGR_QMGR_H

#include "proto/delivery.h"
#include "qmgr/scheduler.h"
#include "queue/queue_edit.h"
#include "queue/spool.h"
#include "route/route.h"
#include "run/coro.h"

struct message;
struct fast_flush;

/* The world outside, for main() and for tests. */
struct qmgr_outside {
    error (*connect)(void *ctx, struct str endpoint, int64_t deadline, struct ipc **ret);
    error (*resolve)(void *ctx, struct arena *a, struct str sender, struct str recipient, struct route *ret);
    /* the same for probes of addresses (address_verify_transport_maps and its kin); NULL: as for mail */
    error (*resolve_probe)(void *ctx, struct arena *a, struct str sender, struct str recipient, struct route *ret);
    /* most sessions the agent takes (master.cf's maxproc); 0: no limit */
    unsigned (*process_limit)(void *ctx, struct str transport);
    void *ctx;
};

enum {
    FEED_NOTICES_MAX = 10000, /* told of and not taken up yet; more are found by a scan */
    ASSIGNING_MAX = 200,      /* messages whose recipients are being sorted at a time: each has a stack */
};

struct feed_want {
    struct queue_id id;
    enum spool_state state;
    bool flush;
};

struct feed_source {
    struct spool_scan scan;
    bool running, wanted;
};

struct qmgr {
    const struct conf *conf;
    struct spool *spool;
    struct qmgr_outside outside;
    struct scheduler *scheduler;
    bool draining;
    bool look_at_log; /* notices may have been lost */

    struct map active;      /* queue id -> struct message */
    size_t rcpts;           /* recipients in memory */
    struct message *hungry; /* a ring of messages that have recipients to read and no room for them */
    size_t contents;        /* content descriptors open */
    size_t assigning;       /* messages whose recipients are being sorted, which may wait for a database */
    struct group *work;     /* coroutines that hold a message */
    struct fast_flush *fast_flush;

    /* feed.c */
    struct cond feed_wake, want_room;
    bool no_room;            /* it sleeps, and had no room for more */
    int64_t feed_until;      /* mono_us: it sleeps until then */
    struct feed_want *wants; /* a ring */
    size_t want_first, want_count;
    struct feed_source incoming, active_left, deferred;
    bool ignore_times;                                        /* the deferred scan that runs */
    bool ignore_times_next;                                   /* the next one: trigger A */
    int64_t next_deferred_scan, next_active_scan, next_sweep; /* mono_us */
    int64_t next_incoming_scan, next_refill;                  /* mono_us */
    int64_t next_old, old_pause;                              /* mono_us, and microseconds: the slow start */
    unsigned old_passed;
};

/* What main.cf says; `spool` is a READER. */
struct qmgr *qmgr_new(const struct conf *c, struct spool *spool, const struct qmgr_outside *outside,
                      struct group *work);
/* No message may be active. */
void qmgr_free(struct qmgr *q);

/* --- feed.c --- */
/* Until q->draining: scans, takes messages up. The first thing it does is to take up what was active. */
void feed_run(struct qmgr *q);
void feed_notice(struct qmgr *q, const struct queue_id *id, enum spool_state state);
/* A segment of the log has grown. */
void feed_log(struct qmgr *q, struct spool_position position);
/* Deferred mail that is to be tried now; `flush` as in message_take_up(). Waits until it can be remembered: of many ids
 * none is lost. An error: the wait was cancelled. */
error feed_deferred_id(struct qmgr *q, const struct queue_id *id, bool flush);
/* Trigger bytes as in qmgr(8): A and F before D and I, whatever their order. */
void feed_trigger(struct qmgr *q, struct str bytes);
/* There may be room for more. */
void feed_more(struct qmgr *q);
/* The scheduler may have a delivery at a certain time that it has not now: deliver_start() is called then. */
void feed_pace(struct qmgr *q);
/* No more deliveries are begun; those under way go on. Messages without one are let go at once. */
void feed_drain(struct qmgr *q);

/* --- active.c --- */
enum outcome { OUTCOME_NONE, OUTCOME_DONE, OUTCOME_DEFERRED };

/* Recipients that were read together. Slot n of a message is number n % PIECE_MAX in piece n / PIECE_MAX: what entries,
 * agents and answers call a recipient, for as long as it is in memory. */
enum { PIECE_MAX = SPOOL_RCPTS_WHOLE };
struct piece {
    struct arena *arena; /* its own; NULL: in the message's */
    struct rcpt *rcpts;
    uint32_t *index;           /* in the message; NULL: from 0 on */
    uint8_t *outcome, *marked; /* enum outcome; is the mark in the file set? */
    size_t count, held;        /* held: not yet let go of by who sorts it, or by its entry */
};

struct message {
    struct qmgr *q;
    struct arena *arena;
    struct queue_id id;
    struct arrival arrival;
    struct envelope env;
    struct spool_content content; /* fd -1 and no bytes: not open now */
    unsigned content_users;
    int64_t active_us;            /* wall clock */
    bool flush;                   /* taken up by a flush: defer_transports does not hold it */
    enum queue_edit asked;        /* to be deleted, held or requeued when no agent has it any more; 0: goes its way */
    size_t pending;               /* entries waiting or busy, and one while it is being set up */
    size_t todo, answered;        /* recipients: to do in this attempt, read or not; what became of them is known */
    struct piece whole, **pieces; /* pieces: `only`, or an array of its own; a piece that is done with is NULL */
    struct piece *only;
    size_t piece_count, rcpts; /* rcpts: in memory */
    struct spool_rest rest;    /* to be read yet */
    bool sorting;              /* a coroutine reads and sorts recipients */
    int64_t refill_at;         /* mono_us: by then more is to be read, however little there is room for */
    struct message *hungry_next, *hungry_prev; /* NULL: not in the ring */
    VEC(struct spool_failure) deferred; /* of this attempt, for warnings and the end of patience: the first ones */
    size_t deferred_count;
    struct buf reasons;          /* records of the same, not written yet */
    bool deferred_lost;          /* not all have been or can be written */
    struct spool_failure *known; /* control.c: of earlier attempts, of an expired message */
    size_t known_count;
    bool known_read;
    bool bounced;          /* the bounce log has something, perhaps of earlier attempts */
    bool traced;           /* so has the trace log */
    bool tracing;          /* of this attempt the sender wants a report (sendmail -v, -bv) */
    VEC(struct str) sites; /* for flush: domains of deferred recipients, lower case */
};
/* Nothing more is to be begun for it. */
static inline bool message_stopped(const struct message *m) {
    return m->q->draining || m->asked;
}

enum taken { TAKEN, NOT_TAKEN, BUSY_ELSEWHERE };
enum taken message_take_up(struct qmgr *q, const struct queue_id *id, enum spool_state from, bool flush);
/* What spool_log_next() gave. */
enum taken message_from_log(struct qmgr *q, const struct spool_entry *e);
/* One of the message's parts has ended; the last one ends the attempt (defer.c, in a coroutine of its own). */
void message_release(struct message *m);
/* The content, opened when needed; true: m->content may be used until message_content_done(). */
bool message_content(struct message *m);
void message_content_done(struct message *m);
/* Out of memory; the file stays where it is. */
void message_forget(struct message *m);

/* --- assign.c --- */
/* The recipients that spool_load_front() has brought, or none yet. */
void rcpts_begin(struct message *m);
/* Sort all that there is room for, in a coroutine of its own, which holds one `pending`. */
void rcpts_assign(struct message *m);
/* Recipients (of `m`) have been let go of: a message that had no room for more may have it now. */
void rcpts_refill(struct qmgr *q, struct message *m_or_null);
/* Time has passed: the same for all of them (many are looked at in turns). */
void rcpts_refill_all(struct qmgr *q);
/* Slots: in memory? of a recipient in memory: itself, enum outcome, its index in the message. */
bool slot_is_there(const struct message *m, uint32_t slot);
struct rcpt *message_rcpt(const struct message *m, uint32_t slot);
uint8_t *message_outcome(const struct message *m, uint32_t slot);
uint32_t slot_index(const struct message *m, uint32_t slot);
/* For `*at` from 0: the next slot whose outcome is DONE and whose mark is not set. */
bool slot_unmarked(const struct message *m, uint32_t *at, uint32_t *ret);
void slot_set_marked(struct message *m, uint32_t slot);
/* It and its recipients are let go of. */
void entry_free(struct entry *e);
/* Free all recipients. */
void rcpts_end(struct message *m);

/* --- control.c --- */
/* An administrator's connection; EDIT_MSG_OPEN has been read. `allowed`: the peer may; `in_office`: we have the spool.
 */
void control_session(struct qmgr *q, struct ipc *ipc, bool allowed, bool in_office);
/* What was asked of a message, now that it is at rest. */
void control_end(struct message *m);
/* Nothing is tried for an expired message: its recipients are answered here. */
void control_expired(struct message *m, uint32_t slot);

/* --- defer.c --- */
struct result { /* of one recipient */
    enum delivery_status status;
    struct str address; /* empty: that of the recipient */
    bool passed_on;     /* delivery_result */
    struct str dsn, action, reason, diagnostic_type, diagnostic, remote_type, remote_mta;
};
/* Write down what became of the recipient in `slot`; a second answer for the same is ignored. May wait for the disk. */
void rcpt_result(struct message *m, uint32_t slot, const struct result *r);
/* The same for what the queue manager itself has decided, with the log line that otherwise the agent writes. */
void rcpt_decide(struct message *m, uint32_t slot, enum delivery_status status, struct str dsn, struct str reason);
/* Deferred as it was before, or, when that is not known (NULL), by the administrator's wish. */
void rcpt_expired(struct message *m, uint32_t slot, const struct spool_failure *known);
/* Defer all of an entry's unanswered recipients, and free it. */
void entry_defer(struct entry *e, struct str dsn, struct str reason);
/* All of a list from the scheduler. */
void entries_defer(struct entry *list, struct str dsn, struct str reason);
/* Let an entry go without an answer: the recipients stay to be done. */
void entry_abandon(struct entry *e);
/* The attempt is over: notices, then gone or deferred. Frees `m`. */
void message_end(struct message *m);

/* --- fast_flush.c --- */
struct fast_flush *fast_flush_new(struct qmgr *q);
void fast_flush_free(struct fast_flush *f);
/* A recipient of `m` has been deferred: if fast_flush_domains lists its domain, that is one of the message's sites. May
 * wait for a table. */
void fast_flush_rcpt(struct message *m, struct str address);
/* `m` has been moved to deferred: flush is told its sites. What cannot be told is left out with a warning (the mail has
 * its own next try). */
void fast_flush_add(const struct message *m);

/* --- deliver.c --- */
/* Start everything that may start. */
void deliver_start(struct qmgr *q);

/* --- transport.c --- */
void transport_params_from(const struct qmgr *q, struct str name, struct transport_params *ret);
/* An idle connection, or a new one; `*ret_used`: it has served before, so that a failure may only mean that it had been
 * closed. */
error transport_connect(struct qmgr *q, struct transport *t, struct ipc **ret, bool *ret_used);
void transport_keep(struct qmgr *q, struct transport *t, struct ipc *ipc);
/* Close connections idle for longer than `idle_us`; 0: all. */
void transport_close_idle(struct transport *t, int64_t idle_us);
#endif
