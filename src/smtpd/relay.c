/* relay.c - where a recipient belongs, and whether it exists: what trivial-rewrite answers for us. */
#include "smtpd/restriction.h"

#include "base/log.h"

static enum verdict no_answer(struct checks *c, struct str address, error e) {
    log_warn("address resolver failure for %.*s: %.*s", STR_ARG(address), STR_ARG(e->text));
    return check_fail(c, 451, "4.3.0", "<%.*s>: Temporary lookup failure", STR_ARG(address));
}

enum verdict check_auth_destination(struct checks *c) {
    struct session *s = c->s;
    if (!c->resolved) {
        error refused = NULL;
        error e = s->back->resolve(s->back->ctx, c->arena, c->have_sender ? c->sender : STR(""), c->recipient,
                                   &c->route, &refused);
        if (!e && refused && refused->kind != ERR_PERM)
            e = refused;
        if (e)
            return no_answer(c, c->recipient, e);
        if (refused)
            return DUNNO; /* what cannot be routed is not ours */
        c->resolved = true;
    }
    /* user%elsewhere@relay: whoever gets it next may send it anywhere in our name */
    if (c->route.routed && c->route.class != CLASS_LOCAL && !s->set->untrusted_routing)
        return DUNNO;
    return c->route.class == CLASS_DEFAULT ? DUNNO : PERMIT;
}

static enum verdict listed(struct checks *c, bool is_sender, struct str address, const char *class) {
    struct session *s = c->s;
    error refused = NULL;
    error e = s->back->validate(s->back->ctx, c->arena, is_sender, address, &refused);
    if (e)
        return no_answer(c, address, e);
    if (!refused)
        return DUNNO;
    int code = refused->code ? refused->code : 451;
    const char *dsn = arena_cstr(c->arena, refused->dsn.n ? refused->dsn : STR("4.3.0"));
    if (refused->dsn.n == 0 || str_starts(refused->dsn, STR("4.3."))) /* not an answer, but no answer */
        return check_fail(c, code, dsn, "<%.*s>: %.*s", STR_ARG(address), STR_ARG(refused->text));
    return check_refuse(c, code, dsn, false, "<%.*s>: %s rejected: %.*s", STR_ARG(address), class,
                        STR_ARG(refused->text));
}

enum verdict check_listed_recipient(struct checks *c) {
    if (!c->have_recipient || c->recipient.n == 0 || c->recipient_listed)
        return DUNNO;
    c->recipient_listed = true;
    return listed(c, false, c->recipient, "Recipient address");
}

enum verdict check_listed_sender(struct checks *c) {
    if (!c->have_sender || c->sender.n == 0 || c->sender_listed)
        return DUNNO;
    c->sender_listed = true;
    return listed(c, true, c->sender, "Sender address");
}
