#include "smtpd/starttls.h"

#include "base/log.h"
#include "smtpd/command.h"
#include "smtpd/log.h"
#include "smtpd/milter.h"
#include "smtpd/rates.h"
#include "smtpd/reply.h"

/* --- settings --- */
error starttls_settings(struct starttls *t, const struct conf *c, struct arena *err_arena) {
    static const struct tls_level_params level = { .level = PARAM_smtpd_tls_security_level,
                                                   .use = PARAM_smtpd_use_tls,
                                                   .enforce = PARAM_smtpd_enforce_tls,
                                                   .name = "smtpd_tls_security_level" };
    error e = tls_server_level(c, &level, err_arena, &t->on, &t->mandatory);
    if (e)
        return e;
    t->log_level = tls_log_level(conf_str(c, PARAM_smtpd_tls_loglevel), "smtpd_tls_loglevel");
    t->wrapper = conf_bool(c, PARAM_smtpd_tls_wrappermode);
    t->on = t->on || t->wrapper;
    t->received_header = conf_bool(c, PARAM_smtpd_tls_received_header);
    t->fast_shutdown = conf_bool(c, PARAM_tls_fast_shutdown_enable);
    t->timeout = conf_time(c, PARAM_smtpd_starttls_timeout);
    return NULL;
}

void starttls_open(struct starttls *t, const struct conf *c, struct str service) {
    if (!t->on)
        return;
    struct str maps = conf_str(c, PARAM_smtpd_tls_loglevel_maps);
    if (maps.n)
        t->log_levels = maps_open(c, maps, TABLE_FOLD);
    t->server = tls_server_open(c, &tls_smtpd_params, service, t->mandatory, t->log_level);
}

void starttls_close(struct starttls *t) {
    tls_server_close(t->server);
    if (t->log_levels)
        maps_close(t->log_levels);
    t->server = NULL;
    t->log_levels = NULL;
}

void starttls_off(struct starttls *t) {
    t->on = t->mandatory = t->wrapper = false;
}

/* --- the handshake --- */
bool starttls_offered(const struct session *s) {
    return s->set->tls.server && !s->tls.active;
}

bool starttls_missing(const struct session *s) {
    return s->set->tls.mandatory && !s->tls.active;
}

/* smtpd_tls_loglevel_maps: by the client's name, then by its address. */
static int log_level(struct session *s) {
    const struct starttls *t = &s->set->tls;
    struct str value;
    struct arena *a = session_scratch(s);
    if (!t->log_levels)
        return t->log_level;
    enum table_result r = name_find(t->log_levels, s->name, 0, a, &value);
    if (r == TABLE_NOT_FOUND)
        r = ip_find(t->log_levels, s->address, a, &value);
    return r == TABLE_FOUND ? tls_log_level(value, "smtpd_tls_loglevel_maps") : t->log_level;
}

/* Known only in the clear, so not known (RFC 3207, 4.2). */
static void forget(struct session *s) {
    tx_end(s);
    s->helo = STR("");
    s->esmtp = false;
    s->defer_helo = (struct deferral){ 0 };
    s->login = (struct session_login){ 0 };
}

/* smtpd_tls_req_ccert: at once, for a client in wrapper mode waits for our first word. */
static bool certificate_will_do(struct session *s) {
    if (!tls_server_requires_cert(s->set->tls.server) || s->tls.trusted)
        return true;
    const char *why = s->tls.cert_print.n ? "Client certificate not trusted" : "No client certificate presented";
    log_tls_abort(s, why);
    reply_error(s, ERROR_POLICY, "421 4.7.1 %.*s Error: %s", STR_ARG(s->set->myhostname), why);
    return false;
}

/* False: the session is over. */
static bool handshake(struct session *s, struct str began) {
    const struct starttls *t = &s->set->tls;
    int64_t deadline = deadline_in(t->timeout);
    int level = log_level(s);
    if (s->back->ticket_keys && tls_server_wants_keys(t->server))
        s->back->ticket_keys(s->back->ctx, t->server);
    error e = tls_accept(t->server, s->io, began, s->log_name, level, deadline, &s->tls_session);
    if (e) {
        if (e->kind == ERR_SYNTAX) {
            log_pipelining(s, io_peek(s->io));
            reply_error(s, ERROR_NONE, "554 5.5.0 Error: SMTP protocol synchronization");
            s->hang_up = true;
        } else {
            s->end = END_LOST;
        }
        return false;
    }
    tls_facts(s->tls_session, s->arena, &s->tls);
    if (level >= TLS_LOG_SUMMARY)
        tls_log_summary(&s->tls, s->log_name);
    return certificate_will_do(s);
}

bool command_starttls(struct session *s, struct str args) {
    if (args.n)
        return reply_fail(s, "501 5.5.4 Syntax: STARTTLS");
    if (s->tls.active)
        return reply_fail(s, "554 5.5.1 Error: TLS already active");
    if (!s->set->tls.on)
        return milter_unknown(s, STR("STARTTLS"), STR("502 5.5.1 Error: command not implemented"));
    if (!s->set->tls.server)
        return reply_error(s, ERROR_SOFTWARE, "454 4.7.0 TLS not available due to local problem");
    /* What came behind the command was not encrypted and must never be taken for something that was. */
    if (io_pending(s->io, true) > 0) {
        log_pipelining(s, io_peek(s->io));
        s->hang_up = true;
        return reply_error(s, ERROR_NONE, "554 5.5.0 Error: SMTP protocol synchronization");
    }
    if (rates_refuse(s, ANVIL_NEWTLS_STATUS))
        return false;
    reply_ok(s, "220 2.0.0 Ready to start TLS");
    error e = io_flush(s->io, session_deadline(s));
    if (e) {
        session_broken(s, e);
        return false;
    }
    forget(s);
    return handshake(s, STR("")) && (s->tls.reused || !rates_refuse(s, ANVIL_NEWTLS));
}

bool starttls_wrap(struct session *s) {
    if (s->set->tls.server) {
        /* behind a PROXY header the client's first bytes may have come with it */
        struct str began = arena_str(session_scratch(s), io_peek(s->io)), taken;
        error e = began.n ? io_some(s->io, began.n, session_deadline(s), &taken) : NULL;
        if (!e)
            return handshake(s, began) && (s->tls.reused || !rates_refuse(s, ANVIL_NEWTLS));
        session_broken(s, e);
        return false;
    }
    log_tls_dropped(s);
    s->end = END_QUIT;
    return false;
}

bool starttls_waits_at_end(const struct session *s) {
    return s->tls_session && !s->set->tls.fast_shutdown;
}

void starttls_end(struct session *s) {
    if (starttls_waits_at_end(s) && s->end != END_LOST)
        tls_shutdown(s->tls_session, s->io, deadline_in(s->set->tls.timeout));
}

/* --- Received: --- */
void starttls_received(struct buf *b, const struct session *s) {
    const struct tls_facts *f = &s->tls;
    if (!f->active || !s->set->tls.received_header)
        return;
    buf_printf(b, "\n\t(using %.*s with cipher %.*s (%u/%u bits)", STR_ARG(f->protocol), STR_ARG(f->cipher), f->bits,
               f->algorithm_bits);
    if (f->details.n) {
        /* what the client has done is on a line of its own */
        static const char client[] = " client-signature";
        const char *at = memmem(f->details.p, f->details.n, client, sizeof client - 1);
        size_t n = at ? (size_t)(at - f->details.p) : f->details.n;
        buf_printf(b, "\n\t %.*s", (int)n, f->details.p);
        if (at)
            buf_printf(b, "\n\t%.*s", (int)(f->details.n - n), at);
    }
    buf_byte(b, ')');
    if (f->cert_print.n)
        buf_printf(b, "\n\t(Client CN \"%.*s\", Issuer \"%.*s\" (%s))", STR_ARG(f->subject), STR_ARG(f->issuer),
                   f->trusted ? "verified OK" : "not verified");
    else
        buf_printf(b, "\n\t(%s)",
                   f->requested_cert ? "Client did not present a certificate" : "No client certificate requested");
}
