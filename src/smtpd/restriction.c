#include "smtpd/restriction.h"

#include "base/log.h"
#include "mail/dsn.h"
#include "smtpd/log.h"

/* --- refusing --- */
static enum verdict refuse(struct checks *c, unsigned error_class, int code, const char *dsn, bool may_soften,
                           struct str text) {
    struct session *s = c->s;
    s->error_classes |= error_class;
    if (may_soften && !c->warn && code >= 500 && c->defer_if_reject.active) {
        code = c->defer_if_reject.code;
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

static struct str prefixed_text(struct checks *c, struct str text) {
    return arena_printf(c->arena, "<%.*s>: %s rejected: %.*s", STR_ARG(c->subject), c->class, STR_ARG(text));
}

enum verdict check_refuse(struct checks *c, int code, const char *dsn, bool prefixed, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    struct str text = arena_vprintf(c->arena, format, ap);
    va_end(ap);
    return refuse(c, ERROR_POLICY, code, dsn, true, prefixed ? prefixed_text(c, text) : text);
}

enum verdict check_undeliverable(struct checks *c, int code, const char *dsn, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    struct str text = arena_vprintf(c->arena, format, ap);
    va_end(ap);
    return refuse(c, ERROR_BOUNCE, code, dsn, true, text);
}

enum verdict check_fail(struct checks *c, unsigned error_class, int code, const char *dsn, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    struct str text = arena_vprintf(c->arena, format, ap);
    va_end(ap);
    return refuse(c, error_class, code, dsn, false, text);
}

enum verdict check_config_error(struct checks *c) {
    return check_fail(c, ERROR_SOFTWARE, 451, "4.3.5", "Server configuration error");
}

enum verdict check_lookup_failed(struct checks *c, struct str about) {
    return check_fail(c, ERROR_DATA, 451, "4.3.0", "<%.*s>: Temporary lookup failure", STR_ARG(about));
}

enum verdict check_forbid_ok(struct checks *c, const struct restriction *r, enum verdict v) {
    if (v != PERMIT || (c->s->tx && c->s->tx->actions.discard))
        return v;
    log_warn("restriction %.*s returns OK for %.*s", STR_ARG(r->name), STR_ARG(c->subject));
    log_warn("this is not allowed for security reasons");
    log_warn("use DUNNO instead of OK if you want to make an exception");
    return check_config_error(c);
}

void check_defer(struct checks *c, struct deferral *d, int code, struct str dsn, bool prefixed, struct str text) {
    if (!d->active && !c->warn)
        *d = (struct deferral){ true, code, dsn, prefixed ? prefixed_text(c, text) : text };
}

enum verdict check_tempfail(struct checks *c, enum tempfail_action action, int code, const char *dsn,
                            const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    struct str text = arena_vprintf(c->arena, format, ap);
    va_end(ap);
    if (c->warn || action == TEMPFAIL_DEFER)
        return refuse(c, ERROR_POLICY, code, dsn, true, text);
    check_defer(c, &c->defer_if_permit, code, str_c(dsn), false, text);
    return DUNNO;
}

/* --- rows that are about the list itself --- */
enum verdict row_permit(struct checks *c, const struct restriction *r) {
    (void)c, (void)r;
    return PERMIT;
}

enum verdict row_reject(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_refuse(c, c->s->set->reject_code, "5.7.1", true, "Access denied");
}

enum verdict row_defer(struct checks *c, const struct restriction *r) {
    (void)r;
    return check_refuse(c, c->s->set->defer_code, "4.3.2", true, "Try again later");
}

enum verdict row_warn_if_reject(struct checks *c, const struct restriction *r) {
    (void)r;
    if (!c->warn)
        c->warn = c->depth;
    return DUNNO;
}

enum verdict row_defer_if_permit(struct checks *c, const struct restriction *r) {
    (void)r;
    check_defer(c, &c->defer_if_permit, 450, STR("4.7.0"), true, STR("defer_if_permit requested"));
    return DUNNO;
}

enum verdict row_defer_if_reject(struct checks *c, const struct restriction *r) {
    (void)r;
    check_defer(c, &c->defer_if_reject, 450, STR("4.7.0"), true, STR("defer_if_reject requested"));
    return DUNNO;
}

enum verdict row_sleep(struct checks *c, const struct restriction *r) {
    error e = io_flush(c->s->io, session_deadline(c->s));
    if (!e)
        e = wait_until(deadline_in(r->number));
    if (e)
        session_broken(c->s, e);
    return DUNNO;
}

enum verdict row_class(struct checks *c, const struct restriction *r) {
    c->nested.list = r->class;
    c->nested.subject = c->subject;
    c->nested.class = c->class;
    c->nested.after = NULL;
    return NESTED;
}

/* static:x: the list's own check of that table. The copy is what a nested list's verdict comes back to. */
enum verdict row_bare_table(struct checks *c, const struct restriction *r) {
    if (!c->bare_table) {
        log_warn("specify one of (check_client_access, check_reverse_client_hostname_access, check_helo_access, "
                 "check_sender_access, check_recipient_access, check_etrn_access) before %s restriction \"%.*s\"",
                 c->class, STR_ARG(r->name));
        return check_config_error(c);
    }
    struct restriction *check = arena_alloc(c->arena, sizeof *check);
    *check = *r;
    check->row = c->bare_table;
    check->name = c->bare_table->name;
    return check->row->run(c, check);
}

/* What Postfix has had once: mail waits until main.cf says what is meant. */
enum verdict row_removed(struct checks *c, const struct restriction *r) {
    static const struct {
        struct str name;
        const char *instead;
    } hints[] = {
        { STR_INIT("check_relay_domains"), "permit_mynetworks, reject_unauth_destination" },
        { STR_INIT("permit_naked_ip_address"), "permit_mynetworks or permit_sasl_authenticated" },
        { STR_INIT("reject_maps_rbl"), "reject_rbl_client domain-name" },
    };
    const char *instead = "";
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (str_eq_icase(hints[i].name, r->row->name))
            instead = hints[i].instead;
    log_warn("support for restriction \"%.*s\" has been removed from %.*s; instead, specify \"%s\"",
             STR_ARG(r->row->name), STR_ARG(c->s->set->mail_name), instead);
    return check_config_error(c);
}

/* --- lists ---
 * Lists inside lists (classes, restrictions that tables name) are frames, not calls: a session's stack is small, and
 * how deep they go is the configuration's choice. */
struct frame {
    struct frame *up;
    const struct restrictions *list;
    size_t at; /* what is run next */
    /* of the list above, which goes on behind this one */
    const struct restriction *by;
    after_nested *after;
    struct str subject;
    const char *class;
};

static struct frame *enter(struct checks *c, struct frame *up, const struct restrictions *list,
                           const struct restriction *by) {
    struct frame *f = ARENA_NEW(c->arena, struct frame);
    *f = (struct frame){ .up = up, .list = list, .by = by, .subject = c->subject, .class = c->class };
    c->depth++;
    return f;
}

static enum verdict nest(struct checks *c, struct frame **f, const struct restriction *r) {
    if (c->depth >= RESTRICTION_NESTING_MAX) {
        log_warn("restriction %.*s causes unreasonable recursion: lists inside each other more than %d deep",
                 STR_ARG(r->name), RESTRICTION_NESTING_MAX);
        return check_config_error(c);
    }
    *f = enter(c, *f, c->nested.list, r);
    (*f)->after = c->nested.after;
    c->subject = c->nested.subject;
    c->class = c->nested.class;
    return DUNNO;
}

/* These permit a client, in whatever list they stand. */
static bool permits_client(struct str name) {
    static const struct str names[] = {
        STR_INIT("permit_mynetworks"),          STR_INIT("permit_inet_interfaces"),
        STR_INIT("permit_sasl_authenticated"),  STR_INIT("permit_tls_clientcerts"),
        STR_INIT("permit_tls_all_clientcerts"), STR_INIT("permit_dnswl_client"),
        STR_INIT("permit_rhswl_client"),
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq_icase(name, names[i]))
            return true;
    return false;
}

static void log_permit(struct checks *c, const struct restriction *r) {
    struct session *s = c->s;
    struct str action = c->permitted_by.n ? c->permit_action : r->name;
    if (match_find(s->set->log_permit_actions, action, STR("")) != MATCH_YES)
        return;
    bool client = permits_client(action);
    struct str subject = client ? s->log_name : c->subject;
    struct str text = arena_printf(c->arena, "action=%.*s for %s=%.*s ", STR_ARG(action),
                                   client ? "Client host" : c->class, STR_ARG(subject));
    if (c->permitted_by.n)
        text = arena_printf(c->arena, "%.*sfrom %.*s", STR_ARG(text), STR_ARG(c->permitted_by));
    log_refusal(s, "permit", text);
}

static enum verdict run_row(struct checks *c, const struct restriction *r) {
    if (r->problem.n) {
        log_warn("%.*s", STR_ARG(r->problem));
        return check_config_error(c);
    }
    c->permitted_by = STR("");
    enum verdict v = r->row->run(c, r);
    if (v == PERMIT)
        log_permit(c, r);
    return v;
}

/* A restriction has been dealt with, with all that it named: the warning was for this one. */
static void row_done(struct checks *c, const struct restriction *r) {
    if (c->warn >= c->depth && (!r->row || r->row->run != row_warn_if_reject))
        c->warn = 0;
}

enum verdict check_list(struct checks *c, const struct restrictions *list) {
    struct frame *f = enter(c, NULL, list, NULL);
    enum verdict v = DUNNO;
    while (f) {
        if (v == DUNNO && f->at < f->list->n) {
            const struct restriction *r = &f->list->at[f->at];
            restrictions_warn_about_rest(f->list, f->at++, c->warn);
            v = run_row(c, r);
            if (c->s->end != END_OPEN) { /* the connection went away while we waited */
                c->depth = 0;
                return DUNNO;
            }
            if (v == NESTED)
                v = nest(c, &f, r);
            else
                row_done(c, r);
            continue;
        }
        c->depth--;
        if (f->after)
            v = f->after(c, f->by, v);
        c->subject = f->subject;
        c->class = f->class;
        if (f->by)
            row_done(c, f->by);
        f = f->up;
    }
    return v;
}

static enum verdict run_list(struct checks *c, const struct restrictions *list, struct str subject, const char *class) {
    c->subject = subject;
    c->class = class;
    c->bare_table = list->bare_table;
    c->warn = 0;
    return check_list(c, list);
}

/* --- stages --- */
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
        c->warn = 0;
        v = check_refuse(c, c->defer_if_permit.code, arena_cstr(c->arena, c->defer_if_permit.dsn), false, "%.*s",
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

/* local_header_rewrite_clients: check_address_map type:table, or the table alone. What it says does not matter. */
static enum table_result in_address_map(struct checks *c, const struct restriction *r) {
    struct str value;
    enum table_result found = name_find(r->maps, c->s->name, access_parent_flags(c), c->arena, &value);
    return found == TABLE_NOT_FOUND ? ip_find(r->maps, c->s->address, c->arena, &value) : found;
}

bool check_local_rewrite(struct session *s) {
    if (s->trusted)
        return true;
    struct checks c = begin(s);
    const struct restrictions *list = &s->set->local_rewrite_clients;
    for (size_t i = 0; i < list->n; i++) {
        const struct restriction *r = &list->at[i];
        if (str_eq_icase(r->name, STR("check_address_map")) && i + 1 < list->n && list->at[i + 1].maps)
            continue; /* the table comes next */
        if (r->row && r->row->run == row_bare_table && r->maps) {
            enum table_result found = in_address_map(&c, r);
            if (found == TABLE_ERROR)
                log_warn("local_header_rewrite_clients: %.*s lookup error for %.*s", STR_ARG(r->argument),
                         STR_ARG(s->log_name));
            if (found == TABLE_FOUND)
                return true;
            continue;
        }
        if (!r->row || !str_starts_icase(r->name, STR("permit_"))) {
            log_warn("parameter local_header_rewrite_clients: invalid request: %.*s", STR_ARG(r->name));
            return false;
        }
        if (r->row->run(&c, r) == PERMIT)
            return true;
    }
    return false;
}
