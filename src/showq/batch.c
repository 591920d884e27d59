/* Many messages at a time: their files are read by the offload threads while what was read before goes out, in the
 * order of the directory. Only for queues that are nothing but files: the log is read by one. */
#include "showq/showq.h"

#include "run/coro.h"
#include "showq/list.h"

enum {
    BATCH = 64,               /* messages of one job */
    BATCHES = 3,              /* jobs under way */
    BATCH_BYTES_MAX = 1 << 22 /* of what is read ahead by one: a message that is larger comes alone */
};

struct batch {
    struct showq *q;
    struct arena *a;
    struct spool_entry entries[BATCH];
    struct listing_entry found[BATCH];
    bool good[BATCH];
    size_t n, read, used; /* entries, those looked at, those whose memory may be reused */
    bool running;
    struct cond done;
};

static void read_some(void *arg) {
    struct batch *b = arg;
    while (b->read < b->n && arena_used(b->a) < BATCH_BYTES_MAX) {
        size_t i = b->read++;
        b->good[i] = showq_read(b->q, &b->entries[i], b->a, &b->found[i]);
    }
}

static void run(void *arg) {
    struct batch *b = arg;
    offload(read_some, b);
    b->running = false;
    cond_signal(&b->done);
}

/* False: there is nothing more. `*inout_names`: the scan goes on (it would begin anew when asked after its end). */
static bool fill(struct batch *b, struct spool_scan *scan, enum spool_state state, bool *inout_names) {
    b->n = b->read = b->used = 0;
    arena_reset(b->a);
    while (b->n < BATCH && (*inout_names = spool_scan_next(b->q->spool, scan, state, &b->entries[b->n])))
        b->n++;
    if (b->n == 0)
        return false;
    b->running = coro_self() != NULL;
    if (b->running && !coro_spawn(run, b, "read"))
        b->running = false;
    if (!b->running)
        read_some(b);
    return true;
}

static void finish(struct batch *b) {
    int shield = coro_self() ? coro_shield(1) : 0; /* the thread uses the memory until it is done */
    while (b->running)
        cond_wait(&b->done, DEADLINE_NEVER);
    if (coro_self())
        coro_shield(shield);
}

static bool give(struct batch *b, showq_sink *sink, void *ctx) {
    finish(b);
    for (;;) {
        for (; b->used < b->read; b->used++)
            if (b->good[b->used] && !sink(ctx, &b->found[b->used]))
                return false;
        if (b->read == b->n)
            return true;
        arena_reset(b->a);
        read_some(b);
    }
}

bool showq_walk_batches(struct showq *q, enum spool_state state, showq_sink *sink, void *ctx) {
    struct batch *batches = calloc(BATCHES, sizeof *batches);
    if (!batches)
        die_no_memory(BATCHES * sizeof *batches);
    struct spool_scan scan = { .names_only = true };
    size_t first = 0, busy = 0;
    bool more = true, names = true;
    for (size_t i = 0; i < BATCHES; i++)
        batches[i] = (struct batch){ .q = q, .a = arena_new() };
    while (more && (names || busy)) {
        while (names && busy < BATCHES)
            busy += fill(&batches[(first + busy) % BATCHES], &scan, state, &names);
        if (!busy)
            break;
        more = give(&batches[first], sink, ctx);
        first = (first + 1) % BATCHES;
        busy--;
    }
    if (names)
        spool_scan_end(q->spool, &scan);
    for (size_t i = 0; i < BATCHES; i++) {
        finish(&batches[i]);
        arena_free(batches[i].a);
    }
    free(batches);
    return more;
}
