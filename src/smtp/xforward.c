#include "smtp/xforward.h"

#include "base/log.h"
#include "mail/dsn.h"

enum { NAME, ADDR, PORT, FIRST_COMMAND, PROTO = FIRST_COMMAND, HELO, IDENT, SOURCE, ATTRIBUTES };

static const struct str names[ATTRIBUTES] = {
    [NAME] = STR_INIT("NAME"), [ADDR] = STR_INIT("ADDR"),   [PORT] = STR_INIT("PORT"),     [PROTO] = STR_INIT("PROTO"),
    [HELO] = STR_INIT("HELO"), [IDENT] = STR_INIT("IDENT"), [SOURCE] = STR_INIT("SOURCE"),
};

void xforward_offered(struct session *s, struct str attributes) {
    struct str word;
    while (str_word(&attributes, STR_SPACE, &word))
        for (unsigned i = 0; i < ATTRIBUTES; i++)
            if (str_eq_icase(word, names[i]))
                s->xforward |= 1U << i;
}

static bool is_known(struct str value) {
    return value.n && !str_eq(value, STR("unknown"));
}

/* The attributes from `from` to `to`; nothing where none of them is known. */
static bool send_some(struct session *s, const struct str *values, unsigned from, unsigned to,
                      struct problem *ret_why) {
    struct buf line = { 0 };
    struct reply r;
    bool any = false;
    for (unsigned i = from; i < to; i++) {
        if (!(s->xforward & 1U << i))
            continue;
        any = any || is_known(values[i]);
        struct str value = is_known(values[i]) ? xtext_encode(s->scratch, values[i]) : STR("[UNAVAILABLE]");
        buf_printf(&line, " %.*s=%.*s", STR_ARG(names[i]), STR_ARG(value));
    }
    if (any)
        session_send(s, "XFORWARD%.*s", STR_ARG(buf_str(&line)));
    buf_free(&line);
    if (!any)
        return true;
    if (!session_reply(s, "sending XFORWARD", s->config->xforward_timeout, &r, ret_why))
        return false;
    if (r.code / 100 == 2)
        return true;
    session_reply_problem(s, &r, "XFORWARD command", ret_why);
    log_warn("%.*s", STR_ARG(ret_why->text));
    return !ret_why->session_dead;
}

bool xforward_send(struct session *s, const struct agent_request *r, struct problem *ret_why) {
    const struct envelope *e = &r->req.env;
    const struct client_info *c = &e->client;
    if (!s->config->send_xforward || !s->xforward)
        return true;
    bool ipv6 = str_index(c->address, ':') >= 0;
    const struct str values[ATTRIBUTES] = {
        [NAME] = c->name,
        [ADDR] = ipv6 ? arena_cat(s->scratch, STR("IPV6:"), c->address) : c->address,
        [PORT] = c->port,
        [PROTO] = c->protocol,
        [HELO] = c->helo,
        [IDENT] = c->ident.n ? c->ident : str_c(r->req.id.text),
        [SOURCE] = e->flags & ENVELOPE_REMOTE ? STR("REMOTE") : STR("LOCAL"),
    };
    return send_some(s, values, NAME, FIRST_COMMAND, ret_why) && send_some(s, values, PROTO, ATTRIBUTES, ret_why);
}
