/* mail_rcpt.c - MAIL, RCPT, VRFY (RFC 5321, 4.1.1.2, 4.1.1.3, 4.1.1.6). */
#include "smtpd/command.h"

#include "base/log.h"
#include "base/utf8.h"
#include "mail/address.h"
#include "smtpd/auth.h"
#include "smtpd/log.h"
#include "smtpd/reply.h"
#include "smtpd/restriction.h"

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
        ok = (ret->n || may_be_empty) && (!p.has_domain || domain_valid(s, p.domain));
    }
    if (!ok) {
        struct str shown = ret_options->n ? str_trim(str_sub(args, 0, args.n - ret_options->n)) : args;
        log_address_syntax(s, shown);
        return reply_fail(s, "%s", refusal);
    }
    if (s->set->smtputf8 && s->set->strict_smtputf8 && !str_is_ascii(*ret))
        return reply_fail(s, "553 5.6.7 Must declare SMTPUTF8 to send unicode address");
    return true;
}

/* --- MAIL --- */
static bool needs_greeting(struct session *s) {
    return s->set->helo_required && s->helo.n == 0;
}

enum { SIZE_DIGITS_MAX = 20 /* RFC 1870, 3 */ };

static bool option_size(struct session *s, struct str value, uint64_t *ret) {
    bool digits = value.n > 0 && value.n <= SIZE_DIGITS_MAX;
    for (size_t i = 0; digits && i < value.n; i++)
        digits = byte_is_digit(value.p[i]);
    if (!digits)
        return reply_fail(s, "501 5.5.4 Bad message size syntax");
    if (!str_to_u64(value, UINT64_MAX, ret))
        *ret = UINT64_MAX;
    return true;
}

static bool dsn_is_off(struct session *s) {
    return reply_fail(s, "501 5.7.1 DSN support is disabled");
}

static bool mail_option(struct session *s, struct str option, uint64_t *ret_size, unsigned *ret_flags,
                        struct str *ret_login_sender) {
    if (str_starts_icase(option, STR("SIZE=")))
        return option_size(s, str_from(option, 5), ret_size);
    if (str_eq_icase(option, STR("BODY=8BITMIME"))) {
        *ret_flags |= ENVELOPE_8BIT;
        return true;
    }
    if (str_eq_icase(option, STR("BODY=7BIT"))) {
        *ret_flags &= ~(unsigned)ENVELOPE_8BIT;
        return true;
    }
    if (str_starts_icase(option, STR("AUTH=")))
        return auth_mail_option(s, str_from(option, 5), ret_login_sender);
    if (str_starts_icase(option, STR("RET=")) || str_starts_icase(option, STR("ENVID=")))
        return dsn_is_off(s);
    return reply_fail(s, "555 5.5.4 Unsupported option: %.*s", STR_ARG(option));
}

static error check_size(struct session *s, uint64_t size) {
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
        .dsn_envid = STR(""),
        .flags = tx->envelope_flags,
        .client = { .name = s->name,
                    .reverse_name = s->reverse_name,
                    .address = s->address,
                    .port = s->port,
                    .helo = s->helo,
                    .protocol = str_c(session_protocol(s)),
                    .ident = STR(""),
                    .sasl_method = s->login.method,
                    .sasl_username = s->login.username,
                    .sasl_sender = s->login.sender },
        .content_filter = conf_str(s->set->conf, PARAM_content_filter),
    };
    return e;
}

static bool write_error(struct session *s) {
    return reply_fail(s, "451 4.3.0 Error: queue file write error");
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
    bool local = check_local_rewrite(s);
    unsigned flags = s->set->submit_flags | (local ? SUBMIT_LOCAL_HEADERS : 0);
    struct submit_result refused = { .status = SUBMIT_OK };
    error e = s->back->submit_open(s->back->ctx, session_scratch(s), flags, &tx->message, &tx->id, &refused);
    if (e) {
        log_warn("connect to the cleanup service: %.*s", STR_ARG(e->text));
        return write_error(s);
    }
    if (!tx->message) {
        if (refused.status == SUBMIT_NO_SPACE) {
            log_refusal(s, "reject", STR("452 4.3.1 Insufficient system storage"));
            return reply_fail(s, "452 4.3.1 Insufficient system storage");
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
        return reply_fail(s, "503 5.5.1 Error: send HELO/EHLO first");
    if (s->tx)
        return reply_fail(s, "503 5.5.1 Error: nested MAIL command");
    if (!take_keyword(&args, STR("FROM:")))
        return reply_fail(s, "501 5.5.4 Syntax: MAIL FROM:<address>");
    struct str sender = STR(""), options = STR(""), option;
    if (!take_path(s, args, true, "501 5.1.7 Bad sender address syntax", &sender, &options))
        return false;
    uint64_t size = 0;
    unsigned flags = 0;
    struct str login_sender = STR("");
    while (str_word(&options, STR_SPACE, &option))
        if (!mail_option(s, option, &size, &flags, &login_sender))
            return false;

    struct arena *a = arena_new();
    s->tx = ARENA_NEW(a, struct tx);
    *s->tx = (struct tx){ .arena = a,
                          .sender = arena_str(a, sender),
                          .declared_size = size,
                          .envelope_flags = flags,
                          .first_rcpt = STR(""),
                          .arrival_us = sys->wall_us() };
    s->login.sender = arena_str(a, login_sender);
    error e = check_size(s, size);
    if (!e)
        e = check_sender(s);
    if (e) {
        tx_end(s);
        return reply_refusal(s, e);
    }
    if (!s->set->delay_open && !open_message(s)) { /* it has replied */
        tx_end(s);
        return false;
    }
    return reply_ok(s, "250 2.1.0 Ok");
}

/* --- RCPT --- */
static bool rcpt_option(struct session *s, struct str option) {
    if (str_starts_icase(option, STR("NOTIFY=")) || str_starts_icase(option, STR("ORCPT=")))
        return dsn_is_off(s);
    return reply_fail(s, "555 5.5.4 Unsupported option: %.*s", STR_ARG(option));
}

bool command_rcpt(struct session *s, struct str args) {
    struct tx *tx = s->tx;
    if (!tx)
        return reply_fail(s, "503 5.5.1 Error: need MAIL command");
    if (!take_keyword(&args, STR("TO:")))
        return reply_fail(s, "501 5.5.4 Syntax: RCPT TO:<address>");
    struct str rcpt = STR(""), options = STR(""), option;
    if (!take_path(s, args, false, "501 5.1.3 Bad recipient address syntax", &rcpt, &options))
        return false;
    while (str_word(&options, STR_SPACE, &option))
        if (!rcpt_option(s, option))
            return false;
    if (tx->rcpts >= s->set->recipients) {
        /* a mailing list's software sends the rest later: no mistake at first (RFC 5321, 4.5.3.1.10) */
        if (tx->overshoot++ >= s->set->recipients_overshoot)
            return reply_fail(s, "452 4.5.3 Error: too many recipients");
        return reply_ok(s, "452 4.5.3 Error: too many recipients");
    }
    error e = check_recipient(s, rcpt);
    if (e)
        return reply_refusal(s, e);
    if (s->end != END_OPEN)
        return false;
    if (!tx->message) {
        s->check_recipient = rcpt;
        bool ok = open_message(s);
        s->check_recipient = STR("");
        if (!ok)
            return false;
    }
    struct rcpt r = { .address = rcpt, .orig = rcpt, .dsn_orcpt = STR("") };
    e = s->back->submit_rcpt(tx->message, &r);
    if (e) { /* with others accepted before, it is DATA that fails, and says so in the log */
        if (tx->rcpts == 0)
            message_lost(s, e);
        return write_error(s);
    }
    if (tx->rcpts++ == 0)
        tx->first_rcpt = arena_str(tx->arena, rcpt);
    return reply_ok(s, "250 2.1.5 Ok");
}

/* --- VRFY: never touches the transaction --- */
bool command_vrfy(struct session *s, struct str args) {
    if (s->set->vrfy_off)
        return reply_fail(s, "502 5.5.1 VRFY command is disabled");
    if (args.n == 0)
        return reply_fail(s, "501 5.5.4 Syntax: VRFY address [SMTPUTF8]");
    struct str address = STR(""), rest = STR("");
    if (!take_path(s, args, false, "501 5.1.3 Bad recipient address syntax", &address, &rest))
        return false;
    if (rest.n)
        return reply_fail(s, "501 5.5.4 Syntax: VRFY address [SMTPUTF8]");
    error e = check_recipient(s, address);
    if (e)
        return reply_refusal(s, e);
    return reply_ok(s, "252 2.0.0 %.*s", STR_ARG(args));
}
