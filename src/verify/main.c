/* verify - does an address take mail? Answers from a cache, and sends probes: verify(8). */
#include "base/log.h"
#include "proto/submit.h"
#include "route/probe.h"
#include "service/service.h"
#include "verify/verify.h"
#include <stdlib.h>

static struct {
    struct service_ctx *ctx;
    struct verify verify;
    struct submit_link *cleanup; /* NULL: none */
    bool connecting;
    struct cond connected;
} daemon_;

static int64_t now_s(void) {
    return sys->wall_us() / US_PER_S;
}

/* --- probes: a message without content, which agents do not deliver --- */
static error link_take(int64_t deadline, struct submit_link **ret) {
    error e = NULL;
    while (!e && daemon_.connecting)
        e = cond_wait(&daemon_.connected, deadline);
    if (e)
        return e;
    if (daemon_.cleanup && !submit_link_usable(daemon_.cleanup) && submit_link_count(daemon_.cleanup) == 0) {
        submit_link_close(daemon_.cleanup);
        daemon_.cleanup = NULL;
    }
    if (!daemon_.cleanup) {
        struct arena *a = arena_new();
        struct ipc *ipc;
        struct str name = conf_str(daemon_.ctx->conf, PARAM_cleanup_service_name);
        daemon_.connecting = true;
        e = service_connect(daemon_.ctx, arena_cat(a, STR("public/"), name), deadline, &ipc);
        daemon_.connecting = false;
        cond_broadcast(&daemon_.connected);
        arena_free(a);
        if (e)
            return e;
        daemon_.cleanup = submit_link_new(ipc);
    }
    *ret = daemon_.cleanup;
    return NULL;
}

static error send_probe(struct arena *a, struct str address, int64_t deadline) {
    static const struct err refused = { .kind = ERR_TEMP, .text = STR_INIT("cleanup does not take it") };
    struct submit_link *link = NULL;
    struct submit *m = NULL;
    struct queue_id id;
    struct submit_result result = { .status = SUBMIT_OK };
    error e = link_take(deadline, &link);
    if (!e)
        e = submit_open(link, 0, deadline, a, &m, &id, &result);
    if (e || result.status != SUBMIT_OK)
        return e ? e : &refused;
    struct envelope env = { .arrival_us = sys->wall_us(),
                            .sender = verify_sender(daemon_.ctx->conf, a, now_s()),
                            .flags = ENVELOPE_INTERNAL | ENVELOPE_VERIFY };
    struct rcpt to = { .address = address, .orig = address, .dsn_orcpt = STR(""), .dsn_notify = 0 };
    e = submit_envelope(m, &env, deadline);
    if (!e)
        e = submit_rcpt(m, &to, deadline);
    if (!e)
        e = submit_content(m, STR("Subject: Address verification probe\n\n"), deadline);
    if (e) {
        submit_cancel(m);
        return e;
    }
    e = submit_end(m, deadline, a, &result);
    return e || result.status == SUBMIT_OK ? e : &refused;
}

struct probe {
    struct arena *arena;
    struct str address;
};

static void probe_main(void *arg) {
    struct probe *p = arg;
    struct arena *a = p->arena;
    error e = send_probe(a, p->address, deadline_in(conf_time(daemon_.ctx->conf, PARAM_ipc_timeout)));
    if (e)
        log_warn("probe of %.*s: %.*s", STR_ARG(p->address), STR_ARG(e->text));
    daemon_.verify.pending--;
    arena_free(a);
    group_leave(&daemon_.ctx->work);
}

static bool probe(void *ctx, struct str address) {
    (void)ctx;
    struct arena *a = arena_new();
    struct probe *p = ARENA_NEW(a, struct probe);
    *p = (struct probe){ a, arena_str(a, address) };
    group_enter(&daemon_.ctx->work);
    if (!coro_spawn(probe_main, p, "probe")) {
        group_leave(&daemon_.ctx->work);
        arena_free(a);
        return false;
    }
    daemon_.verify.pending++;
    return true;
}

/* --- the service --- */
static error verify_init(struct service_ctx *ctx, struct arena *err_arena) {
    (void)err_arena;
    daemon_.ctx = ctx;
    daemon_.verify.probe = probe;
    verify_open(&daemon_.verify, ctx->conf);
    return NULL;
}

static void verify_start(struct service_ctx *ctx) {
    int64_t interval = conf_time(ctx->conf, PARAM_address_verify_cache_cleanup_interval);
    while (interval > 0 && !wait_until(deadline_in(interval))) {
        size_t kept, dropped;
        verify_clean(&daemon_.verify, now_s(), &kept, &dropped);
        log_info("cache %.*s full cleanup: retained=%zu dropped=%zu entries", STR_ARG(table_name(daemon_.verify.cache)),
                 kept, dropped);
    }
}

static void serve(struct ipc *ipc, struct arena *a) {
    struct ipc_msg m = { .fd = -1 };
    struct verify_request r;
    while (!ipc_recv(ipc, DEADLINE_NEVER, &m)) {
        struct verify_answer done = { VERIFY_OK, STR("") };
        bool good = verify_unpack(&m, &r);
        if (good && r.type == VERIFY_MSG_QUERY)
            done = verify_ask(&daemon_.verify, a, r.address, now_s());
        else if (good)
            verify_tell(&daemon_.verify, r.address, &r.is, now_s());
        ipc_msg_drop(&m);
        if (!good) {
            log_warn("malformed request");
            return;
        }
        verify_answer(ipc, &done);
        if (ipc_flush(ipc, deadline_in(conf_time(daemon_.ctx->conf, PARAM_ipc_timeout))))
            return;
        arena_reset(a);
    }
}

static void verify_session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer,
                           const struct endpoint *local) {
    (void)ctx, (void)peer, (void)local;
    struct arena *a = arena_new();
    serve(service_ipc(io), a);
    arena_free(a);
}

int main(int argc, char **argv) {
    static const struct service service = {
        .program = "verify",
        .confine = CONFINE_WRITE_FILES | CONFINE_NO_NETWORK,
        .no_chroot = true, /* the cache is in data_directory */
        .multi_client = true,
        .resident = true,
        .drain_cancels = true, /* clients ask again */
        .init = verify_init,
        .start = verify_start,
        .session = verify_session,
    };
    return service_main(argc, argv, &service);
}
