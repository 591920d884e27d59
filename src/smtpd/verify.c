/* verify.c - reject_unverified_sender, reject_unverified_recipient: would the address take mail? */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "route/probe.h"

enum { REASON_SHOWN = 250 /* bytes of what another server has said */ };

/* Nobody waits for a probe for ever: the client may come back. */
static error ask(struct checks *c, struct str address, struct verify_answer *ret) {
    struct session *s = c->s;
    for (uint32_t i = 1;; i++) {
        error e = s->back->verify(s->back->ctx, c->arena, address, ret);
        if (e || ret->status != VERIFY_TODO || i >= s->set->verify_polls)
            return e;
        if ((e = wait_until(deadline_in(s->set->verify_delay))))
            return e;
    }
}

static enum verdict verified(struct checks *c, struct str address, const struct unverified *set, const char *class,
                             const char *dsn) {
    struct verify_answer is;
    if (verify_is_sender(c->s->set->conf, address, sys->wall_us() / US_PER_S))
        return DUNNO; /* a probe of a probe's sender would never end */
    error e = ask(c, address, &is);
    if (e) {
        log_warn("address verification of %.*s: %.*s", STR_ARG(address), STR_ARG(e->text));
        return check_tempfail(c, set->tempfail, 450, dsn, "<%.*s>: %s rejected: address verification problem",
                              STR_ARG(address), class);
    }
    struct str reason = str_sub(is.text, 0, REASON_SHOWN);
    switch (is.status) {
    case VERIFY_OK:
        return DUNNO;
    case VERIFY_BOUNCE:
        return check_refuse(c, set->reject_code, dsn, false, "<%.*s>: %s rejected: undeliverable address: %.*s",
                            STR_ARG(address), class, STR_ARG(set->reject_reason.n ? set->reject_reason : reason));
    case VERIFY_DEFER:
    case VERIFY_TODO:
        break;
    }
    return check_tempfail(c, set->tempfail, set->defer_code, dsn, "<%.*s>: %s rejected: unverified address: %.*s",
                          STR_ARG(address), class, STR_ARG(reason));
}

enum verdict row_reject_unverified_sender(struct checks *c, const struct restriction *r) {
    (void)r;
    if (!c->have_sender || c->sender.n == 0)
        return DUNNO;
    return verified(c, c->sender, &c->s->set->unverified_sender, "Sender address", "4.1.7");
}

enum verdict row_reject_unverified_recipient(struct checks *c, const struct restriction *r) {
    (void)r;
    if (!c->have_recipient || c->recipient.n == 0)
        return DUNNO;
    return verified(c, c->recipient, &c->s->set->unverified_recipient, "Recipient address", "4.1.1");
}
