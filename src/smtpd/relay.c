/* relay.c - where a recipient belongs, and whether it exists: what trivial-rewrite answers for us. */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "mail/address.h"

static enum verdict no_answer(struct checks *c, struct str address, error e) {
    log_warn("address resolver failure for %.*s: %.*s", STR_ARG(address), STR_ARG(e->text));
    return check_lookup_failed(c, address);
}

/* What is not known yet of the recipient, and what will be asked in the end anyhow. */
static error ask_about_recipient(struct checks *c, unsigned want) {
    struct session *s = c->s;
    if (s->set->reject_unlisted_recipient && c->known == 0)
        want = ROUTE_WANT_CLASS | ROUTE_WANT_LISTED;
    struct route_question q = { .want = want, .sender = c->have_sender ? c->sender : STR(""), .address = c->recipient };
    struct route_check about;
    error e = s->back->check_address(s->back->ctx, c->arena, &q, &about);
    if (e)
        return e;
    c->known |= want;
    if (want & ROUTE_WANT_CLASS) {
        c->about.unroutable = about.unroutable;
        c->about.class = about.class;
        c->about.routed = about.routed;
    }
    if (want & ROUTE_WANT_LISTED)
        c->about.unlisted = about.unlisted;
    return NULL;
}

bool check_class_of(struct checks *c, struct str address, struct route_check *ret, enum verdict *ret_verdict) {
    struct session *s = c->s;
    struct route_question q = { .want = ROUTE_WANT_CLASS, .sender = STR(""), .address = address };
    error e = s->back->check_address(s->back->ctx, c->arena, &q, ret);
    if (!e && ret->unroutable && ret->unroutable->kind != ERR_PERM)
        e = ret->unroutable;
    if (!e)
        return true;
    *ret_verdict = no_answer(c, address, e);
    return false;
}

enum verdict check_auth_destination(struct checks *c) {
    struct session *s = c->s;
    error e = c->known & ROUTE_WANT_CLASS ? NULL : ask_about_recipient(c, ROUTE_WANT_CLASS);
    error refused = c->about.unroutable;
    if (!e && refused && refused->kind != ERR_PERM)
        e = refused;
    if (e)
        return no_answer(c, c->recipient, e);
    if (refused)
        return DUNNO; /* what cannot be routed is not ours */
    /* user%elsewhere@relay: whoever gets it next may send it anywhere in our name */
    if (c->about.routed && c->about.class != CLASS_LOCAL && !s->set->untrusted_routing)
        return DUNNO;
    return c->about.class == CLASS_DEFAULT ? DUNNO : PERMIT;
}

bool check_recipient_is_routed(struct checks *c) {
    if (c->s->set->untrusted_routing || str_index_any(address_split(c->recipient).local, STR("@%!")) < 0)
        return false;
    error e = c->known & ROUTE_WANT_CLASS ? NULL : ask_about_recipient(c, ROUTE_WANT_CLASS);
    return e || c->about.unroutable || (c->about.routed && c->about.class != CLASS_LOCAL);
}

static enum verdict listed(struct checks *c, struct str address, error refused, const char *class) {
    if (!refused)
        return DUNNO;
    int code = refused->code ? refused->code : 451;
    const char *dsn = arena_cstr(c->arena, refused->dsn.n ? refused->dsn : STR("4.3.0"));
    if (refused->dsn.n == 0 || str_starts(refused->dsn, STR("4.3."))) /* not an answer, but no answer */
        return check_fail(c, ERROR_DATA, code, dsn, "<%.*s>: %.*s", STR_ARG(address), STR_ARG(refused->text));
    return check_undeliverable(c, code, dsn, "<%.*s>: %s rejected: %.*s", STR_ARG(address), class,
                               STR_ARG(refused->text));
}

enum verdict check_listed_recipient(struct checks *c) {
    if (!c->have_recipient || c->recipient.n == 0 || c->recipient_listed)
        return DUNNO;
    c->recipient_listed = true;
    error e = c->known & ROUTE_WANT_LISTED ? NULL : ask_about_recipient(c, ROUTE_WANT_LISTED);
    return e ? no_answer(c, c->recipient, e) : listed(c, c->recipient, c->about.unlisted, "Recipient address");
}

enum verdict check_listed_sender(struct checks *c) {
    struct session *s = c->s;
    if (!c->have_sender || c->sender.n == 0 || c->sender_listed)
        return DUNNO;
    c->sender_listed = true;
    struct route_question q = { .is_sender = true, .want = ROUTE_WANT_LISTED, .sender = STR(""), .address = c->sender };
    struct route_check about;
    error e = s->back->check_address(s->back->ctx, c->arena, &q, &about);
    return e ? no_answer(c, c->sender, e) : listed(c, c->sender, about.unlisted, "Sender address");
}

/* --- the rows --- */
enum verdict row_reject_unlisted_sender(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_listed_sender(c);
}

enum verdict row_reject_unlisted_recipient(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_listed_recipient(c);
}

enum verdict row_permit_auth_destination(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->have_recipient ? check_auth_destination(c) : DUNNO;
}

static enum verdict unauth_destination(struct checks *c, int code) {
    if (!c->have_recipient)
        return DUNNO;
    switch (check_auth_destination(c)) {
    case PERMIT:
        return DUNNO;
    case REFUSE:
        return REFUSE;
    default:
        return check_refuse(c, code, "5.7.1", false, "<%.*s>: Relay access denied", STR_ARG(c->recipient));
    }
}

enum verdict row_reject_unauth_destination(struct checks *c, const struct restriction *r) {
    (void)r;
    return unauth_destination(c, c->s->set->relay_code);
}

enum verdict row_defer_unauth_destination(struct checks *c, const struct restriction *r) {
    (void)r;
    return unauth_destination(c, c->s->set->relay_code >= 500 ? c->s->set->relay_code - 100 : c->s->set->relay_code);
}
