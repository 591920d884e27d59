#include "smtpd/params.h"

#include "base/log.h"
#include "mail/dsn.h"
#include "smtpd/auth.h"
#include "smtpd/command.h"
#include "smtpd/reply.h"

/* --- MAIL --- */

/* One parameter; false: refused, and the client has been told. */
typedef bool take_mail(struct session *s, struct str value, struct mail_params *p);

static bool take_size(struct session *s, struct str value, struct mail_params *p) {
    bool digits = value.n > 0;
    for (size_t i = 0; digits && i < value.n; i++)
        digits = byte_is_digit(value.p[i]);
    if (!digits)
        return reply_fail(s, "501 5.5.4 Bad message size syntax");
    if (!str_to_u64(value, UINT64_MAX, &p->size))
        p->size = UINT64_MAX;
    return true;
}

static bool take_body(struct session *s, struct str value, struct mail_params *p) {
    if (str_eq_icase(value, STR("8BITMIME")))
        p->flags = (p->flags & ~(unsigned)ENVELOPE_7BIT) | ENVELOPE_8BIT;
    else if (str_eq_icase(value, STR("7BIT")))
        p->flags = (p->flags & ~(unsigned)ENVELOPE_8BIT) | ENVELOPE_7BIT;
    else
        return reply_fail(s, "555 5.5.4 Unsupported option: BODY=%.*s", STR_ARG(value));
    return true;
}

static bool take_ret(struct session *s, struct str value, struct mail_params *p) {
    unsigned ret = str_eq_icase(value, STR("FULL"))   ? DSN_RET_FULL
                   : str_eq_icase(value, STR("HDRS")) ? DSN_RET_HDRS
                                                      : 0;
    if (ret == 0 || p->ret)
        return reply_fail(s, "501 5.5.4 Bad RET parameter syntax");
    p->ret = ret;
    return true;
}

/* No control bytes: the value is given back in a header field of the notice. */
static bool envid_valid(struct str id) {
    for (size_t i = 0; i < id.n; i++)
        if (!byte_is_print(id.p[i]))
            return false;
    return id.n > 0;
}

static bool take_envid(struct session *s, struct str value, struct mail_params *p) {
    struct str id;
    if (p->envid.n || !xtext_decode(session_scratch(s), value, &id) || !envid_valid(id))
        return reply_fail(s, "501 5.5.4 Bad ENVID parameter syntax");
    p->envid = id;
    return true;
}

static bool take_auth(struct session *s, struct str value, struct mail_params *p) {
    return auth_mail_option(s, value, &p->login_sender);
}

static bool take_smtputf8(struct session *s, struct str value, struct mail_params *p) {
    (void)s, (void)value;
    p->flags |= ENVELOPE_SMTPUTF8;
    return true;
}

static bool take_requiretls(struct session *s, struct str value, struct mail_params *p) {
    (void)s, (void)value;
    p->flags |= ENVELOPE_REQUIRETLS;
    return true;
}

/* VERP (mail/verp.h), with delimiters of the client's or our own. */
static bool take_xverp(struct session *s, struct str value, struct mail_params *p) {
    char unused[VERP_DELIMITERS];
    if (!verp_delimiters_parse(value, s->set->verp_filter, unused))
        return reply_fail(s, "501 5.5.4 Error: XVERP needs two characters from %.*s", STR_ARG(s->set->verp_filter));
    p->verp = value;
    return true;
}

static bool take_xverp_default(struct session *s, struct str value, struct mail_params *p) {
    (void)value;
    p->verp = s->set->verp_delimiters;
    return true;
}

static bool xverp_on(const struct session *s) {
    return match_find(s->set->verp_clients, s->name, s->address) == MATCH_YES;
}

static bool smtputf8_on(const struct session *s) {
    return s->set->smtputf8;
}
/* Only who is reached over TLS has been promised anything (RFC 8689, 2). */
static bool requiretls_on(const struct session *s) {
    return s->set->requiretls && s->tls.active;
}

static const struct {
    struct str name;
    bool has_value;
    take_mail *take;
    struct str ehlo;                     /* taken away with this keyword; empty: stays */
    bool (*on)(const struct session *s); /* NULL: always */
} mail_rows[] = {
    { STR_INIT("SIZE"), true, take_size, STR_INIT(""), NULL },
    { STR_INIT("BODY"), true, take_body, STR_INIT(""), NULL },
    { STR_INIT("RET"), true, take_ret, STR_INIT("DSN"), NULL },
    { STR_INIT("ENVID"), true, take_envid, STR_INIT("DSN"), NULL },
    { STR_INIT("AUTH"), true, take_auth, STR_INIT(""), NULL },
    { STR_INIT("XVERP"), true, take_xverp, STR_INIT(""), xverp_on },
    { STR_INIT("XVERP"), false, take_xverp_default, STR_INIT(""), xverp_on },
    { STR_INIT("SMTPUTF8"), false, take_smtputf8, STR_INIT("SMTPUTF8"), smtputf8_on },
    { STR_INIT("REQUIRETLS"), false, take_requiretls, STR_INIT("REQUIRETLS"), requiretls_on },
};

/* --- RCPT --- */
typedef bool take_rcpt(struct session *s, struct str value, struct rcpt_params *p);

static void log_unknown_notify(struct str value) {
    struct str rest = value, word;
    while (str_word(&rest, STR(","), &word))
        if (dsn_notify_parse(word) == 0) {
            log_warn("unknown DSN NOTIFY command value \"%.*s\" in \"%.*s\"", STR_ARG(word), STR_ARG(value));
            return;
        }
}

static bool take_notify(struct session *s, struct str value, struct rcpt_params *p) {
    unsigned mask = dsn_notify_parse(value);
    if (mask == 0)
        log_unknown_notify(value);
    if (mask == 0 || p->notify)
        return reply_fail(s, "501 5.5.4 Error: Bad NOTIFY parameter syntax");
    p->notify = mask;
    return true;
}

static bool take_orcpt(struct session *s, struct str value, struct rcpt_params *p) {
    struct arena *a = session_scratch(s);
    struct str decoded;
    bool ok = xtext_decode(a, value, &decoded);
    if (ok && str_starts_icase(decoded, STR("utf-8;")))
        ok = unitext_decode(a, decoded, &decoded);
    if (!ok || p->orcpt.n || !dsn_orcpt_valid(decoded))
        return reply_fail(s, "501 5.5.4 Error: Bad ORCPT parameter syntax");
    p->orcpt = decoded;
    return true;
}

static const struct {
    struct str name;
    take_rcpt *take;
} rcpt_rows[] = {
    { STR_INIT("NOTIFY"), take_notify },
    { STR_INIT("ORCPT"), take_orcpt },
};

/* --- both --- */

/* "NAME=value" or "NAME". */
static struct str split(struct str option, struct str *ret_value, bool *ret_has_value) {
    ptrdiff_t eq = str_index(option, '=');
    *ret_has_value = eq >= 0;
    *ret_value = eq < 0 ? STR("") : str_from(option, (size_t)eq + 1);
    return eq < 0 ? option : str_sub(option, 0, (size_t)eq);
}

static bool unsupported(struct session *s, struct str option) {
    return reply_fail(s, "555 5.5.4 Unsupported option: %.*s", STR_ARG(option));
}

static bool dsn_is_off(struct session *s) {
    return reply_fail(s, "501 5.7.1 DSN support is disabled");
}

static bool mail_option(struct session *s, struct str option, struct mail_params *p) {
    struct str value;
    bool has_value;
    struct str name = split(option, &value, &has_value);
    for (size_t i = 0; i < sizeof mail_rows / sizeof *mail_rows; i++) {
        if (!str_eq_icase(name, mail_rows[i].name) || has_value != mail_rows[i].has_value)
            continue;
        if (mail_rows[i].on && !mail_rows[i].on(s))
            break;
        if (!mail_rows[i].ehlo.n || !ehlo_keyword_off(s, mail_rows[i].ehlo))
            return mail_rows[i].take(s, value, p);
        if (str_eq(mail_rows[i].ehlo, STR("DSN")))
            return dsn_is_off(s);
        break;
    }
    return unsupported(s, option);
}

bool mail_params_read(struct session *s, struct str options, struct mail_params *ret) {
    *ret = (struct mail_params){ .envid = STR(""), .login_sender = STR("") };
    struct str option;
    while (str_word(&options, STR_SPACE, &option))
        if (!mail_option(s, option, ret))
            return false;
    return true;
}

static bool rcpt_option(struct session *s, struct str option, struct rcpt_params *p) {
    struct str value;
    bool has_value;
    struct str name = split(option, &value, &has_value);
    for (size_t i = 0; i < sizeof rcpt_rows / sizeof *rcpt_rows; i++)
        if (str_eq_icase(name, rcpt_rows[i].name) && has_value)
            return ehlo_keyword_off(s, STR("DSN")) ? dsn_is_off(s) : rcpt_rows[i].take(s, value, p);
    return unsupported(s, option);
}

bool rcpt_params_read(struct session *s, struct str options, struct rcpt_params *ret) {
    *ret = (struct rcpt_params){ .orcpt = STR("") };
    struct str option;
    while (str_word(&options, STR_SPACE, &option))
        if (!rcpt_option(s, option, ret))
            return false;
    return true;
}

struct str xverp_ehlo_line(struct session *s) {
    return xverp_on(s) ? STR("XVERP") : STR("");
}

bool params_want_smtputf8(struct session *s, struct str options) {
    struct str option;
    while (s->set->smtputf8 && str_word(&options, STR_SPACE, &option))
        if (str_eq_icase(option, STR("SMTPUTF8")))
            return !ehlo_keyword_off(s, STR("SMTPUTF8"));
    return false;
}
