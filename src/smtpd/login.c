/* login.c - who may use which sender address (smtpd_sender_login_maps). */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "mail/address.h"

/* The owners of the sender; empty: nobody is named. False: `*ret_verdict` is what to return. */
static bool find_owners(struct checks *c, struct str *ret, enum verdict *ret_verdict) {
    struct session *s = c->s;
    struct route_check about;
    struct str extension;
    *ret = STR("");
    if (!check_class_of(c, c->sender, &about, ret_verdict))
        return false;
    enum table_result found =
        addr_find(s->set->login_maps, whole_address(c, c->sender), !about.unroutable && about.class == CLASS_LOCAL,
                  ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN, s->set->extensions, c->arena, ret, &extension);
    if (found == TABLE_NOT_FOUND)
        *ret = STR("");
    if (found != TABLE_ERROR)
        return true;
    log_warn("smtpd_sender_login_maps lookup error for \"%.*s\"", STR_ARG(c->sender));
    *ret_verdict = check_lookup_failed(c, c->sender);
    return false;
}

static bool is_owner(struct str owners, struct str user) {
    struct str owner;
    while (str_word(&owners, STR_COMMA_SPACE, &owner))
        if (str_eq_icase(owner, user))
            return true;
    return false;
}

/* `strangers_too`: a sender that nobody owns is nobody's to use. */
static enum verdict logged_in(struct checks *c, bool strangers_too) {
    const struct session *s = c->s;
    struct str owners;
    enum verdict v = DUNNO;
    if (!find_owners(c, &owners, &v))
        return v;
    if (owners.n == 0 && !strangers_too)
        return DUNNO;
    if (is_owner(owners, s->login.username))
        return DUNNO;
    return check_refuse(c, 553, "5.7.1", false, "<%.*s>: Sender address rejected: not owned by user %.*s",
                        STR_ARG(c->sender), STR_ARG(s->login.username));
}

static enum verdict not_logged_in(struct checks *c) {
    struct str owners;
    enum verdict v = DUNNO;
    if (!find_owners(c, &owners, &v))
        return v;
    if (owners.n == 0)
        return DUNNO;
    return check_refuse(c, 553, "5.7.1", false, "<%.*s>: Sender address rejected: not logged in", STR_ARG(c->sender));
}

/* Is there anything to compare? */
static bool applies(const struct checks *c) {
    return c->have_sender && c->sender.n && c->s->set->login_maps;
}

enum verdict row_authenticated_login_mismatch(struct checks *c, const struct restriction *r) {
    (void)r;
    return applies(c) && c->s->login.username.n ? logged_in(c, true) : DUNNO;
}

enum verdict row_unauthenticated_login_mismatch(struct checks *c, const struct restriction *r) {
    (void)r;
    return applies(c) && c->s->login.username.n == 0 ? not_logged_in(c) : DUNNO;
}

enum verdict row_known_login_mismatch(struct checks *c, const struct restriction *r) {
    (void)r;
    if (!applies(c))
        return DUNNO;
    return c->s->login.username.n ? logged_in(c, false) : not_logged_in(c);
}

enum verdict row_sender_login_mismatch(struct checks *c, const struct restriction *r) {
    return c->s->login.username.n ? row_authenticated_login_mismatch(c, r) : row_unauthenticated_login_mismatch(c, r);
}
