#include "smtp/starttls.h"

#include "base/log.h"

static void fail(struct session *s, struct str dsn, struct str text, struct problem *ret_why) {
    *ret_why = session_problem(s, dsn, text);
    ret_why->session_dead = true;
}

/* What came in the clear behind the server's reply must never be taken for something that was encrypted (RFC 3207,
 * 5). */
static void discard_input(struct session *s) {
    struct str ignored;
    size_t n = io_pending(s->io, false);
    if (n == 0)
        return;
    log_warn("%.*s sent plain text behind its reply to STARTTLS: it is thrown away", STR_ARG(s->host));
    (void)io_some(s->io, n, deadline_in(0), &ignored);
}

static bool handshake(struct session *s, const struct tls_policy *p, struct problem *ret_why) {
    const struct tls_settings *set = &s->config->tls;
    struct tls_facts facts;
    const struct tls_wants wants = { .peer = s->relay,
                                     .log_level = p->log_level,
                                     .protocols = p->protocols,
                                     .grade = p->grade,
                                     .excluded = p->excluded,
                                     .excluded_count = p->excluded_count,
                                     .sni = p->sni,
                                     .level = p->level,
                                     .match = p->match.at,
                                     .match_count = p->match.n,
                                     .digest = set->print_digest };
    if (tls_connect(set->client, s->io, &wants, deadline_in(set->starttls_timeout), &s->tls)) {
        s->broken = true;
        fail(s, STR("4.7.5"), STR("Cannot start TLS: handshake failure"), ret_why);
        ret_why->tls_failed = true;
        return false;
    }
    tls_facts(s->tls, s->scratch, &facts);
    if (p->log_level >= TLS_LOG_SUMMARY)
        tls_log_summary(&facts, s->relay);
    s->tls_level = p->level;
    s->tls_verified = facts.matched;
    if (facts.matched || p->level <= TLS_LEVEL_ENCRYPT)
        return true;
    fail(s, STR("4.7.5"), STR("Server certificate not verified"), ret_why);
    return false;
}

static bool engine(struct session *s, struct problem *ret_why) {
    if (s->config->tls.client)
        return true;
    fail(s, STR("4.7.5"), STR("TLS is required, but our TLS engine is unavailable"), ret_why);
    return false;
}

/* RFC 3207, 4.2: what the server has said in the clear does not count any more. */
static void forget(struct session *s) {
    s->features = 0;
    s->size_limit = 0;
}

enum starttls starttls_begin(struct session *s, const struct tls_policy *p, struct problem *ret_why) {
    bool mandatory = p->level > TLS_LEVEL_MAY;
    struct reply r;
    if (p->level == TLS_LEVEL_NONE) {
        if (s->config->tls.note_offer && (s->features & FEATURE_STARTTLS))
            log_info("Host offered STARTTLS: [%.*s]", STR_ARG(s->remote_mta));
        return STARTTLS_NONE;
    }
    if (!(s->features & FEATURE_STARTTLS)) {
        if (!mandatory)
            return STARTTLS_NONE;
        fail(s, STR("4.7.4"),
             arena_printf(s->scratch, "TLS is required, but was not offered by host %.*s", STR_ARG(s->host)), ret_why);
        return STARTTLS_FAILED;
    }
    if (!mandatory && !s->config->tls.client)
        return STARTTLS_NONE;
    if (!engine(s, ret_why))
        return STARTTLS_FAILED;
    session_send(s, "STARTTLS");
    if (!session_reply(s, "sending STARTTLS", s->config->tls.starttls_timeout, &r, ret_why))
        return STARTTLS_FAILED;
    if (r.code / 100 == 2) {
        discard_input(s);
        if (!handshake(s, p, ret_why))
            return STARTTLS_FAILED;
        forget(s);
        return STARTTLS_DONE;
    }
    session_reply_problem(s, &r, "STARTTLS command", ret_why);
    if (!mandatory && !ret_why->session_dead)
        return STARTTLS_NONE;
    ret_why->text = arena_printf(s->scratch, "TLS is required, but host %.*s refused to start TLS: %.*s",
                                 STR_ARG(s->host), STR_ARG(ret_why->diagnostic));
    ret_why->session_dead = true;
    return STARTTLS_FAILED;
}

bool starttls_wrap(struct session *s, const struct tls_policy *p, struct problem *ret_why) {
    return engine(s, ret_why) && handshake(s, p, ret_why);
}
