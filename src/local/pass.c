#include "base/log.h"
#include "local/local.h"
#include "mail/dsn.h"

/* Connections that wait for the next recipient, oldest first: each new one costs a round trip to master. */
enum { IDLE_MAX = 8, DRAIN_US = 200 * 1000 /* an agent that closes so soon has not begun */ };
struct idle {
    char name[100];
    struct ipc *ipc;
};
static struct idle idle[IDLE_MAX];
static size_t idle_count;

static void idle_remove(size_t i) {
    idle_count--;
    memmove(&idle[i], &idle[i + 1], (idle_count - i) * sizeof(*idle));
}

static struct ipc *idle_take(struct str name) {
    for (size_t i = idle_count; i-- > 0;)
        if (str_eq(str_c(idle[i].name), name)) {
            struct ipc *ipc = idle[i].ipc;
            idle_remove(i);
            return ipc;
        }
    return NULL;
}

static void idle_keep(struct str name, struct ipc *ipc) {
    if (name.n >= sizeof(idle[0].name)) {
        ipc_close(ipc);
        return;
    }
    if (idle_count == IDLE_MAX) {
        ipc_close(idle[0].ipc);
        idle_remove(0);
    }
    struct idle *i = &idle[idle_count++];
    memcpy(i->name, name.p, name.n);
    i->name[name.n] = 0;
    i->ipc = ipc;
}

void pass_end(void) {
    while (idle_count) {
        ipc_close(idle[0].ipc);
        idle_remove(0);
    }
}

/* All the agent says until DONE; `*ret` is its answer for our one recipient, in the arena. */
static error read_answer(struct delivery *d, struct ipc *ipc, struct agent_status *ret, bool *ret_any) {
    int64_t deadline = deadline_in(conf_time(d->r->ctx->conf, PARAM_daemon_timeout));
    struct ipc_msg m = { .fd = -1 };
    bool answered = false;
    for (;;) {
        error e = ipc_recv(ipc, deadline, &m);
        if (e)
            return e;
        *ret_any = true;
        struct delivery_result r;
        struct delivery_done done;
        bool result = delivery_unpack_result(&m, &r), end = !result && delivery_unpack_done(&m, &done);
        ipc_msg_drop(&m);
        if (end)
            return answered ? NULL : err_make(d->arena, ERR_TEMP, "no result");
        if (!result || answered)
            return err_make(d->arena, ERR_TEMP, "malformed answer");
        answered = true;
        static const char class[] = { [DELIVERY_SENT] = '2', [DELIVERY_DEFERRED] = '4', [DELIVERY_BOUNCED] = '5' };
        *ret = (struct agent_status){
            .relay = STR("local"),
            .dsn = dsn_with_class(d->arena, arena_str(d->arena, r.dsn), class[r.status]),
            .reason = arena_str(d->arena, r.reason),
            .diagnostic_type = arena_str(d->arena, r.diagnostic_type),
            .diagnostic = arena_str(d->arena, r.diagnostic),
            .remote_type = arena_str(d->arena, r.remote_type),
            .remote_mta = arena_str(d->arena, r.remote_mta),
            .address = arena_str(d->arena, r.address),
        };
    }
}

static error ask(struct delivery *d, struct str name, const struct delivery_request *request,
                 struct agent_status *ret) {
    for (bool again = false;; again = true) {
        struct ipc *ipc = idle_take(name);
        bool used = ipc != NULL, any = false;
        int64_t deadline = deadline_in(conf_time(d->r->ctx->conf, PARAM_ipc_timeout));
        error e = used ? NULL : service_connect(d->r->ctx, arena_cat(d->arena, STR("private/"), name), deadline, &ipc);
        if (e)
            return e;
        int64_t asked = sys->mono_us();
        delivery_send_request(ipc, request);
        if (!(e = ipc_flush(ipc, deadline)) && !(e = read_answer(d, ipc, ret, &any))) {
            idle_keep(name, ipc);
            return NULL;
        }
        ipc_close(ipc);
        /* one that drains closes its connections without having seen the request */
        bool at_once = e->kind == ERR_EOF && sys->mono_us() - asked < DRAIN_US;
        if (any || !(used || (at_once && !again)))
            return e;
    }
}

void pass_deliver(struct delivery *d, struct str address, struct str destination) {
    const struct delivery_request *from = &d->r->req;
    ptrdiff_t colon = str_index(destination, ':');
    struct str name = colon < 0 ? destination : str_sub(destination, 0, (size_t)colon);
    struct str nexthop = colon < 0 ? STR("") : str_from(destination, (size_t)colon + 1);
    if (!name.n || str_eq(name, d->r->ctx->name)) { /* to oneself: for ever */
        log_warn("%s: \"%.*s\" is no transport to give mail for <%.*s> to", from->id.text, STR_ARG(destination),
                 STR_ARG(address));
        delivery_result(d, address, STR("4.3.5"), STR("mail system configuration error"));
        return;
    }
    struct rcpt rcpt = from->env.rcpts[d->index];
    rcpt.address = address;
    const uint32_t index = 0;
    struct delivery_request request = *from;
    request.transport = name;
    request.nexthop = nexthop.n ? nexthop : from->nexthop;
    request.env.rcpts = &rcpt;
    request.env.rcpt_count = 1;
    request.rcpt_index = &index;
    struct agent_status status = { 0 };
    error e = ask(d, name, &request, &status);
    if (e) {
        log_warn("%s: connect to transport private/%.*s: %.*s", from->id.text, STR_ARG(name), STR_ARG(e->text));
        delivery_result(d, address, STR("4.3.0"), STR("mail transport unavailable"));
        return;
    }
    if (!status.address.n && !str_eq(address, from->env.rcpts[d->index].address))
        status.address = address;
    delivery_note(d, &status);
}
