#include "cleanup/message.h"

#include "base/log.h"
#include "base/utf8.h"
#include "cleanup/filter.h"
#include "mail/address.h"
#include "run/sys.h"

#include <errno.h>

void message_fail(struct message *m, enum submit_status status, struct str dsn, struct str text) {
    if (m->status != SUBMIT_OK)
        return;
    m->status = status;
    m->dsn = dsn;
    m->text = text;
}

/* Values that end up in queue files, headers and on delivery commands: one line each, whatever the client was. */
static bool value_valid(struct str s) {
    return str_index_any(s, STR("\0\r\n")) < 0;
}

static bool address_valid(struct str s) {
    return s.n <= ADDRESS_MAX && value_valid(s);
}

/* The payload is gone with the next frame. */
static struct unpack keep(struct message *m, struct str payload) {
    m->bytes += payload.n;
    return unpack_from(arena_str(m->arena, payload));
}

static struct str header_address(void *ctx, struct arena *a, struct str address, unsigned header_flags) {
    struct message *m = ctx;
    const struct conf *c = m->s->c;
    bool local = m->flags & SUBMIT_LOCAL_HEADERS;
    struct str origin = conf_str(c, local ? PARAM_myorigin : PARAM_remote_header_rewrite_domain), mapped;
    if (m->status != SUBMIT_OK) /* a table that has failed is not asked again for each address of the header */
        return address;
    if (header_flags & HEADER_ONE_WORD && conf_bool(c, PARAM_append_at_myorigin))
        address = arena_printf(a, "%.*s@%.*s", STR_ARG(address), STR_ARG(origin)); /* "a@b" is a user's name */
    else
        address = route_rewrite(m->s->router, a, address, origin);
    if (!(m->flags & SUBMIT_MAP))
        return address;
    struct str class = header_flags & HEADER_SENDER_ADDRESS ? STR("header_sender") : STR("header_recipient");
    error e = route_canonical(m->s->router, a, address, class, &mapped);
    if (!e)
        return mapped;
    log_warn("%s: %.*s -- message not accepted, try again later", m->id.text, STR_ARG(e->detail));
    message_fail(m, SUBMIT_TEMP, STR("4.3.0"), STR("Error: queue file write error"));
    return address;
}

static void write_content(void *ctx, struct str bytes) {
    struct message *m = ctx;
    spool_write(m->file, bytes);
}

static void log_message_id(void *ctx, bool resent, struct str value) {
    struct message *m = ctx;
    log_info("%s: %smessage-id=%.*s", m->id.text, resent ? "resent-" : "", STR_ARG(value.n > 0 ? value : STR("<>")));
}

bool message_complete_sender(struct message *m) {
    if (m->env.sender.n == 0)
        return true;
    const struct conf *c = m->s->c;
    m->env.sender = route_rewrite(m->s->router, m->arena, m->env.sender, conf_str(c, PARAM_myorigin));
    if (!(m->flags & SUBMIT_MAP))
        return true;
    error e = route_canonical(m->s->router, m->arena, m->env.sender, STR("envelope_sender"), &m->env.sender);
    if (e) {
        log_warn("%s: %.*s -- message not accepted, try again later", m->id.text, STR_ARG(e->detail));
        message_fail(m, SUBMIT_TEMP, STR("4.3.0"), STR("Error: queue file write error"));
    }
    return true;
}

bool message_envelope(struct message *m, struct str payload) {
    if (m->has_envelope || m->content_begun)
        return false;
    struct unpack u = keep(m, payload);
    envelope_unpack(&u, &m->env);
    const struct client_info *client = &m->env.client;
    const struct str values[] = { m->env.dsn_envid, m->env.content_filter, client->name,          client->reverse_name,
                                  client->address,  client->port,          client->helo,          client->protocol,
                                  client->ident,    client->sasl_method,   client->sasl_username, client->sasl_sender };
    if (!unpack_done(&u) || !address_valid(m->env.sender))
        return false;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        if (!value_valid(values[i]))
            return false;
    int64_t now = sys->wall_us();
    if (m->env.arrival_us <= 0 || m->env.arrival_us > now) /* from the future it would never grow old */
        m->env.arrival_us = now;
    m->has_envelope = true;
    return message_complete_sender(m);
}

bool message_full_name(struct message *m, struct str payload) {
    if (m->has_full_name) /* what is said again and again would be kept again and again */
        return false;
    m->has_full_name = true;
    struct unpack u = keep(m, payload);
    m->full_name = unpack_str(&u);
    return unpack_done(&u) && m->has_envelope && !m->content_begun;
}

bool message_rcpt(struct message *m, struct str payload) {
    struct unpack u = keep(m, payload);
    struct rcpt r;
    rcpt_unpack(&u, &r);
    if (!unpack_done(&u) || !m->has_envelope || m->bytes > MESSAGE_ENVELOPE_MAX)
        return false;
    if (!address_valid(r.address) || !address_valid(r.orig) || !value_valid(r.dsn_orcpt))
        return false;
    *vec_add(m->arena, &m->given) = r;
    return true;
}

bool message_action(struct message *m, struct str payload) {
    struct unpack u = keep(m, payload);
    uint8_t action = unpack_u8(&u);
    struct str value = unpack_str(&u);
    if (!unpack_done(&u) || !m->has_envelope || m->bytes > MESSAGE_ENVELOPE_MAX || !address_valid(value))
        return false;
    switch (action) {
    case SUBMIT_ACTION_HOLD:
        m->env.flags |= ENVELOPE_HOLD;
        return true;
    case SUBMIT_ACTION_DISCARD:
        m->discard = true;
        return true;
    case SUBMIT_ACTION_FILTER:
        m->env.content_filter = value;
        return true;
    case SUBMIT_ACTION_REDIRECT:
        m->redirect = value;
        return value.n > 0;
    default:
        return false;
    }
}

static void content_start(struct message *m) {
    const struct conf *c = m->s->c;
    bool local = m->flags & SUBMIT_LOCAL_HEADERS;
    bool internal = m->env.flags & ENVELOPE_INTERNAL;
    bool rewrite = local || (conf_str(c, PARAM_remote_header_rewrite_domain).n > 0 && !internal);
    m->about = (struct content_message){
        .add_missing = rewrite || (conf_bool(c, PARAM_always_add_missing_headers) && !internal),
        .detect_utf8 = m->flags & SUBMIT_DETECT_UTF8,
        .rewrite = rewrite,
        .inspector = m->s->checks.any && (m->flags & SUBMIT_FILTER) ? &m->s->checks.inspector : NULL,
        .queue_id = queue_id_str(&m->id),
        .sender = m->env.sender,
        .full_name = m->full_name,
        .now = m->env.arrival_us / US_PER_S,
        .ctx = m,
        .write = write_content,
        .address = header_address,
        .message_id = log_message_id,
    };
    content_begin(&m->content, &m->s->rules, &m->about);
    m->content_begun = true;
}

/* Has the content gone over a limit by now? */
static void content_check(struct message *m) {
    if (m->status != SUBMIT_OK)
        return;
    const struct conf *c = m->s->c;
    int64_t size_limit = conf_int(c, PARAM_message_size_limit);
    if (size_limit > 0 && spool_new_size(m->file) > (uint64_t)size_limit) {
        log_warn("%s: queue file size limit exceeded", m->id.text);
        message_fail(m, SUBMIT_TOO_LARGE, STR("5.3.4"), STR("Error: message file too big"));
    } else if (m->content.hops >= (uint64_t)conf_int(c, PARAM_hopcount_limit)) {
        log_warn("%s: message rejected: hopcount exceeded", m->id.text);
        message_fail(m, SUBMIT_HOPS, STR("5.4.0"), STR("Error: too many hops"));
    } else if (m->content.rejected) {
        message_log_content(m, STR("reject"), "content", buf_str(&m->content.rejected_line), true,
                            STR("disallowed character"));
        message_fail(m, SUBMIT_CONTENT, STR("5.7.1"), STR("disallowed character"));
    } else if (m->content.unended.n > 0) {
        message_refuse_form(m, STR(HEADER_END_TEXT), buf_str(&m->content.unended));
    }
}

bool message_content(struct message *m, struct str bytes) {
    if (!m->has_envelope)
        return false;
    if (!m->content_begun)
        content_start(m);
    if (m->status == SUBMIT_OK)
        content_feed(&m->content, bytes);
    content_check(m);
    return true;
}

static void result(struct message *m, struct submit_result *ret) {
    *ret = (struct submit_result){ .status = m->status, .id = m->id, .dsn = m->dsn, .text = m->text };
}

static void write_failed(struct message *m, error e) {
    log_warn("%s: write queue file: %.*s", m->id.text, STR_ARG(e->text));
    bool full = e->kind == ERR_SYS && (e->sys == ENOSPC || e->sys == EDQUOT || e->sys == EFBIG);
    if (full)
        message_fail(m, SUBMIT_NO_SPACE, STR("4.3.1"), STR("Insufficient system storage"));
    else
        message_fail(m, SUBMIT_TEMP, STR("4.3.0"), STR("Error: queue file write error"));
}

/* Nobody waits for the reply: what is wrong goes back to the sender the way undeliverable mail does. */
static void make_bounce(struct message *m) {
    struct str text = m->text;
    if (str_starts(text, STR("Error: ")))
        text = str_from(text, sizeof "Error: " - 1);
    m->env.content_filter = arena_printf(m->arena, "error:%.*s %.*s", STR_ARG(m->dsn), STR_ARG(text));
    m->status = SUBMIT_OK;
}

/* RFC 6531, 3.6: mail that only a server with SMTPUTF8 can take. */
static bool is_utf8(const struct message *m) {
    if (m->content.utf8 || !str_is_ascii(m->env.sender))
        return true;
    for (size_t i = 0; i < m->env.rcpt_count; i++)
        if (!str_is_ascii(m->env.rcpts[i].address))
            return true;
    return false;
}

void message_end(struct message *m, struct submit_result *ret) {
    if (!m->content_begun)
        content_start(m);
    if (m->status == SUBMIT_OK) {
        content_end(&m->content);
        content_check(m);
    }
    if (m->status == SUBMIT_OK && !m->discard)
        filter_message(m);
    bool refused = m->status == SUBMIT_HOPS || m->status == SUBMIT_TOO_LARGE || m->status == SUBMIT_CONTENT;
    if (refused && (m->flags & SUBMIT_BOUNCE))
        make_bounce(m);
    if (m->status == SUBMIT_OK)
        message_recipients(m);
    if (m->status == SUBMIT_OK && m->env.rcpt_count == 0)
        message_fail(m, SUBMIT_NO_RCPT, STR("5.1.0"), STR("Error: no recipients specified"));
    if (m->status == SUBMIT_OK && m->discard) {
        log_info("%s: removed (discarded)", m->id.text);
        spool_abort(m->file);
        m->file = NULL;
        m->dsn = STR("2.0.0");
        m->text = arena_printf(m->arena, "Ok: queued as %s", m->id.text);
        result(m, ret);
        return;
    }
    if (m->content.eight_bit && conf_bool(m->s->c, PARAM_detect_8bit_encoding_header))
        m->env.flags = (m->env.flags & ~(unsigned)ENVELOPE_7BIT) | ENVELOPE_8BIT;
    if (m->content.requiretls && conf_bool(m->s->c, PARAM_requiretls_enable) &&
        conf_bool(m->s->c, PARAM_requiretls_esmtp_header))
        m->env.flags |= ENVELOPE_REQUIRETLS;
    /* who asks for both wants TLS (RFC 8689, 5) */
    if (m->content.tls_optional && !(m->env.flags & ENVELOPE_REQUIRETLS) &&
        conf_bool(m->s->c, PARAM_tls_required_enable))
        m->env.flags |= ENVELOPE_TLS_OPTIONAL;
    if (m->status == SUBMIT_OK && (m->flags & SUBMIT_DETECT_UTF8) && is_utf8(m))
        m->env.flags |= ENVELOPE_SMTPUTF8;
    if (m->status == SUBMIT_OK) {
        enum spool_state state = m->env.flags & ENVELOPE_HOLD ? SPOOL_HOLD : SPOOL_INCOMING;
        uint64_t size = spool_new_size(m->file);
        m->env.size = size;
        error e = spool_commit(m->file, &m->env, state);
        m->file = NULL;
        if (!e) {
            m->dsn = STR("2.0.0");
            m->text = arena_printf(m->arena, "Ok: queued as %s", m->id.text);
            result(m, ret);
            ret->size = size;
            return;
        }
        write_failed(m, e);
    }
    if (m->file)
        spool_abort(m->file);
    m->file = NULL;
    result(m, ret);
}
