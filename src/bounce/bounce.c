#include "bounce/bounce.h"

#include "base/log.h"
#include "bounce/notice.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "proto/receive.h"
#include <errno.h>

enum {
    NOTICE_ROOM = 16 * 1024,            /* bytes of a notice beside its recipients and what is returned in it */
    NOTICE_TEXT_MAX = 16 * 1024 * 1024, /* bytes said of recipients in one notice: it is made in memory */
    RCPT_LABELS = 400,                  /* bytes of field names, dates and fixed words about one recipient */
};
enum notify_class { NOTIFY_BOUNCE = 1, NOTIFY_2BOUNCE = 2, NOTIFY_DELAY = 4 };

/* --- the words --- */
static struct {
    struct arena *arena; /* of this process; bounce_init() again replaces it */
    struct bounce_templates templates;
    struct str text[TEMPLATE_COUNT]; /* expanded */
} words;

static void log_warnings(struct bounce_templates *t) {
    for (size_t i = 0; i < t->warnings.n; i++)
        log_warn("%.*s", STR_ARG(t->warnings.at[i]));
    t->warnings.n = 0;
}

/* The template of the file, or the built-in one where its text cannot be expanded. */
static void expand_template(const struct conf *c, enum template_kind kind) {
    struct bounce_templates *t = &words.templates, builtin;
    error e = bounce_template_expand(t, kind, c, words.arena, &words.text[kind]);
    if (!e)
        return;
    log_warn("%.*s (template in line %zu) -- using the built-in template", STR_ARG(e->text), t->line[kind]);
    bounce_templates_builtin(&builtin);
    t->at[kind] = builtin.at[kind];
    e = bounce_template_expand(t, kind, c, words.arena, &words.text[kind]);
    if (e) /* something that main.cf says of the few names in there */
        words.text[kind] = t->at[kind].text;
}

error bounce_init(struct service_ctx *ctx, struct arena *err_arena) {
    (void)err_arena;
    arena_free(words.arena);
    words.arena = arena_new();
    struct str path = conf_str(ctx->conf, PARAM_bounce_template_file);
    error e = bounce_templates_load(path, words.arena, &words.templates);
    if (e) {
        log_warn("bounce_template_file: %.*s -- using the built-in templates", STR_ARG(e->text));
        bounce_templates_builtin(&words.templates);
    }
    for (int kind = 0; kind < TEMPLATE_COUNT; kind++)
        expand_template(ctx->conf, (enum template_kind)kind);
    log_warnings(&words.templates);
    return NULL;
}

static enum template_kind template_for(const struct bounce_request *r) {
    if (r->kind != BOUNCE_SUCCESS)
        return r->kind == BOUNCE_FAILED ? TEMPLATE_FAILURE : TEMPLATE_DELAY;
    for (size_t i = 0; i < r->rcpt_count; i++)
        if (!r->rcpts[i].dsn_notify)
            return TEMPLATE_VERIFY; /* sendmail -v, -bv */
    return TEMPLATE_SUCCESS;
}

struct telling { /* one request */
    struct service_ctx *ctx;
    struct arena *arena;
    const struct bounce_request *req;
    unsigned classes;
};

static unsigned notify_classes(const struct conf *c) {
    static const struct {
        struct str name;
        unsigned class;
    } rows[] = {
        { STR_INIT("bounce"), NOTIFY_BOUNCE },
        { STR_INIT("2bounce"), NOTIFY_2BOUNCE },
        { STR_INIT("delay"), NOTIFY_DELAY },
    };
    struct str list = conf_str(c, PARAM_notify_classes), word;
    unsigned mask = 0;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
            if (str_eq_icase(word, rows[i].name))
                mask |= rows[i].class;
    return mask;
}

/* RFC 3461, 4.1: without NOTIFY failures and delays are reported; NEVER stands alone. */
static bool wanted(enum bounce_kind kind, unsigned notify) {
    switch (kind) {
    case BOUNCE_FAILED:
        return notify == 0 || (notify & DSN_NOTIFY_FAILURE);
    case BOUNCE_DELAYED:
        return notify == 0 || (notify & DSN_NOTIFY_DELAY);
    case BOUNCE_SUCCESS:
        return notify == 0 || (notify & DSN_NOTIFY_SUCCESS); /* 0: sendmail -v, -bv */
    }
    return false;
}

/* --- one notice into the queue --- */
struct sink {
    struct submit *to;
    int64_t deadline;
};

static error put(void *ctx, struct str bytes) {
    struct sink *s = ctx;
    return submit_content(s->to, bytes, s->deadline);
}

static ssize_t read_content(void *ctx, uint64_t at, void *p, size_t n) {
    const struct bounce_request *r = ctx;
    struct str piece;
    error e = content_read(&r->content, at, p, n, &piece);
    if (e) {
        errno = e->sys;
        return -1;
    }
    piece = str_sub(piece, 0, n);
    if (piece.p != p)
        memcpy(p, piece.p, piece.n);
    return (ssize_t)piece.n;
}

static error refused(struct telling *t, const struct submit_result *r) {
    return err_make(t->arena, ERR_TEMP, "%.*s", STR_ARG(r->text));
}

static error submit_on(struct telling *t, struct notice *n, struct submit_link *link, struct str sender,
                       const char *what, struct queue_id *ret_id) {
    struct sink sink = { NULL, deadline_in(conf_time(t->ctx->conf, PARAM_ipc_timeout)) };
    struct submit_result result = { 0 };
    struct str class = n->postmaster ? STR("notify") : STR("bounce");
    unsigned flags = SUBMIT_MAP | SUBMIT_LOCAL_HEADERS | receive_detect_utf8(t->ctx->conf, class) |
                     receive_internal_filter(t->ctx->conf, class);
    error e = submit_open(link, flags, sink.deadline, t->arena, &sink.to, ret_id, &result);
    if (e)
        return e;
    if (result.status != SUBMIT_OK)
        return refused(t, &result);
    /* before it can be delivered: who follows a message by its log finds the link first */
    log_info("%s: %s notification: %s", t->req->id.text, what, ret_id->text);
    n->own_id = queue_id_str(ret_id);
    struct envelope env = { .arrival_us = sys->wall_us(), .sender = sender, .flags = ENVELOPE_INTERNAL };
    const struct rcpt to = { .address = n->to, .orig = n->to };
    e = notice_prepare(n, t->arena);
    if (n->eight_bit)
        env.flags |= ENVELOPE_8BIT;
    env.flags |= n->env->flags & ENVELOPE_SMTPUTF8;
    if (!n->redacted)
        env.flags |= n->env->flags & ENVELOPE_REQUIRETLS;
    if (!e)
        e = submit_envelope(sink.to, &env, sink.deadline);
    if (!e)
        e = submit_rcpt(sink.to, &to, sink.deadline);
    if (!e)
        e = notice_write(n, t->arena, put, &sink);
    if (e) {
        submit_cancel(sink.to);
        return e;
    }
    e = submit_end(sink.to, sink.deadline, t->arena, &result);
    return e || result.status == SUBMIT_OK ? e : refused(t, &result);
}

static bool send_notice(struct telling *t, struct notice *n, struct str sender, const char *who, const char *kind,
                        struct queue_id *ret_id) {
    struct ipc *ipc;
    int64_t deadline = deadline_in(conf_time(t->ctx->conf, PARAM_ipc_timeout));
    struct str what = arena_printf(t->arena, "%s %s", who, kind);
    error e = service_connect(t->ctx, STR("public/cleanup"), deadline, &ipc);
    if (!e) {
        struct submit_link *link = submit_link_new(ipc);
        e = submit_on(t, n, link, sender, what.p, ret_id);
        submit_link_close(link);
    }
    if (e)
        log_warn("%s: %s notification failed to %.*s: %.*s", t->req->id.text, who, STR_ARG(n->to), STR_ARG(e->text));
    return e == NULL;
}

static const char *kind_name(enum bounce_kind kind) {
    switch (kind) {
    case BOUNCE_FAILED:
        return "non-delivery";
    case BOUNCE_DELAYED:
        return "delay";
    case BOUNCE_SUCCESS:
        break;
    }
    return "delivery status";
}

/* RFC 8689, 5: what asked for TLS all the way does not come back without it. */
static bool is_redacted(const struct telling *t) {
    return (t->req->env.flags & ENVELOPE_REQUIRETLS) && conf_bool(t->ctx->conf, PARAM_requiretls_redact_dsn);
}

static struct notice notice_for(struct telling *t) {
    const struct conf *c = t->ctx->conf;
    const struct bounce_request *r = t->req;
    enum template_kind kind = template_for(r);
    return (struct notice){
        .kind = r->kind,
        .template = &words.templates.at[kind],
        .text = words.text[kind],
        .id = queue_id_str(&r->id),
        .host = conf_str(c, PARAM_myhostname),
        .origin = conf_str(c, PARAM_myorigin),
        .mail_name = conf_str(c, PARAM_mail_name),
        .env = &r->env,
        .rcpts = r->rcpts,
        .rcpt_count = r->rcpt_count,
        .now = sys->wall_us() / US_PER_S,
        .lifetime = conf_time(c, r->env.sender.n ? PARAM_maximal_queue_lifetime : PARAM_bounce_queue_lifetime),
        .utf8 = conf_bool(c, PARAM_smtputf8_enable),
        .threaded = conf_bool(c, PARAM_enable_threaded_bounces),
        .redacted = is_redacted(t),
        .tls_optional = (t->req->env.flags & ENVELOPE_TLS_OPTIONAL) && conf_bool(c, PARAM_tls_required_enable),
        .old_from = str_eq_icase(conf_str(c, PARAM_header_from_format), STR("obsolete")),
        .content_size = r->content.size,
        .read = read_content,
        .ctx = (void *)(uintptr_t)r,
    };
}

/* How much of them one notice may name, when `content` bytes stand in it too: what cleanup refuses would be made again
 * and again. */
static size_t room_for_rcpts(const struct telling *t, uint64_t content) {
    uint64_t limit = (uint64_t)conf_int(t->ctx->conf, PARAM_message_size_limit);
    if (limit == 0 || limit > NOTICE_TEXT_MAX + NOTICE_ROOM + content)
        return NOTICE_TEXT_MAX;
    return limit > NOTICE_ROOM + content ? (size_t)(limit - NOTICE_ROOM - content) : 0;
}

/* What is said of one: in words, and in the report. */
static size_t rcpt_bytes(const struct spool_failure *f) {
    return RCPT_LABELS + 3 * (f->address.n + f->orig.n) + f->dsn_orcpt.n + 2 * f->reason.n + f->diagnostic.n +
           f->remote_mta.n;
}

static size_t rcpts_bytes(const struct spool_failure *f, size_t count) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += rcpt_bytes(&f[i]);
    return bytes;
}

/* Small enough to be returned whole, also when our own limit is the smaller one. */
static bool fits(const struct telling *t, const struct notice *n) {
    uint64_t size = t->req->content.size;
    return size <= (uint64_t)conf_int(t->ctx->conf, PARAM_bounce_size_limit) &&
           rcpts_bytes(n->rcpts, n->rcpt_count) <= room_for_rcpts(t, size);
}

/* How many of them the next notice names: all, but for what would be too much for one. */
static size_t next_group(const struct telling *t, const struct spool_failure *rcpts, size_t count) {
    size_t room = room_for_rcpts(t, NOTICE_HEADERS_MAX), n = 0;
    for (size_t bytes = 0; n < count; n++) {
        bytes += rcpt_bytes(&rcpts[n]);
        if (n > 0 && bytes > room)
            break;
    }
    return n;
}

static bool is_verp(const struct telling *t) {
    return t->req->kind == BOUNCE_FAILED && t->req->env.verp_delimiters[0] &&
           !conf_bool(t->ctx->conf, PARAM_disable_verp_bounces);
}

/* One notice, or several where one would be too large or each recipient's sender is another (mail/verp.h);
 * `*ret_id` is the first. What was queued before a failure is told again with the rest: better twice than never. */
static bool tell_sender(struct telling *t, struct spool_failure *rcpts, size_t count, struct queue_id *ret_id) {
    const struct envelope *env = &t->req->env;
    for (size_t at = 0, n; at < count; at += n) {
        struct notice notice = notice_for(t);
        struct queue_id id;
        n = is_verp(t) ? 1 : next_group(t, rcpts + at, count - at);
        notice.rcpts = rcpts + at;
        notice.rcpt_count = n;
        notice.to = env->sender;
        if (is_verp(t)) {
            const struct spool_failure *f = &rcpts[at];
            notice.to = verp_sender(t->arena, env->verp_delimiters, env->sender, f->orig.n ? f->orig : f->address);
        }
        notice.full = t->req->kind == BOUNCE_FAILED && env->dsn_ret != DSN_RET_HDRS && fits(t, &notice);
        if (!send_notice(t, &notice, STR(""), "sender", kind_name(t->req->kind), at == 0 ? ret_id : &id))
            return false;
    }
    return true;
}

/* Postmasters get headers only, but for what nobody else will ever see. */
static bool tell_postmaster(struct telling *t, struct str to, bool full, struct queue_id *ret_id) {
    const struct conf *c = t->ctx->conf;
    struct str sender = arena_printf(t->arena, "%.*s@%.*s", STR_ARG(conf_str(c, PARAM_double_bounce_sender)),
                                     STR_ARG(conf_str(c, PARAM_myorigin)));
    const struct bounce_request *r = t->req;
    for (size_t at = 0, count; at < r->rcpt_count; at += count) {
        struct notice n = notice_for(t);
        struct queue_id id;
        count = is_verp(t) ? 1 : next_group(t, r->rcpts + at, r->rcpt_count - at);
        n.rcpts = r->rcpts + at;
        n.rcpt_count = count;
        n.postmaster = true;
        n.to = to;
        n.full = full && fits(t, &n);
        if (!send_notice(t, &n, sender, "postmaster", kind_name(r->kind), at == 0 ? ret_id : &id))
            return false;
    }
    return true;
}

static bool is_double_bounce(const struct conf *c, struct str sender) {
    struct address_parts p = address_split(sender);
    struct str name = conf_str(c, PARAM_double_bounce_sender);
    return str_eq_icase(p.local, name) && (!p.has_domain || str_eq_icase(p.domain, conf_str(c, PARAM_myorigin)));
}

static enum bounce_status tell(struct telling *t, struct queue_id *ret_id) {
    const struct conf *c = t->ctx->conf;
    const struct bounce_request *r = t->req;
    bool failed = r->kind == BOUNCE_FAILED, told = false;
    if (is_double_bounce(c, r->env.sender)) {
        log_warn("%s: undeliverable postmaster notification discarded", r->id.text);
        return BOUNCE_NOTHING;
    }
    struct spool_failure *rcpts = arena_array(t->arena, r->rcpt_count, sizeof(*rcpts));
    size_t count = 0;
    for (size_t i = 0; i < r->rcpt_count; i++)
        if (wanted(r->kind, r->rcpts[i].dsn_notify))
            rcpts[count++] = r->rcpts[i];
    struct queue_id copy;
    if (!r->env.sender.n) {
        if (failed && (t->classes & NOTIFY_2BOUNCE) && r->rcpt_count) {
            if (!tell_postmaster(t, conf_str(c, PARAM_2bounce_notice_recipient), true, ret_id))
                return BOUNCE_TEMP;
            return BOUNCE_OK;
        }
    } else if (count) {
        if (!tell_sender(t, rcpts, count, ret_id))
            return BOUNCE_TEMP;
        told = true;
    }
    /* A copy that cannot be queued is only a copy: trying again would tell the sender twice. */
    if (failed && r->env.sender.n && (t->classes & NOTIFY_BOUNCE) && r->rcpt_count)
        tell_postmaster(t, conf_str(c, PARAM_bounce_notice_recipient), false, told ? &copy : ret_id);
    if (r->kind == BOUNCE_DELAYED && (t->classes & NOTIFY_DELAY) && r->rcpt_count)
        tell_postmaster(t, conf_str(c, PARAM_delay_notice_recipient), false, told ? &copy : ret_id);
    return told ? BOUNCE_OK : BOUNCE_NOTHING;
}

void bounce_serve(struct service_ctx *ctx, struct ipc *ipc) {
    struct arena *a = arena_new();
    struct ipc_msg m = { .fd = -1 };
    error e = NULL;
    struct bounce_ahead ahead = { 0 };
    while (!(e = ipc_recv(ipc, DEADLINE_NEVER, &m))) {
        struct bounce_request req;
        if (bounce_unpack_more(&m, a, &ahead)) {
            ipc_msg_drop(&m);
            continue;
        }
        if (!bounce_unpack_request(&m, a, &ahead, &req)) {
            log_warn("malformed bounce request");
            break;
        }
        struct telling t = { .ctx = ctx, .arena = a, .req = &req, .classes = notify_classes(ctx->conf) };
        struct queue_id id = { 0 };
        enum bounce_status status = tell(&t, &id);
        content_release(&req.content);
        bounce_reply(ipc, status, status == BOUNCE_OK ? &id : NULL);
        if (ipc_flush(ipc, deadline_in(conf_time(ctx->conf, PARAM_ipc_timeout))))
            break;
        arena_reset(a);
        ahead = (struct bounce_ahead){ 0 };
    }
    if (e && e->kind == ERR_SYNTAX)
        log_warn("malformed message from the queue manager: %.*s", STR_ARG(e->text));
    ipc_msg_drop(&m);
    arena_free(a);
}
