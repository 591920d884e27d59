#include "smtpd/auth.h"

#include "base/log.h"
#include "smtpd/command.h"
#include "smtpd/log.h"
#include "smtpd/rates.h"
#include "smtpd/reply.h"

enum {
    ANSWER_SECONDS = 100,      /* for one answer of the login server, which may hold back a refusal on purpose */
    MECHANISM_SHOWN = 100,     /* bytes of what the client calls a mechanism */
    EHLO_MECHANISMS_MAX = 400, /* bytes; RFC 5321, 4.5.3.1.5 has 512 for a line */
};

/* --- settings --- */
static error policy(const struct conf *c, enum param p, const char *name, struct arena *err_arena,
                    struct sasl_policy *ret) {
    struct str word;
    if (sasl_policy_parse(conf_str(c, p), ret, &word))
        return NULL;
    return err_make(err_arena, ERR_CONFIG, "unknown %s value \"%.*s\" in \"%.*s\"", name, STR_ARG(word),
                    STR_ARG(conf_str(c, p)));
}

error auth_settings_load(const struct conf *c, struct arena *err_arena, struct auth_settings *ret) {
    *ret = (struct auth_settings){ .enabled = conf_bool(c, PARAM_smtpd_sasl_auth_enable),
                                   .tls_only = conf_bool(c, PARAM_smtpd_tls_auth_only),
                                   .broken_clients = conf_bool(c, PARAM_broken_sasl_auth_clients),
                                   .header = conf_bool(c, PARAM_smtpd_sasl_authenticated_header),
                                   .response_limit = (size_t)conf_int(c, PARAM_smtpd_sasl_response_limit),
                                   .type = conf_str(c, PARAM_smtpd_sasl_type),
                                   .path = conf_str(c, PARAM_smtpd_sasl_path),
                                   .service = conf_str(c, PARAM_smtpd_sasl_service),
                                   .realm = conf_str(c, PARAM_smtpd_sasl_local_domain) };
    if (!str_eq(ret->type, STR("cyrus"))) /* Dovecot has realms of its own */
        ret->realm = STR("");
    if (!ret->enabled)
        return NULL;
    error e = policy(c, PARAM_smtpd_sasl_security_options, "smtpd_sasl_security_options", err_arena, &ret->plain);
    if (!e)
        e = policy(c, PARAM_smtpd_sasl_tls_security_options, "smtpd_sasl_tls_security_options", err_arena, &ret->tls);
    if (e)
        return e;
    struct str filter = conf_str(c, PARAM_smtpd_sasl_mechanism_filter);
    if (filter.n)
        ret->mechanisms = match_open(c, STR("smtpd_sasl_mechanism_filter"), filter, MATCH_STRING, TABLE_FOLD);
    ret->exceptions = match_open(c, STR("smtpd_sasl_exceptions_networks"),
                                 conf_str(c, PARAM_smtpd_sasl_exceptions_networks), MATCH_ADDRESS, 0);
    return NULL;
}

void auth_settings_free(struct auth_settings *a) {
    match_close(a->mechanisms);
    match_close(a->exceptions);
}

/* --- what is offered --- */
static const struct sasl_policy *policy_now(const struct session *s) {
    return s->tls.active ? &s->set->auth.tls : &s->set->auth.plain;
}

static struct sasl_peer peer_of(const struct session *s) {
    return (struct sasl_peer){ .service = s->set->auth.service,
                               .realm = s->set->auth.realm,
                               .address = s->address,
                               .port = s->port,
                               .local_address = s->server_address,
                               .local_port = s->server_port,
                               .tls = s->tls.active };
}

static bool may_log_in(struct session *s) {
    return s->back->sasl && (s->tls.active || !s->set->auth.tls_only) && !ehlo_keyword_off(s, STR("AUTH"));
}

/* A filter that cannot be asked lets nothing through. */
static bool announced(const struct session *s, struct str mechanism) {
    return !s->set->auth.mechanisms || match_find(s->set->auth.mechanisms, mechanism, STR("")) == MATCH_YES;
}

struct str auth_ehlo_line(struct session *s, char separator) {
    if (!may_log_in(s) || (separator == '=' && !s->set->auth.broken_clients) ||
        match_find(s->set->auth.exceptions, s->name, s->address) != MATCH_NO)
        return STR("");
    struct arena *a = session_scratch(s);
    struct sasl_peer peer = peer_of(s);
    struct sasl_mechanism *m = NULL;
    size_t n = 0;
    error e =
        s->back->sasl->ops->mechanisms(s->back->sasl, &peer, policy_now(s), deadline_in(ANSWER_SECONDS), a, &m, &n);
    if (e) {
        if (separator == ' ')
            log_login_server(s, e->text);
        return STR("");
    }
    struct buf b = { 0 };
    for (size_t i = 0; i < n; i++)
        if (announced(s, m[i].name) && b.n + 1 + m[i].name.n <= EHLO_MECHANISMS_MAX)
            buf_printf(&b, "%c%.*s", b.n ? ' ' : separator, STR_ARG(m[i].name));
    struct str line = b.n ? arena_printf(a, "AUTH%.*s", STR_ARG(buf_str(&b))) : STR("");
    buf_free(&b);
    return line;
}

/* --- AUTH --- */
static struct str shown(struct arena *a, struct str text) {
    return sasl_printable(a, text, MECHANISM_SHOWN);
}

/* One line of the client. False: the exchange is over, it has been told why. */
static bool read_response(struct session *s, struct str mechanism, struct str *ret) {
    int64_t deadline = session_deadline(s);
    struct str line;
    error e = io_line(s->io, s->set->auth.response_limit + 1, deadline, &line);
    if (e && e->kind == ERR_LIMIT) {
        log_response_too_long(s);
        if (!session_skip_line(s, deadline))
            return false;
        return reply_error(s, ERROR_NONE, "500 5.5.6 SASL response limit exceeded");
    }
    if (e) {
        session_broken(s, e);
        return false;
    }
    if (str_ends(line, STR("\n")))
        line.n--;
    if (str_ends(line, STR("\r")))
        line.n--;
    if (str_eq(line, STR("*"))) {
        log_login_aborted(s, shown(session_scratch(s), mechanism));
        return reply_error(s, ERROR_NONE, "501 5.7.0 Authentication aborted");
    }
    *ret = line;
    return true;
}

/* False: it is over, the client has been told. */
static bool converse(struct session *s, struct str mechanism, struct sasl_exchange *x, struct sasl_answer *answer) {
    const struct sasl_ops *ops = s->back->sasl->ops;
    while (answer->outcome == LOGIN_MORE) {
        io_set_write_deadline(s->io, session_deadline(s));
        io_printf(s->io, "334 %.*s\r\n", STR_ARG(answer->challenge));
        struct str response = STR("");
        if (!read_response(s, mechanism, &response)) {
            ops->cancel(x);
            return false;
        }
        if (!sasl_base64_valid(response)) {
            ops->cancel(x);
            *answer = (struct sasl_answer){ .outcome = LOGIN_FAILED,
                                            .reason = STR("Invalid base64 data in continued response") };
            return true;
        }
        ops->respond(x, response, deadline_in(ANSWER_SECONDS), session_scratch(s), answer);
    }
    return true;
}

static bool conclude(struct session *s, struct str mechanism, const struct sasl_answer *answer) {
    struct arena *a = session_scratch(s);
    if (answer->outcome == LOGIN_OK) {
        s->login = (struct session_login){ .method = arena_str(s->arena, mechanism),
                                           .username = arena_str(s->arena, answer->username) };
        return reply_ok(s, "235 2.7.0 Authentication successful");
    }
    if (answer->detail.n)
        log_login_server(s, answer->detail);
    struct str reason = answer->reason.n ? answer->reason : STR("(reason unavailable)");
    log_login_failed(s, shown(a, mechanism), shown(a, reason), shown(a, answer->username));
    if (answer->outcome == LOGIN_TEMP) /* RFC 4954, 6 */
        return reply_error(s, ERROR_NONE, "454 4.7.0 Temporary authentication failure: %.*s", STR_ARG(reason));
    return reply_error(s, ERROR_NONE, "535 5.7.8 Error: authentication failed: %.*s", STR_ARG(reason));
}

static bool log_in(struct session *s, struct str args) {
    struct str mechanism = STR(""), initial = STR(""), more;
    bool has_initial = false;
    if (str_word(&args, STR_SPACE, &mechanism))
        has_initial = str_word(&args, STR_SPACE, &initial);
    if (mechanism.n == 0 || str_word(&args, STR_SPACE, &more))
        return reply_fail(s, "501 5.5.4 Syntax: AUTH mechanism");
    struct sasl_answer answer = { .outcome = LOGIN_FAILED, .reason = STR("Invalid base64 data in initial response") };
    if (str_eq(initial, STR("="))) /* there, and empty (RFC 4954, 4) */
        initial.n = 0;
    if (sasl_base64_valid(initial)) {
        struct sasl_peer peer = peer_of(s);
        struct sasl_exchange *x =
            s->back->sasl->ops->begin(s->back->sasl, &peer, policy_now(s), mechanism, has_initial ? &initial : NULL,
                                      deadline_in(ANSWER_SECONDS), session_scratch(s), &answer);
        if (!converse(s, mechanism, x, &answer))
            return false;
    }
    return conclude(s, mechanism, &answer);
}

bool command_auth(struct session *s, struct str args) {
    bool ok = false;
    if (s->set->helo_required && s->helo.n == 0)
        reply_fail(s, "503 5.5.1 Error: send HELO/EHLO first");
    else if (!may_log_in(s))
        reply_fail(s, "503 5.5.1 Error: authentication not enabled");
    else if (s->tx)
        reply_fail(s, "503 5.5.1 Error: MAIL transaction in progress");
    else if (s->login.username.n) /* RFC 4954, 4 */
        reply_fail(s, "503 5.5.1 Error: already authenticated");
    else if (s->command_cut) /* RFC 4954, 4 */
        reply_error(s, ERROR_NONE, "500 5.5.6 SASL response limit exceeded");
    else if (!rates_refuse(s, ANVIL_AUTH)) {
        io_secret(s->io, true);
        ok = log_in(s, args);
        io_secret(s->io, false);
    }
    str_wipe(args);
    return ok;
}

bool auth_mail_option(struct session *s, struct str value, struct str *ret_sender) {
    if (ret_sender->n)
        return reply_fail(s, "503 5.5.4 Error: multiple AUTH= options");
    if (value.n && !str_eq(value, STR("<>"))) /* <>: nobody in particular */
        *ret_sender = value;
    return true;
}

void auth_forget(struct session *s) {
    s->login = (struct session_login){ 0 };
}
