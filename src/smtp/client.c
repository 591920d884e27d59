/* One delivery request from its first target to its last. */
#include "smtp/client.h"

#include "base/log.h"
#include "smtp/transaction.h"

/* Try the targets of one destination. */
static void try_destination(const struct client_config *c, struct agent_request *r, struct str text,
                            bool more_destinations) {
    struct destination d;
    struct target_list targets;
    struct failure why;
    struct problem p = { .diagnostic = STR("") };
    if (!destination_parse(c, text, &d)) {
        p.dsn = STR("5.3.5");
        p.text = arena_printf(r->arena, "bad destination \"%.*s\": write domain, [host] or [host]:port", STR_ARG(text));
        transaction_fail_all(r, STR("none"), STR(""), &p, false);
        return;
    }
    if (!destination_lookup(c, r->arena, &d, DEADLINE_NEVER, &targets, &why)) {
        p.dsn = why.dsn;
        p.text = why.text;
        /* a permanent answer about the first destination is no reason to leave out smtp_fallback_relay's hosts */
        if (more_destinations) {
            log_info("%s: %.*s", r->req.id.text, STR_ARG(why.text));
            return;
        }
        transaction_fail_all(r, STR("none"), STR(""), &p, false);
        return;
    }
    int64_t sessions = 0;
    for (size_t i = 0; i < targets.n && transaction_unanswered(r); i++) {
        bool last_session = c->mx_session_limit > 0 && sessions + 1 >= c->mx_session_limit;
        bool more = more_destinations || (i + 1 < targets.n && !last_session);
        struct session s;
        struct arena *a = arena_new();
        r->start_us = r->start_us ? r->start_us : sys->mono_us();
        if (session_open(&s, c, a, &targets.at[i], &d, &p)) {
            sessions++;
            r->connected_us = sys->mono_us();
            r->done.destination_dead = false;
            transaction_run(&s, r, more);
            session_close(&s);
        } else {
            r->connected_us = 0;
            bool more_hosts = more_destinations || i + 1 < targets.n;
            if (p.session_dead && (!more_hosts || p.dsn.p[0] == '5')) {
                r->done.destination_dead = true;
                r->done.reason = arena_str(r->arena, p.text);
                r->done.dsn = arena_str(r->arena, p.dsn);
            }
            bool greeted = p.diagnostic.n > 0;
            sessions += greeted;
            transaction_fail_all(r, greeted ? s.relay : STR("none"), greeted ? s.remote_mta : STR(""), &p, more_hosts);
        }
        arena_free(a);
        if (last_session && sessions >= c->mx_session_limit)
            break;
    }
}

static bool next_destination(struct str *list, struct str *ret) {
    return str_word(list, STR_COMMA_SPACE, ret);
}

void client_deliver(const struct client_config *c, struct agent_request *r) {
    struct str lists[] = { r->req.nexthop, c->fallback_relay };
    struct str all = arena_printf(r->arena, "%.*s %.*s", STR_ARG(lists[0]), STR_ARG(lists[1]));
    struct str text;
    while (transaction_unanswered(r) && next_destination(&all, &text)) {
        struct str rest = all, ignored;
        try_destination(c, r, text, next_destination(&rest, &ignored));
    }
    /* what no target took and no rule has answered: temporary refusals of all of them */
    struct problem p = { .dsn = STR("4.4.1"),
                         .diagnostic = STR(""),
                         .text = STR("no mail server could take the message now") };
    transaction_fail_all(r, STR("none"), STR(""), &p, false);
}
