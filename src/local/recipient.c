#include "base/log.h"
#include "deliver/mailbox.h"
#include "local/agenda.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "proto/rewrite.h"

/* --- results --- */
/* deferred wins over bounced, bounced over sent: a recipient is done only when all it stands for is */
void delivery_note(struct delivery *d, const struct agent_status *s) {
    static const struct str order = STR_INIT("254");
    if (!d->any || str_index(order, s->dsn.p[0]) > str_index(order, d->worst.dsn.p[0]))
        d->worst = *s;
    d->any = true;
}

void delivery_result_diagnostic(struct delivery *d, struct str address, struct str dsn, struct str reason,
                                struct str diagnostic) {
    struct agent_status s = { .relay = STR("local"), .dsn = dsn, .reason = reason };
    if (diagnostic.n) {
        s.diagnostic_type = STR("x-unix");
        s.diagnostic = diagnostic;
    }
    if (!str_eq(address, d->r->req.env.rcpts[d->index].address))
        s.address = address;
    agent_log(d->r, d->index, address, &s);
    delivery_note(d, &s);
}

void delivery_result(struct delivery *d, struct str address, struct str dsn, struct str reason) {
    delivery_result_diagnostic(d, address, dsn, reason, STR(""));
}

void defer(struct delivery *d, const struct origin *from, struct str reason) {
    delivery_result(d, from->address, STR("4.3.0"), reason);
}

/* Below a list with an owner it is the owner's mail, and to whom it came first is no more of interest. */
struct str origin_sender(const struct delivery *d, const struct origin *from) {
    return from->own_sender ? from->sender : d->r->req.env.sender;
}

struct str origin_orig(const struct delivery *d, const struct origin *from) {
    return from->own_sender ? STR("") : d->r->req.env.rcpts[d->index].orig;
}

/* --- the agenda --- */
void plan(struct delivery *d, struct agenda *g, enum work_kind kind, struct str text, const struct origin *from) {
    *vec_add(d->arena, &g->list) = (struct work){ kind, text, from, NULL };
}

bool first_time(struct delivery *d, struct agenda *g, const char *kind, struct str what) {
    struct str key = arena_printf(d->scratch, "%s %.*s", kind, STR_ARG(what));
    if (map_get(&g->seen, key))
        return false;
    if (!g->seen_limit || g->seen_count < g->seen_limit) {
        map_put(&g->seen, arena_str(d->arena, key), g);
        g->seen_count++;
    }
    return true;
}

/* --- commands and files in aliases --- */
static bool may(struct delivery *d, unsigned allowed, const struct origin *from, const char *what) {
    if (allowed & from->kind)
        return true;
    delivery_result(d, from->address, STR("5.7.1"), arena_printf(d->arena, "mail to %s is restricted", what));
    return false;
}

/* --- one address that is ours --- */

/* user, extension and the byte between them; of an address without extension the first of recipient_delimiter. */
static void split(const struct conf *c, struct str local, struct str *user, struct str *extension,
                  struct str *delimiter) {
    struct extension_rules rules = addr_extension_rules(c);
    *user = local;
    *extension = STR("");
    *delimiter = str_sub(rules.delimiters, 0, 1);
    if (address_split_extension(local, rules, user, extension))
        *delimiter = str_sub(local, user->n, 1);
}

/* What is not this message's: mail of another user than the forward file's, mail with a list's sender. And each of an
 * included list's members has a result of its own. */
static bool is_forwarded(const struct origin *from, struct str user) {
    return from->listed || from->owned || (from->forward_user.n && !str_eq(user, from->forward_user));
}

static void forward(struct delivery *d, struct agenda *g, const struct origin *from, struct str address) {
    if (first_time(d, g, from->own_sender ? "list" : "forward", arena_lower(d->scratch, address)))
        forward_add(d, from, arena_str(d->arena, address));
}

static void luser(struct delivery *d, struct agenda *g, const struct origin *from, const struct local_user *user,
                  const struct header_addresses *to) {
    struct origin *o = ARENA_NEW(d->arena, struct origin);
    *o = *from;
    o->kind = ORIGIN_LUSER;
    o->depth = from->depth + 1;
    o->name = user->name;
    o->address = user->address;
    for (size_t i = to->n; i-- > 0;)
        plan(d, g, WORK_MEMBER, to->at[i].address, o);
}

static void recipient(struct delivery *d, struct agenda *g, struct str address, const struct origin *from) {
    const struct conf *c = d->r->ctx->conf;
    struct arena *a = d->arena;
    if (delivered_to_has(d->delivered_to, d->scratch, address)) {
        delivery_result(d, address, STR("5.4.6"), arena_printf(a, "mail forwarding loop for %.*s", STR_ARG(address)));
        return;
    }
    struct address_parts p = address_split(address);
    struct str full = arena_lower(a, p.local);
    struct local_user user = { .address = address };
    split(c, full, &user.name, &user.extension, &user.delimiter);
    user.delivered = conf_bool(c, PARAM_frozen_delivered_to) ? from->delivered : address;
    struct origin here = *from;
    here.delivered = user.delivered;
    here.delimiter = user.delimiter;
    if (try_alias(d, g, &here, address, full, user.extension, STR("")))
        return;
    if (user.extension.n && try_alias(d, g, &here, address, user.name, user.extension, user.extension))
        return;
    if (is_forwarded(from, user.name)) {
        forward(d, g, from, address);
        return;
    }
    struct account account;
    bool failed = false;
    bool found = user.extension.n && account_find(a, full, &account, &failed);
    if (found) {
        user.name = full;
        user.extension = STR("");
    } else if (!failed) {
        found = account_find(a, user.name, &account, &failed);
    }
    if (failed) {
        here.address = address;
        defer(d, &here, STR("user lookup error"));
        return;
    }
    if (found) {
        user.account = &account;
        /* an extension that would name another directory names none */
        struct str in_path = str_index(user.extension, '/') < 0 ? user.extension : STR("");
        struct local_names names = names_of(a, &account, address, in_path, user.delimiter);
        if (!(d->r->req.flags & DELIVERY_VERIFY) && try_forward(d, g, &here, address, &account, &names))
            return;
    }
    struct header_addresses relay;
    if (first_time(d, g, "mailbox", arena_lower(d->scratch, address)) && !user_deliver(d, &here, &user, &relay))
        luser(d, g, &here, &user, &relay);
}

/* --- a member of an alias or a ~/.forward: ours, or to be forwarded --- */
static void member(struct delivery *d, struct agenda *g, const struct work *w) {
    const struct origin *from = w->from;
    struct resolution found;
    error e = member_resolve(d, w, &found);
    if (e || found.refusal) {
        error why = e ? e : found.refusal;
        bool later = e || why->kind != ERR_PERM;
        log_warn("%s: cannot resolve %.*s: %.*s", d->r->req.id.text, STR_ARG(w->text), STR_ARG(why->text));
        struct str dsn = why->dsn.n ? why->dsn : STR("4.3.0");
        delivery_result(d, from->address, dsn_with_class(d->arena, dsn, later ? '4' : '5'),
                        later ? STR("address resolver failure") : arena_str(d->arena, why->text));
        return;
    }
    if (str_eq(found.route.transport, d->r->req.transport))
        recipient(d, g, arena_str(d->arena, found.route.recipient), from);
    else
        forward(d, g, from, found.route.recipient);
}

static void work(struct delivery *d, struct agenda *g, const struct work *w) {
    const struct origin *from = w->from;
    const struct local_user user = {
        .address = from->address,
        .name = from->user,
        .extension = from->extension,
        .delivered = from->delivered,
        .delimiter = from->delimiter,
    };
    struct str key;
    switch (w->kind) {
    case WORK_RECIPIENT:
        recipient(d, g, w->text, from);
        return;
    case WORK_MEMBER:
        member(d, g, w);
        return;
    case WORK_INCLUDE:
        include(d, g, w->text, from);
        return;
    case WORK_COMMAND:
        /* the same command for another alias is another one: its environment says so */
        key = arena_printf(d->scratch, "%.*s:%ld %.*s", STR_ARG(from->user), (long)from->rights.uid, STR_ARG(w->text));
        if (may(d, d->local->commands, from, "command") && first_time(d, g, "command", key)) {
            struct account rights = not_root(d, from->rights);
            run_command(d, w->text, &rights, from, &user);
        }
        return;
    case WORK_FILE:
        key = arena_printf(d->scratch, "%ld %.*s", (long)from->rights.uid, STR_ARG(w->text));
        if (may(d, d->local->files, from, "file") && first_time(d, g, "file", key)) {
            struct account rights = not_root(d, from->rights);
            file_deliver(d, from->address, w->text, &rights, from);
        }
        return;
    }
}

static void one_recipient(struct delivery *d) {
    const struct rcpt *rcpt = &d->r->req.env.rcpts[d->index];
    struct agenda g = { .seen_limit = (size_t)conf_int(d->r->ctx->conf, PARAM_duplicate_filter_limit),
                        .ahead = arena_new() };
    struct origin start = { .kind = ORIGIN_REQUEST,
                            .name = STR(""),
                            .rights = d->local->default_privs,
                            .forward_user = STR(""),
                            .alias = STR(""),
                            .address = rcpt->address,
                            .delivered = rcpt->address };
    plan(d, &g, WORK_RECIPIENT, rcpt->address, &start);
    while (g.list.n) {
        if (++g.steps > LOCAL_STEPS_MAX) {
            log_warn("%s: too many destinations for %.*s", d->r->req.id.text, STR_ARG(rcpt->address));
            delivery_result(d, rcpt->address, STR("5.4.6"), STR("too many destinations"));
            break;
        }
        if (!g.list.at[g.list.n - 1].resolution)
            members_resolve_ahead(d, &g);
        struct work w = g.list.at[--g.list.n];
        work(d, &g, &w);
        resolution_used(&g, &w);
        arena_reset(d->scratch);
    }
    /* what waits is expanded again later, and must not go out each time */
    if (!d->any || d->worst.dsn.p[0] != '4')
        forward_all(d);
    if (!d->any) /* a list without members */
        delivery_result(d, rcpt->address, STR("2.0.0"), STR("discarded"));
    agent_answer(d->r, d->index, &d->worst);
    rewrite_link_close(d->rewrite);
    map_free(&g.seen);
    arena_free(g.ahead);
}

void local_deliver(struct agent_request *r) {
    struct map delivered_to = { 0 };
    struct arena *scratch = arena_new();
    delivered_to_read(r, &delivered_to);
    for (size_t i = 0; i < r->req.env.rcpt_count && agent_go_on(r); i++) {
        struct delivery d = {
            .r = r,
            .local = r->ctx->state,
            .index = i,
            .arena = r->arena,
            .scratch = scratch,
            .delivered_to = &delivered_to,
        };
        one_recipient(&d);
    }
    map_free(&delivered_to);
    arena_free(scratch);
}
