#include "virtual/virtual.h"

#include "base/log.h"
#include "deliver/mailbox.h"
#include "table/table.h"
#include <unistd.h>

enum { ID_MAX = 0x7fffffff };

struct state { /* service_ctx.state */
    struct maps *mailboxes, *uids, *gids;
    unsigned locks;
};

struct str virtual_path(struct arena *a, struct str base, struct str value) {
    for (size_t i = 0; i < value.n; i++)
        if ((unsigned char)value.p[i] < 0x20 || value.p[i] == 0x7f)
            return STR("");
    struct str rest = value, part;
    bool named = false;
    while (str_word(&rest, STR("/"), &part)) {
        if (str_eq(part, STR("..")))
            return STR("");
        named |= !str_eq(part, STR("."));
    }
    if (!named || (!base.n && value.p[0] != '/'))
        return STR("");
    return base.n ? arena_printf(a, "%.*s/%.*s", STR_ARG(base), STR_ARG(value)) : arena_str(a, value);
}

static void finish(struct agent_request *r, size_t i, struct str dsn, struct str reason) {
    struct agent_status s = { .relay = STR("virtual"), .dsn = dsn, .reason = reason };
    agent_finish(r, i, &s);
}

/* What the tables say is wrong: the administrator's, not the sender's fault. */
static void misconfigured(struct agent_request *r, size_t i) {
    finish(r, i, STR("4.3.5"), STR("mail system configuration error"));
}

static enum table_result look_up(struct agent_request *r, struct maps *m, struct str address, struct str *ret) {
    struct str extension;
    return addr_find(m, address, false, ADDR_FIND_AT_DOMAIN, addr_extension_rules(r->ctx->conf), r->arena, ret,
                     &extension);
}

/* virtual_uid_maps, virtual_gid_maps. False: the recipient is answered. */
static bool look_up_id(struct agent_request *r, size_t i, struct maps *m, const char *parameter, uint64_t least,
                       uint64_t *ret) {
    struct str address = r->req.env.rcpts[i].address, value;
    enum table_result found = look_up(r, m, address, &value);
    if (found == TABLE_ERROR) {
        log_warn("recipient %.*s: %s lookup failed", STR_ARG(address), parameter);
        finish(r, i, STR("4.3.5"), STR("mail system configuration error"));
        return false;
    }
    if (found == TABLE_NOT_FOUND) {
        log_warn("recipient %.*s: not found in %s", STR_ARG(address), parameter);
        misconfigured(r, i);
        return false;
    }
    if (!str_to_u64(value, ID_MAX, ret)) {
        log_warn("recipient %.*s: bad value %.*s in %s", STR_ARG(address), STR_ARG(value), parameter);
        misconfigured(r, i);
        return false;
    }
    if (*ret < least) {
        log_warn("recipient %.*s: bad value %.*s in %s, the least is %llu", STR_ARG(address), STR_ARG(value), parameter,
                 (unsigned long long)least);
        misconfigured(r, i);
        return false;
    }
    return true;
}

static void put(struct agent_request *r, size_t i, struct str path, uid_t uid, gid_t gid) {
    const struct conf *c = r->ctx->conf;
    const struct state *state = r->ctx->state;
    const struct rcpt *rcpt = &r->req.env.rcpts[i];
    bool maildir = str_ends(path, STR("/"));
    if (r->req.flags & DELIVERY_VERIFY) {
        finish(r, i, STR("2.0.0"), maildir ? STR("delivers to maildir") : STR("delivers to mailbox"));
        return;
    }
    struct mailbox m = {
        .path = path,
        .uid = uid,
        .gid = gid,
        .locks = state->locks,
        .lock_attempts = (int)conf_int(c, PARAM_deliver_lock_attempts),
        .lock_delay = conf_time(c, PARAM_deliver_lock_delay),
        .stale_lock = conf_time(c, PARAM_stale_lock_time),
        .limit = (uint64_t)conf_int(c, PARAM_virtual_mailbox_limit),
        .strict_owner = conf_bool(c, PARAM_strict_mailbox_ownership),
        .dsn = "4.2.0",
        .head = mailbox_head(r, r->arena, rcpt->orig, rcpt->address),
    };
    struct mailbox_result result;
    mailbox_deliver(r, &m, &result);
    if (result.ok) {
        finish(r, i, STR("2.0.0"), maildir ? STR("delivered to maildir") : STR("delivered to mailbox"));
        return;
    }
    if (result.denied && maildir) {
        log_warn("maildir access problem for UID/GID=%ld/%ld: %.*s", (long)uid, (long)gid, STR_ARG(result.why));
        log_warn("perhaps you need to create the maildirs in advance");
    }
    finish(r, i, result.dsn,
           maildir
               ? arena_printf(r->arena, "maildir delivery failed: %.*s", STR_ARG(result.why))
               : arena_printf(r->arena, "delivery failed to mailbox %.*s: %.*s", STR_ARG(path), STR_ARG(result.why)));
}

static void one(struct agent_request *r, size_t i) {
    const struct conf *c = r->ctx->conf;
    const struct state *state = r->ctx->state;
    struct str address = r->req.env.rcpts[i].address, value;
    enum table_result found = look_up(r, state->mailboxes, address, &value);
    if (found == TABLE_ERROR) {
        log_warn("recipient %.*s: virtual_mailbox_maps lookup failed", STR_ARG(address));
        misconfigured(r, i);
        return;
    }
    if (found == TABLE_NOT_FOUND) {
        finish(r, i, STR("5.1.1"),
               arena_printf(r->arena, "unknown user: \"%.*s\"", STR_ARG(arena_lower(r->arena, address))));
        return;
    }
    struct str path = virtual_path(r->arena, conf_str(c, PARAM_virtual_mailbox_base), value);
    if (!path.n) {
        log_warn("recipient %.*s: bad mailbox path %.*s in virtual_mailbox_maps", STR_ARG(address), STR_ARG(value));
        misconfigured(r, i);
        return;
    }
    uint64_t uid, gid, least = (uint64_t)conf_int(c, PARAM_virtual_minimum_uid);
    if (!look_up_id(r, i, state->uids, "virtual_uid_maps", least, &uid) ||
        !look_up_id(r, i, state->gids, "virtual_gid_maps", 0, &gid))
        return;
    if (geteuid() != 0 && uid != geteuid()) {
        log_warn("recipient %.*s: cannot act as user id %llu without root", STR_ARG(address), (unsigned long long)uid);
        misconfigured(r, i);
        return;
    }
    put(r, i, path, (uid_t)uid, (gid_t)gid);
}

void virtual_deliver(struct agent_request *r) {
    for (size_t i = 0; i < r->req.env.rcpt_count && agent_go_on(r); i++)
        one(r, i);
}

error virtual_init(struct service_ctx *ctx, struct arena *err_arena) {
    static struct state state; /* a process is one agent */
    const struct conf *c = ctx->conf;
    struct str locks = conf_str(c, PARAM_virtual_mailbox_lock);
    if (!mailbox_locks_parse(locks, &state.locks))
        return err_make(err_arena, ERR_CONFIG, "bad value in parameter virtual_mailbox_lock: %.*s", STR_ARG(locks));
    int64_t limit = conf_int(c, PARAM_virtual_mailbox_limit), message = conf_int(c, PARAM_message_size_limit);
    if (limit && (!message || limit < message))
        return err_make(err_arena, ERR_CONFIG,
                        "configuration error: virtual_mailbox_limit is smaller than message_size_limit");
    const unsigned flags = TABLE_FOLD | TABLE_NO_REGSUB;
    state.mailboxes = maps_open(c, conf_str(c, PARAM_virtual_mailbox_maps), flags);
    state.uids = maps_open(c, conf_str(c, PARAM_virtual_uid_maps), flags);
    state.gids = maps_open(c, conf_str(c, PARAM_virtual_gid_maps), flags);
    ctx->state = &state;
    return NULL;
}

void virtual_end(struct service_ctx *ctx) {
    struct state *state = ctx->state;
    maps_close(state->mailboxes);
    maps_close(state->uids);
    maps_close(state->gids);
    *state = (struct state){ 0 };
}
