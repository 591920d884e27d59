/* scheduler_private.h - what the files of the scheduler share: scheduler.c (who is next), destination.c (concurrency,
 * and what is dead). */
#ifndef ANGARIUM_QMGR_SCHEDULER_PRIVATE_H
#define ANGARIUM_QMGR_SCHEDULER_PRIVATE_H

#include "qmgr/scheduler.h"

struct scheduler {
    struct scheduler_options options;
    struct map transports;
    struct ring_link ready; /* transports that have something to deliver */
    struct heap timers;     /* destinations' and transports' */
    size_t waiting, busy;   /* entries */
    size_t destinations;
    uint64_t arrivals;
};

/* Why nothing is tried there, until when. */
struct rest {
    int64_t until;
    struct str dsn, reason; /* in one block with this */
};

/* --- destination.c --- */
void *scheduler_alloc(size_t n); /* zeros */
struct rest *rest_new(int64_t until, struct str dsn, struct str prefix, struct str reason);
unsigned destination_initial_window(const struct transport *t);
/* Alive, with nothing held against it. */
void destination_live(struct destination *d);
/* What an attempt teaches. */
void destination_reached(struct destination *d);
void destination_unreachable(struct destination *d, struct str dsn, struct str reason, int64_t now);
void destination_agent_lost(struct destination *d, struct str dsn, struct str reason, int64_t now);
#endif
