/* resolve.c - where mail for a member of an alias or a list goes: trivial-rewrite says. */
#include "local/agenda.h"
#include "proto/rewrite.h"

enum { RESOLVE_TIME = 300, AHEAD_MAX = 32 };

static error connect_rewrite(struct delivery *d) {
    struct ipc *ipc;
    if (d->rewrite)
        return NULL;
    error e = service_connect(d->r->ctx, STR("private/rewrite"), deadline_in(RESOLVE_TIME), &ipc);
    if (!e)
        d->rewrite = rewrite_link_new(ipc);
    return e;
}

static void disconnect(struct delivery *d) {
    rewrite_link_close(d->rewrite);
    d->rewrite = NULL;
}

/* The answers are in `a`. */
static error ask(struct delivery *d, struct arena *a, const struct work *w, struct resolution *ret) {
    int64_t deadline = deadline_in(RESOLVE_TIME);
    struct str origin = conf_str(d->r->ctx->conf, PARAM_myorigin), full;
    error e = rewrite_address(d->rewrite, a, w->text, origin, deadline, &full);
    return e ? e
             : rewrite_resolve(d->rewrite, a, origin_sender(d, w->from), full, deadline, &ret->route, &ret->refusal);
}

error member_resolve(struct delivery *d, const struct work *w, struct resolution *ret) {
    *ret = (struct resolution){ 0 };
    if (w->resolution) {
        *ret = *w->resolution;
        return NULL;
    }
    error e = connect_rewrite(d);
    if (!e && (e = ask(d, d->scratch, w, ret)))
        disconnect(d);
    return e;
}

struct question {
    struct delivery *d;
    struct agenda *g;
    struct work *w; /* of the agenda, to which nothing is added meanwhile */
    struct group *asking;
    bool failed;
};

static void question_main(void *arg) {
    struct question *q = arg;
    struct resolution *found = ARENA_NEW(q->g->ahead, struct resolution);
    *found = (struct resolution){ 0 };
    q->failed = ask(q->d, q->g->ahead, q->w, found) != NULL;
    if (!q->failed) {
        q->w->resolution = found;
        q->g->ahead_count++;
    }
    group_leave(q->asking);
}

void members_resolve_ahead(struct delivery *d, struct agenda *g) {
    struct question questions[AHEAD_MAX];
    struct group asking = { 0 };
    size_t n = 0;
    while (n < AHEAD_MAX && n < g->list.n) {
        struct work *w = &g->list.at[g->list.n - 1 - n];
        if (w->kind != WORK_MEMBER || w->resolution)
            break;
        questions[n++] = (struct question){ d, g, w, &asking, false };
    }
    if (n < 2 || g->one_by_one || connect_rewrite(d))
        return;
    bool failed = false;
    for (size_t i = 0; i < n && !failed; i++)
        if (coro_spawn(question_main, &questions[i], "member"))
            group_enter(&asking);
        else
            failed = true;
    int shield = coro_shield(1); /* they use what is ours */
    group_wait(&asking, DEADLINE_NEVER);
    coro_shield(shield);
    for (size_t i = 0; i < n; i++)
        failed = failed || questions[i].failed;
    if (failed) {
        disconnect(d);
        g->one_by_one = true; /* one wait for what does not answer is enough */
    }
}

void resolution_used(struct agenda *g, const struct work *w) {
    if (w->resolution && --g->ahead_count == 0)
        arena_reset(g->ahead);
}
