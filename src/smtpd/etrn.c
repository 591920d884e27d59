/* etrn.c - ETRN: "send me the mail that you keep for this domain" (RFC 1985). */
#include "base/log.h"
#include "mail/address.h"
#include "smtpd/command.h"
#include "smtpd/log.h"
#include "smtpd/reply.h"
#include "smtpd/restriction.h"

/* A host name or an address literal. "@" (its sub-domains, too) and "#" (a queue by name), of RFC 1985, 5.4 and 5.5,
 * are taken as the plain name: mail is kept by domain here. */
static bool take_domain(struct str args, struct str *ret) {
    if (args.n && (args.p[0] == '@' || args.p[0] == '#'))
        args = str_from(args, 1);
    *ret = args;
    return hostname_valid(args) || address_domain_is_literal(args);
}

static bool failed(struct session *s, struct str why) {
    log_flush_failed(s, why);
    return reply_error(s, ERROR_NONE, "458 Unable to queue messages");
}

/* Most names that are asked for are none of ours: that is answered without troubling anybody. */
static bool start(struct session *s, struct str domain) {
    if (s->trusted) { /* it runs with a user's rights */
        log_warn("do not use ETRN in \"sendmail -bs\" mode");
        return reply_error(s, ERROR_NONE, "458 Unable to queue messages");
    }
    enum flush_status status = FLUSH_DENIED;
    error e = NULL;
    switch (match_find(s->set->fast_flush_domains, domain, STR(""))) {
    case MATCH_ERROR:
        return failed(s, match_error(s->set->fast_flush_domains)->text);
    case MATCH_YES:
        e = s->back->flush_site(s->back->ctx, domain, &status);
        break;
    default:
        break;
    }
    if (e)
        return failed(s, e->text);
    switch (status) {
    case FLUSH_OK:
        return reply_ok(s, "250 Queuing started");
    case FLUSH_DENIED:
        log_etrn_denied(s, domain);
        return reply_error(s, ERROR_NONE, "459 <%.*s>: service unavailable", STR_ARG(domain));
    case FLUSH_BAD:
        return reply_fail(s, "501 Error: invalid parameter syntax");
    default:
        return failed(s, STR("see its log"));
    }
}

bool command_etrn(struct session *s, struct str args) {
    struct str domain;
    if (s->set->helo_required && s->helo.n == 0)
        return reply_error(s, ERROR_POLICY, "503 Error: send HELO/EHLO first");
    if (s->tx)
        return reply_fail(s, "503 Error: MAIL transaction in progress");
    if (args.n == 0 || str_index_any(args, STR(" \t")) >= 0)
        return reply_fail(s, "500 Syntax: ETRN domain");
    if (!take_domain(args, &domain))
        return reply_fail(s, "501 Error: invalid parameter syntax");
    error e = check_etrn(s, domain);
    if (e)
        return reply_refusal(s, e);
    if (s->end != END_OPEN) /* it went away while we waited */
        return false;
    return start(s, domain);
}
