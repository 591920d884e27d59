/* anvil(8): how often clients come, for the limits of smtpd. */
#include "anvil/anvil.h"
#include "base/log.h"
#include "service/service.h"
#include <time.h>

enum { ANSWER_SECONDS = 100 };

static struct {
    struct anvil anvil;
    int64_t report_every; /* seconds */
} daemon_;

static error init(struct service_ctx *ctx, struct arena *err_arena) {
    (void)err_arena;
    daemon_.anvil.unit = conf_time(ctx->conf, PARAM_anvil_rate_time_unit);
    daemon_.report_every = conf_time(ctx->conf, PARAM_anvil_status_update_time);
    tzset(); /* reads the time zone while there are files */
    return NULL;
}

static void session(struct service_ctx *ctx, struct io *io, const struct endpoint *peer, const struct endpoint *local) {
    (void)ctx, (void)peer, (void)local;
    struct ipc *ipc = service_ipc(io);
    struct anvil_open open = { 0 };
    struct ipc_msg m = { .fd = -1 };
    struct anvil_request r;
    while (!ipc_recv(ipc, DEADLINE_NEVER, &m)) { /* what has been said is sent before it waits */
        if (!anvil_unpack(&m, &r)) {
            log_warn("malformed request of type %u", m.type);
            break;
        }
        struct anvil_answer a = anvil_take(&daemon_.anvil, &open, r.event, r.ident);
        if (r.wants_answer)
            anvil_reply(ipc, r.number, &a);
        if (ipc_unsent(ipc) > IPC_FRAME_MAX && ipc_flush(ipc, deadline_in(ANSWER_SECONDS)))
            break;
    }
    ipc_msg_drop(&m);
    anvil_gone(&daemon_.anvil, &open);
}

static void keep_house(struct service_ctx *ctx) {
    (void)ctx;
    struct anvil *a = &daemon_.anvil;
    int64_t report = deadline_in(daemon_.report_every), sweep = deadline_in(a->unit);
    while (!wait_until(report < sweep ? report : sweep)) {
        if (report <= sweep) {
            anvil_report(a);
            report = deadline_in(daemon_.report_every);
        } else {
            anvil_sweep(a);
            sweep = deadline_in(a->unit);
        }
    }
    anvil_report(a); /* the process ends */
}

int main(int argc, char **argv) {
    static const struct service s = {
        .program = "anvil",
        .confine = CONFINE_NO_FILES | CONFINE_NO_NETWORK,
        .multi_client = true,
        .resident = true,
        .drain_cancels = true,
        .init = init,
        .start = keep_house,
        .session = session,
    };
    return service_main(argc, argv, &s);
}
