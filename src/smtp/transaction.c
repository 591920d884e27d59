#include "smtp/transaction.h"

#include "base/die.h"
#include "base/log.h"
#include "mail/address.h"
#include "smtp/content.h"
#include <stdlib.h>

enum { CHUNK = 32 * 1024 };

size_t transaction_unanswered(const struct agent_request *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->req.env.rcpt_count; i++)
        n += !r->answered[i];
    return n;
}

static bool is_temporary(const struct problem *p) {
    return p->dsn.p[0] == '4';
}

static void fail_one(struct agent_request *r, size_t rcpt, struct str relay, struct str remote_mta,
                     const struct problem *p) {
    struct agent_status status = { .relay = relay,
                                   .dsn = p->dsn,
                                   .reason = p->text,
                                   .diagnostic_type = p->diagnostic.n ? STR("smtp") : STR(""),
                                   .diagnostic = p->diagnostic,
                                   .remote_type = remote_mta.n ? STR("dns") : STR(""),
                                   .remote_mta = remote_mta };
    agent_finish(r, rcpt, &status);
}

static void log_and_go_on(const struct agent_request *r, const struct problem *p) {
    log_info("%s: %.*s", r->req.id.text, STR_ARG(p->text));
}

void transaction_fail_all(struct agent_request *r, struct str relay, struct str remote_mta, const struct problem *p,
                          bool more_targets) {
    if (more_targets && is_temporary(p)) {
        log_and_go_on(r, p);
        return;
    }
    for (size_t i = 0; i < r->req.env.rcpt_count; i++)
        if (!r->answered[i])
            fail_one(r, i, relay, remote_mta, p);
}

static void fail_rest(struct session *s, struct agent_request *r, const struct problem *p, bool more_targets) {
    transaction_fail_all(r, s->relay, s->remote_mta, p, more_targets);
}

static struct str path(struct session *s, struct str address) {
    return s->config->quote_envelope ? address_quote(s->arena, address) : address;
}

static void send_mail_from(struct session *s, const struct agent_request *r) {
    const struct envelope *e = &r->req.env;
    struct buf line = { 0 };
    buf_printf(&line, "MAIL FROM:<%.*s>", STR_ARG(path(s, e->sender)));
    if (s->features & FEATURE_SIZE)
        buf_printf(&line, " SIZE=%llu", (unsigned long long)r->req.content.size);
    if ((s->features & FEATURE_8BITMIME) && (e->flags & ENVELOPE_8BIT))
        buf_add(&line, STR(" BODY=8BITMIME"));
    session_send(s, "%.*s", STR_ARG(buf_str(&line)));
    buf_free(&line);
}

/* What one transaction goes through; indices refer to the request's recipients. */
struct transaction {
    struct session *s;
    struct agent_request *r;
    bool more_targets;
    uint32_t *sent; /* recipients named in RCPT TO, in order */
    bool *accepted; /* parallel to `sent` */
    size_t sent_count, accepted_count;
    bool mail_refused;
};

static bool read_mail_reply(struct transaction *t) {
    struct reply reply;
    struct problem p;
    if (!session_reply(t->s, "sending MAIL FROM", t->s->config->mail_timeout, &reply, &p)) {
        fail_rest(t->s, t->r, &p, t->more_targets);
        return false;
    }
    if (reply.code / 100 != 2) {
        session_reply_problem(t->s, &reply, "MAIL FROM command", &p);
        fail_rest(t->s, t->r, &p, t->more_targets);
        t->mail_refused = true;
        return !p.session_dead;
    }
    return true;
}

static bool read_rcpt_reply(struct transaction *t, size_t k) {
    struct reply reply;
    struct problem p;
    if (!session_reply(t->s, "sending RCPT TO", t->s->config->rcpt_timeout, &reply, &p)) {
        fail_rest(t->s, t->r, &p, t->more_targets);
        return false;
    }
    if (t->mail_refused)
        return true; /* the MAIL reply has decided */
    if (reply.code / 100 == 2) {
        t->accepted[k] = true;
        t->accepted_count++;
        return true;
    }
    session_reply_problem(t->s, &reply, "RCPT TO command", &p);
    if (p.session_dead) {
        fail_rest(t->s, t->r, &p, t->more_targets);
        return false;
    }
    if (is_temporary(&p) && t->more_targets)
        log_and_go_on(t->r, &p);
    else
        fail_one(t->r, t->sent[k], t->s->relay, t->s->remote_mta, &p);
    return true;
}

/* MAIL and RCPT, in groups when the server can take them (RFC 2920). False: the transaction is over. */
static bool envelope_phase(struct transaction *t) {
    struct session *s = t->s;
    const struct envelope *e = &t->r->req.env;
    bool pipelining = s->features & FEATURE_PIPELINING;
    size_t in_flight_limit = pipelining ? COMMANDS_IN_FLIGHT : 1, read = 0, next = 0;
    send_mail_from(s, t->r);
    if (!pipelining && (!read_mail_reply(t) || t->mail_refused))
        return false;
    bool mail_read = !pipelining;
    for (;;) {
        for (; next < e->rcpt_count && t->sent_count - read < in_flight_limit; next++) {
            if (t->r->answered[next])
                continue;
            session_send(s, "RCPT TO:<%.*s>", STR_ARG(path(s, e->rcpts[next].address)));
            t->sent[t->sent_count++] = (uint32_t)next;
        }
        if (!mail_read) {
            if (!read_mail_reply(t))
                return false;
            mail_read = true;
        }
        if (read == t->sent_count)
            return !t->mail_refused;
        if (!read_rcpt_reply(t, read++))
            return false;
    }
}

static bool send_content(struct transaction *t, struct problem *ret_why) {
    struct session *s = t->s;
    struct content_writer w = { .io = s->io, .line_limit = content_line_limit(s->config->line_length_limit) };
    s->doing = STR("sending message body");
    const struct spool_content *c = &t->r->req.content;
    char *room = c->fd >= 0 ? malloc(CHUNK) : NULL;
    if (c->fd >= 0 && !room)
        die_no_memory(CHUNK);
    struct str piece;
    bool good = true;
    for (uint64_t at = 0; good && at < c->size; at += piece.n) {
        error e = content_read(c, at, room, CHUNK, &piece);
        if (e) { /* our own disk: the server must not take half a message for a whole one */
            s->broken = true;
            *ret_why = (struct problem){ .dsn = STR("4.3.0"), .diagnostic = STR(""), .session_dead = true };
            ret_why->text = arena_printf(s->arena, "queue file read error: %s", strerror(e->sys));
            good = false;
            break;
        }
        int64_t deadline = deadline_in(s->config->data_xfer_timeout);
        io_set_write_deadline(s->io, deadline);
        content_write(&w, piece);
        e = io_flush(s->io, deadline);
        if (e) {
            session_io_problem(s, e, ret_why);
            good = false;
        }
    }
    free(room);
    if (good)
        content_end(&w);
    return good;
}

static void answer_sent(struct transaction *t, size_t rcpt, const struct reply *reply) {
    struct str text = arena_str(t->s->arena, reply->text);
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == '\n')
            text = str_sub(text, 0, i); /* the first line of an acceptance says it */
    struct str dsn = reply->dsn.n && reply->dsn.p[0] == '2' ? reply->dsn : STR("2.0.0");
    struct agent_status status = { .relay = t->s->relay,
                                   .dsn = dsn,
                                   .reason = text,
                                   .diagnostic_type = STR("smtp"),
                                   .diagnostic = text,
                                   .remote_type = STR("dns"),
                                   .remote_mta = t->s->remote_mta };
    agent_sent(t->r, rcpt, &status);
}

/* The reply to the final dot: one for all (RFC 5321), or one for each recipient (RFC 2033, 4.2). */
static void read_final_replies(struct transaction *t) {
    struct session *s = t->s;
    struct reply reply;
    struct problem p;
    bool have = false;
    for (size_t k = 0; k < t->sent_count; k++) {
        if (!t->accepted[k])
            continue;
        if (!have || s->config->lmtp) {
            if (!session_reply(s, "sending end of data -- message may be sent more than once",
                               s->config->data_done_timeout, &reply, &p)) {
                fail_rest(s, t->r, &p, false); /* not to another server: this one may have the message */
                return;
            }
            have = true;
        }
        if (reply.code / 100 == 2) {
            answer_sent(t, t->sent[k], &reply);
            continue;
        }
        session_reply_problem(s, &reply, "end of DATA command", &p);
        if (is_temporary(&p) && t->more_targets && !s->config->lmtp) {
            log_and_go_on(t->r, &p);
            return;
        }
        fail_one(t->r, t->sent[k], s->relay, s->remote_mta, &p);
    }
}

/* What DATA is refused for: the recipients that were accepted. The others have answers of their own, or wait for the
 * next server. */
static void fail_accepted(struct transaction *t, const struct problem *p) {
    if (t->more_targets && is_temporary(p)) {
        log_and_go_on(t->r, p);
        return;
    }
    for (size_t k = 0; k < t->sent_count; k++)
        if (t->accepted[k])
            fail_one(t->r, t->sent[k], t->s->relay, t->s->remote_mta, p);
}

static void data_phase(struct transaction *t) {
    struct session *s = t->s;
    struct reply reply;
    struct problem p;
    session_send(s, "DATA");
    if (!session_reply(s, "sending DATA command", s->config->data_init_timeout, &reply, &p)) {
        fail_rest(s, t->r, &p, t->more_targets);
        return;
    }
    if (reply.code / 100 != 3) {
        session_reply_problem(s, &reply, "DATA command", &p);
        if (p.dsn.p[0] == '2') { /* a 2xx here is a protocol error, not a success */
            p.dsn = STR("4.5.0");
            s->broken = true;
        }
        fail_accepted(t, &p);
        return;
    }
    if (!send_content(t, &p)) {
        fail_rest(s, t->r, &p, t->more_targets);
        return;
    }
    io_write(s->io, STR(".\r\n"));
    read_final_replies(t);
}

static bool size_fits(struct transaction *t) {
    struct session *s = t->s;
    if (!s->size_limit || t->r->req.content.size <= s->size_limit)
        return true;
    struct problem p = { .dsn = STR("5.3.4"), .diagnostic = STR("") };
    p.text =
        arena_printf(s->arena, "message size %llu exceeds size limit %llu of server %.*s",
                     (unsigned long long)t->r->req.content.size, (unsigned long long)s->size_limit, STR_ARG(s->host));
    fail_rest(s, t->r, &p, false);
    return false;
}

void transaction_run(struct session *s, struct agent_request *r, bool more_targets) {
    struct transaction t = { .s = s, .r = r, .more_targets = more_targets };
    t.sent = arena_array(s->arena, r->req.env.rcpt_count, sizeof *t.sent);
    t.accepted = arena_array(s->arena, r->req.env.rcpt_count, sizeof *t.accepted);
    if (!size_fits(&t))
        return;
    if (envelope_phase(&t) && t.accepted_count)
        data_phase(&t);
}
