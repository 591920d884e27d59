/* main.c - postscreen(8): who may talk to smtpd at all. */
#include "base/log.h"
#include "postscreen/screen.h"
#include "service/service.h"

enum { HAND_OVER_SECONDS = 10 };

static struct {
    struct service_ctx *ctx;
    struct settings *settings;
    struct screen screen;
    const char *writable[2];
} postscreen;

/* Master connects; a smtpd process reads which client it is from the descriptor (service.c, take_handover()). */
static error hand_over(void *ctx, int fd, const struct endpoint *peer_or_null, const struct endpoint *local) {
    (void)ctx;
    struct buf who = { 0 };
    if (peer_or_null)
        service_pack_handover(&who, peer_or_null, local);
    struct ipc *ipc;
    int64_t deadline = deadline_in(HAND_OVER_SECONDS);
    error e = service_connect(postscreen.ctx, postscreen.settings->smtpd_endpoint, deadline, &ipc);
    if (!e) {
        ipc_send(ipc, 1, buf_str(&who), fd);
        e = ipc_flush(ipc, deadline);
        ipc_close(ipc);
    }
    buf_free(&who);
    return e;
}

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    struct conf *stressed;
    error e =
        service_stressed_conf(ctx, err_arena, &stressed); /* postscreen_greet_wait and others have ${stress?...} */
    if (e)
        return e;
    e = settings_load(ctx->conf, stressed, err_arena, &postscreen.settings);
    conf_free(stressed);
    if (e)
        return e;
    settings_open_tls(postscreen.settings, ctx->name);
    struct screen *s = &postscreen.screen;
    struct dns_options dns = { .servers = conf_str(ctx->conf, PARAM_dns_resolvers) };
    if ((e = dns_open(&dns, err_arena, &s->dns)))
        return e;
    postscreen.ctx = ctx;
    postscreen.writable[0] = conf_str(ctx->conf, PARAM_data_directory).p;
    s->set = postscreen.settings;
    s->cache = cache_open(s->set);
    s->hand_over = hand_over;
    return NULL;
}

static const char *outdated(struct service_ctx *ctx) {
    (void)ctx;
    return tls_files_changed();
}

static void start(struct service_ctx *ctx) {
    (void)ctx;
    int64_t interval = postscreen.settings->cache_cleanup_interval;
    do
        cache_clean(postscreen.screen.cache, sys->wall_us() / US_PER_S);
    while (interval > 0 && !wait_until(deadline_in(interval)));
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    if (ctx->standalone || peer->len == 0)
        return;
    screen_client(&postscreen.screen, io, peer, local);
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "postscreen",
        .confine = CONFINE_WRITE_FILES,
        .writable = postscreen.writable,
        .multi_client = true,
        .init = init,
        .outdated = outdated,
        .start = start,
        .session = session,
    };
    return service_main(argc, argv, &s);
}
