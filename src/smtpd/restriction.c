#include "smtpd/restriction.h"

#include "base/log.h"
#include "base/utf8.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "smtpd/log.h"

enum { SLEEP_MAX = 3600 /* seconds a restriction may pause */ };

/* --- refusing --- */
static enum verdict refuse(struct checks *c, int code, const char *dsn, bool may_soften, struct str text) {
    struct session *s = c->s;
    if (may_soften && !c->warn && code >= 500 && c->defer_if_reject.active) {
        code = 450;
        dsn = arena_cstr(c->arena, c->defer_if_reject.dsn);
        text = c->defer_if_reject.text;
    }
    if (s->set->soft_bounce && code >= 500)
        code -= 100;
    /* the code has the last word: 5.5.2 goes with 504 whatever the row says */
    struct str status = dsn_with_class(c->arena, str_c(dsn), (char)('0' + code / 100));
    struct str whole = arena_printf(c->arena, "%d %.*s %.*s", code, STR_ARG(status), STR_ARG(text));
    if (may_soften && c->warn) {
        log_refusal(s, "reject_warning", whole);
        return DUNNO;
    }
    log_refusal(s, "reject", whole);
    c->refusal = err_smtp(c->arena, code, arena_cstr(c->arena, status), "%.*s", STR_ARG(text));
    return REFUSE;
}

static struct str prefixed_text(struct checks *c, const char *text) {
    return arena_printf(c->arena, "<%.*s>: %s rejected: %s", STR_ARG(c->subject), c->class, text);
}

enum verdict check_refuse(struct checks *c, int code, const char *dsn, bool prefixed, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    struct str text = arena_vprintf(c->arena, format, ap);
    va_end(ap);
    return refuse(c, code, dsn, true, prefixed ? prefixed_text(c, text.p) : text);
}

enum verdict check_fail(struct checks *c, int code, const char *dsn, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    struct str text = arena_vprintf(c->arena, format, ap);
    va_end(ap);
    return refuse(c, code, dsn, false, text);
}

static enum verdict lookup_failed(struct checks *c) {
    return check_fail(c, 451, "4.3.0", "<%.*s>: Temporary lookup failure", STR_ARG(c->subject));
}

/* --- the rows --- */
static enum verdict row_permit(struct checks *c, const struct restriction *r) {
    (void)c, (void)r;
    return PERMIT;
}

static enum verdict row_reject(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_refuse(c, c->s->set->reject_code, "5.7.1", true, "Access denied");
}

static enum verdict row_defer(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_refuse(c, c->s->set->defer_code, "4.3.2", true, "Try again later");
}

static enum verdict row_warn_if_reject(struct checks *c, const struct restriction *r) {
    (void)r;
    c->warn = true;
    return DUNNO;
}

void check_defer(struct checks *c, struct deferral *d, struct str dsn, struct str text) {
    if (!d->active && !c->warn)
        *d = (struct deferral){ true, dsn, prefixed_text(c, arena_cstr(c->arena, text)) };
}

static enum verdict set_deferral(struct checks *c, struct deferral *d, const char *text) {
    check_defer(c, d, STR("4.7.0"), str_c(text));
    return DUNNO;
}

static enum verdict row_defer_if_permit(struct checks *c, const struct restriction *r) {
    (void)r;
    return set_deferral(c, &c->defer_if_permit, "defer_if_permit requested");
}

static enum verdict row_defer_if_reject(struct checks *c, const struct restriction *r) {
    (void)r;
    return set_deferral(c, &c->defer_if_reject, "defer_if_reject requested");
}

static enum verdict row_sleep(struct checks *c, const struct restriction *r) {
    uint32_t seconds = 0;
    (void)str_to_u32(r->argument, SLEEP_MAX, &seconds);
    error e = io_flush(c->s->io, session_deadline(c->s));
    if (!e)
        e = wait_until(deadline_in(seconds));
    if (e)
        session_broken(c->s, e);
    return DUNNO;
}

static enum verdict row_permit_mynetworks(struct checks *c, const struct restriction *r) {
    (void)r;
    switch (match_find(c->s->set->mynetworks, c->s->name, c->s->address)) {
    case MATCH_YES:
        return PERMIT;
    case MATCH_ERROR:
        return lookup_failed(c);
    default:
        return DUNNO;
    }
}

static enum verdict row_permit_inet_interfaces(struct checks *c, const struct restriction *r) {
    (void)r;
    const struct settings *set = c->s->set;
    for (size_t i = 0; i < set->own_address_count; i++)
        if (str_eq(set->own_addresses[i], c->s->address))
            return PERMIT;
    return DUNNO;
}

/* Nobody can log in to this server, nor show it a certificate. */
static enum verdict row_permit_login(struct checks *c, const struct restriction *r) {
    (void)c, (void)r;
    return DUNNO;
}

static enum verdict row_reject_unauth_pipelining(struct checks *c, const struct restriction *r) {
    (void)r;
    if (!c->s->pipelined)
        return DUNNO;
    return check_refuse(c, 503, "5.5.0", true, "Improper use of SMTP command pipelining");
}

static enum verdict row_reject_plaintext_session(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_refuse(c, c->s->set->plaintext_code, "4.7.1", false, "Session encryption is required");
}

static enum verdict row_reject_unknown_client(struct checks *c, const struct restriction *r) {
    (void)r;
    const struct session *s = c->s;
    if (!str_eq(s->name, STR("unknown")))
        return DUNNO;
    int code = s->name_status == DNS_RETRY ? 450 : s->set->unknown_client_code;
    return check_refuse(c, code, "4.7.25", false, "Client host rejected: cannot find your hostname, [%.*s]",
                        STR_ARG(s->address));
}

static enum verdict row_reject_unknown_reverse(struct checks *c, const struct restriction *r) {
    (void)r;
    const struct session *s = c->s;
    if (!str_eq(s->reverse_name, STR("unknown")))
        return DUNNO;
    int code = s->reverse_status == DNS_RETRY ? 450 : s->set->unknown_client_code;
    return check_refuse(c, code, "4.7.1", false, "Client host rejected: cannot find your reverse hostname, [%.*s]",
                        STR_ARG(s->address));
}

/* --- HELO names --- */
static bool is_address(struct str s) {
    struct endpoint e;
    return endpoint_ip(s, 0, &e);
}

static struct str without_dot(struct str name) {
    return name.n > 1 && name.p[name.n - 1] == '.' ? str_sub(name, 0, name.n - 1) : name;
}

static enum verdict helo_literal(struct checks *c) {
    if (address_domain_is_literal(c->s->helo))
        return DUNNO;
    return check_refuse(c, c->s->set->invalid_hostname_code, "5.5.2", false,
                        "<%.*s>: Helo command rejected: invalid ip address", STR_ARG(c->s->helo));
}

static enum verdict row_reject_invalid_helo(struct checks *c, const struct restriction *r) {
    (void)r;
    struct str helo = c->s->helo;
    if (helo.n == 0)
        return DUNNO;
    if (helo.p[0] == '[')
        return helo_literal(c);
    if (hostname_valid(without_dot(helo)) || is_address(helo))
        return DUNNO;
    return check_refuse(c, c->s->set->invalid_hostname_code, "5.5.2", false,
                        "<%.*s>: Helo command rejected: Invalid name", STR_ARG(helo));
}

static enum verdict row_reject_non_fqdn_helo(struct checks *c, const struct restriction *r) {
    (void)r;
    struct str helo = c->s->helo;
    if (helo.n == 0)
        return DUNNO;
    if (helo.p[0] == '[')
        return helo_literal(c);
    struct str name = without_dot(helo);
    if (hostname_valid(name) && str_index(name, '.') >= 0)
        return DUNNO;
    return check_refuse(c, c->s->set->non_fqdn_code, "5.5.2", false,
                        "<%.*s>: Helo command rejected: need fully-qualified hostname", STR_ARG(helo));
}

/* --- addresses --- */
static bool is_complete(struct str address) {
    struct address_parts p = address_split(address);
    if (p.domain.n && p.domain.p[0] == '[')
        return true;
    struct str name = without_dot(p.domain);
    return name.n && str_index(name, '.') >= 0 && (hostname_valid(name) || !str_is_ascii(name));
}

static enum verdict non_fqdn(struct checks *c, struct str address, const char *class) {
    if (address.n == 0 || is_complete(address))
        return DUNNO;
    return check_refuse(c, c->s->set->non_fqdn_code, "4.5.2", false,
                        "<%.*s>: %s rejected: need fully-qualified address", STR_ARG(address), class);
}

static enum verdict row_reject_non_fqdn_sender(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->have_sender ? non_fqdn(c, c->sender, "Sender address") : DUNNO;
}

static enum verdict row_reject_non_fqdn_recipient(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->have_recipient ? non_fqdn(c, c->recipient, "Recipient address") : DUNNO;
}

static enum verdict row_reject_unlisted_sender(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_listed_sender(c);
}

static enum verdict row_reject_unlisted_recipient(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_listed_recipient(c);
}

static enum verdict row_permit_auth_destination(struct checks *c, const struct restriction *r) {
    (void)r;
    return c->have_recipient ? check_auth_destination(c) : DUNNO;
}

static enum verdict unauth_destination(struct checks *c, int code) {
    if (!c->have_recipient)
        return DUNNO;
    switch (check_auth_destination(c)) {
    case PERMIT:
        return DUNNO;
    case REFUSE:
        return REFUSE;
    default:
        return check_refuse(c, code, "5.7.1", false, "<%.*s>: Relay access denied", STR_ARG(c->recipient));
    }
}

static enum verdict row_reject_unauth_destination(struct checks *c, const struct restriction *r) {
    (void)r;
    return unauth_destination(c, c->s->set->relay_code);
}

static enum verdict row_defer_unauth_destination(struct checks *c, const struct restriction *r) {
    (void)r;
    return unauth_destination(c, c->s->set->relay_code >= 500 ? c->s->set->relay_code - 100 : c->s->set->relay_code);
}

/* A bounce has one recipient; until DATA we only know that there is a second one. */
static enum verdict row_reject_multi_recipient_bounce(struct checks *c, const struct restriction *r) {
    (void)r;
    const struct tx *tx = c->s->tx;
    bool recipient_stage = strcmp(c->s->stage, "RCPT") == 0;
    if (!c->have_sender || c->sender.n || !tx || tx->rcpts < (recipient_stage ? 1 : 2))
        return DUNNO;
    return check_refuse(c, c->s->set->multi_bounce_code, "5.5.3", true, "Multi-recipient bounce");
}

#define ROW(name, argument, run)                                                                                       \
    { STR_INIT(name), argument, run }
const struct restriction_row restriction_rows[] = {
    ROW("permit", ARG_NONE, row_permit),
    ROW("reject", ARG_NONE, row_reject),
    ROW("defer", ARG_NONE, row_defer),
    ROW("warn_if_reject", ARG_NONE, row_warn_if_reject),
    ROW("defer_if_permit", ARG_NONE, row_defer_if_permit),
    ROW("defer_if_reject", ARG_NONE, row_defer_if_reject),
    ROW("sleep", ARG_NUMBER, row_sleep),
    ROW("check_client_access", ARG_MAP, access_client),
    ROW("check_reverse_client_hostname_access", ARG_MAP, access_reverse_client),
    ROW("check_helo_access", ARG_MAP, access_helo),
    ROW("check_sender_access", ARG_MAP, access_sender),
    ROW("check_recipient_access", ARG_MAP, access_recipient),
    ROW("check_etrn_access", ARG_MAP, access_etrn),
    ROW("permit_mynetworks", ARG_NONE, row_permit_mynetworks),
    ROW("permit_inet_interfaces", ARG_NONE, row_permit_inet_interfaces),
    ROW("permit_sasl_authenticated", ARG_NONE, row_permit_login),
    ROW("permit_tls_all_clientcerts", ARG_NONE, row_permit_login),
    ROW("permit_tls_clientcerts", ARG_NONE, row_permit_login),
    ROW("permit_auth_destination", ARG_NONE, row_permit_auth_destination),
    ROW("reject_unauth_destination", ARG_NONE, row_reject_unauth_destination),
    ROW("defer_unauth_destination", ARG_NONE, row_defer_unauth_destination),
    ROW("reject_unlisted_recipient", ARG_NONE, row_reject_unlisted_recipient),
    ROW("check_recipient_maps", ARG_NONE, row_reject_unlisted_recipient), /* its old name */
    ROW("reject_unlisted_sender", ARG_NONE, row_reject_unlisted_sender),
    ROW("reject_unauth_pipelining", ARG_NONE, row_reject_unauth_pipelining),
    ROW("reject_multi_recipient_bounce", ARG_NONE, row_reject_multi_recipient_bounce),
    ROW("reject_non_fqdn_helo_hostname", ARG_NONE, row_reject_non_fqdn_helo),
    ROW("reject_non_fqdn_hostname", ARG_NONE, row_reject_non_fqdn_helo),
    ROW("reject_invalid_helo_hostname", ARG_NONE, row_reject_invalid_helo),
    ROW("reject_invalid_hostname", ARG_NONE, row_reject_invalid_helo),
    ROW("reject_non_fqdn_sender", ARG_NONE, row_reject_non_fqdn_sender),
    ROW("reject_non_fqdn_recipient", ARG_NONE, row_reject_non_fqdn_recipient),
    ROW("reject_unknown_client_hostname", ARG_NONE, row_reject_unknown_client),
    ROW("reject_unknown_client", ARG_NONE, row_reject_unknown_client),
    ROW("reject_unknown_reverse_client_hostname", ARG_NONE, row_reject_unknown_reverse),
    ROW("reject_plaintext_session", ARG_NONE, row_reject_plaintext_session),
};
const size_t restriction_row_count = sizeof restriction_rows / sizeof *restriction_rows;

/* --- lists --- */
static const struct restriction_row *row_find(struct str name) {
    for (size_t i = 0; i < restriction_row_count; i++)
        if (str_eq_icase(name, restriction_rows[i].name))
            return &restriction_rows[i];
    return NULL;
}

static struct maps *open_maps(struct settings *set, struct str spec) {
    if (!set || str_index(spec, ':') < 0)
        return NULL;
    struct maps *m = maps_open(set->conf, spec, TABLE_FOLD);
    *vec_add(set->arena, &set->access_maps) = m;
    return m;
}

static void parse(struct arena *a, struct settings *set, struct str text, struct str by_default,
                  struct restrictions *ret) {
    VEC(struct restriction) v = { 0 };
    struct str word;
    while (str_word_braced(&text, STR_COMMA_SPACE, &word)) {
        struct restriction r = { .row = row_find(word), .name = arena_str(a, word), .argument = STR("") };
        uint32_t number;
        bool table = !r.row && str_index(word, ':') >= 0;
        if (table && by_default.n) { /* static:x: the list's own check of that table */
            r.row = row_find(by_default);
            r.name = by_default;
            r.argument = arena_str(a, word);
        } else if (r.row && r.row->argument != ARG_NONE && str_word_braced(&text, STR_COMMA_SPACE, &word)) {
            r.argument = arena_str(a, word);
        }
        if (r.row && r.row->argument == ARG_NUMBER && !str_to_u32(r.argument, SLEEP_MAX, &number))
            r.row = NULL;
        if (r.row && r.row->argument == ARG_MAP)
            r.maps = open_maps(set, r.argument);
        *vec_add(a, &v) = r;
    }
    if (text.n) /* unbalanced braces: nobody can say what was meant */
        *vec_add(a, &v) = (struct restriction){ .name = arena_str(a, text), .argument = STR("") };
    *ret = (struct restrictions){ v.at, v.n };
}

void restrictions_parse(struct settings *set, struct str text, struct str by_default, struct restrictions *ret) {
    parse(set->arena, set, text, by_default, ret);
}

void restrictions_parse_answer(struct arena *a, struct str text, struct restrictions *ret) {
    parse(a, NULL, text, STR(""), ret);
}

bool restrictions_guard_relay(const struct restrictions *list) {
    static const struct str guards[] = {
        STR_INIT("reject_unauth_destination"),
        STR_INIT("defer_unauth_destination"),
        STR_INIT("reject"),
        STR_INIT("defer"),
        STR_INIT("defer_if_permit"),
    };
    for (size_t i = 0; i < list->n; i++) {
        for (size_t k = 0; k < sizeof guards / sizeof *guards; k++)
            if (list->at[i].row && str_eq_icase(list->at[i].name, guards[k]))
                return true;
        if (list->at[i].row && list->at[i].row->run == row_permit)
            return false;
    }
    return false;
}

/* permit, reject, defer: what stands behind them is never reached. */
static void warn_about_rest(const struct restrictions *list, size_t at, bool warn_only) {
    const struct restriction *r = &list->at[at];
    bool final = r->row->run == row_permit || (!warn_only && (r->row->run == row_reject || r->row->run == row_defer));
    if (final && at + 1 < list->n)
        log_warn("restriction `%.*s' after `%.*s' is ignored", STR_ARG(list->at[at + 1].name), STR_ARG(r->name));
}

static enum verdict config_error(struct checks *c) {
    return check_fail(c, 451, "4.3.5", "Server configuration error");
}

static enum verdict unknown_restriction(struct checks *c, const struct restriction *r) {
    if (str_index(r->name, ':') >= 0)
        log_warn("specify one of (check_client_access, check_reverse_client_hostname_access, check_helo_access, "
                 "check_sender_access, check_recipient_access, check_etrn_access) before %s restriction \"%.*s\"",
                 c->class, STR_ARG(r->name));
    else
        log_warn("unknown smtpd restriction: \"%.*s\"", STR_ARG(r->name));
    return config_error(c);
}

static enum verdict no_table(struct checks *c, const struct restriction *r) {
    log_warn("restriction %.*s: bad argument \"%.*s\": need maptype:mapname", STR_ARG(r->name),
             STR_ARG(r->argument.n ? r->argument : r->name));
    return config_error(c);
}

enum verdict check_list(struct checks *c, const struct restrictions *list) {
    for (size_t i = 0; i < list->n; i++) {
        const struct restriction *r = &list->at[i];
        if (!r->row)
            return unknown_restriction(c, r);
        if (r->row->argument == ARG_MAP && !r->maps)
            return no_table(c, r);
        bool warned = c->warn;
        warn_about_rest(list, i, warned);
        enum verdict v = r->row->run(c, r);
        if (warned)
            c->warn = false;
        if (c->s->end != END_OPEN) /* the connection went away while we waited */
            return DUNNO;
        if (v != DUNNO)
            return v;
    }
    return DUNNO;
}

static enum verdict run_list(struct checks *c, const struct restrictions *list, struct str subject, const char *class) {
    c->subject = subject;
    c->class = class;
    c->warn = false;
    return check_list(c, list);
}

static struct checks begin(struct session *s) {
    struct checks c = { .s = s, .arena = session_scratch(s) };
    if (s->tx) {
        c.have_sender = true;
        c.sender = s->tx->sender;
    }
    return c;
}

/* Permission becomes deferral when something earlier could not be checked. */
static error finish(struct checks *c, enum verdict v) {
    if (v != REFUSE && c->defer_if_permit.active) {
        c->warn = false;
        v = check_refuse(c, 450, arena_cstr(c->arena, c->defer_if_permit.dsn), false, "%.*s",
                         STR_ARG(c->defer_if_permit.text));
    }
    return v == REFUSE ? c->refusal : NULL;
}

static enum verdict run_client(struct checks *c) {
    c->defer_if_reject.active = false;
    return run_list(c, &c->s->set->client, c->s->log_name, "Client host");
}

static enum verdict run_helo(struct checks *c) {
    c->defer_if_reject.active = false;
    return c->s->helo.n ? run_list(c, &c->s->set->helo, c->s->helo, "Helo command") : DUNNO;
}

static enum verdict run_sender(struct checks *c) {
    c->defer_if_reject.active = false;
    if (!c->have_sender)
        return DUNNO;
    enum verdict v = run_list(c, &c->s->set->sender, c->sender, "Sender address");
    if (v != REFUSE && c->s->set->reject_unlisted_sender)
        v = check_listed_sender(c) == REFUSE ? REFUSE : v;
    return v;
}

/* A stage's own run; what it wants deferred is kept until RCPT in `arena`. */
static error run_early(struct session *s, enum verdict (*run)(struct checks *c), struct arena *arena,
                       struct deferral *ret) {
    struct checks c = begin(s);
    c.before_mail = !s->tx;
    enum verdict v = run(&c);
    *ret = c.defer_if_permit;
    if (ret->active) {
        ret->dsn = arena_str(arena, ret->dsn);
        ret->text = arena_str(arena, ret->text);
    }
    return v == REFUSE ? c.refusal : NULL;
}

error check_client(struct session *s) {
    if (s->trusted || s->set->delay_reject)
        return NULL;
    return run_early(s, run_client, s->arena, &s->defer_client);
}

error check_helo(struct session *s) {
    if (s->trusted || s->set->delay_reject)
        return NULL;
    return run_early(s, run_helo, s->arena, &s->defer_helo);
}

error check_sender(struct session *s) {
    if (s->trusted || s->set->delay_reject)
        return NULL;
    return run_early(s, run_sender, s->tx->arena, &s->tx->defer_if_permit);
}

static void inherit(struct checks *c, const struct deferral *d) {
    if (!c->defer_if_permit.active && d->active)
        c->defer_if_permit = *d;
}

static void inherit_early(struct checks *c) {
    inherit(c, &c->s->defer_client);
    inherit(c, &c->s->defer_helo);
    if (c->s->tx)
        inherit(c, &c->s->tx->defer_if_permit);
}

static error recipient_checks(struct session *s, struct str recipient) {
    struct checks c = begin(s);
    if (s->set->delay_reject) {
        if (run_client(&c) == REFUSE || run_helo(&c) == REFUSE || run_sender(&c) == REFUSE)
            return c.refusal;
    } else {
        inherit_early(&c);
    }
    c.defer_if_reject.active = false;
    c.have_recipient = true;
    c.recipient = recipient;
    const struct restrictions *lists[] = { &s->set->relay, &s->set->recipient };
    for (size_t i = 0; i < 2; i++)
        if (run_list(&c, lists[s->set->relay_before_recipient ? i : 1 - i], recipient, "Recipient address") == REFUSE)
            return c.refusal;
    error e = finish(&c, DUNNO);
    if (!e && s->set->reject_unlisted_recipient && check_listed_recipient(&c) == REFUSE)
        e = c.refusal;
    return e;
}

error check_recipient(struct session *s, struct str recipient) {
    /* RFC 5321, 4.5.1: mail for postmaster without a domain is always taken */
    if (s->trusted || str_eq_icase(recipient, STR("postmaster")))
        return NULL;
    s->check_recipient = recipient;
    error e = recipient_checks(s, recipient);
    s->check_recipient = STR("");
    return e;
}

static error late_checks(struct session *s, const struct restrictions *list, struct str subject, const char *class) {
    if (s->trusted)
        return NULL;
    struct checks c = begin(s);
    if (s->tx && s->tx->rcpts == 1) {
        c.have_recipient = true;
        c.recipient = s->tx->first_rcpt;
    }
    return finish(&c, run_list(&c, list, subject, class));
}

error check_data(struct session *s) {
    return late_checks(s, &s->set->data, STR("DATA"), "Data command");
}

error check_end_of_data(struct session *s) {
    return late_checks(s, &s->set->end_of_data, STR("END-OF-MESSAGE"), "End-of-data");
}

error check_etrn(struct session *s, struct str domain) {
    if (s->trusted)
        return NULL;
    struct checks c = begin(s);
    c.etrn = domain;
    if (s->set->delay_reject) {
        if (run_client(&c) == REFUSE || run_helo(&c) == REFUSE)
            return c.refusal;
    } else {
        inherit_early(&c);
    }
    c.defer_if_reject.active = false;
    return finish(&c, run_list(&c, &s->set->etrn, domain, "Etrn command"));
}

bool check_local_rewrite(struct session *s) {
    if (s->trusted)
        return true;
    struct checks c = begin(s);
    const struct restrictions *list = &s->set->local_rewrite_clients;
    for (size_t i = 0; i < list->n; i++) {
        const struct restriction *r = &list->at[i];
        if (!r->row || !str_starts_icase(r->name, STR("permit_"))) {
            log_warn("parameter local_header_rewrite_clients: invalid request: %.*s", STR_ARG(r->name));
            return false;
        }
        if (r->row->run(&c, r) == PERMIT)
            return true;
    }
    return false;
}
