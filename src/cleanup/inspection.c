/* inspection.c - header_checks(5), body_checks(5), and what is no proper MIME: asked about each header field and line
 * of a message, and what the answers do with it. */
#include "cleanup/message.h"

#include "base/log.h"
#include "inspect/checks.h"
#include "mail/address.h"
#include "mail/dsn.h"

enum { SHOWN_MAX = 200 /* bytes of a field or line in the log */ };

/* --- what the log says --- */

/* QID: reject: header TEXT from ORIGIN; from=<S> to=<R> proto=P helo=<H>: WHY */
void message_log_content(const struct message *m, struct str action, const char *what, struct str text, bool session,
                         struct str why) {
    const struct client_info *client = &m->env.client;
    struct buf b = { 0 };
    buf_printf(&b, "%s: %.*s: %s ", m->id.text, STR_ARG(action), what);
    buf_printable(&b, text, SHOWN_MAX);
    if (client->address.n > 0)
        buf_printf(&b, " from %.*s[%.*s]", STR_ARG(client->name.n > 0 ? client->name : STR("unknown")),
                   STR_ARG(client->address));
    else
        buf_add(&b, STR(" from local"));
    buf_printf(&b, "; from=<%.*s>", STR_ARG(address_logged(m->arena, m->env.sender)));
    size_t last = m->given.n;
    while (last > 0 && m->given.at[last - 1].orig.n == 0) /* a BCC that was added */
        last--;
    if (last > 0)
        buf_printf(&b, " to=<%.*s>", STR_ARG(address_logged(m->arena, m->given.at[last - 1].address)));
    if (session && client->protocol.n > 0)
        buf_printf(&b, " proto=%.*s", STR_ARG(client->protocol));
    if (session && client->helo.n > 0)
        buf_printf(&b, " helo=<%.*s>", STR_ARG(client->helo));
    if (why.n > 0)
        buf_printf(&b, ": %.*s", STR_ARG(why));
    log_info("%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

/* --- what an answer does --- */

static void add_bcc(struct message *m, struct str address) {
    m->bytes += address.n;
    for (size_t i = 0; i < m->given.n; i++)
        if (m->given.at[i].dsn_notify == DSN_NOTIFY_NEVER && str_eq(m->given.at[i].address, address))
            return;
    *vec_add(m->arena, &m->given) = (struct rcpt){
        .address = arena_str(m->arena, address), .orig = STR(""), .dsn_orcpt = STR(""), .dsn_notify = DSN_NOTIFY_NEVER
    };
}

/* False: the field or line goes away. */
static bool apply(struct message *m, const struct check *c, struct str *text, struct str *ret_before) {
    switch (c->action) {
    case CHECK_IGNORE:
    case CHECK_STRIP:
        return false;
    case CHECK_REPLACE:
        *text = c->value;
        break;
    case CHECK_PREPEND:
        *ret_before = c->value;
        break;
    case CHECK_REJECT:
        message_fail(m, SUBMIT_CONTENT, arena_str(m->arena, c->dsn), arena_str(m->arena, c->value));
        break;
    case CHECK_DISCARD:
        m->discard = m->passed = true; /* nobody needs to look at what is thrown away */
        break;
    case CHECK_PASS:
        m->passed = true;
        break;
    case CHECK_HOLD:
        m->env.flags |= ENVELOPE_HOLD;
        break;
    case CHECK_FILTER:
        m->env.content_filter = arena_str(m->arena, c->value);
        break;
    case CHECK_REDIRECT:
        m->redirect = arena_str(m->arena, c->value);
        break;
    case CHECK_BCC:
        add_bcc(m, c->value);
        break;
    case CHECK_NONE:
    case CHECK_INFO:
    case CHECK_WARN:
        break;
    }
    return true;
}

static bool ask(struct message *m, struct arena *a, struct maps *tables, struct str parameter, bool header,
                struct str asked, struct str *text, struct str *ret_before) {
    struct check c;
    if (m->status != SUBMIT_OK || m->passed || !tables)
        return true;
    if (check_find(tables, parameter, header, asked, a, &c) == TABLE_ERROR) {
        log_warn("%s: %.*s map lookup problem -- message not accepted, try again later", m->id.text,
                 STR_ARG(parameter));
        message_fail(m, SUBMIT_TEMP, STR("4.3.0"), STR("Error: queue file write error"));
        return true;
    }
    if (c.fault.n > 0)
        log_warn("%.*s", STR_ARG(c.fault));
    bool held = c.action == CHECK_HOLD && (m->env.flags & ENVELOPE_HOLD);
    struct str why = c.value;
    if (c.action == CHECK_REJECT)
        why = arena_printf(a, "%.*s %.*s", STR_ARG(c.dsn), STR_ARG(c.value));
    if (c.log.n > 0 && !held)
        message_log_content(m, c.log, header ? "header" : "body", asked, true, why);
    return apply(m, &c, text, ret_before);
}

/* "Name : value" is asked about as "Name: value". */
static struct str usual_form(struct arena *a, struct str field) {
    ptrdiff_t colon = str_index(field, ':');
    struct str name = str_trim_right(str_sub(field, 0, (size_t)colon));
    return name.n == (size_t)colon ? field : arena_cat(a, name, str_from(field, (size_t)colon));
}

static bool on_header(void *ctx, struct arena *a, enum mime_class class, struct str *text, struct str *ret_before) {
    struct message *m = ctx;
    const struct checks *c = &m->s->checks;
    struct str name, value;
    if (!header_split(*text, &name, &value))
        return true;
    struct str asked = usual_form(a, *text);
    if (class == MIME_PART || mime_is_mime_header(header_find(name)->id))
        return ask(m, a, c->mime, STR("mime_header_checks"), true, asked, text, ret_before);
    if (class == MIME_NESTED)
        return ask(m, a, c->nested, STR("nested_header_checks"), true, asked, text, ret_before);
    return ask(m, a, c->header, STR("header_checks"), true, asked, text, ret_before);
}

static bool on_body(void *ctx, struct arena *a, size_t offset, struct str *text, struct str *ret_before) {
    struct message *m = ctx;
    const struct checks *c = &m->s->checks;
    if (offset >= c->body_size)
        return true;
    return ask(m, a, c->body, STR("body_checks"), false, *text, text, ret_before);
}

void message_refuse_form(struct message *m, struct str text, struct str about) {
    message_log_content(m, STR("reject"), "mime-error",
                        arena_printf(m->arena, "%.*s: %.*s", STR_ARG(text), STR_ARG(str_sub(about, 0, SHOWN_MAX))),
                        false, STR(""));
    message_fail(m, SUBMIT_CONTENT, STR("5.6.0"), text);
}

static void on_error(void *ctx, enum mime_error e, struct str about) {
    struct message *m = ctx;
    const struct checks *c = &m->s->checks;
    bool utf8 = m->env.flags & ENVELOPE_SMTPUTF8; /* who has it may have this, too (RFC 6532) */
    if (m->status != SUBMIT_OK || !(c->refused_errors & 1u << e) || (e == MIME_8BIT_HEADER && utf8))
        return;
    message_refuse_form(m, mime_error_text(e), about);
}

/* --- what main.cf says --- */
/* A field that a mail filter adds. PASS and PREPEND have no meaning here. */
bool message_check_filter_field(struct message *m, struct str *field) {
    struct check c;
    struct arena *a = m->arena;
    struct str text = *field, before = STR("");
    if (!m->s->checks.milter || m->status != SUBMIT_OK || m->redirect.n > 0 || m->discard)
        return true;
    text.n--; /* without its LF */
    if (check_find(m->s->checks.milter, STR("milter_header_checks"), true, text, a, &c) == TABLE_ERROR) {
        log_warn("%s: milter_header_checks map lookup problem -- message not accepted, try again later", m->id.text);
        message_fail(m, SUBMIT_TEMP, STR("4.3.0"), STR("Error: queue file write error"));
        return true;
    }
    if (c.action == CHECK_PASS)
        c.fault = arena_printf(a, "unsupported command in milter_header_checks map: PASS %.*s", STR_ARG(c.value));
    if (c.fault.n > 0)
        log_warn("%.*s", STR_ARG(c.fault));
    if (c.action == CHECK_PASS)
        return true;
    struct str why = c.value;
    if (c.action == CHECK_REJECT)
        why = arena_printf(a, "%.*s %.*s", STR_ARG(c.dsn), STR_ARG(c.value));
    bool held = c.action == CHECK_HOLD && (m->env.flags & ENVELOPE_HOLD);
    if (c.log.n > 0 && !held)
        message_log_content(m, arena_printf(a, "milter-header-%.*s", STR_ARG(c.log)), "header", text, true, why);
    if (c.action == CHECK_PREPEND) {
        log_warn("the milter_header/body_checks prepend action is not implemented");
        return true;
    }
    if (!apply(m, &c, &text, &before))
        return false;
    if (c.action == CHECK_REPLACE)
        *field = arena_cat(a, text, STR("\n"));
    return true;
}

static struct maps *open_checks(const struct conf *c, enum param p) {
    struct str list = conf_str(c, p);
    return list.n > 0 ? maps_open(c, list, 0) : NULL;
}

void checks_open(struct checks *k, const struct conf *c) {
    bool strict = conf_bool(c, PARAM_strict_8bitmime), parts = !conf_bool(c, PARAM_disable_mime_input_processing);
    *k = (struct checks){ .header = open_checks(c, PARAM_header_checks),
                          .mime = open_checks(c, PARAM_mime_header_checks),
                          .nested = open_checks(c, PARAM_nested_header_checks),
                          .body = open_checks(c, PARAM_body_checks),
                          .milter = open_checks(c, PARAM_milter_header_checks),
                          .body_size = (size_t)conf_int(c, PARAM_body_checks_size_limit) };
    if (parts && (strict || conf_bool(c, PARAM_strict_7bit_headers)))
        k->refused_errors |= 1u << MIME_8BIT_HEADER;
    if (parts && (strict || conf_bool(c, PARAM_strict_8bitmime_body)))
        k->refused_errors |= 1u << MIME_8BIT_BODY;
    if (parts && conf_bool(c, PARAM_strict_mime_encoding_domain))
        k->refused_errors |= 1u << MIME_DOMAIN;
    bool downgrade = parts && conf_bool(c, PARAM_force_mime_input_conversion);
    k->any = downgrade || k->header || k->mime || k->nested || k->body || k->refused_errors;
    if (parts && k->any)
        k->refused_errors |= 1u << MIME_NESTING;
    k->inspector = (struct content_inspector){
        .parts = parts,
        .downgrade = downgrade,
        .nesting_limit = (size_t)conf_int(c, PARAM_mime_nesting_limit),
        .boundary_limit = (size_t)conf_int(c, PARAM_mime_boundary_length_limit),
        .line_limit = (size_t)conf_int(c, PARAM_line_length_limit),
        .header = k->header || k->mime || k->nested ? on_header : NULL,
        .body = k->body ? on_body : NULL,
        .error = k->refused_errors ? on_error : NULL,
    };
}

void checks_close(struct checks *k) {
    maps_close(k->header);
    maps_close(k->mime);
    maps_close(k->nested);
    maps_close(k->body);
    maps_close(k->milter);
}
