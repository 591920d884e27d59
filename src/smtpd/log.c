#include "smtpd/log.h"

#include "base/log.h"
#include "mail/address.h"
#include "smtpd/command.h"

enum { LINE_HEAD = 30 /* bytes shown of a line that is too long */, PIPELINED_MAX = 100, DOMAIN_SHOWN = 100 };

void log_connect(const struct session *s) {
    log_info("connect from %.*s", STR_ARG(s->log_name));
}

static void add_login(struct buf *b, const struct session *s, const char *separator) {
    const struct session_login *l = &s->login;
    if (l->method.n)
        buf_printf(b, "%s sasl_method=%.*s", separator, STR_ARG(l->method));
    if (l->username.n)
        buf_printf(b, "%s sasl_username=%.*s", separator, STR_ARG(l->username));
    if (l->sender.n)
        buf_printf(b, "%s sasl_sender=%.*s", separator, STR_ARG(l->sender));
}

/* Whom a server in front of us has named (XFORWARD). */
static void add_front(struct buf *b, const struct session *s) {
    const struct client_info *f = &s->forward;
    if (f->ident.n)
        buf_printf(b, ", orig_queue_id=%.*s", STR_ARG(f->ident));
    if (!s->forward_client)
        return;
    buf_printf(b, ", orig_client=%.*s", STR_ARG(f->name));
    if (str_eq(f->address, STR("unknown")))
        return;
    buf_printf(b, "[%.*s]", STR_ARG(f->address));
    if (s->set->port_logging)
        buf_printf(b, ":%.*s", STR_ARG(f->port));
}

static void add_count(struct buf *b, const char *name, struct command_count n) {
    if (n.total == 0)
        return;
    buf_printf(b, " %s=%u", name, n.ok);
    if (n.ok != n.total)
        buf_printf(b, "/%u", n.total);
}

void log_disconnect(const struct session *s) {
    struct buf b = { 0 };
    struct command_count sum = s->unknown;
    for (size_t i = 0; i < command_count; i++) {
        add_count(&b, commands[i].lower, s->count[i]);
        sum.ok += s->count[i].ok;
        sum.total += s->count[i].total;
    }
    add_count(&b, "unknown", s->unknown);
    if (sum.total)
        add_count(&b, "commands", sum);
    else
        buf_add(&b, STR(" commands=0/0"));
    if (s->bare_newline_seen && s->set->bare_newline == BARE_NOTE)
        buf_add(&b, STR(" notes=bare_lf"));
    log_info("disconnect from %.*s%.*s", STR_ARG(s->log_name), STR_ARG(buf_str(&b)));
    buf_free(&b);
}

void log_client(const struct session *s) {
    struct buf b = { 0 };
    buf_printf(&b, "%.*s: client=%.*s", STR_ARG(session_queue_id(s)), STR_ARG(s->log_name));
    add_login(&b, s, ",");
    add_front(&b, s);
    log_info("%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

/* from=<S> to=<R> proto=P helo=<H>: what is known. */
static void add_context(struct buf *b, const struct session *s) {
    struct arena *a = arena_new();
    struct str rcpt = s->check_recipient;
    if (s->tx) {
        struct str sender = address_logged(a, s->tx->sender);
        buf_printf(b, " from=<%.*s>", STR_ARG(sender));
        if (rcpt.n == 0 && s->tx->rcpts == 1)
            rcpt = s->tx->first_rcpt;
    }
    if (rcpt.n) {
        struct str to = address_logged(a, rcpt);
        buf_printf(b, " to=<%.*s>", STR_ARG(to));
    }
    buf_printf(b, " proto=%s", session_protocol(s));
    if (s->helo.n)
        buf_printf(b, " helo=<%.*s>", STR_ARG(s->helo));
    add_login(b, s, "");
    arena_free(a);
}

void log_refusal(const struct session *s, const char *what, struct str text) {
    struct buf b = { 0 };
    buf_printf(&b, "%.*s: %s: %s from %.*s: %.*s;", STR_ARG(session_queue_id(s)), what, s->stage, STR_ARG(s->log_name),
               STR_ARG(text));
    add_context(&b, s);
    log_info("%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

void log_conversation(const struct session *s, char direction, struct str line) {
    if (!s->debug)
        return;
    log_info("%c %.*s: %.*s", direction, STR_ARG(s->log_name), STR_ARG(line));
}

/* The log has always shown the CR and LF between lines as "??". */
static void add_lines(struct buf *b, struct str text) {
    struct str line;
    while (str_next(&text, STR("\n"), &line))
        buf_printf(b, "%.*s%s", STR_ARG(line), text.n ? "??" : "");
}

void log_proxy_verdict(const struct session *s, bool accepted, struct str reply) {
    struct buf b = { 0 };
    buf_printf(&b, "%s: %s: ", accepted ? "proxy-accept" : "proxy-reject", s->stage);
    add_lines(&b, reply);
    buf_byte(&b, ';');
    add_context(&b, s);
    log_info("%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

void log_proxy_rejected(const struct session *s, struct str command, struct str reply) {
    struct buf b = { 0 };
    add_lines(&b, reply);
    log_warn("proxy %.*s rejected \"%.*s\": \"%.*s\"", STR_ARG(s->set->proxy.text), STR_ARG(command),
             STR_ARG(buf_str(&b)));
    buf_free(&b);
}

void log_proxy_garbage(const struct session *s, struct str line) {
    log_warn("received garbage from proxy %.*s: %.*s", STR_ARG(s->set->proxy.text),
             STR_ARG(str_sub(str_trim(line), 0, PIPELINED_MAX)));
}

void log_session_end(const struct session *s) {
    static const char *const reasons[] = {
        [END_LOST] = "lost connection", [END_TIMEOUT] = "timeout", [END_ERRORS] = "too many errors"
    };
    if (s->end != END_LOST && s->end != END_TIMEOUT && s->end != END_ERRORS)
        return;
    if (s->end == END_LOST && strcmp(s->stage, "END-OF-MESSAGE") == 0)
        return; /* many a client just leaves when its mail is sent */
    struct str id = session_queue_id(s);
    if (strcmp(s->stage, "DATA") == 0 || strcmp(s->stage, "BDAT") == 0)
        log_info("%.*s: %s after %s (%llu bytes) from %.*s", STR_ARG(id), reasons[s->end], s->stage,
                 (unsigned long long)(s->tx ? s->tx->received : 0), STR_ARG(s->log_name));
    else
        log_info("%.*s: %s after %s from %.*s", STR_ARG(id), reasons[s->end], s->stage, STR_ARG(s->log_name));
}

static void add_escaped(struct buf *b, struct str bytes) {
    for (size_t i = 0; i < bytes.n; i++) {
        char c = bytes.p[i];
        if (c == '\r')
            buf_add(b, STR("\\r"));
        else if (c == '\n')
            buf_add(b, STR("\\n"));
        else if (c == '\t')
            buf_add(b, STR("\\t"));
        else if (c == '\\')
            buf_add(b, STR("\\\\"));
        else if (byte_is_print(c))
            buf_byte(b, c);
        else
            buf_printf(b, "\\%03o", (unsigned)(unsigned char)c);
    }
}

void log_pipelining(const struct session *s, struct str input) {
    struct buf b = { 0 };
    struct str shown = str_sub(input, 0, PIPELINED_MAX);
    if (strcmp(s->stage, "AUTH") == 0) /* passwords */
        shown = STR("(not shown)");
    add_escaped(&b, shown);
    log_info("improper command pipelining after %s from %.*s: %.*s", s->stage, STR_ARG(s->log_name),
             STR_ARG(buf_str(&b)));
    buf_free(&b);
}

void log_name_mismatch(const struct session *s, struct str name, const char *reason) {
    log_warn("hostname %.*s does not resolve to address %.*s%s%s", STR_ARG(name), STR_ARG(s->address),
             *reason ? ": " : "", reason);
}

void log_address_syntax(const struct session *s, struct str address) {
    log_warn("Illegal address syntax from %.*s in %s command: %.*s", STR_ARG(s->log_name), s->stage, STR_ARG(address));
}

void log_line_too_long(const struct session *s, struct str line) {
    if (str_starts_icase(line, STR("AUTH ")))
        line = str_sub(line, 0, 4); /* what follows may be a password */
    log_warn("%.*s: request longer than %zu: %.*s...", STR_ARG(s->log_name), s->set->line_length,
             STR_ARG(str_sub(line, 0, LINE_HEAD)));
}

void log_not_smtp(const struct session *s, struct str line) {
    if (s->after_auth) /* the rest of a login that has failed */
        line = STR("(not shown: it comes after AUTH)");
    log_warn("non-SMTP command from %.*s: %.*s", STR_ARG(s->log_name), STR_ARG(str_sub(line, 0, PIPELINED_MAX)));
}

void log_response_too_long(const struct session *s) {
    log_warn("%.*s: SASL response longer than %zu", STR_ARG(s->log_name), s->set->auth.response_limit);
}

void log_haproxy(const struct session *s, const char *fault, struct str seen) {
    struct buf b = { 0 };
    add_escaped(&b, seen);
    log_warn("haproxy read: %s from %.*s: %.*s", fault, STR_ARG(s->log_name), STR_ARG(buf_str(&b)));
    buf_free(&b);
}

void log_login_failed(const struct session *s, struct str mechanism, struct str reason, struct str username) {
    log_warn("%.*s: SASL %.*s authentication failed: %.*s, sasl_username=%.*s", STR_ARG(s->log_name),
             STR_ARG(mechanism), STR_ARG(reason), STR_ARG(username.n ? username : STR("(unavailable)")));
}

void log_login_aborted(const struct session *s, struct str mechanism) {
    log_warn("%.*s: SASL %.*s authentication aborted", STR_ARG(s->log_name), STR_ARG(mechanism));
}

void log_login_server(const struct session *s, struct str why) {
    log_warn("SASL: login server %.*s (smtpd_sasl_path): %.*s", STR_ARG(s->set->auth.path), STR_ARG(why));
}

void log_concurrency(const struct session *s, uint32_t count) {
    log_warn("Connection concurrency limit exceeded: %u from %.*s for service %.*s", count, STR_ARG(s->log_name),
             STR_ARG(s->set->service));
}

void log_size_exceeded(const struct session *s) {
    log_warn("%.*s: queue file size limit exceeded", STR_ARG(session_queue_id(s)));
}

void log_lookup_error(struct str tables, struct str key) {
    log_warn("%.*s lookup error for \"%.*s\"", STR_ARG(tables), STR_ARG(str_sub(key, 0, PIPELINED_MAX)));
}

void log_local_data_error(const struct session *s) {
    log_info("%.*s: reject: %s from %.*s: 421 4.3.0 %.*s Server local data error", STR_ARG(session_queue_id(s)),
             s->stage, STR_ARG(s->log_name), STR_ARG(s->set->myhostname));
}

void log_null_bdat(const struct session *s) {
    log_warn("%.*s: null BDAT request from %.*s", STR_ARG(session_queue_id(s)), STR_ARG(s->log_name));
}

void log_bdat_syntax(const struct session *s, struct str args) {
    log_warn("%.*s: malformed BDAT command syntax from %.*s: BDAT %.*s", STR_ARG(session_queue_id(s)),
             STR_ARG(s->log_name), STR_ARG(str_sub(args, 0, PIPELINED_MAX)));
}

void log_bdat_too_large(const struct session *s) {
    log_warn("%.*s: BDAT request from %.*s exceeds message size limit", STR_ARG(session_queue_id(s)),
             STR_ARG(s->log_name));
}

void log_replaced_command(const struct session *s, struct str old, struct str now) {
    log_info("%.*s: replacing command \"%.*s\" with \"%.*s\"", STR_ARG(s->log_name),
             STR_ARG(str_sub(old, 0, PIPELINED_MAX)), STR_ARG(str_sub(now, 0, PIPELINED_MAX)));
}

void log_etrn_denied(const struct session *s, struct str domain) {
    log_warn("reject: ETRN %.*s... from %.*s", STR_ARG(str_sub(domain, 0, DOMAIN_SHOWN)), STR_ARG(s->log_name));
}

void log_flush_failed(const struct session *s, struct str why) {
    log_warn("unable to talk to fast flush service: %.*s (ETRN from %.*s)", STR_ARG(why), STR_ARG(s->log_name));
}

void log_tls_abort(const struct session *s, const char *why) {
    log_info("NOQUEUE: abort: TLS from %.*s: %s", STR_ARG(s->log_name), why);
}

void log_tls_dropped(const struct session *s) {
    log_warn("Wrapper-mode request dropped from %.*s for service %.*s. TLS context initialization failed. For details "
             "see earlier warnings in your logs.",
             STR_ARG(s->log_name), STR_ARG(s->set->service));
}
