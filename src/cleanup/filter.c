#include "cleanup/filter.h"

#include "base/log.h"
#include "cleanup/filter_edit.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "milter/milter.h"

enum { READ_SIZE = 32 * 1024 };

error filter_open(struct cleanup *s, struct arena *err_arena) {
    s->filter_arena = arena_new();
    s->filters = ARENA_NEW(s->filter_arena, struct milter_configs);
    s->filter_macros = ARENA_NEW(s->filter_arena, struct milter_macros);
    error e = milter_macros_parse(s->filter_arena, s->c, s->filter_macros);
    if (!e)
        e = milter_configs_parse(s->filter_arena, s->c, conf_str(s->c, PARAM_non_smtpd_milters), s->filters);
    return e ? err_make(err_arena, e->kind, "%.*s", STR_ARG(e->text)) : NULL;
}

bool filter_take(struct message *m, struct submit_in *in, struct str payload) {
    int fds[SUBMIT_FDS_MAX];
    size_t n = submit_in_descriptors(in, fds);
    struct milters *ms = ARENA_NEW(m->arena, struct milters);
    bool good = milters_unpack(ms, m->arena, payload, fds, n);
    if (!good || m->filters || !m->has_envelope) {
        milters_hand_back(ms);
        return false;
    }
    m->filters = ms;
    return true;
}

void filter_end(struct message *m) {
    if (m->filters)
        milters_hand_back(m->filters);
    m->filters = NULL;
}

/* --- what is logged, what becomes of it --- */

static void log_event(const struct message *m, const char *what, const char *stage, struct str text) {
    const struct client_info *client = &m->env.client;
    struct buf b = { 0 };
    buf_printf(&b, "%s: %s: %s from %.*s[%.*s]: ", m->id.text, what, stage,
               STR_ARG(client->name.n ? client->name : STR("localhost")),
               STR_ARG(client->address.n ? client->address : STR("127.0.0.1")));
    for (size_t i = 0; i < text.n; i++) /* the log has always shown the CR and LF between lines as "??" */
        if (text.p[i] == '\n')
            buf_add(&b, STR("??"));
        else
            buf_byte(&b, text.p[i]);
    struct str sender = address_logged(m->arena, m->env.sender);
    buf_printf(&b, "; from=<%.*s>", STR_ARG(sender));
    bool invented = !m->filters_are_smtpd; /* it has come to this recipient */
    struct str last = m->given.n > 0 ? m->given.at[m->given.n - 1].address : STR("");
    if (invented)
        last = m->filter_rcpt;
    if (last.n > 0) {
        struct str to = address_logged(m->arena, last);
        buf_printf(&b, " to=<%.*s>", STR_ARG(to));
    }
    if (client->protocol.n > 0)
        buf_printf(&b, " proto=%.*s", STR_ARG(client->protocol));
    if (client->helo.n > 0)
        buf_printf(&b, " helo=<%.*s>", STR_ARG(client->helo));
    log_info("%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

static void queue_failed(struct message *m) {
    message_fail(m, SUBMIT_TEMP, STR("4.3.0"), STR("Error: queue file write error"));
}

/* Nobody hears a reply to mail that did not come by SMTP: it is returned, or tried again later. */
static void refuse_local(struct message *m, struct str reply) {
    bool later = reply.p[0] == '4';
    struct str line = STR(""), status, text;
    (void)str_next(&reply, STR("\n"), &line);
    dsn_split(str_from(line, 4), later ? STR("4.7.1") : STR("5.7.1"), &status, &text);
    message_fail(m, later ? SUBMIT_TEMP : SUBMIT_CONTENT, arena_str(m->arena, status), arena_str(m->arena, text));
}

/* False: nothing more is to be told. */
static bool apply(struct message *m, const char *stage, const struct milter_verdict *v) {
    switch (v->what) {
    case MILTER_PASS:
        return true;
    case MILTER_HOLD:
        if (!(m->env.flags & ENVELOPE_HOLD))
            log_event(m, "milter-hold", stage, v->text.n ? v->text : STR("milter triggers HOLD action"));
        m->env.flags |= ENVELOPE_HOLD;
        return true;
    case MILTER_DISCARD:
        log_event(m, "milter-discard", stage, STR("milter triggers DISCARD action"));
        m->discard = true;
        return false;
    case MILTER_REFUSE:
        break;
    }
    if (v->text.n == 0 || m->status != SUBMIT_OK) { /* a failure of ours */
        queue_failed(m);
        return false;
    }
    log_event(m, "milter-reject", stage, str_from(v->text, 4));
    if (m->filters_are_smtpd)
        message_fail(m, SUBMIT_REPLY, STR(""), v->text);
    else
        refuse_local(m, v->text);
    return false;
}

/* --- the content --- */

/* The header section in memory, and where the body begins. False: it has failed. */
static bool read_header(struct filtered *f) {
    struct message *m = f->m;
    uint64_t size = spool_new_size(m->file);
    struct buf b = { 0 };
    bool ended = false;
    size_t line = 0; /* where the line begins that is looked at */
    while (!ended && (b.n < size || line < b.n)) {
        size_t more = size - b.n < READ_SIZE ? (size_t)(size - b.n) : READ_SIZE;
        if (b.n + more > FILTER_HEADER_MAX + READ_SIZE)
            break;
        char *p = buf_reserve(&b, more + 1);
        if (spool_new_read(m->file, b.n, p, more)) {
            queue_failed(m);
            break;
        }
        b.n += more;
        const char *lf;
        while (!ended && line < b.n && (lf = memchr(b.p + line, '\n', b.n - line))) {
            ended = lf == b.p + line;
            line = (size_t)(lf - b.p) + 1;
        }
        if (more == 0)
            break;
    }
    size_t header = ended ? line - 1 : b.n;
    if (m->status == SUBMIT_OK && header > FILTER_HEADER_MAX) {
        log_warn("%s: more than %d bytes of header, which is too much for mail filters", m->id.text, FILTER_HEADER_MAX);
        message_fail(m, SUBMIT_TOO_LARGE, STR("5.3.4"), STR("Error: message header too big"));
    }
    if (m->status == SUBMIT_OK) {
        filtered_header(f, arena_str(m->arena, str_sub(buf_str(&b), 0, header)));
        f->separator = ended;
        f->body_at = ended ? line : header;
    }
    buf_free(&b);
    return m->status == SUBMIT_OK;
}

static bool tell_header(struct filtered *f, struct milter *one) {
    struct milters *ms = f->m->filters;
    for (size_t i = 0; i < f->fields.n && milter_hears(one, MILTER_HEADER); i++) {
        struct str name, value;
        if (i == f->own || !filtered_field(f, i, &name, &value))
            continue;
        struct milter_verdict v = milter_header(ms, one, name, value);
        if (!apply(f->m, "END-OF-MESSAGE", &v))
            return false;
    }
    return true;
}

static bool send_body(struct filtered *f, struct milter *one, struct buf *out) {
    struct milter_verdict v = milter_body(f->m->filters, one, buf_str(out));
    buf_clear(out);
    return apply(f->m, "END-OF-MESSAGE", &v);
}

/* With CRLF, which never comes apart. */
static bool tell_body(struct filtered *f, struct milter *one) {
    struct buf out = { 0 };
    char *in = arena_alloc(f->scratch, READ_SIZE);
    bool go_on = true;
    uint64_t size = filtered_body_size(f), at = 0;
    while (go_on && at < size && milter_hears(one, MILTER_BODY)) {
        size_t n = size - at < READ_SIZE ? (size_t)(size - at) : READ_SIZE;
        if (filtered_body_read(f, at, in, n)) {
            queue_failed(f->m);
            go_on = false;
        }
        at += n;
        for (size_t i = 0; i < n && go_on; i++) {
            if (out.n + 2 > MILTER_CHUNK)
                go_on = send_body(f, one, &out);
            if (in[i] == '\n')
                buf_byte(&out, '\r');
            buf_byte(&out, in[i]);
        }
    }
    if (go_on && out.n > 0)
        go_on = send_body(f, one, &out);
    buf_free(&out);
    arena_reset(f->scratch);
    return go_on;
}

static bool edit(void *arg, const struct milter_reply *r) {
    struct filtered *f = arg;
    if (r->said != MILTER_SAID_QUARANTINE)
        return filtered_edit(f, r, f->leading_space);
    struct milter_verdict v = { .what = MILTER_HOLD, .text = arena_str(f->m->arena, str_sub(r->text, 0, REASON_MAX)) };
    return apply(f->m, "END-OF-MESSAGE", &v);
}

static bool tell_one(struct filtered *f, struct milter *one) {
    struct milters *ms = f->m->filters;
    const char *stage = "END-OF-MESSAGE";
    struct milter_verdict v;
    bool whole;
    if (!milter_wants_content(one))
        return true;
    if (!tell_header(f, one))
        return false;
    v = milter_end_of_header(ms, one);
    if (!apply(f->m, stage, &v) || !tell_body(f, one))
        return false;
    f->leading_space = one->protocol & MILTER_LEADING_SPACE;
    f->replaces_body = false;
    v = milter_end_of_message(ms, one, edit, f, &whole);
    filtered_edits_done(f);
    return apply(f->m, stage, &v) && f->m->status == SUBMIT_OK && !f->m->discard;
}

static void tell_content(struct message *m) {
    struct filtered f = { .m = m, .scratch = arena_new() };
    bool good = read_header(&f);
    for (size_t i = 0; i < m->filters->n && good; i++)
        good = tell_one(&f, &m->filters->at[i]);
    if (good && m->status == SUBMIT_OK && filtered_write(&f))
        queue_failed(m);
    filtered_free(&f);
}

/* --- an invented session --- */

static struct str or_else(struct str s, struct str other) {
    return s.n ? s : other;
}

static struct str macro(void *ctx, struct arena *a, struct str name) {
    const struct message *m = ctx;
    const struct conf *c = m->s->c;
    const struct client_info *client = &m->env.client;
    struct str host = or_else(client->name, STR("localhost")), address = or_else(client->address, STR("127.0.0.1"));
    const struct {
        struct str name, value;
    } known[] = {
        { STR("i"), queue_id_str(&m->id) },
        { STR("j"), conf_str(c, PARAM_myhostname) },
        { STR("v"), conf_str(c, PARAM_milter_macro_v) },
        { STR("_"), arena_printf(a, "%.*s [%.*s]", STR_ARG(host), STR_ARG(address)) },
        { STR("daemon_name"), conf_str(c, PARAM_milter_macro_daemon_name) },
        { STR("daemon_addr"), STR("127.0.0.1") },
        { STR("daemon_port"), STR("0") },
        { STR("client_addr"), address },
        { STR("client_name"), host },
        { STR("client_port"), or_else(client->port, STR("0")) },
        { STR("client_ptr"), or_else(client->reverse_name, host) },
        { STR("auth_type"), client->sasl_method.n ? client->sasl_method : (struct str){ 0 } },
        { STR("auth_authen"), client->sasl_username.n ? client->sasl_username : (struct str){ 0 } },
        { STR("auth_author"), client->sasl_sender.n ? client->sasl_sender : (struct str){ 0 } },
        { STR("mail_addr"), m->filter_mail ? address_quote(a, m->env.sender) : (struct str){ 0 } },
        { STR("rcpt_addr"), m->filter_rcpt.n ? address_quote(a, m->filter_rcpt) : (struct str){ 0 } },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_eq(name, known[i].name))
            return known[i].value;
    return (struct str){ 0 };
}

static error dial_filter(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret) {
    const struct message *m = ctx;
    return m->s->dial(m->s->dial_ctx, t, deadline, ret);
}

/* A filter must not pick among the recipients: there is nobody who could be told that one of them is refused. */
static bool tell_rcpts(struct message *m) {
    struct str origin = conf_str(m->s->c, PARAM_myorigin);
    for (size_t i = 0; i < m->given.n; i++) {
        m->filter_rcpt = route_rewrite(m->s->router, m->arena, m->given.at[i].address, origin);
        struct milter_verdict v = milters_rcpt(m->filters, address_quote(m->arena, m->filter_rcpt), STR(""), false);
        if (v.what == MILTER_REFUSE) {
            log_warn("%s: milter configuration error: can't reject recipient in non-smtpd(8) submission", m->id.text);
            log_warn("%s: message not accepted, try again later", m->id.text);
            queue_failed(m);
            return false;
        }
        if (!apply(m, "RCPT", &v))
            return false;
    }
    return true;
}

static bool invent_session(struct message *m) {
    const struct client_info *client = &m->env.client;
    struct milters *ms = m->filters;
    uint32_t port = 0;
    (void)str_to_u32(client->port, UINT16_MAX, &port);
    struct str name = or_else(client->name, STR("localhost"));
    struct milter_verdict v = milters_connect(ms, name, or_else(client->address, STR("127.0.0.1")), port);
    if (!apply(m, "CONNECT", &v))
        return false;
    v = milters_helo(ms, or_else(client->helo, name));
    if (!apply(m, "EHLO", &v))
        return false;
    m->filter_mail = true;
    v = milters_mail(ms, address_quote(m->arena, m->env.sender), STR(""));
    if (!apply(m, "MAIL", &v) || !tell_rcpts(m))
        return false;
    v = milters_data(ms);
    return apply(m, "DATA", &v);
}

static void local_mail(struct message *m) {
    struct milters *ms = ARENA_NEW(m->arena, struct milters);
    *ms = (struct milters){ .macros = m->s->filter_macros, .macro = macro, .dial = dial_filter, .ctx = m };
    ms->until = deadline_in(conf_time(m->s->c, PARAM_ipc_timeout));
    milters_open(ms, m->arena, m->s->filters);
    m->filters = ms;
    if (invent_session(m))
        tell_content(m);
    milters_close(ms);
    m->filters = NULL;
}

void filter_message(struct message *m) {
    if (m->filters) {
        m->filters_are_smtpd = true;
        m->filters->until = deadline_in(conf_time(m->s->c, PARAM_ipc_timeout));
        tell_content(m);
        filter_end(m);
    } else if ((m->flags & SUBMIT_MILTER) && m->s->filters && m->s->filters->n > 0) {
        local_mail(m);
    }
}
