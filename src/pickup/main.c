/* pickup(8): woken by postdrop and by the clock, brings local mail from maildrop/ to cleanup. */
#include "pickup/pickup.h"
#include "service/service.h"

enum {
    CONNECT_SECONDS = 100,
    RETRY_SECONDS = 5, /* after cleanup could not be had, or has died: the wakeup time is too long to wait for */
};

static struct daemon {
    struct service_ctx *ctx;
    struct pickup pickup;
    struct str endpoint;
    bool scanning, again;
} daemon_;

static error connect_cleanup(void *ctx, struct ipc **ret) {
    struct daemon *d = ctx;
    return service_connect(d->ctx, d->endpoint, deadline_in(CONNECT_SECONDS), ret);
}

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    ctx->state = &daemon_;
    daemon_.ctx = ctx;
    struct str name = conf_str(ctx->conf, PARAM_cleanup_service_name);
    daemon_.endpoint = arena_cat(err_arena, STR("public/"), name); /* the arena of a daemon's start lives as long */
    error e = pickup_open(&daemon_.pickup, ctx->conf, err_arena);
    daemon_.pickup.connect = connect_cleanup;
    daemon_.pickup.ctx = &daemon_;
    return e;
}

/* What cleanup could not take is tried once more soon, and then at the next wakeup. */
static void scan(void *arg) {
    struct daemon *d = arg;
    bool retry = true;
    while (d->again && !d->ctx->draining) {
        d->again = false;
        if (pickup_scan(&d->pickup) || !retry)
            continue;
        retry = false;
        for (int i = 0; i < RETRY_SECONDS && !d->ctx->draining; i++)
            wait_until(deadline_in(1));
        d->again = true;
    }
    d->scanning = false;
    group_leave(&d->ctx->work);
}

/* Requests that come while a scan is under way are one more scan after it: a file may have come behind the first. The
 * scan has a coroutine of its own: postdrop waits until its request was read, and should not wait for the mail. */
static void wakeup(struct service_ctx *ctx, struct str request) {
    (void)request;
    struct daemon *d = ctx->state;
    d->again = true;
    if (d->scanning || ctx->draining)
        return;
    d->scanning = coro_spawn(scan, d, "scan") != NULL;
    if (d->scanning)
        group_enter(&ctx->work);
}

int main(int argc, char **argv) {
    static const char *const writable[] = { "maildrop", "corrupt", NULL };
    static const struct service s = {
        .program = "pickup",
        .confine = CONFINE_WRITE_FILES | CONFINE_NO_NETWORK,
        .writable = writable,
        .init = init,
        .wakeup = wakeup,
    };
    return service_main(argc, argv, &s);
}
