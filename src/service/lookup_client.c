#include "service/lookup_client.h"

#include "base/map.h"
#include "proto/lookup.h"

enum {
    CONNECTIONS_MAX = 64,  /* look-ups at a time, of one service name */
    OF_ONE_TABLE_MAX = 16, /* of those, so that a table that hangs leaves room for the others */
    GRACE_SECONDS = 5,     /* longer than the look-up process takes: its own words are the better ones */
};

struct lane { /* one table; there are as many as main.cf names */
    unsigned busy;
    struct cond room;
};

struct pool {
    struct str endpoint;
    struct ipc *idle[CONNECTIONS_MAX];
    size_t idle_count, open;
    struct cond room;
    struct map lanes; /* spec -> struct lane */
};

static struct {
    struct service_ctx *ctx;
    struct arena *arena;
    struct pool read, write; /* proxymap, proxywrite */
} client;

static error take(struct pool *p, int64_t deadline, struct ipc **ret, bool *ret_used_before) {
    while (p->idle_count == 0 && p->open == CONNECTIONS_MAX) {
        error e = cond_wait(&p->room, deadline);
        if (e)
            return e;
    }
    *ret_used_before = p->idle_count > 0;
    if (p->idle_count > 0) {
        *ret = p->idle[--p->idle_count];
        return NULL;
    }
    p->open++;
    error e = service_connect(client.ctx, p->endpoint, deadline, ret);
    if (e) {
        p->open--;
        cond_signal(&p->room);
    }
    return e;
}

static void give_back(struct pool *p, struct ipc *ipc, bool usable) {
    if (usable) {
        p->idle[p->idle_count++] = ipc;
    } else {
        ipc_close(ipc);
        p->open--;
    }
    cond_signal(&p->room);
}

static enum table_result failed(const struct pool *p, error e, struct arena *a, struct str *ret_why) {
    *ret_why = arena_printf(a, "%.*s service: %.*s", STR_ARG(p->endpoint), STR_ARG(e->text));
    return TABLE_ERROR;
}

static struct lane *lane_of(struct pool *p, struct str spec) {
    struct lane *l = map_get(&p->lanes, spec);
    if (!l) {
        l = ARENA_NEW(client.arena, struct lane);
        *l = (struct lane){ 0 };
        map_put(&p->lanes, arena_str(client.arena, spec), l);
    }
    return l;
}

static error lane_enter(struct lane *l, int64_t deadline) {
    while (l->busy == OF_ONE_TABLE_MAX) {
        error e = cond_wait(&l->room, deadline);
        if (e)
            return e;
    }
    l->busy++;
    return NULL;
}

static void lane_leave(struct lane *l) {
    l->busy--;
    cond_signal(&l->room);
}

/* Over a kept connection if there is one. A connection that ends may only mean that the process behind it has: then
 * another is asked, and at last a new one; when that ends too while it is asked, one more. Asking twice does no harm.
 */
static error ask_over(struct pool *p, const struct table_question *q, int64_t deadline, struct arena *a,
                      enum table_result *ret, struct str *ret_key, struct str *ret_value, struct str *ret_why) {
    for (bool again = false;;) {
        struct ipc *ipc;
        bool used_before;
        error e = take(p, deadline, &ipc, &used_before);
        if (e)
            return e;
        e = lookup_ask(ipc, q, deadline, a, ret, ret_key, ret_value, ret_why);
        give_back(p, ipc, !e);
        if (!e || e->kind == ERR_CANCELLED || e->kind == ERR_TIMEOUT || e->kind == ERR_LIMIT)
            return e;
        if (!used_before && again)
            return e;
        again = again || !used_before;
    }
}

static enum table_result ask(void *ctx, const struct table_question *q, struct arena *a, struct str *ret_key,
                             struct str *ret_value, struct str *ret_why) {
    (void)ctx;
    struct pool *p = q->flags & TABLE_WRITE ? &client.write : &client.read;
    if (!coro_self()) {
        *ret_why = STR("asked before the service was up");
        return TABLE_ERROR;
    }
    int64_t deadline = deadline_in(LOOKUP_SECONDS + GRACE_SECONDS);
    struct lane *lane = lane_of(p, q->spec);
    enum table_result result = TABLE_ERROR;
    error e = lane_enter(lane, deadline);
    if (!e) {
        e = ask_over(p, q, deadline, a, &result, ret_key, ret_value, ret_why);
        lane_leave(lane);
    }
    return e ? failed(p, e, a, ret_why) : result;
}

void lookup_client_start(struct service_ctx *ctx) {
    static const struct table_remote remote = { .ask = ask, .users = true };
    client.ctx = ctx;
    client.arena = arena_new();
    client.read.endpoint =
        arena_printf(client.arena, "private/%.*s", STR_ARG(conf_str(ctx->conf, PARAM_proxymap_service_name)));
    client.write.endpoint =
        arena_printf(client.arena, "private/%.*s", STR_ARG(conf_str(ctx->conf, PARAM_proxywrite_service_name)));
    table_set_remote(&remote);
}

void lookup_client_stop(void) {
    struct pool *pools[] = { &client.read, &client.write };
    for (size_t i = 0; i < 2; i++) {
        while (pools[i]->idle_count)
            ipc_close(pools[i]->idle[--pools[i]->idle_count]);
        map_free(&pools[i]->lanes);
    }
    if (client.arena)
        arena_free(client.arena);
    client.arena = NULL;
    table_set_remote(NULL);
}
