#include "base/log.h"
#include "local/local.h"
#include "mail/address.h"
#include "mail/date.h"
#include "mail/dsn.h"
#include "proto/receive.h"

/* One new message per sender and per Delivered-To:. */
struct forward {
    struct str sender;
    bool own_sender;
    struct str delivered; /* of the recipient that stood for these */
    VEC(struct str) members;
};
struct forwards {
    VEC(struct forward) at;
};

enum { CONTENT_PIECE = 32 * 1024 };

static bool same(const struct forward *f, const struct origin *from, struct str sender) {
    return f->own_sender == from->own_sender && str_eq(f->sender, sender) && str_eq(f->delivered, from->delivered);
}

void forward_add(struct delivery *d, const struct origin *from, struct str address) {
    if (!d->forwards)
        d->forwards = ARENA_NEW(d->arena, struct forwards);
    struct str sender = origin_sender(d, from);
    struct forward *f = NULL;
    for (size_t i = 0; i < d->forwards->at.n && !f; i++)
        if (same(&d->forwards->at.at[i], from, sender))
            f = &d->forwards->at.at[i];
    if (!f) {
        f = vec_add(d->arena, &d->forwards->at);
        *f = (struct forward){ .sender = sender, .own_sender = from->own_sender, .delivered = from->delivered };
    }
    *vec_add(d->arena, &f->members) = address;
}

static struct str headers(struct delivery *d, const struct forward *f, const struct queue_id *id) {
    const struct conf *c = d->r->ctx->conf;
    struct str host = conf_str(c, PARAM_myhostname), name = conf_str(c, PARAM_mail_name);
    struct str date = date_rfc5322(d->arena, sys->wall_us() / US_PER_S);
    struct str delivered = STR("");
    if (d->local->delivered & DELIVERED_FORWARD)
        delivered = arena_printf(d->arena, "Delivered-To: %.*s\n", STR_ARG(address_quote(d->arena, f->delivered)));
    return arena_printf(d->arena, "Received: by %.*s (%.*s)\n\tid %s; %.*s\n%.*s", STR_ARG(host), STR_ARG(name),
                        id->text, STR_ARG(date), STR_ARG(delivered));
}

static error send_content(struct delivery *d, struct submit *to, int64_t deadline) {
    const struct spool_content *c = &d->r->req.content;
    char *room = arena_alloc(d->arena, CONTENT_PIECE);
    struct str piece;
    for (uint64_t at = 0; at < c->size; at += piece.n) {
        if (content_read(c, at, room, CONTENT_PIECE, &piece))
            return err_make(d->arena, ERR_TEMP, "error reading message");
        error e = submit_content(to, piece, deadline);
        if (e)
            return e;
    }
    return NULL;
}

/* RFC 3461, 5.2.7: what the sender asked for goes on with a forwarded message, but a success is reported where the
 * forwarding happens; a mailing list (5.2.7.3) is the end of it. */
static error submit_on(struct delivery *d, const struct forward *f, struct submit_link *link, int64_t deadline,
                       struct submit_result *ret) {
    const struct delivery_request *req = &d->r->req;
    const struct rcpt *rcpt = &req->env.rcpts[d->index];
    struct submit *to;
    struct queue_id id;
    error e = submit_open(link, SUBMIT_MAP | receive_detect_utf8(d->r->ctx->conf, STR("forward")), deadline, d->arena,
                          &to, &id, ret);
    if (e || ret->status != SUBMIT_OK)
        return e;
    struct envelope env = req->env;
    env.sender = f->sender;
    env.arrival_us = sys->wall_us();
    env.rcpts = NULL;
    env.rcpt_count = 0;
    env.content_filter = STR("");
    env.flags &= ENVELOPE_8BIT | ENVELOPE_7BIT | ENVELOPE_SMTPUTF8 | ENVELOPE_REQUIRETLS | ENVELOPE_REMOTE;
    if (f->own_sender) {
        env.dsn_envid = STR("");
        env.dsn_ret = 0;
    }
    e = submit_envelope(to, &env, deadline);
    for (size_t i = 0; i < f->members.n && !e; i++) {
        struct rcpt member = { .address = f->members.at[i], .orig = f->members.at[i] };
        if (!f->own_sender) {
            member.orig = rcpt->orig;
            member.dsn_orcpt = rcpt->dsn_orcpt;
            member.dsn_notify = rcpt->dsn_notify & ~(unsigned)DSN_NOTIFY_SUCCESS;
        }
        e = submit_rcpt(to, &member, deadline);
    }
    if (!e)
        e = submit_content(to, headers(d, f, &id), deadline);
    if (!e)
        e = send_content(d, to, deadline);
    if (!e)
        return submit_end(to, deadline, d->arena, ret);
    submit_cancel(to);
    return e;
}

static error submit(struct delivery *d, const struct forward *f, struct submit_result *ret) {
    int64_t deadline = deadline_in(conf_time(d->r->ctx->conf, PARAM_ipc_timeout));
    struct ipc *ipc;
    error e = service_connect(d->r->ctx, STR("public/cleanup"), deadline, &ipc);
    if (e)
        return e;
    struct submit_link *link = submit_link_new(ipc);
    e = submit_on(d, f, link, deadline, ret);
    submit_link_close(link);
    return e;
}

void forward_all(struct delivery *d) {
    for (size_t i = 0; d->forwards && i < d->forwards->at.n; i++) {
        const struct forward *f = &d->forwards->at.at[i];
        struct str address = d->r->req.env.rcpts[d->index].address;
        struct submit_result result = { 0 };
        error e = submit(d, f, &result);
        if (e) {
            log_warn("%s: unable to forward mail for %.*s: %.*s", d->r->req.id.text, STR_ARG(address),
                     STR_ARG(e->text));
            delivery_result(d, address, STR("4.3.0"), STR("unable to forward message"));
        } else if (result.status != SUBMIT_OK) {
            bool later = submit_status_code(result.status) < 500;
            struct str dsn = result.dsn.n ? result.dsn : STR("5.0.0");
            delivery_result(d, address, dsn_with_class(d->arena, dsn, later ? '4' : '5'),
                            arena_printf(d->arena, "unable to forward message: %.*s", STR_ARG(result.text)));
        } else {
            delivery_result(d, address, STR("2.0.0"), arena_printf(d->arena, "forwarded as %s", result.id.text));
        }
    }
}
