#include "qmqpd/qmqpd.h"

#include "base/log.h"
#include "mail/address.h"
#include "mail/date.h"
#include "mail/verp.h"
#include "proto/receive.h"
#include "qmqpd/netstring.h"

enum { NAME_SECONDS = 60 };

struct session {
    struct qmqpd *q;
    struct arena *arena;
    struct netstrings in;
    struct str name, address, port, log_name;
    struct queue_id id;
    struct submit_link *link;
    struct submit *message;
    struct str sender;
    struct str verp; /* delimiters that the sender asks for (mail/verp.h), or empty */
    VEC(struct str) rcpts;
    struct buf content; /* held until the recipients are known: Received: names a single one */
    uint64_t held;      /* of q->held */
    const char *doing;  /* "receiving message content", for logs */
};

error qmqpd_open(struct qmqpd *q, const struct conf *c, struct arena *err_arena) {
    bool no_unknown_checks;
    *q = (struct qmqpd){ .conf = c, .content_filter = conf_str(c, PARAM_content_filter) };
    error e = receive_flags(c, err_arena, &q->submit_flags, &no_unknown_checks);
    if (e)
        return e;
    q->submit_flags |= SUBMIT_LOCAL_HEADERS | receive_detect_utf8(c, STR("qmqpd")); /* its clients are our own */
    q->authorized = match_open(c, STR("qmqpd_authorized_clients"), conf_str(c, PARAM_qmqpd_authorized_clients),
                               MATCH_ADDRESS, TABLE_FOLD);
    return NULL;
}

void qmqpd_close(struct qmqpd *q) {
    match_close(q->authorized);
}

/* --- the answer --- */
static int64_t deadline(const struct session *s) {
    return deadline_in(conf_time(s->q->conf, PARAM_qmqpd_timeout));
}

/* 'K': taken; 'Z': not now; 'D': never. */
static void answer(struct session *s, char code, struct str text) {
    if (code != 'K')
        (void)wait_until(deadline_in(conf_time(s->q->conf, PARAM_qmqpd_error_delay)));
    io_printf(s->in.io, "%zu:%c%.*s,", text.n + 1, code, STR_ARG(text));
    (void)io_flush(s->in.io, deadline(s));
}

static struct str queue_id(const struct session *s) {
    return s->id.text[0] ? queue_id_str(&s->id) : STR("NOQUEUE");
}

/* The client broke the protocol, or has gone. */
static void broken(struct session *s, error e) {
    struct str why = e->kind == ERR_TIMEOUT ? STR("timeout") : e->kind == ERR_EOF ? STR("lost connection") : e->text;
    log_info("%.*s: %.*s: %.*s while %s", STR_ARG(queue_id(s)), STR_ARG(s->log_name), STR_ARG(why), s->doing);
    if (e->kind == ERR_SYNTAX || e->kind == ERR_LIMIT)
        answer(s, 'D', arena_printf(s->arena, "%.*s while %s", STR_ARG(why), s->doing));
}

static void refused(struct session *s, char code, const char *text) {
    log_warn("%.*s: %.*s: Error: %s", STR_ARG(queue_id(s)), STR_ARG(s->log_name), text);
    answer(s, code, arena_printf(s->arena, "Error: %s", text));
}

static void answer_result(struct session *s, const struct submit_result *r) {
    if (r->status == SUBMIT_OK) {
        answer(s, 'K', arena_printf(s->arena, "Ok: queued as %.*s", STR_ARG(queue_id_str(&r->id))));
        return;
    }
    int code = submit_status_code(r->status);
    refused(s, code >= 500 ? 'D' : 'Z', r->text.n ? arena_cstr(s->arena, r->text) : "queue file write error");
}

/* --- the message --- */

/* Its length is known before it comes: who finds no room waits, and holds nothing meanwhile. */
static error reserve(struct session *s, uint64_t bytes) {
    struct qmqpd *q = s->q;
    int64_t end = deadline(s);
    while (q->held > 0 && q->held + bytes > QMQP_HELD_MAX) {
        error e = cond_wait(&q->room, end);
        if (e)
            return e;
    }
    q->held += bytes;
    s->held = bytes;
    return NULL;
}

static void release(struct session *s) {
    s->q->held -= s->held;
    s->held = 0;
    cond_broadcast(&s->q->room);
}

static error read_content(struct session *s, uint64_t limit) {
    uint64_t left;
    s->doing = "receiving message content";
    error e = netstring_next(&s->in, limit, &left);
    if (!e)
        e = reserve(s, left);
    while (!e && left > 0) {
        struct str bytes;
        s->in.deadline = deadline(s);
        e = netstring_some(&s->in, left, &bytes);
        if (e)
            break;
        left -= bytes.n;
        buf_add(&s->content, bytes); /* lines end with LF here, too; a CR is cleanup's to replace */
    }
    if (!e)
        e = netstring_end(&s->in);
    if (!e && s->content.n && s->content.p[s->content.n - 1] != '\n')
        buf_byte(&s->content, '\n');
    return e;
}

static error read_address(struct session *s, struct str *ret) {
    s->in.deadline = deadline(s);
    return netstring_whole(&s->in, s->arena, QMQP_ADDRESS_MAX, ret);
}

static struct str internal(struct session *s, struct str text) {
    struct str found;
    return address_unquote(s->arena, text, &found) ? found : text;
}

/* list-@origin-@[], in qmail's way: the sender is list@origin, and each recipient gets one of its own. What stands in
 * front of the @ is VERP's first delimiter, its second is always "=". */
static struct str take_verp(struct session *s, struct str sender) {
    static const struct str mark = STR_INIT("-@[]");
    if (!str_ends(sender, mark))
        return sender;
    struct str address = str_sub(sender, 0, sender.n - mark.n);
    struct address_parts p = address_split(address);
    if (!p.has_domain || p.local.n < 2)
        return sender;
    struct str user = str_sub(p.local, 0, p.local.n - 1);
    s->verp = arena_printf(s->arena, "%c=", p.local.p[user.n]);
    return arena_printf(s->arena, "%.*s@%.*s", STR_ARG(user), STR_ARG(p.domain));
}

static error read_message(struct session *s) {
    uint64_t size = (uint64_t)conf_int(s->q->conf, PARAM_message_size_limit);
    uint64_t limit = size ? size : INT64_MAX / 2;
    s->in.deadline = deadline(s);
    s->doing = "receiving QMQP packet header";
    error e = netstring_open(&s->in, limit + QMQP_OVERHEAD_MAX);
    if (!e)
        e = read_content(s, limit);
    s->doing = e ? s->doing : "receiving sender address";
    if (!e)
        e = read_address(s, &s->sender);
    if (!e)
        s->sender = internal(s, take_verp(s, s->sender));
    s->doing = e ? s->doing : "receiving recipient address";
    while (!e && s->in.left > 0) {
        struct str rcpt;
        e = read_address(s, &rcpt);
        if (!e)
            *vec_add(s->arena, &s->rcpts) = internal(s, rcpt);
    }
    s->doing = e ? s->doing : "receiving QMQP packet trailer";
    return e ? e : netstring_close(&s->in);
}

/* --- on its way --- */
static struct str received_header(const struct session *s, int64_t now_us) {
    const struct conf *c = s->q->conf;
    struct str date = date_rfc5322(s->arena, now_us / US_PER_S);
    const char *v6 = str_index(s->address, ':') >= 0 ? "IPv6:" : "";
    struct str by = arena_printf(s->arena, "Received: from %.*s (%.*s [%s%.*s])\n\tby %.*s (%.*s) with QMQP",
                                 STR_ARG(s->name), STR_ARG(s->name), v6, STR_ARG(s->address),
                                 STR_ARG(conf_str(c, PARAM_myhostname)), STR_ARG(conf_str(c, PARAM_mail_name)));
    if (s->rcpts.n != 1)
        return arena_printf(s->arena, "%.*s\n\tid %s; %.*s\n", STR_ARG(by), s->id.text, STR_ARG(date));
    return arena_printf(s->arena, "%.*s id %s\n\tfor <%.*s>; %.*s\n", STR_ARG(by), s->id.text,
                        STR_ARG(address_quote(s->arena, s->rcpts.at[0])), STR_ARG(date));
}

static error send_message(struct session *s, int64_t now_us, struct submit_result *ret) {
    struct envelope env = { .arrival_us = now_us,
                            .sender = s->sender,
                            .content_filter = s->q->content_filter,
                            .client = { .name = s->name,
                                        .reverse_name = s->name,
                                        .address = s->address,
                                        .port = s->port,
                                        .protocol = STR("QMQP") } };
    if (s->verp.n)
        memcpy(env.verp_delimiters, s->verp.p, VERP_DELIMITERS);
    error e = submit_envelope(s->message, &env, deadline(s));
    for (size_t i = 0; i < s->rcpts.n && !e; i++)
        e = submit_rcpt(s->message, &(struct rcpt){ .address = s->rcpts.at[i], .orig = s->rcpts.at[i] }, deadline(s));
    if (!e)
        e = submit_content(s->message, received_header(s, now_us), deadline(s));
    if (!e)
        e = submit_content(s->message, buf_str(&s->content), deadline(s));
    if (e) {
        submit_cancel(s->message);
        s->message = NULL;
        return e;
    }
    struct submit *m = s->message;
    s->message = NULL;
    return submit_end(m, deadline(s), s->arena, ret);
}

static bool open_message(struct session *s) {
    struct ipc *ipc;
    struct submit_result r = { 0 };
    error e = s->q->connect(s->q->ctx, &ipc);
    if (!e) {
        s->link = submit_link_new(ipc);
        e = submit_open(s->link, s->q->submit_flags, deadline(s), s->arena, &s->message, &s->id, &r);
    }
    if (e) {
        log_warn("connect to the cleanup service: %.*s", STR_ARG(e->text));
        refused(s, 'Z', "queue file write error");
    } else if (r.status != SUBMIT_OK) {
        answer_result(s, &r);
    }
    return !e && r.status == SUBMIT_OK;
}

static void take_message(struct session *s) {
    if (!open_message(s))
        return;
    log_info("%s: client=%.*s", s->id.text, STR_ARG(s->log_name));
    error e = read_message(s);
    if (e) {
        broken(s, e);
        return;
    }
    if (s->rcpts.n == 0) {
        refused(s, 'D', "no recipients specified");
        return;
    }
    char delimiters[VERP_DELIMITERS];
    struct str filter = conf_str(s->q->conf, PARAM_verp_delimiter_filter);
    if (s->verp.n && !verp_delimiters_parse(s->verp, filter, delimiters)) {
        refused(s, 'D',
                arena_printf(s->arena, "Invalid VERP delimiters: \"%.*s\". Need two characters from \"%.*s\"",
                             STR_ARG(s->verp), STR_ARG(filter))
                    .p);
        return;
    }
    struct submit_result r = { 0 };
    e = send_message(s, sys->wall_us(), &r);
    if (e) {
        log_warn("%s: the cleanup service: %.*s", s->id.text, STR_ARG(e->text));
        refused(s, 'Z', "queue file write error");
        return;
    }
    answer_result(s, &r);
}

/* --- the client --- */
static void find_client(struct session *s, const struct endpoint *client) {
    char text[INET6_ADDRSTRLEN];
    struct dns_client names;
    s->address = arena_str(s->arena, endpoint_address(client, text));
    s->port = arena_printf(s->arena, "%u", endpoint_port(client));
    dns_client_name(s->q->dns, s->arena, client, deadline_in(NAME_SECONDS), &names);
    s->name = names.name;
    s->log_name = arena_printf(s->arena, "%.*s[%.*s]", STR_ARG(s->name), STR_ARG(s->address));
    if (conf_bool(s->q->conf, PARAM_qmqpd_client_port_logging))
        s->log_name = arena_printf(s->arena, "%.*s:%.*s", STR_ARG(s->log_name), STR_ARG(s->port));
}

void qmqpd_session(struct qmqpd *q, struct io *io, const struct endpoint *client) {
    struct session s = { .q = q, .arena = arena_new(), .in.io = io };
    find_client(&s, client);
    log_info("connect from %.*s", STR_ARG(s.log_name));
    switch (match_find(q->authorized, s.name, s.address)) {
    case MATCH_YES:
        take_message(&s);
        break;
    case MATCH_NO:
        answer(&s, 'D',
               arena_printf(s.arena, "Error: %.*s is not authorized to use this service", STR_ARG(s.log_name)));
        break;
    case MATCH_ERROR:
        answer(&s, 'Z', STR("Error: server configuration error"));
        break;
    }
    log_info("disconnect from %.*s", STR_ARG(s.log_name));
    submit_cancel(s.message);
    submit_link_close(s.link);
    release(&s);
    buf_free(&s.content);
    arena_free(s.arena);
}
