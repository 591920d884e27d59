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
    struct pool cleanup, rewrite;
    struct dns *dns;
    struct str myorigin;
    int64_t timeout; /* seconds */
};

_Static_assert(CLEANUP_IDLE_MAX <= REWRITE_OPEN_MAX, "idle[] holds either");

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
    struct ipc *ipc;
};

static int64_t cleanup_deadline(const struct submission *m) {
    return deadline_in(m->d->timeout);
}

static void submission_free(struct submission *m, bool usable) {
    if (usable)
        pool_give_back(&m->d->cleanup, m->ipc);
    else
        pool_drop(&m->d->cleanup, m->ipc);
    free(m);
}

static error real_submit_open(void *ctx, struct arena *a, unsigned flags, struct submission **ret,
                              struct queue_id *ret_id, struct submit_result *ret_refused) {
    struct daemons *d = ctx;
    struct submission *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    m->d = d;
    bool used_before = true;
    error e = &err_eof;
    while (e && used_before && e->kind != ERR_CANCELLED && e->kind != ERR_TIMEOUT) {
        e = pool_take(&d->cleanup, cleanup_deadline(m), &m->ipc, &used_before);
        if (e)
            break;
        e = submit_open(m->ipc, flags, cleanup_deadline(m), ret_id, ret_refused);
        if (e)
            pool_drop(&d->cleanup, m->ipc);
    }
    *ret = NULL;
    if (e) {
        free(m);
        return e;
    }
    if (ret_refused->status != SUBMIT_OK) {
        ret_refused->dsn = arena_str(a, ret_refused->dsn);
        ret_refused->text = arena_str(a, ret_refused->text);
        submission_free(m, true);
        return NULL;
    }
    *ret = m;
    return NULL;
}

static void real_submit_envelope(struct submission *m, const struct envelope *e) {
    submit_envelope(m->ipc, e);
}

static void real_submit_rcpt(struct submission *m, const struct rcpt *r) {
    submit_rcpt(m->ipc, r);
}

static error real_submit_content(struct submission *m, struct str bytes) {
    return submit_content(m->ipc, bytes, cleanup_deadline(m));
}

static error real_submit_end(struct submission *m, struct arena *a, struct submit_result *ret) {
    error e = submit_end(m->ipc, cleanup_deadline(m), ret);
    if (!e) {
        ret->dsn = arena_str(a, ret->dsn);
        ret->text = arena_str(a, ret->text);
    }
    submission_free(m, !e);
    return e;
}

static void real_submit_abort(struct submission *m) {
    submission_free(m, false);
}

/* --- all of them --- */
error backend_open(struct service_ctx *ctx, struct arena *err_arena, struct backend *ret) {
    static struct daemons d;
    const struct conf *c = ctx->conf;
    d = (struct daemons){ .myorigin = conf_str(c, PARAM_myorigin), .timeout = conf_time(c, PARAM_ipc_timeout) };
    d.arena = arena_new();
    d.cleanup = (struct pool){
        .ctx = ctx,
        .endpoint = arena_printf(d.arena, "public/%.*s", STR_ARG(conf_str(c, PARAM_cleanup_service_name))),
        .idle_max = CLEANUP_IDLE_MAX,
    };
    d.rewrite = (struct pool){ .ctx = ctx,
                               .endpoint = arena_printf(d.arena, "private/%.*s",
                                                        STR_ARG(conf_str(c, PARAM_rewrite_service_name))),
                               .idle_max = REWRITE_OPEN_MAX,
                               .open_max = REWRITE_OPEN_MAX };
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
                             .submit_abort = real_submit_abort };
    return NULL;
}
