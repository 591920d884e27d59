/* Many messages at a time: their files are read by the offload threads while what was read before goes out, in the
 * order of the directory. Only for queues that are nothing but files: the log is read by one. */
#include "showq/showq.h"

#include "run/coro.h"
#include "showq/list.h"

enum {
    BATCH = 128,            /* messages of one job */
    BATCHES = 4,            /* jobs under way */
    PACKED_MAX = 256 * 1024 /* bytes that one job gathers: the rest of its messages is read when these are gone */
};

struct batch {
    struct showq *q;
    struct spool_peek *peek;
    struct arena *a;
    struct spool_entry entries[BATCH];
    size_t n, read;    /* entries, those looked at */
    struct buf packed; /* of those looked at, what is not given yet */
    bool large;        /* the next one is too large to be packed */
    bool running;
    struct cond done;
};

static void read_some(void *arg) {
    struct batch *b = arg;
    struct listing_entry e;
    while (b->read < b->n && b->packed.n < PACKED_MAX && !b->large) {
        arena_reset(b->a);
        if (showq_read(b->q, b->peek, &b->entries[b->read], b->a, &e) && !listing_pack(&b->packed, &e))
            b->large = true;
        else
            b->read++;
    }
}

static void run(void *arg) {
    struct batch *b = arg;
    offload(read_some, b);
    b->running = false;
    cond_signal(&b->done);
}

static void start(struct batch *b) {
    b->running = coro_self() != NULL;
    if (b->running && !coro_spawn(run, b, "read"))
        b->running = false;
    if (!b->running)
        read_some(b);
}

/* False: there is nothing more. `*inout_names`: the scan goes on (it would begin anew when asked after its end). */
static bool fill(struct batch *b, struct spool_scan *scan, enum spool_state state, bool *inout_names) {
    b->n = b->read = 0;
    while (b->n < BATCH && (*inout_names = spool_scan_next(b->q->spool, scan, state, &b->entries[b->n])))
        b->n++;
    if (b->n == 0)
        return false;
    start(b);
    return true;
}

static void finish(struct batch *b) {
    int shield = coro_self() ? coro_shield(1) : 0; /* the thread uses the memory until it is done */
    while (b->running)
        cond_wait(&b->done, DEADLINE_NEVER);
    if (coro_self())
        coro_shield(shield);
}

static bool give_large(struct batch *b, showq_sink *sink, void *ctx) {
    struct listing_entry e;
    b->large = false;
    arena_reset(b->a);
    return !showq_read(b->q, b->peek, &b->entries[b->read++], b->a, &e) || sink(ctx, &e);
}

static bool give(struct batch *b, showq_sink *sink, showq_packed_sink *packed, void *ctx) {
    for (;;) {
        finish(b);
        if (b->packed.n > 0 && !packed(ctx, buf_str(&b->packed)))
            return false;
        buf_clear(&b->packed);
        if (b->large && !give_large(b, sink, ctx))
            return false;
        if (b->read == b->n)
            return true;
        start(b);
    }
}

bool showq_walk_batches(struct showq *q, enum spool_state state, showq_sink *sink, showq_packed_sink *packed,
                        void *ctx) {
    struct batch *batches = calloc(BATCHES, sizeof *batches);
    if (!batches)
        die_no_memory(BATCHES * sizeof *batches);
    struct spool_scan scan = { .names_only = true };
    size_t first = 0, busy = 0;
    bool more = true, names = true;
    for (size_t i = 0; i < BATCHES; i++)
        batches[i] = (struct batch){ .q = q, .peek = spool_peek_new(q->spool), .a = arena_new() };
    while (more && (names || busy)) {
        while (names && busy < BATCHES)
            busy += fill(&batches[(first + busy) % BATCHES], &scan, state, &names);
        if (!busy)
            break;
        more = give(&batches[first], sink, packed, ctx);
        first = (first + 1) % BATCHES;
        busy--;
    }
    if (names)
        spool_scan_end(q->spool, &scan);
    for (size_t i = 0; i < BATCHES; i++) {
        finish(&batches[i]);
        spool_peek_free(batches[i].peek);
        arena_free(batches[i].a);
        buf_free(&batches[i].packed);
    }
    free(batches);
    return more;
}
