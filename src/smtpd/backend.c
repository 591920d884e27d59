#include "smtpd/backend.h"

#include "base/die.h"
#include "proto/rewrite.h"
#include <stdlib.h>

struct pool {
    struct service_ctx *ctx;
    struct str endpoint;
    struct ipc *idle[REWRITE_OPEN_MAX];
    size_t idle_count, idle_max, open, open_max; /* open_max 0: no limit */
    struct cond room;
};

struct daemons {
    struct arena *arena;
    struct pool rewrite;
    struct service_ctx *ctx;
    struct str cleanup;                           /* endpoint */
    struct submit_link *links[CLEANUP_LINKS_MAX]; /* to it; NULL: none */
    struct cond connected;
    bool connecting;
    struct dns *dns;
    struct str myorigin, flush;
    int64_t timeout; /* seconds */
};

/* --- connections --- */
static error pool_take(struct pool *p, int64_t deadline, struct ipc **ret, bool *ret_used_before) {
    error e = NULL;
    while (p->idle_count == 0 && p->open_max && p->open >= p->open_max)
        if ((e = cond_wait(&p->room, deadline)))
            return e;
    *ret_used_before = p->idle_count > 0;
    if (p->idle_count > 0) {
        *ret = p->idle[--p->idle_count];
        return NULL;
    }
    p->open++;
    e = service_connect(p->ctx, p->endpoint, deadline, ret);
    if (e) {
        p->open--;
        cond_signal(&p->room);
    }
    return e;
}

static void pool_drop(struct pool *p, struct ipc *ipc) {
    ipc_close(ipc);
    p->open--;
    cond_signal(&p->room);
}

static void pool_give_back(struct pool *p, struct ipc *ipc) {
    if (p->idle_count == p->idle_max) {
        pool_drop(p, ipc);
        return;
    }
    p->idle[p->idle_count++] = ipc;
    cond_signal(&p->room);
}

/* --- trivial-rewrite --- */
struct question {
    struct daemons *d;
    struct arena *a;
    struct str sender, address;
    bool is_sender;
    struct route *route;
    error *refusal;
};

static error ask_resolve(struct ipc *ipc, struct question *q, int64_t deadline) {
    struct str complete;
    error e = rewrite_address(ipc, q->a, q->address, q->d->myorigin, deadline, &complete);
    if (e)
        return e;
    return rewrite_resolve(ipc, q->a, q->sender, complete, deadline, q->route, q->refusal);
}

static error ask_validate(struct ipc *ipc, struct question *q, int64_t deadline) {
    return rewrite_validate(ipc, q->a, q->is_sender, q->address, deadline, q->refusal);
}

/* Ask over a kept connection; if that one has died meanwhile, over a new one. */
static error ask(struct question *q, error (*fn)(struct ipc *, struct question *, int64_t)) {
    struct pool *p = &q->d->rewrite;
    int64_t deadline = deadline_in(q->d->timeout);
    for (;;) {
        struct ipc *ipc;
        bool used_before;
        error e = pool_take(p, deadline, &ipc, &used_before);
        if (e)
            return e;
        e = fn(ipc, q, deadline);
        if (!e) {
            pool_give_back(p, ipc);
            return NULL;
        }
        pool_drop(p, ipc);
        if (!used_before || e->kind == ERR_CANCELLED || e->kind == ERR_TIMEOUT)
            return e;
    }
}

static error real_resolve(void *ctx, struct arena *a, struct str sender, struct str recipient, struct route *ret,
                          error *ret_route_error) {
    struct question q = {
        .d = ctx, .a = a, .sender = sender, .address = recipient, .route = ret, .refusal = ret_route_error
    };
    return ask(&q, ask_resolve);
}

static error real_validate(void *ctx, struct arena *a, bool is_sender, struct str address, error *ret_refusal) {
    struct question q = { .d = ctx, .a = a, .address = address, .is_sender = is_sender, .refusal = ret_refusal };
    return ask(&q, ask_validate);
}

static void real_client_name(void *ctx, struct arena *a, const struct endpoint *client, struct dns_client *ret) {
    struct daemons *d = ctx;
    dns_client_name(d->dns, a, client, deadline_in(NAME_LOOKUP_TIME), ret);
}

/* --- cleanup --- */
struct submission {
    struct daemons *d;
    struct submit *m;
};

static int64_t cleanup_deadline(const struct daemons *d) {
    return deadline_in(d->timeout);
}

/* A connection that is of no more use goes with its last message. */
static void links_sweep(struct daemons *d) {
    for (size_t i = 0; i < CLEANUP_LINKS_MAX; i++)
        if (d->links[i] && !submit_link_usable(d->links[i]) && submit_link_count(d->links[i]) == 0) {
            submit_link_close(d->links[i]);
            d->links[i] = NULL;
        }
}

static struct submit_link *link_find(struct daemons *d, struct submit_link ***ret_free) {
    *ret_free = NULL;
    links_sweep(d);
    for (size_t i = 0; i < CLEANUP_LINKS_MAX; i++) {
        if (d->links[i] && submit_link_usable(d->links[i]))
            return d->links[i];
        if (!d->links[i] && !*ret_free)
            *ret_free = &d->links[i];
    }
    return NULL;
}

/* One for all sessions, as long as it has room; only one of them makes it, the others wait. */
static error link_take(struct daemons *d, int64_t deadline, struct submit_link **ret, bool *ret_used_before) {
    error e = NULL;
    while (!e) {
        struct submit_link **place;
        *ret = link_find(d, &place);
        *ret_used_before = true;
        if (*ret)
            return NULL;
        if (!place) /* full of connections that are full or about to end */
            return &err_limit;
        if (d->connecting) {
            e = cond_wait(&d->connected, deadline);
            continue;
        }
        struct ipc *ipc;
        d->connecting = true;
        e = service_connect(d->ctx, d->cleanup, deadline, &ipc);
        d->connecting = false;
        cond_broadcast(&d->connected);
        if (!e) {
            *ret = *place = submit_link_new(ipc);
            *ret_used_before = false;
            return NULL;
        }
    }
    return e;
}

static error real_submit_open(void *ctx, struct arena *a, unsigned flags, struct submission **ret,
                              struct queue_id *ret_id, struct submit_result *ret_refused) {
    struct daemons *d = ctx;
    struct submit_link *link = NULL;
    struct submit *m = NULL;
    bool used_before = true;
    error e = &err_eof;
    *ret = NULL;
    /* a connection that has died, or whose cleanup is about to end, is replaced without anybody noticing */
    for (int i = 0; i <= CLEANUP_LINKS_MAX && e && used_before && e->kind != ERR_CANCELLED && e->kind != ERR_TIMEOUT;
         i++) {
        int64_t deadline = cleanup_deadline(d);
        e = link_take(d, deadline, &link, &used_before);
        if (e)
            return e;
        e = submit_open(link, flags, deadline, a, &m, ret_id, ret_refused);
    }
    if (e || ret_refused->status != SUBMIT_OK)
        return e;
    *ret = calloc(1, sizeof **ret);
    if (!*ret)
        die_no_memory(sizeof **ret);
    **ret = (struct submission){ d, m };
    return NULL;
}

static error real_submit_envelope(struct submission *m, const struct envelope *e) {
    return submit_envelope(m->m, e, cleanup_deadline(m->d));
}

static error real_submit_rcpt(struct submission *m, const struct rcpt *r) {
    return submit_rcpt(m->m, r, cleanup_deadline(m->d));
}

static error real_submit_content(struct submission *m, struct str bytes) {
    return submit_content(m->m, bytes, cleanup_deadline(m->d));
}

static error real_submit_end(struct submission *m, struct arena *a, struct submit_result *ret) {
    error e = submit_end(m->m, cleanup_deadline(m->d), a, ret);
    free(m);
    return e;
}

static void real_submit_abort(struct submission *m) {
    submit_cancel(m->m);
    free(m);
}

/* --- flush: asked too rarely to keep a connection --- */
static error real_flush_site(void *ctx, struct str site, enum flush_status *ret) {
    const struct daemons *d = ctx;
    int64_t deadline = deadline_in(d->timeout);
    struct ipc *ipc;
    error e = service_connect(d->ctx, d->flush, deadline, &ipc);
    if (e)
        return e;
    e = flush_send_site(ipc, site, deadline, ret);
    ipc_close(ipc);
    return e;
}

/* --- all of them --- */
error backend_open(struct service_ctx *ctx, struct arena *err_arena, struct backend *ret) {
    static struct daemons d;
    const struct conf *c = ctx->conf;
    d = (struct daemons){ .myorigin = conf_str(c, PARAM_myorigin), .timeout = conf_time(c, PARAM_ipc_timeout) };
    d.arena = arena_new();
    d.ctx = ctx;
    d.cleanup = arena_printf(d.arena, "public/%.*s", STR_ARG(conf_str(c, PARAM_cleanup_service_name)));
    d.rewrite = (struct pool){ .ctx = ctx,
                               .endpoint = arena_printf(d.arena, "private/%.*s",
                                                        STR_ARG(conf_str(c, PARAM_rewrite_service_name))),
                               .idle_max = REWRITE_OPEN_MAX,
                               .open_max = REWRITE_OPEN_MAX };
    d.flush = arena_cat(d.arena, STR("public/"), conf_str(c, PARAM_flush_service_name));
    struct dns_options options = { .servers = conf_str(c, PARAM_dns_resolvers) };
    error e = dns_open(&options, err_arena, &d.dns);
    if (e)
        return e;
    *ret = (struct backend){ .ctx = &d,
                             .client_name = real_client_name,
                             .resolve = real_resolve,
                             .validate = real_validate,
                             .submit_open = real_submit_open,
                             .submit_envelope = real_submit_envelope,
                             .submit_rcpt = real_submit_rcpt,
                             .submit_content = real_submit_content,
                             .submit_end = real_submit_end,
                             .submit_abort = real_submit_abort,
                             .flush_site = real_flush_site };
    return NULL;
}
