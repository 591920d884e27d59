/* One delivery request from its first target to its last. */
#include "smtp/client.h"

#include "base/log.h"
#include "smtp/login.h"
#include "smtp/transaction.h"

void client_init(struct client *c, const struct client_config *config, struct group *work) {
    *c = (struct client){ .config = *config, .kept = { .work = work } };
}

void client_end(struct client *c) {
    resolved_free(&c->resolved);
    client_config_free(&c->config);
}

struct route { /* one of the nexthop's destinations, or of smtp_fallback_relay's */
    struct str text;
    struct str key; /* what its sessions are kept under */
    struct destination d;
};

static void end_of_use(struct client *c, const struct attempts *t, struct session *s, const struct route *way) {
    struct agent_request *r = t->r;
    bool keep = (!s->tls || s->tls_may_be_kept) && !r->orphaned && !c->kept.draining && !kept_worn_out(s) &&
                kept_wanted(&c->kept, &c->config, way->text, &way->d, r->req.flags & DELIVERY_MORE);
    if (keep && s->in_transaction) {
        agent_flush(r);
        keep = transaction_reset(s);
    }
    if (keep) {
        kept_add(&c->kept, s, way->key);
        return;
    }
    if (!c->config.skip_quit_response)
        agent_flush(r);
    session_close(s);
}

/* False: it was a kept session and was gone. */
static bool use(struct client *c, struct attempts *t, struct session *s, const struct route *way, bool more) {
    struct agent_request *r = t->r;
    r->connected_us = sys->mono_us();
    r->done.destination_dead = false;
    bool good = transaction_run(s, t, more);
    end_of_use(c, t, s, way);
    return good;
}

static bool use_kept(struct client *c, struct attempts *t, struct session *s, const struct route *way) {
    s->scratch = t->r->arena;
    s->errand = (struct errand){ .nexthop = way->text, .sender = t->r->req.env.sender, .id = t->r->req.id.text };
    s->uses++;
    t->r->start_us = sys->mono_us();
    return use(c, t, s, way, true); /* what is refused waits for the end: other servers are not looked up yet */
}

static bool still_to_do(const struct attempts *t) {
    return !t->r->orphaned && attempts_unanswered(t) > 0;
}

static void no_session(struct attempts *t, const struct problem *p, bool more) {
    struct agent_request *r = t->r;
    r->connected_us = 0;
    if (p->session_dead && (!more || p->dsn.p[0] == '5')) {
        r->done.destination_dead = true;
        r->done.reason = arena_str(r->arena, p->text);
        r->done.dsn = arena_str(r->arena, p->dsn);
    }
    attempts_fail(t, p, more);
}

/* Where TLS is wanted and not required, mail goes without rather than not at all, once the message is so old that this
 * is more than a moment's trouble. A probe does not wait for that. */
static bool plain_will_do(const struct client *c, const struct attempts *t, const struct tls_policy *p) {
    int64_t age_us = sys->wall_us() - t->r->req.env.arrival_us;
    /* nor is a password sent in the clear because TLS has failed */
    return p->level == TLS_LEVEL_MAY && !c->config.login &&
           ((t->r->req.flags & DELIVERY_VERIFY) || age_us >= c->config.tls.retry_plain_after * US_PER_S);
}

/* A new session. False: nobody there, or nobody that says anything. */
static bool use_new(struct client *c, struct attempts *t, const struct route *way, const struct target *target,
                    struct tls_policy *policy, bool more, bool more_hosts) {
    struct problem p;
    const struct errand errand = { way->text, t->r->req.env.sender, t->r->req.id.text, policy };
    t->plain_next = plain_will_do(c, t, policy);
    for (;;) {
        struct session *s = session_open(&c->config, t->r->arena, target, &way->d, &errand, &p);
        bool again = !s ? t->plain_next && p.tls_failed : !use(c, t, s, way, more);
        if (!again) {
            if (!s)
                no_session(t, &p, more_hosts);
            return s || p.diagnostic.n > 0;
        }
        if (!s)
            log_info("%s: %.*s", t->r->req.id.text, STR_ARG(p.text));
        tls_policy_plain(policy);
        t->plain_next = false;
    }
}

static void no_policy(struct attempts *t, const struct failure *why, bool more) {
    const struct problem p = {
        .dsn = why->dsn, .text = why->text, .relay = STR("none"), .remote_mta = STR(""), .diagnostic = STR("")
    };
    attempts_fail(t, &p, more);
}

static bool tls_optional(const struct agent_request *r) {
    return r->req.env.flags & ENVELOPE_TLS_OPTIONAL;
}

static void try_targets(struct client *c, struct attempts *t, const struct route *way, struct target_list targets,
                        int64_t sessions, bool more_destinations) {
    const int64_t limit = c->config.mx_session_limit;
    for (size_t i = 0; i < targets.n && still_to_do(t); i++) {
        bool more_hosts = more_destinations || i + 1 < targets.n;
        bool last_session = limit > 0 && sessions + 1 >= limit;
        struct tls_policy policy;
        struct failure why;
        if (!tls_policy_find(&c->config, t->r->arena, way->text, &way->d, targets.at[i].name, tls_optional(t->r),
                             &policy, &why)) {
            no_policy(t, &why, more_hosts);
            continue;
        }
        /* who has logged in for one nexthop may have to be somebody else for another */
        struct session *s = c->config.login ? NULL : kept_take_at(&c->kept, &targets.at[i].addr, policy.key);
        if (!s || !use_kept(c, t, s, way)) {
            agent_flush(t->r);
            s = NULL;
        }
        /* also one that was refused with words */
        sessions += s || use_new(c, t, way, &targets.at[i], &policy,
                                 more_destinations || (i + 1 < targets.n && !last_session), more_hosts);
        if (limit > 0 && sessions >= limit)
            return;
    }
}

/* The session kept for this destination, unless its policy has changed. */
static struct session *take_kept(struct client *c, struct agent_request *r, const struct route *way) {
    struct tls_policy policy;
    struct failure why;
    struct session *s = kept_take(&c->kept, way->key);
    if (!s ||
        (tls_policy_find(&c->config, r->arena, way->text, &way->d, s->remote_mta, tls_optional(r), &policy, &why) &&
         str_eq(policy.key, s->tls_key)))
        return s;
    session_drop(s);
    return NULL;
}

static void leave_out(struct target_list *list, const struct endpoint *address) {
    size_t keep = 0;
    for (size_t i = 0; i < list->n; i++)
        if (!session_address_is(address, &list->at[i].addr))
            list->at[keep++] = list->at[i];
    list->n = keep;
}

/* Try the targets of one destination. */
static void try_destination(struct client *c, struct attempts *t, struct str text, bool more_destinations) {
    struct agent_request *r = t->r;
    struct route way = { .text = text };
    struct target_list targets;
    struct failure why;
    struct problem p = { .diagnostic = STR(""), .relay = STR("none"), .remote_mta = STR("") };
    if (!destination_parse(&c->config, text, &way.d)) {
        p.dsn = STR("5.3.5");
        p.text = arena_printf(r->arena, "bad destination \"%.*s\": write domain, [host] or [host]:port", STR_ARG(text));
        attempts_fail(t, &p, false);
        return;
    }
    way.key = login_kept_key(&c->config, r->arena, text, r->req.env.sender);
    struct session *kept = take_kept(c, r, &way);
    struct endpoint used = { 0 };
    if (kept) {
        struct endpoint address = kept->address;
        if (use_kept(c, t, kept, &way))
            used = address;
        if (!still_to_do(t))
            return;
    }
    if (!destination_lookup(&c->config, r->arena, &way.d, DEADLINE_NEVER, &c->resolved, &targets, &why)) {
        p.dsn = why.dsn;
        p.text = why.text;
        /* a permanent answer about the first destination is no reason to leave out smtp_fallback_relay's hosts */
        if (more_destinations)
            log_info("%s: %.*s", r->req.id.text, STR_ARG(why.text));
        else
            attempts_fail(t, &p, false);
        return;
    }
    leave_out(&targets, &used);
    try_targets(c, t, &way, targets, used.len > 0, more_destinations);
}

static bool next_destination(struct str *list, struct str *ret) {
    return str_word(list, STR_COMMA_SPACE, ret);
}

void client_deliver(struct client *c, struct agent_request *r) {
    struct attempts t = attempts_new(r);
    struct str lists[] = { r->req.nexthop, c->config.fallback_relay };
    struct str all = arena_printf(r->arena, "%.*s %.*s", STR_ARG(lists[0]), STR_ARG(lists[1]));
    struct str text;
    while (still_to_do(&t) && next_destination(&all, &text)) {
        struct str rest = all, ignored;
        try_destination(c, &t, text, next_destination(&rest, &ignored));
    }
    /* what no target took and no rule has answered */
    const struct problem p = { .dsn = STR("4.4.1"),
                               .diagnostic = STR(""),
                               .relay = STR("none"),
                               .remote_mta = STR(""),
                               .text = STR("no mail server could take the message now") };
    if (!r->orphaned)
        attempts_end(&t, &p);
}
