/* access_action.c - what the answers of access(5) tables and policy servers do. */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "mail/header.h"
#include "smtpd/log.h"
#include "smtpd/proxy.h"

enum { ACTIONS_MAX = 1000 /* BCC, PREPEND of one message: a client repeats RCPT as often as it likes */ };

/* One look-up: in which table, of what. */
struct lookup {
    struct checks *c;
    struct str table, key;
};

/* --- what the answers do --- */

/* What is said of a recipient is said of a sender with other numbers. */
struct str access_fitting_status(struct checks *c, struct str status) {
    static const struct {
        struct str detail, sender, recipient;
    } fits[] = {
        { STR_INIT(".1.0"), STR_INIT(".1.0"), STR_INIT(".1.0") },
        { STR_INIT(".1.1"), STR_INIT(".1.7"), STR_INIT(".1.1") },
        { STR_INIT(".1.2"), STR_INIT(".1.8"), STR_INIT(".1.2") },
        { STR_INIT(".1.3"), STR_INIT(".1.7"), STR_INIT(".1.3") },
        { STR_INIT(".1.4"), STR_INIT(".1.7"), STR_INIT(".1.4") },
        { STR_INIT(".1.5"), STR_INIT(".1.0"), STR_INIT(".1.5") },
        { STR_INIT(".1.6"), STR_INIT(".1.7"), STR_INIT(".1.6") },
        { STR_INIT(".1.7"), STR_INIT(".1.7"), STR_INIT(".1.3") },
        { STR_INIT(".1.8"), STR_INIT(".1.8"), STR_INIT(".1.2") },
    };
    bool sender = strcmp(c->class, "Sender address") == 0, recipient = strcmp(c->class, "Recipient address") == 0;
    struct str detail = str_from(status, 1), fit = detail;
    for (size_t i = 0; i < sizeof fits / sizeof *fits; i++)
        if (str_eq(detail, fits[i].detail))
            fit = sender ? fits[i].sender : recipient ? fits[i].recipient : STR(".0.0");
    struct str whole = arena_cat(c->arena, str_sub(status, 0, 1), fit);
    if (!str_eq(whole, status))
        log_info("mapping DSN status %.*s into %s status %.*s", STR_ARG(status), c->class, STR_ARG(whole));
    return whole;
}

static enum verdict refuse(struct lookup *l, int code, struct str text) {
    struct checks *c = l->c;
    struct str status, rest;
    dsn_split(text, code >= 500 ? STR("5.7.1") : STR("4.7.1"), &status, &rest);
    return check_refuse(c, code, arena_cstr(c->arena, access_fitting_status(c, status)), true, "%.*s",
                        STR_ARG(rest.n ? rest : STR("Access denied")));
}

static void defer_if(struct lookup *l, struct deferral *d, struct str text) {
    struct str status, rest;
    dsn_split(text, STR("4.7.1"), &status, &rest);
    check_defer(l->c, d, l->c->s->set->access_defer_code, access_fitting_status(l->c, status), true,
                rest.n ? rest : STR("Service unavailable"));
}

static void log_action(struct lookup *l, const char *name, struct str text) {
    struct checks *c = l->c;
    struct str whole = arena_printf(c->arena, "<%.*s>: %s %.*s", STR_ARG(c->subject), c->class, STR_ARG(text));
    log_refusal(c->s, name, whole);
}

static void needs(struct lookup *l, const char *what) {
    log_warn("access table %.*s entry \"%.*s\" requires %s", STR_ARG(l->table), STR_ARG(l->key), what);
}

static bool is_mailbox(struct str address) {
    struct address_parts p = address_split(address);
    return p.has_domain && p.local.n && p.domain.n && address.n <= ADDRESS_MAX;
}

static enum verdict hold(struct lookup *l, struct tx *tx, struct str text) {
    if (!tx->actions.hold && !tx->actions.discard)
        log_action(l, "hold", text.n ? text : STR("triggers HOLD action"));
    tx->actions.hold = true;
    return DUNNO;
}

static enum verdict discard(struct lookup *l, struct tx *tx, struct str text) {
    if (!tx->actions.discard)
        log_action(l, "discard", text.n ? text : STR("triggers DISCARD action"));
    tx->actions.discard = true;
    return PERMIT; /* nobody is asked about what is thrown away */
}

static enum verdict filter(struct lookup *l, struct tx *tx, struct str value) {
    if (str_index(value, ':') < 0) {
        needs(l, "transport:destination");
        return DUNNO;
    }
    log_action(l, "filter", arena_cat(l->c->arena, STR("triggers FILTER "), value));
    tx->actions.filter = arena_str(tx->arena, value);
    return DUNNO;
}

static enum verdict redirect(struct lookup *l, struct tx *tx, struct str value) {
    if (!is_mailbox(value)) {
        needs(l, "user@domain target");
        return DUNNO;
    }
    log_action(l, "redirect", arena_cat(l->c->arena, STR("triggers REDIRECT "), value));
    tx->actions.redirect = arena_str(tx->arena, value);
    return DUNNO;
}

static enum verdict bcc(struct lookup *l, struct tx *tx, struct str value) {
    if (!is_mailbox(value)) {
        needs(l, "user@domain target");
        return DUNNO;
    }
    log_action(l, "bcc", arena_cat(l->c->arena, STR("triggers BCC "), value));
    for (size_t i = 0; i < tx->actions.bcc.n; i++)
        if (str_eq(tx->actions.bcc.at[i], value))
            return DUNNO;
    if (tx->actions.bcc.n < ACTIONS_MAX)
        *vec_add(tx->arena, &tx->actions.bcc) = arena_str(tx->arena, value);
    return DUNNO;
}

static enum verdict prepend(struct lookup *l, struct tx *tx, struct str value) {
    struct str name, rest;
    if (strcmp(l->c->s->stage, "END-OF-MESSAGE") == 0)
        log_warn("access table %.*s: action PREPEND must be used before smtpd_end_of_data_restrictions",
                 STR_ARG(l->table));
    else if (!header_split(value, &name, &rest) || str_index_any(value, STR("\r\n")) >= 0)
        needs(l, "header: text");
    else if (tx->actions.prepend.n < ACTIONS_MAX)
        *vec_add(tx->arena, &tx->actions.prepend) = arena_str(tx->arena, value);
    return DUNNO;
}

/* What is done with the message needs one. */
static const struct {
    struct str name;
    enum verdict (*run)(struct lookup *l, struct tx *tx, struct str value);
    bool filtered; /* also where a content filter gets the message (smtpd_proxy_filter) */
} message_actions[] = {
    { STR_INIT("HOLD"), hold, false },     { STR_INIT("DISCARD"), discard, false },
    { STR_INIT("FILTER"), filter, false }, { STR_INIT("REDIRECT"), redirect, false },
    { STR_INIT("BCC"), bcc, false },       { STR_INIT("PREPEND"), prepend, true },
};

static bool message_action(struct lookup *l, struct str verb, struct str value, enum verdict *ret) {
    for (size_t i = 0; i < sizeof message_actions / sizeof *message_actions; i++) {
        if (!str_eq_icase(verb, message_actions[i].name))
            continue;
        *ret = DUNNO;
        if (l->c->before_mail)
            log_warn("access table %.*s: with smtpd_delay_reject=no, action %.*s is always skipped in Client host or "
                     "Helo command restrictions",
                     STR_ARG(l->table), STR_ARG(message_actions[i].name));
        else if (proxy_used(l->c->s) && !message_actions[i].filtered)
            log_warn("access table %.*s: with smtpd_proxy_filter specified, action %.*s is unavailable",
                     STR_ARG(l->table), STR_ARG(message_actions[i].name));
        else if (l->c->s->tx)
            *ret = message_actions[i].run(l, l->c->s->tx, value);
        return true;
    }
    return false;
}

static bool all_digits(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is_digit(s.p[i]))
            return false;
    return s.n > 0;
}

static enum verdict restriction_names(struct lookup *l, struct str value) {
    struct checks *c = l->c;
    if (str_index(value, ':') >= 0) {
        log_warn("access table %.*s has entry with lookup table: %.*s", STR_ARG(l->table), STR_ARG(value));
        log_warn("do not specify lookup tables inside SMTPD access maps");
        log_warn("define a restriction class and specify its name instead");
        return check_config_error(c);
    }
    struct restrictions *list = ARENA_NEW(c->arena, struct restrictions);
    restrictions_parse_answer(c->arena, c->s->set, value, list);
    c->nested.list = list;
    c->nested.subject = c->subject;
    c->nested.class = c->class;
    c->nested.after = NULL;
    return NESTED;
}

/* The client hears nothing more. */
static enum verdict hang_up(struct lookup *l, struct str text) {
    struct session *s = l->c->s;
    log_refusal(s, "hangup", text);
    s->hang_up = true;
    s->end = END_HANGUP;
    return DUNNO;
}

static enum verdict permit(struct lookup *l, struct str action) {
    l->c->permitted_by = l->table;
    l->c->permit_action = action;
    return PERMIT;
}

static enum verdict apply(struct lookup *l, struct str value) {
    if (value.n == 0) {
        log_warn("access table %.*s entry \"%.*s\" has empty value", STR_ARG(l->table), STR_ARG(l->key));
        return PERMIT;
    }
    struct checks *c = l->c;
    struct str rest = value, verb = STR("");
    (void)str_word(&rest, STR_SPACE, &verb);
    rest = str_trim(rest);
    enum verdict v;
    if (all_digits(value) || str_eq_icase(verb, STR("OK")) || str_eq_icase(verb, STR("RELAY")))
        return permit(l, verb);
    if (str_eq_icase(verb, STR("DUNNO")))
        return DUNNO;
    if (str_eq_icase(verb, STR("REJECT")))
        return refuse(l, c->s->set->access_reject_code, rest);
    if (str_eq_icase(verb, STR("DEFER")))
        return refuse(l, c->s->set->access_defer_code, rest);
    if (verb.n == 3 && all_digits(verb) && (verb.p[0] == '4' || verb.p[0] == '5'))
        return refuse(l, (verb.p[0] - '0') * 100 + (verb.p[1] - '0') * 10 + (verb.p[2] - '0'), rest);
    if (str_eq_icase(verb, STR("DEFER_IF_PERMIT")))
        defer_if(l, &c->defer_if_permit, rest);
    else if (str_eq_icase(verb, STR("DEFER_IF_REJECT")))
        defer_if(l, &c->defer_if_reject, rest);
    else if (str_eq_icase(verb, STR("INFO")))
        log_refusal(c->s, "info", rest);
    else if (str_eq_icase(verb, STR("WARN")))
        log_refusal(c->s, "warn", rest);
    else if (str_eq_icase(verb, STR("HANGUP")))
        return hang_up(l, rest);
    else
        return message_action(l, verb, rest, &v) ? v : restriction_names(l, value);
    return DUNNO;
}

enum verdict access_apply(struct checks *c, struct str table, struct str key, struct str value) {
    struct lookup l = { c, table, key };
    return apply(&l, str_trim(value));
}
