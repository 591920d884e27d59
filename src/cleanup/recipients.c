#include "base/log.h"
#include "base/map.h"
#include "cleanup/message.h"
#include "mail/address.h"
#include "mail/dsn.h"

struct adding {
    struct message *m;
    VEC(struct rcpt) out;
    struct map seen; /* what makes a recipient the same as another */
    size_t seen_limit;
    bool keep_orig, virtual_aliases;
};

static void try_later(struct message *m, struct str what) {
    log_warn("%s: %.*s -- message not accepted, try again later", m->id.text, STR_ARG(what));
    message_fail(m, SUBMIT_TEMP, STR("4.3.0"), STR("Error: queue file write error"));
}

/* `e` of the router: a table that failed, or an alias without end. */
static void refuse(struct message *m, error e) {
    log_warn("%s: %.*s -- message not accepted, try again later", m->id.text, STR_ARG(e->detail));
    message_fail(m, SUBMIT_TEMP, e->dsn, e->text);
}

static void add_one(struct adding *g, const struct rcpt *like, struct str address) {
    struct arena *a = g->m->arena;
    struct rcpt r = *like;
    r.address = address;
    r.state = RCPT_TODO;
    struct str orig = g->keep_orig ? r.orig : STR("");
    struct str key =
        arena_printf(a, "%.*s\n%u\n%.*s\n%.*s", STR_ARG(r.dsn_orcpt), r.dsn_notify, STR_ARG(orig), STR_ARG(r.address));
    key = arena_lower(a, key);
    if (map_get(&g->seen, key))
        return;
    if (g->seen_limit == 0 || g->seen.n < g->seen_limit)
        map_put(&g->seen, key, g);
    *vec_add(a, &g->out) = r;
}

/* One address as given: complete, canonical, then what it is an alias for. Its canonical form, which
 * recipient_bcc_maps is asked for; empty when a table has failed. */
static struct str add_expanded(struct adding *g, const struct rcpt *given) {
    struct message *m = g->m;
    const struct conf *c = m->s->c;
    struct str address = given->address.n > 0 ? given->address : conf_str(c, PARAM_empty_address_recipient);
    address = route_rewrite(m->s->router, m->arena, address, conf_str(c, PARAM_myorigin));
    if (!(m->flags & SUBMIT_MAP)) {
        add_one(g, given, address);
        return address;
    }
    error e = route_canonical(m->s->router, m->arena, address, STR("envelope_recipient"), &address);
    struct str *at = &address;
    size_t n = 1;
    if (!e && g->virtual_aliases)
        e = route_expand_virtual(m->s->router, m->arena, address, &at, &n);
    if (e) {
        refuse(m, e);
        return STR("");
    }
    for (size_t i = 0; i < n; i++)
        add_one(g, given, at[i]);
    return address;
}

/* A copy for somebody who was not asked for by the sender, and of whom the sender hears nothing. */
static void add_bcc(struct adding *g, struct str list) {
    struct message *m = g->m;
    struct header_addresses to = header_addresses_parse(m->arena, list);
    for (size_t i = 0; i < to.n; i++) {
        struct str address = route_rewrite(m->s->router, m->arena, to.at[i].address, conf_str(m->s->c, PARAM_myorigin));
        add_expanded(g,
                     &(struct rcpt){
                         .address = address, .orig = address, .dsn_orcpt = STR(""), .dsn_notify = DSN_NOTIFY_NEVER });
    }
}

static void add_mapped_bcc(struct adding *g, struct maps *maps, struct str name, struct str address) {
    struct message *m = g->m;
    struct str list;
    switch (route_find(m->s->router, maps, m->arena, address, &list)) {
    case TABLE_FOUND:
        add_bcc(g, list);
        break;
    case TABLE_ERROR:
        try_later(m, arena_printf(m->arena, "%.*s map lookup problem for %.*s", STR_ARG(name), STR_ARG(address)));
        break;
    case TABLE_NOT_FOUND:
        break;
    }
}

void message_recipients(struct message *m) {
    const struct conf *c = m->s->c;
    struct adding g = { .m = m,
                        .seen_limit = (size_t)conf_int(c, PARAM_duplicate_filter_limit),
                        .keep_orig = conf_bool(c, PARAM_enable_original_recipient),
                        .virtual_aliases = true };
    bool rcpt_bcc = !maps_is_empty(m->s->recipient_bcc);
    VEC(struct str) asked = { 0 };
    for (size_t i = 0; i < m->given.n && m->status == SUBMIT_OK; i++) {
        struct str address = add_expanded(&g, &m->given.at[i]);
        if (rcpt_bcc)
            *vec_add(m->arena, &asked) = address;
    }
    const size_t asked_for = g.out.n;
    if ((m->flags & SUBMIT_MAP) && !(m->env.flags & ENVELOPE_INTERNAL) && g.out.n > 0) {
        add_bcc(&g, conf_str(c, PARAM_always_bcc));
        if (m->env.sender.n > 0)
            add_mapped_bcc(&g, m->s->sender_bcc, STR("sender_bcc_maps"), m->env.sender);
        for (size_t i = 0; i < asked.n && m->status == SUBMIT_OK; i++)
            add_mapped_bcc(&g, m->s->recipient_bcc, STR("recipient_bcc_maps"), asked.at[i]);
    }
    map_free(&g.seen);
    /* In place of all; aliases are not followed any more. What the sender asked to hear counts, which is nothing for a
     * copy. */
    if (m->redirect.n && asked_for > 0) {
        struct rcpt *one = &g.out.at[asked_for - 1];
        one->address = route_rewrite(m->s->router, m->arena, m->redirect, conf_str(c, PARAM_myorigin));
        g.out.at = one;
        g.out.n = 1;
    }
    m->env.rcpts = g.out.at;
    m->env.rcpt_count = g.out.n;
}
