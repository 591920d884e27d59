#include "smtpd/rates.h"

#include "base/log.h"
#include "smtpd/reply.h"

enum { ANSWER_SECONDS = 10 };

/* What the log and the client hear when there are too many; the client's name is between `reply` and the end. */
static const struct {
    const char *log, *reply;
    bool named; /* the reply begins with our name: it ends the session */
} rows[ANVIL_EVENTS] = {
    [ANVIL_CONNECT] = { "Connection rate", "Error: too many connections from", true },
    [ANVIL_MESSAGE] = { "Message delivery request rate", "450 4.7.1 Error: too much mail from", false },
    [ANVIL_RECIPIENT] = { "Recipient address rate", "450 4.7.1 Error: too many recipients from", false },
    [ANVIL_NEWTLS] = { "New TLS session rate", "Error: too many new TLS sessions from", true },
    [ANVIL_NEWTLS_STATUS] = { NULL, "454 4.7.0 Error: too many new TLS sessions from", false },
    [ANVIL_AUTH] = { "AUTH command rate", "450 4.7.1 Error: too many AUTH commands from", false },
};

static uint32_t limit_of(const struct session *s, enum anvil_event event) {
    return s->set->rate_limits[event == ANVIL_NEWTLS_STATUS ? ANVIL_NEWTLS : event];
}

/* SERVICE:ADDRESS, or SERVICE:BLOCK/BITS where clients are counted by block. */
void rates_begin(struct session *s) {
    struct endpoint at;
    char text[INET6_ADDRSTRLEN];
    if (s->trusted || !s->back->anvil || !endpoint_ip(s->address, 0, &at) ||
        match_find(s->set->limit_exceptions, s->name, s->address) == MATCH_YES)
        return;
    bool ipv4 = at.u.sa.sa_family == AF_INET;
    unsigned bits = ipv4 ? s->set->ipv4_block : s->set->ipv6_block, all = ipv4 ? 32 : 128;
    unsigned char *p = ipv4 ? (unsigned char *)&at.u.in.sin_addr : (unsigned char *)&at.u.in6.sin6_addr;
    for (unsigned i = 0; i < all / 8; i++) {
        unsigned kept = bits > 8 * i ? bits - 8 * i : 0;
        p[i] = (unsigned char)(p[i] & (kept >= 8 ? 0xffu : 0xff00u >> kept));
    }
    struct str block = endpoint_address(&at, text), service = str_sub(s->set->service, 0, 100);
    if (bits < all)
        s->rate_ident = arena_printf(s->arena, "%.*s:%.*s/%u", STR_ARG(service), STR_ARG(block), bits);
    else
        s->rate_ident = arena_printf(s->arena, "%.*s:%.*s", STR_ARG(service), STR_ARG(block));
}

bool rates_refuse(struct session *s, enum anvil_event event) {
    struct anvil_answer a = { 0 };
    uint32_t limit = limit_of(s, event);
    if (limit == 0 || s->rate_ident.n == 0)
        return false;
    error e = s->back->anvil(s->back->ctx, event, s->rate_ident, deadline_in(ANSWER_SECONDS), &a);
    if (e) {
        log_warn("connect to the anvil service: %.*s", STR_ARG(e->text));
        return false;
    }
    if (a.rate <= limit)
        return false;
    if (rows[event].log)
        log_warn("%s limit exceeded: %u from %.*s for service %.*s", rows[event].log, a.rate, STR_ARG(s->log_name),
                 STR_ARG(s->set->service));
    else
        log_warn("Refusing STARTTLS request from %.*s for service %.*s", STR_ARG(s->log_name),
                 STR_ARG(s->set->service));
    if (rows[event].named)
        reply_error(s, ERROR_NONE, "421 4.7.0 %.*s %s %.*s", STR_ARG(s->set->myhostname), rows[event].reply,
                    STR_ARG(s->log_name));
    else
        reply_error(s, ERROR_POLICY, "%s %.*s", rows[event].reply, STR_ARG(s->log_name));
    return true;
}

bool rates_connect(struct session *s) {
    if (s->rate_ident.n == 0)
        return true;
    if (limit_of(s, ANVIL_CONNECT) > 0)
        return !rates_refuse(s, ANVIL_CONNECT);
    (void)s->back->anvil(s->back->ctx, ANVIL_CONNECT, s->rate_ident, 0, NULL);
    return true;
}

void rates_disconnect(struct session *s) {
    if (s->rate_ident.n > 0)
        (void)s->back->anvil(s->back->ctx, ANVIL_DISCONNECT, s->rate_ident, 0, NULL);
}
