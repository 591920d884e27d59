/* mail_rcpt.c - MAIL, RCPT, VRFY (RFC 5321, 4.1.1.2, 4.1.1.3, 4.1.1.6). */
#include "smtpd/command.h"

#include "base/log.h"
#include "base/utf8.h"
#include "mail/address.h"
#include "smtpd/auth.h"
#include "smtpd/log.h"
#include "smtpd/milter.h"
#include "smtpd/params.h"
#include "smtpd/proxy.h"
#include "smtpd/rates.h"
#include "smtpd/reply.h"
#include "smtpd/restriction.h"
#include "smtpd/xclient.h"

/* --- addresses --- */

/* A domain that mail could be sent to: a name, a literal; a dot at the end is forgiven. */
static bool domain_valid(const struct session *s, struct str domain) {
    if (domain.n && domain.p[0] == '[')
        return address_domain_is_literal(domain);
    if (domain.n > 1 && domain.p[domain.n - 1] == '.')
        domain.n--;
    struct endpoint e;
    if (endpoint_ip(domain, 0, &e))
        return s->set->numeric_domains;
    if (str_is_ascii(domain))
        return hostname_valid(domain);
    struct str label; /* IDNA (RFC 5890) is for those who look it up; here: labels that are there */
    while (str_next(&domain, STR("."), &label))
        if (label.n == 0)
            return false;
    return true;
}

/* "FROM:" and blanks in front of a path, in any case. */
static bool take_keyword(struct str *args, struct str keyword) {
    if (!str_starts_icase(*args, keyword))
        return false;
    *args = str_trim(str_from(*args, keyword.n));
    return args->n > 0;
}

/* The path at the front of `args`. False: it was refused. */
static bool take_path(struct session *s, struct str args, bool may_be_empty, const char *refusal, struct str *ret,
                      struct str *ret_options) {
    struct arena *a = session_scratch(s);
    bool ok = address_parse_path(a, args, s->set->strict_envelopes ? ADDRESS_STRICT : 0, ret, ret_options);
    if (ok) {
        struct address_parts p = address_split(*ret);
        bool somewhere = !p.has_domain || (p.domain.n == 0 ? s->set->null_domain : domain_valid(s, p.domain));
        bool no_option = s->set->min_user || ret->n == 0 || ret->p[0] != '-';
        ok = (ret->n || may_be_empty) && somewhere && no_option;
    }
    if (!ok) {
        struct str shown = ret_options->n ? str_trim(str_sub(args, 0, args.n - ret_options->n)) : args;
        log_address_syntax(s, shown);
        return reply_fail(s, "%s", refusal);
    }
    return true;
}

/* RFC 6531, 3.4: who sends such an address has to say so. A domain that is not ASCII is never let pass without; a local
 * part only where strict_smtputf8 does not ask for more. */
static bool utf8_allowed(struct session *s, struct str address, bool declared, const char *refusal) {
    if (declared || str_is_ascii(address))
        return true;
    struct address_parts p = address_split(address);
    if (p.has_domain && !str_is_ascii(p.domain)) {
        log_address_syntax(s, arena_printf(session_scratch(s), "<%.*s>", STR_ARG(address)));
        return reply_fail(s, "%s", refusal);
    }
    if (!s->set->smtputf8 || !s->set->strict_smtputf8)
        return true;
    return reply_fail(s, "553 5.6.7 Must declare SMTPUTF8 to send unicode address");
}

/* --- MAIL --- */
static const char bad_sender[] = "501 5.1.7 Bad sender address syntax",
                  bad_recipient[] = "501 5.1.3 Bad recipient address syntax";

static bool needs_greeting(struct session *s) {
    return s->set->helo_required && s->helo.n == 0;
}

static error check_size(struct session *s, uint64_t size) {
    if (size > INT64_MAX || (s->set->message_size && size > s->set->message_size))
        s->error_classes |= ERROR_POLICY;
    if (size > INT64_MAX)
        return err_smtp(session_scratch(s), 552, "5.3.4", "Message size exceeds file system imposed limit");
    if (s->set->message_size == 0 || size <= s->set->message_size)
        return NULL;
    log_refusal(s, "reject", STR("552 5.3.4 Message size exceeds fixed limit"));
    return err_smtp(session_scratch(s), 552, "5.3.4", "Message size exceeds fixed limit");
}

/* --- the message at cleanup --- */
static struct envelope make_envelope(struct session *s) {
    const struct tx *tx = s->tx;
    struct envelope e = {
        .arrival_us = tx->arrival_us,
        .sender = tx->sender,
        .dsn_envid = tx->dsn_envid,
        .dsn_ret = tx->dsn_ret,
        .flags = tx->envelope_flags,
        .client = xforward_client(s),
        .content_filter = conf_str(s->set->conf, PARAM_content_filter),
    };
    if (tx->verp.n)
        memcpy(e.verp_delimiters, tx->verp.p, VERP_DELIMITERS);
    return e;
}

static bool write_error(struct session *s) {
    return reply_error(s, ERROR_RESOURCE, "451 4.3.0 Error: queue file write error");
}

/* The connection to cleanup broke while it was told of the message. */
static void message_lost(struct session *s, error e) {
    log_warn("%.*s: write to the cleanup service: %.*s", STR_ARG(session_queue_id(s)), STR_ARG(e->text));
    s->back->submit_abort(s->tx->message);
    s->tx->message = NULL;
    s->tx->id = (struct queue_id){ 0 };
}

/* The first good recipient opens the message at cleanup, which gives it its name. */
static bool open_message(struct session *s) {
    struct tx *tx = s->tx;
    if (proxy_used(s))
        return proxy_mail(s);
    bool local = xforward_local(s);
    unsigned flags = (s->set->submit_flags & ~(unsigned)SUBMIT_MILTER) | (local ? SUBMIT_LOCAL_HEADERS : 0);
    struct submit_result refused = { .status = SUBMIT_OK };
    error e = s->back->submit_open(s->back->ctx, session_scratch(s), flags, &tx->message, &tx->id, &refused);
    if (e) {
        log_warn("connect to the cleanup service: %.*s", STR_ARG(e->text));
        return write_error(s);
    }
    if (!tx->message) {
        if (refused.status == SUBMIT_NO_SPACE) {
            log_refusal(s, "reject", STR("452 4.3.1 Insufficient system storage"));
            return reply_error(s, ERROR_RESOURCE, "452 4.3.1 Insufficient system storage");
        }
        return write_error(s);
    }
    log_client(s);
    struct envelope env = make_envelope(s);
    if (!local)
        env.flags |= ENVELOPE_REMOTE;
    e = s->back->submit_envelope(tx->message, &env);
    if (!e)
        return true;
    message_lost(s, e);
    return write_error(s);
}

bool command_mail(struct session *s, struct str args) {
    if (needs_greeting(s))
        return reply_error(s, ERROR_POLICY, "503 5.5.1 Error: send HELO/EHLO first");
    if (s->tx)
        return reply_fail(s, "503 5.5.1 Error: nested MAIL command");
    if (s->bdat != BDAT_NONE)
        return reply_fail(s, "503 5.5.1 Error: MAIL after BDAT");
    if (!take_keyword(&args, STR("FROM:")))
        return reply_fail(s, "501 5.5.4 Syntax: MAIL FROM:<address>");
    if (rates_refuse(s, ANVIL_MESSAGE))
        return false;
    struct str sender = STR(""), options = STR("");
    struct mail_params params;
    if (!take_path(s, args, true, bad_sender, &sender, &options))
        return false;
    if (!utf8_allowed(s, sender, params_want_smtputf8(s, options), bad_sender) ||
        !mail_params_read(s, options, &params))
        return false;
    if (params.verp.p && sender.n == 0)
        return reply_fail(s, "503 5.5.4 Error: XVERP requires non-null sender");

    struct arena *a = arena_new();
    s->tx = ARENA_NEW(a, struct tx);
    *s->tx = (struct tx){ .arena = a,
                          .sender = arena_str(a, sender),
                          .declared_size = params.size,
                          .envelope_flags = params.flags,
                          .dsn_envid = arena_str(a, params.envid),
                          .dsn_ret = params.ret,
                          .verp = arena_str(a, params.verp),
                          .first_rcpt = STR(""),
                          .arrival_us = sys->wall_us() };
    if (proxy_used(s))
        s->tx->mail_line = arena_str(a, s->line);
    s->login.sender = arena_str(a, params.login_sender);
    error e = check_size(s, params.size);
    if (!e)
        e = check_sender(s);
    if (e) {
        tx_end(s);
        return reply_refusal(s, e);
    }
    if (!milter_mail(s, options) || (!s->set->delay_open && !open_message(s))) { /* it has replied */
        tx_end(s);
        return false;
    }
    return reply_ok(s, "250 2.1.0 Ok");
}

/* --- RCPT --- */
static bool submit_recipient(struct session *s, struct str rcpt, const struct rcpt_params *params) {
    struct rcpt r = { .address = rcpt, .orig = rcpt, .dsn_orcpt = params->orcpt, .dsn_notify = params->notify };
    error e = s->back->submit_rcpt(s->tx->message, &r);
    if (!e)
        return true;
    if (s->tx->rcpts == 0) /* with others accepted before, it is DATA that fails, and says so in the log */
        message_lost(s, e);
    return write_error(s);
}

bool command_rcpt(struct session *s, struct str args) {
    struct tx *tx = s->tx;
    if (s->bdat != BDAT_NONE)
        return reply_fail(s, "503 5.5.1 Error: RCPT after BDAT");
    if (!tx)
        return reply_fail(s, "503 5.5.1 Error: need MAIL command");
    if (!take_keyword(&args, STR("TO:")))
        return reply_fail(s, "501 5.5.4 Syntax: RCPT TO:<address>");
    if (rates_refuse(s, ANVIL_RECIPIENT))
        return false;
    struct str rcpt = STR(""), options = STR("");
    struct rcpt_params params;
    if (!take_path(s, args, false, bad_recipient, &rcpt, &options))
        return false;
    if (!utf8_allowed(s, rcpt, tx->envelope_flags & ENVELOPE_SMTPUTF8, bad_recipient) ||
        !rcpt_params_read(s, options, &params))
        return false;
    if (tx->rcpts >= s->set->recipients) {
        /* a mailing list's software sends the rest later: no mistake at first (RFC 5321, 4.5.3.1.10) */
        if (tx->overshoot++ >= s->set->recipients_overshoot)
            return reply_error(s, ERROR_POLICY, "452 4.5.3 Error: too many recipients");
        return reply_ok(s, "452 4.5.3 Error: too many recipients");
    }
    error e = check_recipient(s, rcpt);
    if (s->end != END_OPEN || !milter_rcpt(s, rcpt, options, e))
        return false;
    if (e)
        return reply_refusal(s, e);
    if (!tx->message && !tx->proxy) {
        s->check_recipient = rcpt;
        bool ok = open_message(s);
        s->check_recipient = STR("");
        if (!ok)
            return false;
    }
    if (!(tx->proxy ? proxy_rcpt(s) : submit_recipient(s, rcpt, &params)))
        return false;
    if (tx->rcpts++ == 0)
        tx->first_rcpt = arena_str(tx->arena, rcpt);
    return reply_ok(s, "250 2.1.5 Ok");
}

/* --- VRFY: never touches the transaction --- */

/* "address SMTPUTF8" (RFC 6531, 3.7.4.2) */
static struct str without_smtputf8(struct session *s, struct str args, bool *ret_declared) {
    ptrdiff_t at = str_index_any(args, STR(" \t")) < 0 ? -1 : str_rindex(args, ' ');
    *ret_declared = at > 0 && params_want_smtputf8(s, str_from(args, (size_t)at + 1));
    return *ret_declared ? str_trim(str_sub(args, 0, (size_t)at)) : args;
}

bool command_vrfy(struct session *s, struct str args) {
    if (s->set->vrfy_off)
        return reply_error(s, ERROR_POLICY, "502 5.5.1 VRFY command is disabled");
    if (args.n == 0)
        return reply_fail(s, "501 5.5.4 Syntax: VRFY address [SMTPUTF8]");
    struct str address = STR(""), rest = STR("");
    bool declared;
    args = without_smtputf8(s, args, &declared);
    if (!take_path(s, args, false, bad_recipient, &address, &rest))
        return false;
    if (rest.n) {
        log_address_syntax(s, args);
        return reply_fail(s, "%s", bad_recipient);
    }
    if (!utf8_allowed(s, address, declared, bad_recipient))
        return false;
    error e = check_recipient(s, address);
    if (e)
        return reply_refusal(s, e);
    return reply_ok(s, "252 2.0.0 %.*s", STR_ARG(args));
}
