#include "smtp/transaction.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "mail/mime.h"
#include "smtp/content.h"
#include "smtp/outgoing.h"
#include "smtp/xforward.h"

enum { FILE_PIECE = 64 * 1024 };

struct attempts attempts_new(struct agent_request *r) {
    return (struct attempts){ .r = r, .refused = arena_array(r->arena, r->req.env.rcpt_count, sizeof(struct problem)) };
}

size_t attempts_unanswered(const struct attempts *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->r->req.env.rcpt_count; i++)
        n += !t->r->answered[i];
    return n;
}

static bool is_temporary(const struct problem *p) {
    return p->dsn.p[0] == '4';
}

static void answer_problem(struct agent_request *r, size_t rcpt, const struct problem *p) {
    struct agent_status status = { .relay = p->relay,
                                   .conn_use = p->conn_use,
                                   .dsn = p->dsn,
                                   .reason = p->text,
                                   .diagnostic_type = p->diagnostic.n ? STR("smtp") : STR(""),
                                   .diagnostic = p->diagnostic,
                                   .remote_type = p->remote_mta.n ? STR("dns") : STR(""),
                                   .remote_mta = p->remote_mta };
    agent_finish(r, rcpt, &status);
}

static void log_and_go_on(const struct attempts *t, const struct problem *p) {
    log_info("%s: %.*s", t->r->req.id.text, STR_ARG(p->text));
}

/* One recipient; who calls it for several logs once. */
static void fail_one(struct attempts *t, size_t rcpt, const struct problem *p, bool more_targets) {
    if (more_targets && is_temporary(p))
        t->refused[rcpt] = *p;
    else
        answer_problem(t->r, rcpt, p);
}

void attempts_fail(struct attempts *t, const struct problem *p, bool more_targets) {
    if (more_targets && is_temporary(p))
        log_and_go_on(t, p);
    for (size_t i = 0; i < t->r->req.env.rcpt_count; i++)
        if (!t->r->answered[i])
            fail_one(t, i, p, more_targets);
}

void attempts_end(struct attempts *t, const struct problem *otherwise) {
    for (size_t i = 0; i < t->r->req.env.rcpt_count; i++)
        if (!t->r->answered[i])
            answer_problem(t->r, i, t->refused[i].dsn.n ? &t->refused[i] : otherwise);
}

/* smtp_generic_maps and smtp_quote_rfc821_envelope. False: a table failed. */
static bool path(struct session *s, const struct agent_request *r, struct str address, struct str *ret) {
    if (!outgoing_address(s->config->outgoing, r->req.id.text, s->scratch, address, ret))
        return false;
    if (s->config->quote_envelope)
        *ret = address_quote(s->scratch, *ret);
    return true;
}

/* Whoever said BODY=7BIT has promised it (RFC 6152, 3); who said nothing has not. */
static bool seven_bit(const struct session *s, const struct agent_request *r) {
    return !(s->features & FEATURE_8BITMIME) && !(r->req.env.flags & ENVELOPE_7BIT);
}

static bool send_mail_from(struct session *s, const struct agent_request *r) {
    const struct envelope *e = &r->req.env;
    struct str sender;
    if (!path(s, r, e->sender, &sender))
        return false;
    struct str size = STR(""), body = STR("");
    if ((s->features & FEATURE_SIZE) && !outgoing_converts(s->config->outgoing, seven_bit(s, r))) /* nobody knows it */
        size = arena_printf(s->scratch, " SIZE=%llu", (unsigned long long)r->req.content.size);
    if ((s->features & FEATURE_8BITMIME) && (e->flags & ENVELOPE_8BIT))
        body = STR(" BODY=8BITMIME");
    else if ((s->features & FEATURE_8BITMIME) && (e->flags & ENVELOPE_7BIT))
        body = STR(" BODY=7BIT");
    struct str envid = STR(""), ret = STR("");
    if ((s->features & FEATURE_DSN) && e->dsn_envid.n)
        envid = arena_cat(s->scratch, STR(" ENVID="), xtext_encode(s->scratch, e->dsn_envid));
    if ((s->features & FEATURE_DSN) && e->dsn_ret)
        ret = e->dsn_ret == DSN_RET_HDRS ? STR(" RET=HDRS") : STR(" RET=FULL");
    struct str auth = s->config->dummy_mail_auth && (s->features & FEATURE_AUTH) ? STR(" AUTH=<>") : STR("");
    session_send(s, "MAIL FROM:<%.*s>%.*s%.*s%.*s%.*s%.*s", STR_ARG(sender), STR_ARG(size), STR_ARG(body),
                 STR_ARG(auth), STR_ARG(envid), STR_ARG(ret));
    return true;
}

/* RFC 3461, 5.2.1: what the sender asked for goes on as it is, and where the recipient came from does in any case. */
static bool send_rcpt_to(struct session *s, const struct agent_request *request, const struct rcpt *r) {
    struct str address, orcpt = STR(""), notify = STR("");
    if (!path(s, request, r->address, &address))
        return false;
    if (s->features & FEATURE_DSN) {
        struct str orig = r->orig.n ? r->orig : r->address;
        struct str whole =
            r->dsn_orcpt.n ? r->dsn_orcpt : arena_cat(s->scratch, STR("rfc822;"), address_quote(s->scratch, orig));
        orcpt = dsn_orcpt_encode(s->scratch, whole);
        if (orcpt.n)
            orcpt = arena_cat(s->scratch, STR(" ORCPT="), orcpt);
        if (r->dsn_notify)
            notify = arena_cat(s->scratch, STR(" NOTIFY="), dsn_notify_format(s->scratch, r->dsn_notify));
    }
    session_send(s, "RCPT TO:<%.*s>%.*s%.*s", STR_ARG(address), STR_ARG(orcpt), STR_ARG(notify));
    return true;
}

/* What one transaction goes through; indices refer to the request's recipients. */
struct transaction {
    struct session *s;
    struct attempts *all;
    bool more_targets;
    uint32_t *named; /* recipients named in RCPT TO, in order */
    bool *accepted;  /* parallel to `named` */
    size_t named_count, accepted_count;
    bool mail_refused, data_sent;
    bool dot_sent; /* from here on the server may have the message */
    bool lost;     /* and nobody was told: the session was an old one */
};

static void fail_rest(struct transaction *t, const struct problem *p, bool more_targets) {
    bool plain_next = p->tls_failed && t->all->plain_next;
    if (p->session_dead && !t->dot_sent && (t->s->uses > 1 || plain_next)) {
        if (plain_next)
            log_and_go_on(t->all, p);
        t->lost = true;
    } else {
        attempts_fail(t->all, p, more_targets);
    }
}

static bool is_probe(const struct transaction *t) {
    return t->all->r->req.flags & DELIVERY_VERIFY;
}

static void answer_sent(struct transaction *t, size_t rcpt, const struct reply *reply) {
    ptrdiff_t end = str_index(reply->text, '\n'); /* the first line of an acceptance says it */
    struct str text = end < 0 ? reply->text : str_sub(reply->text, 0, (size_t)end);
    struct agent_status status = { .relay = t->s->relay,
                                   .conn_use = t->s->uses,
                                   .dsn = reply->dsn.n && reply->dsn.p[0] == '2' ? reply->dsn : STR("2.0.0"),
                                   .reason = text,
                                   .diagnostic_type = STR("smtp"),
                                   .diagnostic = text,
                                   .remote_type = STR("dns"),
                                   .remote_mta = t->s->remote_mta,
                                   .passed_on = t->s->features & FEATURE_DSN };
    /* an LMTP server that knows no DSN may be the mailbox itself */
    if (status.passed_on || !t->s->config->lmtp || !t->s->config->assume_final)
        status.action = STR("relayed");
    agent_sent(t->all->r, rcpt, &status);
}

/* The reply to one command. */
static bool read_reply(struct transaction *t, const char *doing, int64_t timeout, struct reply *ret) {
    struct problem p;
    if (session_reply(t->s, doing, timeout, ret, &p))
        return true;
    fail_rest(t, &p, t->more_targets);
    return false;
}

static bool read_mail_reply(struct transaction *t) {
    struct reply reply;
    struct problem p;
    if (!read_reply(t, "sending MAIL FROM", t->s->config->mail_timeout, &reply))
        return false;
    t->mail_refused = reply.code / 100 != 2;
    t->s->in_transaction = !t->mail_refused;
    if (!t->mail_refused)
        return true;
    session_reply_problem(t->s, &reply, "MAIL FROM command", &p);
    fail_rest(t, &p, t->more_targets);
    return !p.session_dead;
}

static bool read_rcpt_reply(struct transaction *t, size_t k) {
    struct reply reply;
    struct problem p;
    if (!read_reply(t, "sending RCPT TO", t->s->config->rcpt_timeout, &reply))
        return false;
    if (t->mail_refused)
        return true; /* the MAIL reply has decided */
    if (reply.code / 100 == 2 && is_probe(t) &&
        !str_eq_icase(t->s->config->verify_target,
                      STR("data"))) { /* that is all we wanted to know: nobody gets a message */
        answer_sent(t, t->named[k], &reply);
        return true;
    }
    if (reply.code / 100 == 2) {
        t->accepted[k] = true;
        t->accepted_count++;
        return true;
    }
    session_reply_problem(t->s, &reply, "RCPT TO command", &p);
    if (p.session_dead) {
        fail_rest(t, &p, t->more_targets);
        return false;
    }
    if (is_temporary(&p) && t->more_targets)
        log_and_go_on(t->all, &p);
    fail_one(t->all, t->named[k], &p, t->more_targets);
    return true;
}

/* A table of ours failed in the middle: what the server has heard so far is not to become a message. */
static bool data_failed(struct transaction *t) {
    struct problem p;
    session_data_problem(t->s, &p);
    t->s->broken = true;
    attempts_fail(t->all, &p, false);
    return false;
}

/* MAIL, RCPT and DATA, in groups when the server can take them: DATA is then the end of the last one (RFC 2920, 3.1).
 * False: the transaction is over. */
static bool envelope_phase(struct transaction *t) {
    struct session *s = t->s;
    const struct envelope *e = &t->all->r->req.env;
    bool pipelining = s->features & FEATURE_PIPELINING, mail_read = false;
    size_t in_flight_limit = pipelining ? COMMANDS_IN_FLIGHT : 1, read = 0, next = 0;
    struct problem p;
    if (!xforward_send(s, t->all->r, &p)) {
        fail_rest(t, &p, t->more_targets);
        return false;
    }
    if (!send_mail_from(s, t->all->r))
        return data_failed(t);
    if (!pipelining) {
        if (!read_mail_reply(t) || t->mail_refused)
            return false;
        mail_read = true;
    }
    for (;;) {
        for (; next < e->rcpt_count && t->named_count - read < in_flight_limit; next++) {
            if (t->all->r->answered[next])
                continue;
            if (!send_rcpt_to(s, t->all->r, &e->rcpts[next]))
                return data_failed(t);
            t->named[t->named_count++] = (uint32_t)next;
        }
        if (pipelining && next == e->rcpt_count && !t->data_sent && !is_probe(t)) {
            session_send(s, "DATA");
            t->data_sent = true;
        }
        if (!mail_read) {
            if (!read_mail_reply(t))
                return false;
            mail_read = true;
        }
        if (read == t->named_count)
            return true;
        if (!read_rcpt_reply(t, read++))
            return false;
    }
}

/* Nothing has reached the server that it could take for a message. */
static bool content_failed(struct transaction *t, const struct problem *p) {
    fail_rest(t, p, t->more_targets);
    return false;
}

/* 8-bit content that does not become 7-bit: no server of this kind will get it. */
static bool not_convertible(struct transaction *t) {
    struct problem p = session_problem(t->s, STR("5.6.0"), mime_error_text(MIME_NESTING));
    t->s->broken = true;
    attempts_fail(t->all, &p, false);
    return false;
}

/* One piece of the content, as it goes out. */
static bool add_piece(struct outgoing *o, struct content_writer *w, struct str piece, bool last) {
    if (!o)
        content_add(w, piece);
    else if (!outgoing_add(o, piece) || (last && !outgoing_end(o)))
        return false;
    if (last)
        content_end(w);
    return true;
}

/* When the piece that is written now must have gone: each has its time, or, with smtp_per_request_deadline, all
 * together, and more for what has gone at smtp_min_data_rate. */
static int64_t content_deadline(const struct client_config *c, int64_t started_us, uint64_t sent) {
    if (!c->per_request_deadline)
        return deadline_in(c->data_xfer_timeout);
    return started_us + (c->data_xfer_timeout + (int64_t)(sent / (uint64_t)c->min_data_rate)) * US_PER_S;
}

static bool send_pieces(struct transaction *t, struct buf *out, struct outgoing *changed, struct content_writer *w) {
    struct session *s = t->s;
    struct agent_request *r = t->all->r;
    const struct spool_content *c = &r->req.content;
    char *room = c->fd >= 0 ? arena_alloc(r->arena, FILE_PIECE) : NULL;
    const int64_t started = sys->mono_us();
    s->doing = STR("sending message body");
    struct problem p;
    for (uint64_t at = 0, sent = 0;;) {
        struct str piece;
        error e = content_read(c, at, room, FILE_PIECE, &piece);
        if (e) { /* our own disk: the server must not take half a message for a whole one */
            s->broken = true;
            p = session_problem(s, STR("4.3.0"),
                                arena_printf(s->scratch, "queue file read error: %s", strerror(e->sys)));
            return content_failed(t, &p);
        }
        at += piece.n;
        bool last = at >= c->size;
        if (last && !agent_go_on_after_wait(r)) {
            s->broken = true;
            return false;
        }
        if (!add_piece(changed, w, piece, last))
            return changed && outgoing_too_deep(changed) ? not_convertible(t) : data_failed(t);
        t->dot_sent = last;
        int64_t deadline = content_deadline(s->config, started, sent);
        sent += out->n;
        io_set_write_deadline(s->io, deadline);
        io_write(s->io, buf_str(out));
        if (t->dot_sent) /* the rest goes out, and a failure shows, with the reply that is read next */
            return true;
        buf_clear(out);
        if ((e = io_flush(s->io, deadline))) {
            session_io_problem(s, e, &p);
            return content_failed(t, &p);
        }
    }
}

/* The content and the lone dot. False: recipients have been told why, or the request is nobody's any more. */
static bool send_content(struct transaction *t) {
    const struct client_config *c = t->s->config;
    struct buf out = { 0 };
    struct content_writer w = { .out = &out, .line_limit = content_line_limit(c->line_length_limit) };
    const struct agent_request *r = t->all->r;
    struct outgoing *changed = outgoing_begin(c->outgoing, r->req.id.text, seven_bit(t->s, r), &w);
    bool good = send_pieces(t, &out, changed, &w);
    outgoing_close(changed);
    buf_free(&out);
    return good;
}

/* The reply to the final dot: one for all (RFC 5321), or one for each recipient (RFC 2033, 4.2). */
static void read_final_replies(struct transaction *t) {
    struct session *s = t->s;
    struct reply reply;
    struct problem p;
    bool have = false, said = false;
    for (size_t k = 0; k < t->named_count; k++) {
        if (!t->accepted[k])
            continue;
        if (!have || s->config->lmtp) {
            if (have && io_pending(s->io, false) == 0)
                agent_flush(t->all->r); /* these are delivered, and the next may take its time */
            if (!session_reply(s, "sending end of data -- message may be sent more than once",
                               s->config->data_done_timeout, &reply, &p)) {
                fail_rest(t, &p, false); /* not to another server: this one may have the message */
                return;
            }
            have = true;
            s->in_transaction = false;
        }
        if (reply.code / 100 == 2) {
            answer_sent(t, t->named[k], &reply);
            continue;
        }
        session_reply_problem(s, &reply, "end of DATA command", &p);
        bool more = t->more_targets && !s->config->lmtp;
        if (is_temporary(&p) && more && !said)
            log_and_go_on(t->all, &p);
        said = true;
        fail_one(t->all, t->named[k], &p, more);
    }
}

/* What DATA is refused for: the recipients that were accepted. The others have answers of their own, or wait for the
 * next server. */
static void fail_accepted(struct transaction *t, const struct problem *p) {
    if (t->more_targets && is_temporary(p))
        log_and_go_on(t->all, p);
    for (size_t k = 0; k < t->named_count; k++)
        if (t->accepted[k])
            fail_one(t->all, t->named[k], p, t->more_targets);
}

/* Nobody was accepted, and DATA was on its way: a server that asks for the message all the same gets none. */
static void end_empty_data(struct transaction *t) {
    struct session *s = t->s;
    struct reply reply;
    struct problem ignored;
    if (!session_reply(s, "sending DATA command", s->config->data_init_timeout, &reply, &ignored))
        return;
    if (reply.code == 421)
        s->broken = true;
    if (reply.code / 100 != 3)
        return;
    if (s->config->lmtp) { /* no recipients, no replies: nothing would say where the next ones begin */
        s->broken = true;
        return;
    }
    io_write(s->io, STR(".\r\n"));
    if (session_reply(s, "sending end of data", s->config->data_done_timeout, &reply, &ignored))
        s->in_transaction = false;
}

static void data_phase(struct transaction *t) {
    struct session *s = t->s;
    struct reply reply;
    struct problem p;
    if (!t->data_sent)
        session_send(s, "DATA");
    if (!read_reply(t, "sending DATA command", s->config->data_init_timeout, &reply))
        return;
    if (reply.code / 100 != 3) {
        session_reply_problem(s, &reply, "DATA command", &p);
        if (p.dsn.p[0] == '2') { /* a 2xx here is a protocol error, not a success */
            p.dsn = STR("4.5.0");
            s->broken = true;
        }
        if (p.session_dead)
            fail_rest(t, &p, t->more_targets);
        else
            fail_accepted(t, &p);
        return;
    }
    if (is_probe(t)) { /* smtp_address_verify_target: the server would take content, and gets none */
        for (size_t k = 0; k < t->named_count; k++)
            if (t->accepted[k])
                answer_sent(t, t->named[k], &reply);
        s->broken = true;
        return;
    }
    if (send_content(t))
        read_final_replies(t);
}

static bool size_fits(struct transaction *t) {
    struct session *s = t->s;
    uint64_t size = t->all->r->req.content.size;
    if (!s->size_limit || size <= s->size_limit)
        return true;
    struct problem p =
        session_problem(s, STR("5.3.4"),
                        arena_printf(s->scratch, "message size %llu exceeds size limit %llu of server %.*s",
                                     (unsigned long long)size, (unsigned long long)s->size_limit, STR_ARG(s->host)));
    fail_rest(t, &p, false);
    return false;
}

bool transaction_run(struct session *s, struct attempts *all, bool more_targets) {
    size_t count = all->r->req.env.rcpt_count;
    struct transaction t = { .s = s, .all = all, .more_targets = more_targets };
    t.named = arena_alloc(s->scratch, count * sizeof *t.named);
    t.accepted = arena_array(s->scratch, count, sizeof *t.accepted);
    if (!size_fits(&t))
        return true;
    if (envelope_phase(&t)) {
        if (t.accepted_count)
            data_phase(&t);
        else if (t.data_sent)
            end_empty_data(&t);
    }
    return !t.lost;
}

bool transaction_reset(struct session *s) {
    struct reply reply;
    struct problem ignored;
    if (s->broken || !s->in_transaction)
        return !s->broken;
    session_send(s, "RSET");
    if (!session_reply(s, "sending RSET", s->config->rset_timeout, &reply, &ignored) || reply.code / 100 != 2)
        s->broken = true;
    s->in_transaction = false;
    return !s->broken;
}
