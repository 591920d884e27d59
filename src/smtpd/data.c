/* data.c - DATA: the content of a message (RFC 5321, 4.1.1.4, 4.5.2). */
#include "smtpd/data.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/date.h"
#include "mail/dsn.h"
#include "smtpd/command.h"
#include "smtpd/log.h"
#include "smtpd/milter.h"
#include "smtpd/proxy.h"
#include "smtpd/reply.h"
#include "smtpd/restriction.h"
#include "smtpd/starttls.h"

/* --- Received: (RFC 5321, 4.4) --- */
static bool is_ipv6(struct str address) {
    return str_index(address, ':') >= 0;
}

/* smtpd_sasl_authenticated_header: a line of its own. What would end the comment is masked. */
static struct str login_comment(const struct session *s, struct arena *a) {
    if (!s->set->auth.header || s->login.username.n == 0)
        return STR("");
    struct str name = arena_str(a, s->login.username);
    char *p = arena_cstr(a, name);
    for (size_t i = 0; i < name.n; i++)
        if (str_index(STR("()\\"), p[i]) >= 0)
            p[i] = '?';
    return arena_printf(a, "\t(Authenticated sender: %s)\n", p);
}

static struct str received_header(struct session *s) {
    const struct settings *set = s->set;
    const struct tx *tx = s->tx;
    struct arena *a = session_scratch(s);
    struct str id = session_queue_id(s), date = date_rfc5322(a, tx->arrival_us / US_PER_S);
    struct buf b = { 0 };
    struct str login = login_comment(s, a);
    if (!tx->proxy)
        id = arena_cat(a, STR(" id "), id);
    else
        id = STR(""); /* it gets one behind the filter */
    if (set->hide_client) {
        buf_printf(&b, "Received: by %.*s (%.*s)%.*s", STR_ARG(set->myhostname), STR_ARG(set->mail_name), STR_ARG(id));
    } else {
        buf_printf(&b, "Received: from %.*s (%.*s [%s%.*s])", STR_ARG(s->helo.n ? s->helo : s->name), STR_ARG(s->name),
                   is_ipv6(s->address) ? "IPv6:" : "", STR_ARG(s->address));
        starttls_received(&b, s);
        buf_printf(&b, "\n%.*s\tby %.*s (%.*s) with %s%.*s", STR_ARG(login), STR_ARG(set->myhostname),
                   STR_ARG(set->mail_name), session_received_with(s), STR_ARG(id));
    }
    if (tx->rcpts == 1) {
        struct str to = address_quote(a, tx->first_rcpt);
        buf_printf(&b, "\n\tfor <%.*s>; ", STR_ARG(to));
    } else {
        buf_add(&b, STR(";\n\t"));
    }
    buf_add(&b, date);
    buf_byte(&b, '\n');
    struct str header = arena_str(a, buf_str(&b));
    buf_free(&b);
    return header;
}

/* --- the stream --- */

enum { GATHERED_MAX = 8 * 1024 };

static void give_up(struct stream *x, enum fate fate) {
    struct tx *tx = x->s->tx;
    x->fate = fate;
    if (tx->message)
        x->s->back->submit_abort(tx->message);
    tx->message = NULL;
}

/* What stands in front of the header is seen to as long as there is nothing else. */
static void decide(struct stream *x, bool last) {
    size_t before = x->gathered.n;
    x->decided = front_lines(&x->front, &x->gathered, x->decided, last);
    x->size_added += x->gathered.n - before;
}

static void send_gathered(struct stream *x) {
    struct session *s = x->s;
    struct str bytes =
        x->front.state == FRONT_DONE ? buf_str(&x->gathered) : str_sub(buf_str(&x->gathered), 0, x->decided);
    if (x->fate == FINE && bytes.n && s->tx->proxy) {
        if (!proxy_content(s->tx->proxy, bytes))
            give_up(x, BROKEN);
    } else if (x->fate == FINE && bytes.n) {
        error e = s->back->submit_content(s->tx->message, bytes);
        if (e) {
            log_warn("%.*s: write to the cleanup service: %.*s", STR_ARG(session_queue_id(s)), STR_ARG(e->text));
            give_up(x, BROKEN);
        }
    }
    buf_consume(&x->gathered, bytes.n);
    x->decided = 0;
}

/* More of the content has been gathered. */
void stream_came(struct stream *x) {
    const struct content *c = &x->content;
    struct session *s = x->s;
    uint64_t limit = s->set->message_size;
    s->tx->received = c->size;
    if (x->fate == FINE && x->front.state != FRONT_DONE)
        decide(x, false);
    if (x->fate == FINE && limit && content_size_ahead(c) + x->size_added > limit) {
        log_size_exceeded(s);
        give_up(x, TOO_LARGE);
    }
    if (x->fate != FINE)
        buf_clear(&x->gathered);
    else if (x->gathered.n >= GATHERED_MAX)
        send_gathered(x);
}

/* When the next bytes must be here: each read has its own time, or (smtpd_per_request_deadline) all of the content has
 * one, to which what has come adds what it needs at the least data rate. */
int64_t stream_deadline(const struct session *s, int64_t deadline, size_t received) {
    int64_t fresh = session_deadline(s);
    if (!s->set->request_deadline)
        return fresh;
    int64_t longer = deadline + (int64_t)received * US_PER_S / s->set->min_data_rate;
    return longer < fresh ? longer : fresh;
}

/* True when the end was seen; else the connection is broken. */
static bool receive(struct stream *x) {
    struct session *s = x->s;
    struct content *c = &x->content;
    int64_t deadline = session_deadline(s);
    while (!c->ended) {
        struct str bytes = io_peek(s->io);
        error e = NULL;
        if (bytes.n == 0) {
            e = io_some(s->io, 1, deadline, &bytes);
            if (!e)
                content_feed(c, bytes);
            deadline = stream_deadline(s, deadline, 1 + io_pending(s->io, false));
        } else {
            size_t used = content_feed(c, bytes);
            e = io_some(s->io, used, deadline, &bytes);
        }
        stream_came(x);
        if (e) {
            session_broken(s, e);
            return false;
        }
    }
    return true;
}

/* --- what the client hears at the end --- */
static bool reply_result(struct session *s, const struct submit_result *r) {
    switch (r->status) {
    case SUBMIT_OK:
        s->errors = s->junk = 0;
        if (s->bdat != BDAT_NONE)
            return reply_ok(s, "250 2.0.0 Ok: %llu bytes queued as %.*s", (unsigned long long)s->tx->received,
                            STR_ARG(queue_id_str(&r->id)));
        return reply_ok(s, "250 2.0.0 Ok: queued as %.*s", STR_ARG(queue_id_str(&r->id)));
    case SUBMIT_NO_SPACE:
        return reply_error(s, ERROR_RESOURCE, "452 4.3.1 Insufficient system storage");
    case SUBMIT_TOO_LARGE:
        return reply_error(s, ERROR_BOUNCE, "552 5.3.4 Error: message file too big");
    case SUBMIT_HOPS:
        return reply_error(s, ERROR_BOUNCE, "554 5.4.0 Error: too many hops");
    case SUBMIT_CONTENT: {
        /* the status decides the class of the code: a check may ask for "4.7.1 later" */
        bool soft = r->dsn.n && r->dsn.p[0] == '4';
        int code = soft ? 451 : submit_status_code(r->status);
        return reply_error(s, ERROR_POLICY, "%d %.*s %.*s", code, STR_ARG(r->dsn.n ? r->dsn : STR("5.7.1")),
                           STR_ARG(r->text.n ? r->text : STR("message content rejected")));
    }
    case SUBMIT_REPLY:
        return reply_lines(s, ERROR_POLICY, r->text);
    case SUBMIT_TEMP:
        if (r->dsn.n && r->text.n)
            return reply_error(s, ERROR_RESOURCE, "451 %.*s %.*s", STR_ARG(r->dsn), STR_ARG(r->text));
        break;
    case SUBMIT_NO_RCPT:
    case SUBMIT_BAD:
        break;
    }
    return reply_error(s, ERROR_RESOURCE, "451 4.3.0 Error: queue file write error");
}

/* What access tables have asked for, up to now. */
static error send_actions(struct session *s) {
    const struct tx_actions *t = &s->tx->actions;
    struct submission *m = s->tx->message;
    const struct {
        bool wanted;
        enum submit_action action;
        struct str value;
    } actions[] = {
        { t->hold, SUBMIT_ACTION_HOLD, STR("") },
        { t->discard, SUBMIT_ACTION_DISCARD, STR("") },
        { t->filter.n > 0, SUBMIT_ACTION_FILTER, t->filter },
        { t->redirect.n > 0, SUBMIT_ACTION_REDIRECT, t->redirect },
    };
    error e = NULL;
    for (size_t i = 0; i < sizeof actions / sizeof *actions && !e; i++)
        if (actions[i].wanted)
            e = s->back->submit_action(m, actions[i].action, actions[i].value);
    for (size_t i = 0; i < t->bcc.n && !e; i++) { /* the sender hears nothing of them */
        struct rcpt r = {
            .address = t->bcc.at[i], .orig = STR(""), .dsn_orcpt = STR(""), .dsn_notify = DSN_NOTIFY_NEVER
        };
        e = s->back->submit_rcpt(m, &r);
    }
    return e;
}

static bool finish(struct stream *x) {
    struct session *s = x->s;
    struct tx *tx = s->tx;
    if (x->fate == FINE)
        decide(x, true);
    send_gathered(x);
    if (x->fate != FINE)
        return stream_fate_reply(x);
    error e = check_end_of_data(s);
    if (e)
        return reply_refusal(s, e);
    if (s->end != END_OPEN)
        return false;
    if (tx->proxy)
        return proxy_end(s);
    struct submit_result r = { .status = SUBMIT_TEMP };
    struct submission *m = tx->message;
    (void)send_actions(s); /* a failure is kept for submit_end() */
    milter_hand_over(s);
    tx->message = NULL;
    e = s->back->submit_end(m, session_scratch(s), &r);
    if (e) {
        milter_lost(s);
        log_warn("%.*s: answer of the cleanup service: %.*s", STR_ARG(session_queue_id(s)), STR_ARG(e->text));
        return reply_error(s, ERROR_RESOURCE, "451 4.3.0 Error: queue file write error");
    }
    return reply_result(s, &r);
}

bool stream_fate_reply(struct stream *x) {
    const char *reply =
        x->fate == TOO_LARGE ? "552 5.3.4 Error: message file too big" : "451 4.3.0 Error: queue file write error";
    if (x->s->tx->proxy)
        proxy_rejected(x->s, reply);
    return reply_error(x->s, x->fate == TOO_LARGE ? ERROR_BOUNCE : ERROR_RESOURCE, "%s", reply);
}

bool stream_refuses_bare_newline(struct stream *x) {
    struct session *s = x->s;
    if (!x->content.bare_newline)
        return false;
    s->bare_newline_seen = true;
    if (s->set->bare_newline != BARE_REJECT || s->bare_newline_excluded)
        return false;
    log_refusal(s, "reject", STR("bare <LF> received"));
    reply_error(s, ERROR_NONE, "%d 5.5.2 %.*s Error: bare <LF> received", s->set->bare_newline_code,
                STR_ARG(s->set->myhostname));
    return true;
}

void stream_begin(struct stream *x, struct session *s) {
    const struct tx *tx = s->tx;
    *x = (struct stream){ .s = s };
    x->content.lenient = s->set->bare_newline == BARE_ALLOW || s->bare_newline_excluded;
    x->content.out = &x->gathered;
    if ((tx->envelope_flags & ENVELOPE_REQUIRETLS) && s->set->requiretls_header)
        buf_add(&x->gathered, STR("Require-TLS-ESMTP: yes\n")); /* so that it outlives a content filter */
    for (size_t i = 0; i < tx->actions.prepend.n; i++) {
        buf_add(&x->gathered, tx->actions.prepend.at[i]);
        buf_byte(&x->gathered, '\n');
    }
    if (!tx->proxy || !s->forward_arena) /* between two filters it would be one more of the same server */
        buf_add(&x->gathered, received_header(s));
    x->decided = x->gathered.n;
}

bool stream_end(struct stream *x) {
    struct session *s = x->s; /* of BDAT `x` ends with the transaction */
    s->stage = "END-OF-MESSAGE";
    bool ok = !stream_refuses_bare_newline(x) && finish(x);
    tx_end(s);
    transcript_flush(s);
    return ok;
}

void stream_free(struct stream *x) {
    buf_free(&x->gathered);
}

bool data_may_begin(struct session *s) {
    const struct tx *tx = s->tx;
    if (tx && tx->rcpts > 0)
        return true;
    return tx ? reply_fail(s, "554 5.5.1 Error: no valid recipients")
              : reply_fail(s, "503 5.5.1 Error: need RCPT command");
}

bool command_data(struct session *s, struct str args) {
    if (s->bdat != BDAT_NONE)
        return reply_fail(s, "503 5.5.1 Error: DATA after BDAT");
    if (!data_may_begin(s))
        return false;
    if (args.n)
        return reply_fail(s, "501 5.5.4 Syntax: DATA");
    error e = check_data(s);
    if (e)
        return reply_refusal(s, e);
    if (s->end != END_OPEN || !milter_data(s) || (s->tx->proxy && !proxy_data(s)))
        return false;

    struct stream x;
    stream_begin(&x, s);
    reply_ok(s, "354 End data with <CR><LF>.<CR><LF>");
    bool ok = receive(&x) && stream_end(&x);
    stream_free(&x);
    return ok;
}
