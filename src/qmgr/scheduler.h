/* scheduler.h - what is delivered next, and where nothing is delivered for a while. Pure decisions: no messages, no
 * connections, no clock of its own (times are mono_us of run/sys.h, given in).
 *
 * A transport (smtp, local ...) has destinations; a destination has a queue of entries, each the recipients of one
 * message that go there together. An entry may be delivered when its destination has room in its concurrency window and
 * its transport has a process left. Transports take turns, destinations of a transport take turns, entries of a
 * destination go in order of arrival. A scheduler that lets small messages overtake large ones replaces
 * destination_pop() and scheduler_add(); nothing else knows the order.
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
#include "conf/conf.h"

struct message;
struct scheduler;
struct connection; /* transport.h */

struct feedback { /* "1", "1/5", "1/concurrency", "1/sqrt_concurrency" */
    double value;
    enum { FEEDBACK_CONSTANT, FEEDBACK_BY_CONCURRENCY, FEEDBACK_BY_SQRT } kind;
};
/* False: malformed, or outside 0..1. */
bool feedback_parse(struct str s, struct feedback *ret);
double feedback_amount(const struct feedback *f, unsigned concurrency);

struct transport_params {
    unsigned process_limit; /* deliveries at a time; 0: no limit */
    unsigned initial_concurrency;
    unsigned concurrency_limit;   /* per destination; 0: none */
    unsigned recipient_limit;     /* per delivery; 0: none */
    unsigned failed_cohort_limit; /* 0: never dead */
    struct feedback positive, negative;
    bool feedback_debug; /* destination_concurrency_feedback_debug */
};

struct entry {
    struct entry *next;
    struct message *message;
    struct destination *destination;
    uint32_t *rcpts; /* indices in the message */
    size_t rcpt_count, rcpt_room, bytes;
    struct str nexthop; /* lives as long as the message */
    bool suspect;       /* begun as one */
};

struct ring_link {
    struct ring_link *next, *prev; /* NULL: not in a ring */
};

struct destination {
    struct ring_link link; /* first: in its transport's ready or suspect ring */
    struct transport *transport;
    struct str name;
    struct entry *first, *last; /* waiting */
    size_t waiting, busy;       /* entries waiting, being delivered */
    unsigned window;
    double success, failure, failed_cohorts;
    int64_t dead_until;               /* 0: alive */
    struct str dead_dsn, dead_reason; /* own memory */
    unsigned losses;                  /* agents lost in a row; not 0: a suspect */
    int64_t lost_at;
    struct entry *open; /* the entry that takes more recipients of the message being assigned, see active.c */
};

struct transport {
    struct ring_link link;
    struct scheduler *scheduler;
    struct str name;
    struct transport_params params;
    struct map destinations;
    struct ring_link ready, suspects; /* heads */
    size_t busy, suspects_busy;
    bool suspects_turn;
    int64_t dead_until;
    struct str dead_dsn, dead_reason;
    struct connection *idle; /* connections for the next deliveries */
};

/* `params_of` gives the parameters of a transport seen for the first time. */
struct scheduler *scheduler_new(int64_t destination_retry_us, int64_t destination_retry_max_us,
                                int64_t transport_retry_us,
                                void (*params_of)(void *ctx, struct str name, struct transport_params *ret), void *ctx);
/* No entry may be waiting or busy. */
void scheduler_free(struct scheduler *s);

struct transport *scheduler_transport(struct scheduler *s, struct str name);
struct destination *scheduler_destination(struct transport *t, struct str name);

/* Is nothing to be tried there now? Then why, for the recipients' defer records. */
bool destination_dead(struct destination *d, int64_t now, struct str *ret_dsn, struct str *ret_reason);
/* Not to a dead destination. */
void scheduler_add(struct entry *e);
/* The next entry that may be delivered, now busy; NULL: none. */
struct entry *scheduler_next(struct scheduler *s);

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
/* All waiting entries. */
struct entry *scheduler_take_all(struct scheduler *s);
/* Free what has been idle or dead long enough. */
void scheduler_sweep(struct scheduler *s, int64_t now);
/* Walk the transports: `size_t at = 0`. */
struct transport *scheduler_each(struct scheduler *s, size_t *at);
size_t scheduler_waiting(const struct scheduler *s);
#endif
