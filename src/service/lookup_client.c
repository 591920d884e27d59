#include "service/lookup_client.h"

#include "proto/lookup.h"

enum {
    CONNECTIONS_MAX = 32, /* look-ups at a time, of one service name */
    GRACE_SECONDS = 5,    /* longer than the look-up process takes: its own words are the better ones */
};

struct pool {
    struct str endpoint;
    struct ipc *idle[CONNECTIONS_MAX];
    size_t idle_count, open;
    struct cond room;
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

static enum table_result ask(void *ctx, const struct table_question *q, struct arena *a, struct str *ret_key,
                             struct str *ret_value, struct str *ret_why) {
    (void)ctx;
    struct pool *p = q->flags & TABLE_WRITE ? &client.write : &client.read;
    if (!coro_self()) {
        *ret_why = STR("asked before the service was up");
        return TABLE_ERROR;
    }
    int64_t deadline = deadline_in(LOOKUP_SECONDS + GRACE_SECONDS);
    for (;;) {
        struct ipc *ipc;
        bool used_before;
        enum table_result result = TABLE_ERROR;
        error e = take(p, deadline, &ipc, &used_before);
        if (e)
            return failed(p, e, a, ret_why);
        e = lookup_ask(ipc, q, deadline, a, &result, ret_key, ret_value, ret_why);
        give_back(p, ipc, !e);
        if (!e)
            return result;
        /* A kept connection may have ended with the process behind it: others, then a new one. */
        if (!used_before || e->kind == ERR_CANCELLED || e->kind == ERR_TIMEOUT || e->kind == ERR_LIMIT)
            return failed(p, e, a, ret_why);
    }
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
    for (size_t i = 0; i < 2; i++)
        while (pools[i]->idle_count)
            ipc_close(pools[i]->idle[--pools[i]->idle_count]);
    if (client.arena)
        arena_free(client.arena);
    client.arena = NULL;
    table_set_remote(NULL);
}
