#include "smtpd/milter.h"

#include "base/log.h"
#include "mail/address.h"
#include "milter/milter.h"
#include "smtpd/log.h"
#include "smtpd/reply.h"

struct destination { /* where mail for an address goes: {mail_host}, {rcpt_mailer} ... */
    bool known;      /* the rest has been asked for */
    struct str host, mailer;
};

struct session_milters {
    struct arena *arena; /* as long as the session */
    struct milters list;
    struct milter_configs own; /* smtpd_milter_maps has others for this client */
    bool refuses_client;
    /* while the message lasts; in its arena */
    struct destination sender, rcpt;
    struct str rcpt_now; /* internal form; empty: the first one */
    error refusal;       /* of this recipient, by ourselves */
};

/* --- macros (MILTER_README) --- */

static struct str none(void) {
    return (struct str){ 0 };
}

static struct str if_any(struct str s) {
    return s.n ? s : none();
}

static struct str number(struct arena *a, unsigned n) {
    return n ? arena_printf(a, "%u", n) : none();
}

static const struct destination *destination_of(struct session *s, struct destination *d, struct str address) {
    struct arena *a = s->tx->arena;
    struct route r;
    error unroutable = NULL;
    if (d->known)
        return d;
    d->known = true;
    if (address.n == 0)
        address = arena_printf(a, "MAILER-DAEMON@%.*s", STR_ARG(conf_str(s->set->conf, PARAM_myorigin)));
    if (s->back->resolve(s->back->ctx, a, address, &r, &unroutable) || unroutable)
        return d;
    d->host = r.nexthop;
    d->mailer = r.transport;
    return d;
}

static struct str rcpt_of(const struct session *s) {
    struct str now = s->milters->rcpt_now;
    return now.n ? now : s->tx->first_rcpt;
}

/* Our own refusal without what it is about: "<a@b>: Recipient address rejected: ...". */
static struct str refusal_text(error refusal) {
    struct str text = refusal->text;
    for (size_t i = 0; str_starts(text, STR("<")) && i + 2 < text.n; i++)
        if (text.p[i] == '>' && text.p[i + 1] == ':' && text.p[i + 2] == ' ')
            return str_from(text, i + 3);
    return text;
}

typedef struct str macro_value(struct session *s, struct arena *a);

static struct str value_i(struct session *s, struct arena *a) {
    (void)a;
    return s->tx && s->tx->id.text[0] ? queue_id_str(&s->tx->id) : none();
}
static struct str value_j(struct session *s, struct arena *a) {
    (void)a;
    return s->set->myhostname;
}
static struct str value_client(struct session *s, struct arena *a) {
    return arena_printf(a, "%.*s [%.*s]", STR_ARG(s->name), STR_ARG(s->address));
}
static struct str value_v(struct session *s, struct arena *a) {
    (void)a;
    return conf_str(s->set->conf, PARAM_milter_macro_v);
}
static struct str value_daemon_name(struct session *s, struct arena *a) {
    (void)a;
    return conf_str(s->set->conf, PARAM_milter_macro_daemon_name);
}
static struct str value_daemon_addr(struct session *s, struct arena *a) {
    (void)a;
    return if_any(s->server_address);
}
static struct str value_daemon_port(struct session *s, struct arena *a) {
    (void)a;
    return if_any(s->server_port);
}
static struct str value_client_addr(struct session *s, struct arena *a) {
    (void)a;
    return s->address;
}
static struct str value_client_name(struct session *s, struct arena *a) {
    (void)a;
    return s->name;
}
static struct str value_client_port(struct session *s, struct arena *a) {
    (void)a;
    return s->port;
}
static struct str value_client_ptr(struct session *s, struct arena *a) {
    (void)a;
    return s->reverse_name;
}
static struct str value_client_resolve(struct session *s, struct arena *a) {
    (void)a;
    if (s->name_status == DNS_OK)
        return STR("OK");
    if (s->name_status == DNS_RETRY)
        return STR("TEMP");
    return s->reverse_status == DNS_OK ? STR("FORGED") : STR("FAIL");
}
static struct str value_client_connections(struct session *s, struct arena *a) {
    bool free = match_find(s->set->limit_exceptions, s->name, s->address) == MATCH_YES;
    return arena_printf(a, "%u", free ? 0 : s->client_sessions);
}
static struct str value_tls_version(struct session *s, struct arena *a) {
    (void)a;
    return s->tls.active ? s->tls.protocol : none();
}
static struct str value_tls_sni(struct session *s, struct arena *a) {
    (void)a;
    return s->tls.active ? if_any(s->tls.sni) : none();
}
static struct str value_cipher(struct session *s, struct arena *a) {
    (void)a;
    return s->tls.active ? s->tls.cipher : none();
}
static struct str value_cipher_bits(struct session *s, struct arena *a) {
    return s->tls.active ? number(a, s->tls.bits) : none();
}
static struct str value_cert_subject(struct session *s, struct arena *a) {
    (void)a;
    return s->tls.active ? if_any(s->tls.subject) : none();
}
static struct str value_cert_issuer(struct session *s, struct arena *a) {
    (void)a;
    return s->tls.active ? if_any(s->tls.issuer) : none();
}
static struct str value_auth_type(struct session *s, struct arena *a) {
    (void)a;
    return if_any(s->login.method);
}
static struct str value_auth_authen(struct session *s, struct arena *a) {
    (void)a;
    return if_any(s->login.username);
}
static struct str value_auth_author(struct session *s, struct arena *a) {
    (void)a;
    return if_any(s->login.sender);
}
static struct str value_mail_addr(struct session *s, struct arena *a) {
    return s->tx ? address_quote(a, s->tx->sender) : none();
}
static struct str value_mail_host(struct session *s, struct arena *a) {
    (void)a;
    return s->tx ? destination_of(s, &s->milters->sender, s->tx->sender)->host : none();
}
static struct str value_mail_mailer(struct session *s, struct arena *a) {
    (void)a;
    return s->tx ? destination_of(s, &s->milters->sender, s->tx->sender)->mailer : none();
}
static struct str value_rcpt_addr(struct session *s, struct arena *a) {
    if (!s->tx || rcpt_of(s).n == 0)
        return none();
    return s->milters->refusal ? refusal_text(s->milters->refusal) : address_quote(a, rcpt_of(s));
}
static struct str value_rcpt_host(struct session *s, struct arena *a) {
    (void)a;
    if (!s->tx || rcpt_of(s).n == 0)
        return none();
    if (s->milters->refusal)
        return if_any(s->milters->refusal->dsn);
    return destination_of(s, &s->milters->rcpt, rcpt_of(s))->host;
}
static struct str value_rcpt_mailer(struct session *s, struct arena *a) {
    (void)a;
    if (!s->tx || rcpt_of(s).n == 0)
        return none();
    return s->milters->refusal ? STR("error") : destination_of(s, &s->milters->rcpt, rcpt_of(s))->mailer;
}

static const struct {
    struct str name;
    macro_value *value;
} macros[] = {
    { STR_INIT("i"), value_i },
    { STR_INIT("j"), value_j },
    { STR_INIT("_"), value_client },
    { STR_INIT("v"), value_v },
    { STR_INIT("daemon_name"), value_daemon_name },
    { STR_INIT("daemon_addr"), value_daemon_addr },
    { STR_INIT("daemon_port"), value_daemon_port },
    { STR_INIT("client_addr"), value_client_addr },
    { STR_INIT("client_name"), value_client_name },
    { STR_INIT("client_port"), value_client_port },
    { STR_INIT("client_ptr"), value_client_ptr },
    { STR_INIT("client_resolve"), value_client_resolve },
    { STR_INIT("client_connections"), value_client_connections },
    { STR_INIT("tls_version"), value_tls_version },
    { STR_INIT("cipher"), value_cipher },
    { STR_INIT("cipher_bits"), value_cipher_bits },
    { STR_INIT("tls_sni"), value_tls_sni },
    { STR_INIT("cert_subject"), value_cert_subject },
    { STR_INIT("cert_issuer"), value_cert_issuer },
    { STR_INIT("auth_type"), value_auth_type },
    { STR_INIT("auth_authen"), value_auth_authen },
    { STR_INIT("auth_author"), value_auth_author },
    { STR_INIT("mail_addr"), value_mail_addr },
    { STR_INIT("mail_host"), value_mail_host },
    { STR_INIT("mail_mailer"), value_mail_mailer },
    { STR_INIT("rcpt_addr"), value_rcpt_addr },
    { STR_INIT("rcpt_host"), value_rcpt_host },
    { STR_INIT("rcpt_mailer"), value_rcpt_mailer },
};

static struct str macro(void *ctx, struct arena *a, struct str name) {
    struct session *s = ctx;
    for (size_t i = 0; i < sizeof macros / sizeof *macros; i++)
        if (str_eq(name, macros[i].name))
            return macros[i].value(s, a);
    return none();
}

static error dial_filter(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret) {
    const struct session *s = ctx;
    return s->back->dial(s->back->ctx, t, deadline, ret);
}

/* --- which filters --- */

/* What smtpd_milter_maps has for the client; NULL: nothing, or nothing that could be used. */
static const struct milter_configs *mapped(struct session *s, struct session_milters *m) {
    struct str value, table;
    switch (maps_get(s->set->milter_maps, s->address, m->arena, &value, &table)) {
    case TABLE_NOT_FOUND:
        return NULL;
    case TABLE_ERROR:
        log_warn("smtpd_milter_maps: table %.*s: lookup error for %.*s: smtpd_milters is used", STR_ARG(table),
                 STR_ARG(s->address));
        return NULL;
    case TABLE_FOUND:
        break;
    }
    if (str_eq_icase(str_trim(value), STR("DISABLE")))
        return &m->own;
    error e = milter_configs_parse(m->arena, s->set->conf, value, &m->own);
    if (!e)
        return &m->own;
    log_warn("smtpd_milter_maps: %.*s: smtpd_milters is used", STR_ARG(e->text));
    return NULL;
}

static void begin(struct session *s) {
    const struct settings *set = s->set;
    bool maps = !maps_is_empty(set->milter_maps);
    if (s->trusted || !(set->submit_flags & SUBMIT_MILTER) || (set->milters.n == 0 && !maps))
        return;
    struct arena *a = arena_new();
    struct session_milters *m = ARENA_NEW(a, struct session_milters);
    *m = (struct session_milters){ .arena = a };
    const struct milter_configs *list = maps ? mapped(s, m) : NULL;
    if (!list)
        list = &set->milters;
    if (list->n == 0) {
        arena_free(a);
        return;
    }
    m->list = (struct milters){ .macros = &set->milter_macros, .macro = macro, .dial = dial_filter, .ctx = s };
    milters_open(&m->list, a, list);
    s->milters = m;
}

void milter_end(struct session *s) {
    if (!s->milters)
        return;
    milters_close(&s->milters->list);
    arena_free(s->milters->arena);
    s->milters = NULL;
}

/* --- verdicts --- */

/* The log has always shown the CR and LF between lines as "??". */
static void log_verdict(struct session *s, const char *what, struct str text) {
    struct buf b = { 0 };
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == '\n')
            buf_add(&b, STR("??"));
        else
            buf_byte(&b, text.p[i]);
    log_refusal(s, what, buf_str(&b));
    buf_free(&b);
}

/* Logs it, and does what is not the client's business. False: the client is to be refused. */
static bool apply(struct session *s, const struct milter_verdict *v) {
    struct tx *tx = s->tx;
    switch (v->what) {
    case MILTER_PASS:
        return true;
    case MILTER_HOLD: /* before there is a message: it is asked again then */
        if (tx && !tx->actions.hold)
            log_verdict(s, "milter-hold", v->text.n ? v->text : STR("milter triggers HOLD action"));
        if (tx)
            tx->actions.hold = true;
        return true;
    case MILTER_DISCARD:
        if (tx && !tx->actions.discard)
            log_verdict(s, "milter-discard", STR("milter triggers DISCARD action"));
        if (tx)
            tx->actions.discard = true;
        return true;
    case MILTER_REFUSE:
        break;
    }
    log_verdict(s, "milter-reject", v->text);
    return false;
}

static bool passes(struct session *s, struct milter_verdict v) {
    return apply(s, &v) || reply_lines(s, ERROR_POLICY, v.text);
}

/* --- events --- */

bool milter_connect(struct session *s) {
    begin(s);
    if (!s->milters)
        return true;
    uint32_t port = 0;
    (void)str_to_u32(s->port, UINT16_MAX, &port);
    struct milter_verdict v = milters_connect(&s->milters->list, s->name, s->address, port);
    if (apply(s, &v))
        return true;
    if (str_starts(v.text, STR("421")))
        return reply_error(s, ERROR_POLICY, "421 %.*s Service unavailable - try again later",
                           STR_ARG(s->set->myhostname));
    if (str_starts(v.text, STR("4"))) /* it will hear of it when it says something */
        return true;
    s->milters->refuses_client = true;
    return reply_error(s, ERROR_POLICY, "554 %.*s ESMTP not accepting connections", STR_ARG(s->set->myhostname));
}

bool milter_helo(struct session *s) {
    if (!s->milters)
        return true;
    struct milter_verdict v = milters_helo(&s->milters->list, s->helo);
    if (apply(s, &v))
        return true;
    if (str_starts(v.text, STR("421")))
        return reply_lines(s, ERROR_POLICY, v.text);
    s->milters->refuses_client = str_starts(v.text, STR("5"));
    return true;
}

bool milter_refuses_client(const struct session *s) {
    return s->milters && s->milters->refuses_client;
}

static struct str path(struct session *s, struct str address) {
    struct str external = address_quote(session_scratch(s), address);
    return arena_printf(session_scratch(s), "<%.*s>", STR_ARG(external));
}

bool milter_mail(struct session *s, struct str options) {
    if (!s->milters)
        return true;
    return passes(s, milters_mail(&s->milters->list, path(s, s->tx->sender), options));
}

bool milter_rcpt(struct session *s, struct str rcpt, struct str options, error refusal) {
    struct session_milters *m = s->milters;
    if (!m)
        return true;
    struct destination first = m->rcpt;
    m->rcpt = (struct destination){ 0 };
    m->rcpt_now = s->check_recipient = rcpt;
    m->refusal = refusal;
    struct milter_verdict v = milters_rcpt(&m->list, path(s, rcpt), options, refusal != NULL);
    bool ok = passes(s, v);
    m->rcpt_now = s->check_recipient = STR("");
    m->refusal = NULL;
    if (s->tx->rcpts > 0 || !ok || refusal)
        m->rcpt = first; /* DATA and what follows have the first recipient */
    return ok;
}

bool milter_data(struct session *s) {
    if (!s->milters)
        return true;
    struct milter_verdict v = milters_data(&s->milters->list);
    s->check_recipient = s->tx->first_rcpt;
    bool ok = passes(s, v);
    s->check_recipient = STR("");
    return ok;
}

bool milter_unknown(struct session *s, struct str line, struct str reply) {
    if (!s->milters)
        return reply_fail(s, "%.*s", STR_ARG(reply));
    struct milter_verdict v = milters_unknown(&s->milters->list, line);
    if (v.plain) /* a plain "reject" is what happens anyway */
        v.text = reply;
    return apply(s, &v) ? reply_fail(s, "%.*s", STR_ARG(reply)) : reply_lines(s, ERROR_POLICY, v.text);
}

/* --- the message --- */

void milter_hand_over(struct session *s) {
    struct session_milters *m = s->milters;
    struct buf b = { 0 };
    int fds[MILTERS_MAX];
    if (!m)
        return;
    size_t n = milters_pack(&m->list, &b, fds);
    if (n > 0)
        (void)s->back->submit_milters(s->tx->message, buf_str(&b), fds, n); /* a failure is kept for submit_end() */
    buf_free(&b);
}

void milter_lost(struct session *s) {
    if (s->milters)
        milters_break(&s->milters->list);
}

void milter_tx_end(struct session *s) {
    struct session_milters *m = s->milters;
    if (!m)
        return;
    milters_abort(&m->list);
    m->sender = m->rcpt = (struct destination){ 0 };
    m->rcpt_now = STR("");
}
