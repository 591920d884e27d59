/* tlsmgr - the keys of TLS session tickets, for all processes that give them out: tlsmgr(8).
 *
 * They are in memory only: here, in the processes that ask, and in master, which hands them to our successor, so that
 * sessions can be resumed after a reload. */
#include "base/log.h"
#include "service/service.h"
#include "tls/tickets.h"

enum { KEPT_SECONDS = 2 /* for master's word on what the last process has left */ };

static struct {
    struct service_ctx *ctx;
    struct tls_ticket_keys keys;
    int64_t lifetime; /* of tickets, seconds */
    bool kept_known;
    struct cond kept;
} tlsmgr;

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    (void)err_arena;
    tlsmgr.ctx = ctx;
    tlsmgr.lifetime = conf_time(ctx->conf, PARAM_smtpd_tls_session_cache_timeout);
    return NULL;
}

static void kept(struct service_ctx *ctx, struct str bytes) {
    (void)ctx;
    if (bytes.n && !ticket_keys_unpack(bytes, &tlsmgr.keys))
        log_warn("the session ticket keys of the last process make no sense: others will be made");
    tlsmgr.kept_known = true;
    cond_broadcast(&tlsmgr.kept);
}

static bool advance(void *arg) {
    (void)arg;
    unsigned char newest[TICKET_NAME] = { 0 };
    if (tlsmgr.keys.n)
        memcpy(newest, tlsmgr.keys.key[tlsmgr.keys.n - 1].name, TICKET_NAME);
    if (!ticket_keys_advance(&tlsmgr.keys, sys->wall_us() / US_PER_S, tlsmgr.lifetime)) {
        log_warn("no random bytes for session ticket keys");
        return false;
    }
    if (memcmp(newest, tlsmgr.keys.key[tlsmgr.keys.n - 1].name, TICKET_NAME) != 0) {
        struct buf b = { 0 };
        ticket_keys_pack(&b, &tlsmgr.keys);
        service_keep(tlsmgr.ctx, buf_str(&b));
        buf_wipe(&b);
    }
    return true;
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)ctx;
    (void)peer;
    (void)local;
    error e = NULL;
    while (!tlsmgr.kept_known && !e)
        e = cond_wait(&tlsmgr.kept, deadline_in(KEPT_SECONDS));
    tlsmgr.kept_known = true;
    e = ticket_keys_serve(service_ipc(io), advance, NULL, &tlsmgr.keys);
    if (e)
        log_warn("request for session ticket keys: %.*s", STR_ARG(e->text));
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "tlsmgr",
        .confine = CONFINE_NO_FILES | CONFINE_NO_NETWORK,
        .multi_client = true,
        .resident = true,
        .drain_cancels = true,
        .init = init,
        .kept = kept,
        .session = session,
    };
    return service_main(argc, argv, &s);
}
