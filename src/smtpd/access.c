/* access.c - access(5) tables: who is looked up how, and what the answers do. */
#include "smtpd/restriction.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "mail/header.h"
#include "smtpd/log.h"

enum { ACTIONS_MAX = 1000 /* BCC, PREPEND of one message: a client repeats RCPT as often as it likes */ };

/* One look-up: in which table, of what, and what <...> and the words behind it are in replies. */
struct lookup {
    struct checks *c;
    const struct restriction *r;
    struct str key;
};

/* --- what the answers do --- */

/* X.1.Y is about an address (RFC 3463, 3.2): of a sender it has other numbers than of a recipient, of others none. */
static const char *fitting_status(struct checks *c, struct str status) {
    static const char *const pairs[][2] = { { ".1.1", ".1.7" }, { ".1.2", ".1.8" }, { ".1.3", ".1.7" } };
    bool sender = strcmp(c->class, "Sender address") == 0, recipient = strcmp(c->class, "Recipient address") == 0;
    struct str detail = str_from(status, 1), fit = detail;
    if (!sender && !recipient && str_starts(detail, STR(".1.")))
        fit = STR(".0.0");
    for (size_t i = 0; sender && i < sizeof pairs / sizeof *pairs; i++)
        if (str_eq(detail, str_c(pairs[i][0])))
            fit = str_c(pairs[i][1]);
    struct str whole = arena_cat(c->arena, str_sub(status, 0, 1), fit);
    if (!str_eq(whole, status))
        log_info("mapping DSN status %.*s into %s status %.*s", STR_ARG(status), c->class, STR_ARG(whole));
    return whole.p;
}

static enum verdict refuse(struct lookup *l, int code, struct str text) {
    struct checks *c = l->c;
    struct str status, rest;
    dsn_split(text, code >= 500 ? STR("5.7.1") : STR("4.7.1"), &status, &rest);
    return check_refuse(c, code, fitting_status(c, status), true, "%.*s",
                        STR_ARG(rest.n ? rest : STR("Access denied")));
}

static void defer_if(struct lookup *l, struct deferral *d, struct str text) {
    struct str status, rest;
    dsn_split(text, STR("4.7.1"), &status, &rest);
    status = str_c(fitting_status(l->c, status));
    check_defer(l->c, d, status, rest.n ? rest : STR("Service unavailable"));
}

static void log_action(struct lookup *l, const char *name, struct str text) {
    struct checks *c = l->c;
    struct str whole = arena_printf(c->arena, "<%.*s>: %s %.*s", STR_ARG(c->subject), c->class, STR_ARG(text));
    log_refusal(c->s, name, whole);
}

static void needs(struct lookup *l, const char *what) {
    log_warn("access table %.*s entry \"%.*s\" requires %s", STR_ARG(l->r->argument), STR_ARG(l->key), what);
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
                 STR_ARG(l->r->argument));
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
} message_actions[] = {
    { STR_INIT("HOLD"), hold },         { STR_INIT("DISCARD"), discard }, { STR_INIT("FILTER"), filter },
    { STR_INIT("REDIRECT"), redirect }, { STR_INIT("BCC"), bcc },         { STR_INIT("PREPEND"), prepend },
};

static bool message_action(struct lookup *l, struct str verb, struct str value, enum verdict *ret) {
    for (size_t i = 0; i < sizeof message_actions / sizeof *message_actions; i++) {
        if (!str_eq_icase(verb, message_actions[i].name))
            continue;
        *ret = DUNNO;
        if (l->c->before_mail)
            log_warn("access table %.*s: with smtpd_delay_reject=no, action %.*s is always skipped in Client host or "
                     "Helo command restrictions",
                     STR_ARG(l->r->argument), STR_ARG(message_actions[i].name));
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
    struct restrictions list;
    restrictions_parse_answer(l->c->arena, value, &list);
    return check_list(l->c, &list);
}

static enum verdict apply(struct lookup *l, struct str value) {
    struct checks *c = l->c;
    struct str rest = value, verb = STR("");
    (void)str_word(&rest, STR_SPACE, &verb);
    rest = str_trim(rest);
    enum verdict v;
    if (all_digits(value) || str_eq_icase(verb, STR("OK")) || str_eq_icase(verb, STR("RELAY")))
        return PERMIT;
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
    else
        return message_action(l, verb, rest, &v) ? v : restriction_names(l, value);
    return DUNNO;
}

/* --- who is looked up --- */

/* Replies are about what was looked up, whatever list this stands in. */
static enum verdict answer(struct checks *c, const struct restriction *r, enum table_result found, struct str key,
                           struct str value, struct str subject, const char *class) {
    struct str old_subject = c->subject;
    const char *old_class = c->class;
    struct lookup l = { c, r, key };
    enum verdict v = DUNNO;
    c->subject = subject;
    c->class = class;
    if (found == TABLE_ERROR) {
        log_warn("%.*s lookup error for \"%.*s\"", STR_ARG(r->argument), STR_ARG(key));
        v = check_fail(c, 451, "4.3.5", "<%.*s>: %s rejected: Server configuration error", STR_ARG(subject), class);
    } else if (found == TABLE_FOUND) {
        v = apply(&l, str_trim(value));
    }
    c->subject = old_subject;
    c->class = old_class;
    return v;
}

static unsigned parents(const struct checks *c) {
    return c->s->set->access_parents ? ADDR_FIND_PARENT_NO_DOT : 0;
}

static enum table_result find_host(struct checks *c, const struct restriction *r, struct str name, struct str *ret) {
    enum table_result found = name_find(r->maps, name, parents(c), c->arena, ret);
    return found == TABLE_NOT_FOUND ? ip_find(r->maps, c->s->address, c->arena, ret) : found;
}

enum verdict access_client(struct checks *c, const struct restriction *r) {
    struct str value;
    struct session *s = c->s;
    enum table_result found = find_host(c, r, s->name, &value);
    return answer(c, r, found, s->name, value, s->log_name, "Client host");
}

/* The name is the client's own word: it opens no doors. */
enum verdict access_reverse_client(struct checks *c, const struct restriction *r) {
    struct str value;
    struct str name = c->s->reverse_name;
    enum table_result found = find_host(c, r, name, &value);
    enum verdict v = answer(c, r, found, name, value, name, "Unverified Client host");
    if (v != PERMIT || (c->s->tx && c->s->tx->actions.discard))
        return v;
    log_warn("restriction %.*s returns OK for %.*s", STR_ARG(r->name), STR_ARG(name));
    log_warn("this is not allowed for security reasons");
    log_warn("use DUNNO instead of OK if you want to make an exception");
    return check_fail(c, 451, "4.3.5", "Server configuration error");
}

enum verdict access_helo(struct checks *c, const struct restriction *r) {
    struct str value, helo = c->s->helo;
    if (helo.n == 0)
        return DUNNO;
    enum table_result found = name_find(r->maps, helo, parents(c), c->arena, &value);
    return answer(c, r, found, helo, value, helo, "Helo command");
}

static enum table_result find_mailbox(struct checks *c, const struct restriction *r, struct str address,
                                      struct str *ret) {
    struct str extension;
    unsigned flags = ADDR_FIND_DOMAIN | ADDR_FIND_LOCAL_AT | parents(c);
    return addr_find(r->maps, address, false, flags, c->s->set->delimiter, c->arena, ret, &extension);
}

enum verdict access_sender(struct checks *c, const struct restriction *r) {
    struct str value, key = c->sender.n ? c->sender : c->s->set->null_sender_key;
    if (!c->have_sender)
        return DUNNO;
    enum table_result found =
        c->sender.n ? find_mailbox(c, r, key, &value) : maps_get(r->maps, key, c->arena, &value, NULL);
    return answer(c, r, found, key, value, c->sender, "Sender address");
}

enum verdict access_recipient(struct checks *c, const struct restriction *r) {
    struct str value;
    if (!c->have_recipient)
        return DUNNO;
    enum table_result found = find_mailbox(c, r, c->recipient, &value);
    enum verdict v = answer(c, r, found, c->recipient, value, c->recipient, "Recipient address");
    return v == PERMIT && check_recipient_is_routed(c) ? DUNNO : v;
}

enum verdict access_etrn(struct checks *c, const struct restriction *r) {
    struct str value;
    if (c->etrn.n == 0)
        return DUNNO;
    enum table_result found = name_find(r->maps, c->etrn, parents(c), c->arena, &value);
    return answer(c, r, found, c->etrn, value, c->etrn, "Etrn command");
}
