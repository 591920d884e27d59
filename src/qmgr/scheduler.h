/* scheduler.h - what is delivered next, and where nothing is delivered for a while. Pure decisions: no messages, no
 * connections, no clock of its own (times are mono_us of run/sys.h, given in).
 *
 * A transport (smtp, local ...) has destinations, and jobs: a job is what one message has for one transport. An entry
 * is the recipients of one message that go to one destination together. Transports take turns. Within a transport the
 * entry comes from the first job, in the order of jobs, that has an entry for a destination with room in its
 * concurrency window; when it has several such destinations, they take turns. So a job that cannot go on is passed by,
 * and a destination's own entries go in the order of jobs too.
 *
 * Jobs are in the order in which their messages were taken up, but for preemption (SCHEDULER_README): a job whose
 * entries are selected accumulates one delivery slot for each `slot_cost` of them. A job that needs no more slots than
 * the current job has, or has nearly (`slot_discount`, `slot_loan`), and that has waited longest for its size, is put
 * in front of all others, and its need is taken from the current job's slots. So one message delays another by no more
 * than 1/(slot_cost - 1) of the other's own time, and small mail slips by a newsletter.
 *
 * How this costs no more than a few heap operations an entry, whatever waits: a destination has its jobs in a heap, by
 * order; a transport has its destinations that may deliver in a heap, by the order of their first job. Candidates for
 * preemption are in heaps by size (powers of two) and age. A candidate found to have no destination that may deliver
 * is parked with its destinations, and each event at a destination puts one of those back.
 *
 * Concurrency of a destination (postconf(5), default_destination_concurrency_*): begins at
 * initial_destination_concurrency, grows with success, shrinks with failures to connect, and the destination is dead,
 * for minimal_backoff_time, when whole cohorts have failed.
 *
 * A destination whose agent's connection was lost is a suspect: of all suspects of a transport only one is tried at a
 * time, so that the one which kills the agent is found; lost again, it is dead, for longer each time. */
#ifndef ANGARIUM_QMGR_SCHEDULER_H
#define ANGARIUM_QMGR_SCHEDULER_H

#include "base/map.h"
#include "qmgr/feedback.h"
#include "qmgr/heap.h"

struct message;
struct scheduler;
struct connection; /* transport.c */

struct transport_params {
    unsigned process_limit; /* deliveries at a time; 0: no limit */
    unsigned initial_concurrency;
    unsigned concurrency_limit;   /* per destination; 0: none */
    unsigned recipient_limit;     /* per delivery; 0: none */
    unsigned failed_cohort_limit; /* 0: never dead */
    struct feedback positive, negative;
    bool feedback_debug;               /* destination_concurrency_feedback_debug */
    int64_t destination_rate_us;       /* between deliveries to a destination, one at a time; 0: none */
    int64_t transport_rate_us;         /* between deliveries of the transport, one at a time; 0: none */
    unsigned slot_cost;                /* 0: no preemption */
    unsigned slot_discount, slot_loan; /* percent; slots */
    unsigned minimum_slots;            /* a job that can never have so many is not preempted */
    unsigned rcpts_limit, rcpts_extra; /* recipients in memory, for active.c: *_recipient_limit and _extra_ */
    unsigned refill_limit;             /* *_recipient_refill_limit */
    int64_t refill_us;                 /* *_recipient_refill_delay */
};

struct entry {
    struct entry *next;
    struct message *message;
    struct destination *destination;
    uint32_t *rcpts; /* slots in the message (qmgr.h); `few` or memory of its own */
    uint32_t rcpt_count, rcpt_room, bytes;
    uint32_t few[3];
    struct transport *transport; /* outlives the destination */
    struct str nexthop;          /* the destination's name, or behind this struct */
    bool suspect;                /* begun as one */
};

/* A message, to the scheduler: begun by scheduler_arrive(), ended by scheduler_depart(). */
struct arrival {
    uint64_t seq;     /* in order of arrival */
    int64_t since;    /* mono_us */
    size_t unread;    /* recipients that may become entries yet, of whatever transport */
    struct job *jobs; /* linked by `next` */
};

struct job {
    struct job *next;
    struct arrival *arrival;
    struct transport *transport;
    int64_t rank;                 /* order: smaller first */
    struct peer *listed, *parked; /* with entries waiting: what it has for one destination */
    struct heap_node by_age;      /* in its transport's heap of candidates of its size */
    unsigned size_class;          /* that heap */
    size_t waiting, taken;        /* entries waiting; selected so far */
    size_t used;                  /* slots given to others */
    bool preempts;                /* has been put in front of another */
};

struct ring_link {
    struct ring_link *next, *prev; /* NULL: not in a ring */
};

struct destination {
    struct heap_node node; /* in `in` */
    struct heap *in;       /* its transport's ready or suspects, or NULL */
    struct transport *transport;
    struct str name;
    struct heap peers, parked; /* what jobs have for it, by order; of these, candidates that wait for it */
    struct peer *open;         /* the last one that was added to */
    size_t waiting, busy;      /* entries waiting, being delivered */
    unsigned window;
    double success, failure, failed_cohorts;
    struct heap_node timer; /* until the rate delay is over */
    struct rest *rest;      /* dead: until when and why; NULL: alive */
    unsigned losses;        /* agents lost in a row; not 0: a suspect */
    int64_t lost_at, clog_at;
};

enum { SCHEDULER_CLASSES = 32 };

struct transport {
    struct ring_link link;
    struct scheduler *scheduler;
    struct str name;
    struct transport_params params;
    struct map destinations;
    struct heap ready, suspects;
    struct heap candidates[SCHEDULER_CLASSES];
    uint32_t classes; /* bit set: that heap is not empty */
    size_t busy, suspects_busy;
    bool suspects_turn;
    uint64_t turn;           /* counts selections: destinations of one job take turns */
    int64_t front;           /* rank of the foremost job so far */
    struct heap_node timer;  /* until the rate delay is over */
    struct rest *rest;       /* dead */
    size_t rcpts;            /* recipients in memory, kept by active.c */
    struct connection *idle; /* connections for the next deliveries */
};

struct scheduler_options {
    int64_t destination_retry_us, destination_retry_max_us, transport_retry_us;
    size_t destinations_max; /* so many are remembered; beyond, one without mail is forgotten, dead or not */
    size_t clog_entries;     /* more of one destination are warned of; 0: never */
    int64_t clog_warn_us;    /* at most this often */
    /* the parameters of a transport seen for the first time */
    void (*params_of)(void *ctx, struct str name, struct transport_params *ret);
    void *ctx;
};
struct scheduler *scheduler_new(const struct scheduler_options *o);
/* No entry may be waiting or busy, and all messages have departed. */
void scheduler_free(struct scheduler *s);

struct transport *scheduler_transport(struct scheduler *s, struct str name);
/* Until the next call of scheduler_done() or scheduler_sweep(), or as long as it has entries. */
struct destination *scheduler_destination(struct transport *t, struct str name);

/* Is nothing to be tried there now? Then why, for the recipients' defer records. */
bool destination_dead(struct destination *d, int64_t now, struct str *ret_dsn, struct str *ret_reason);

void scheduler_arrive(struct scheduler *s, struct arrival *a, int64_t now);
/* So many of its recipients may become entries yet. */
void scheduler_unread(struct arrival *a, size_t unread);
/* None of its entries is waiting; some may be busy. */
void scheduler_depart(struct arrival *a);
/* The entry last added for this message and destination, if it still waits. */
struct entry *destination_open(const struct destination *d, const struct arrival *a);
/* Not to a dead destination. */
void scheduler_add(struct entry *e, struct arrival *a, int64_t now);
/* The next entry that may be delivered, now busy; NULL: none. */
struct entry *scheduler_next(struct scheduler *s, int64_t now);
/* When scheduler_next() may have one though nothing has happened; INT64_MAX: never. */
int64_t scheduler_wake(const struct scheduler *s);

enum attempt {
    ATTEMPT_DONE,         /* the destination was there, whatever it said */
    ATTEMPT_UNREACHABLE,  /* delivery_done.destination_dead */
    ATTEMPT_LOST,         /* the connection to the agent was lost */
    ATTEMPT_NO_TRANSPORT, /* no agent answers */
    ATTEMPT_ABANDONED,    /* not made */
};
/* A busy entry has been tried. `dsn` and `reason` say why for the failures. Returns the entries (linked by `next`) that
 * are not going to be tried now, because their destination or transport has just been found dead; they are the
 * caller's, and their destinations stay until the next call. `e->destination` may be gone after this. */
struct entry *scheduler_done(struct entry *e, enum attempt outcome, struct str dsn, struct str reason, int64_t now);
/* Forget what is dead (qmgr(8), trigger F). */
void scheduler_revive(struct scheduler *s);
/* All of a message's entries that wait, linked by next; they are the caller's. */
struct entry *scheduler_take(struct arrival *a);
/* All waiting entries. */
struct entry *scheduler_take_all(struct scheduler *s);
/* Free what has been idle or dead long enough. */
void scheduler_sweep(struct scheduler *s, int64_t now);
/* Walk the transports: `size_t at = 0`. */
struct transport *scheduler_each(struct scheduler *s, size_t *at);
size_t scheduler_waiting(const struct scheduler *s);
#endif
