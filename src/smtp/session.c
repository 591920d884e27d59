#include "smtp/session.h"

#include "base/log.h"
#include "mail/dsn.h"
#include "sasl/server.h"
#include "smtp/login.h"
#include "smtp/starttls.h"
#include "smtp/xforward.h"

bool session_address_is(const struct endpoint *a, const struct endpoint *b) {
    return a->len == b->len && memcmp(&a->u, &b->u, a->len) == 0;
}

void session_send(struct session *s, const char *format, ...) {
    va_list ap;
    struct buf line = { 0 };
    va_start(ap, format);
    buf_vprintf(&line, format, ap);
    va_end(ap);
    log_debug("> %.*s: %.*s", STR_ARG(s->host), STR_ARG(buf_str(&line)));
    buf_add(&line, STR("\r\n"));
    io_write(s->io, buf_str(&line));
    buf_free(&line);
}

struct problem session_problem(struct session *s, struct str dsn, struct str text) {
    return (struct problem){
        .dsn = dsn,
        .text = text,
        .diagnostic = STR(""),
        .relay = arena_str(s->scratch, s->relay),
        .remote_mta = arena_str(s->scratch, s->remote_mta),
        .conn_use = s->uses,
    };
}

void session_io_problem(struct session *s, error e, struct problem *ret) {
    struct str text = e == &err_timeout ? arena_printf(s->scratch, "conversation with %.*s timed out while %.*s",
                                                       STR_ARG(s->host), STR_ARG(s->doing))
                                        : arena_printf(s->scratch, "lost connection with %.*s while %.*s",
                                                       STR_ARG(s->host), STR_ARG(s->doing));
    s->broken = s->lost = true;
    *ret = session_problem(s, STR("4.4.2"), text);
    ret->session_dead = true;
    ret->tls_failed = s->tls != NULL;
}

void session_data_problem(struct session *s, struct problem *ret) {
    *ret = session_problem(s, STR("4.3.0"),
                           arena_printf(s->scratch, "local data error while talking to %.*s", STR_ARG(s->host)));
    ret->session_dead = true;
}

/* Several lines become one: log lines and reports have one. */
static struct str one_line(struct arena *a, struct str text) {
    char *p = arena_cstr(a, text);
    for (size_t i = 0; i < text.n; i++)
        if (p[i] == '\n')
            p[i] = ' ';
    return (struct str){ p, text.n };
}

/* RFC 2034, 4: a server without enhanced codes: the class of the reply code, detail unknown. */
static struct str reply_dsn(struct arena *a, const struct reply *r) {
    char class = (char)('0' + r->code / 100);
    if (class != '2' && class != '4' && class != '5')
        class = '5';
    if (r->dsn.n)
        return dsn_with_class(a, r->dsn, class);
    return arena_printf(a, "%c.0.0", class);
}

void session_reply_problem(struct session *s, const struct reply *r, const char *command, struct problem *ret) {
    struct arena *a = s->scratch;
    struct str text = one_line(a, r->text);
    *ret = session_problem(
        s, reply_dsn(a, r),
        arena_printf(a, "host %.*s said: %.*s (in reply to %s)", STR_ARG(s->host), STR_ARG(text), command));
    ret->diagnostic = text;
    if (r->code == 421) { /* RFC 5321, 3.8: the server is about to close */
        s->broken = true;
        ret->session_dead = true;
    }
}

/* smtp_reply_filter, with the line as it is without its end. */
static bool filter_line(struct session *s, struct str *line, struct problem *ret_why) {
    struct str found, table = STR("");
    if (!s->config->reply_filter)
        return true;
    struct str text = str_trim_right(*line);
    switch (maps_get(s->config->reply_filter, text, s->scratch, &found, &table)) {
    case TABLE_FOUND:
        *line = found;
        return true;
    case TABLE_NOT_FOUND:
        return true;
    case TABLE_ERROR:
        break;
    }
    log_warn("%s: table %.*s lookup error for %.*s", s->errand.id, STR_ARG(table),
             STR_ARG(sasl_printable(s->scratch, text, 200)));
    session_data_problem(s, ret_why);
    return false;
}

bool session_reply(struct session *s, const char *doing, int64_t timeout, struct reply *ret, struct problem *ret_why) {
    s->doing = str_c(doing);
    int64_t deadline = deadline_in(timeout);
    io_set_write_deadline(s->io, deadline);
    reply_reset(&s->reader);
    for (;;) {
        struct str line;
        error e = io_line(s->io, LINE_MAX_REPLY, deadline, &line);
        if (e == &err_limit) { /* a line that never ends: what came is enough to go by */
            struct str rest;
            while ((e = io_line(s->io, LINE_MAX_REPLY, deadline, &rest)) == &err_limit)
                ;
            if (!e)
                e = &err_limit;
        }
        if (e) {
            session_io_problem(s, e, ret_why);
            return false;
        }
        log_debug("< %.*s: %.*s", STR_ARG(s->host), STR_ARG(str_trim_right(line)));
        if (!filter_line(s, &line, ret_why))
            return false;
        switch (reply_line(&s->reader, line, ret)) {
        case REPLY_MORE:
            continue;
        case REPLY_DONE:
            return true;
        case REPLY_BAD:
            s->broken = true;
            *ret_why = session_problem(s, STR("4.5.0"),
                                       arena_printf(s->scratch, "Protocol error: host %.*s said: %.*s",
                                                    STR_ARG(s->host), STR_ARG(str_trim(line))));
            ret_why->session_dead = true;
            return false;
        }
    }
}

static bool discarded(const struct session *s, struct str keyword) {
    if (str_starts_icase(keyword, STR("AUTH=")))
        keyword = STR("AUTH");
    struct str list = s->discard, word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        if (str_eq_icase(word, keyword))
            return true;
    return false;
}

/* Which keywords do not count here: those of smtp_discard_ehlo_keyword_address_maps for this server, or of
 * smtp_discard_ehlo_keywords. */
static bool choose_keywords(struct session *s, struct problem *ret_why) {
    static const char *const known[] = {
        "8BITMIME", "AUTH",     "ETRN",     "PIPELINING",          "SIZE", "VERP",     "VRFY",
        "XCLIENT",  "XFORWARD", "STARTTLS", "ENHANCEDSTATUSCODES", "DSN",  "SMTPUTF8", "REQUIRETLS",
        "CHUNKING"
    };
    const struct client_config *c = s->config;
    char ip[INET6_ADDRSTRLEN];
    struct str address = endpoint_address(&s->address, ip);
    struct buf names = { 0 };
    struct str own = STR("");
    enum table_result found =
        c->discard_maps && address.n ? maps_get(c->discard_maps, address, s->arena, &own, NULL) : TABLE_NOT_FOUND;
    s->discard = found == TABLE_FOUND ? own : c->discard_keywords;
    if (found == TABLE_ERROR) {
        log_warn("%s: %s_keyword_address_maps map lookup error for %.*s", s->errand.id,
                 c->lmtp ? "lmtp_discard_lhlo" : "smtp_discard_ehlo", STR_ARG(address));
        session_data_problem(s, ret_why);
        return false;
    }
    for (size_t i = 0; s->discard.n && i < sizeof known / sizeof *known; i++)
        if (discarded(s, str_c(known[i])))
            buf_printf(&names, " %s", known[i]);
    if (names.n && !discarded(s, STR("silent-discard")))
        log_info("discarding EHLO keywords:%.*s", STR_ARG(buf_str(&names)));
    buf_free(&names);
    return true;
}

/* EHLO keywords, one a line (RFC 5321, 4.1.1.1); `text` is "250-HOST\n250-PIPELINING\n..." */
static void read_features(struct session *s, struct str text) {
    static const struct {
        struct str keyword;
        unsigned feature;
    } table[] = { { STR_INIT("8BITMIME"), FEATURE_8BITMIME }, { STR_INIT("PIPELINING"), FEATURE_PIPELINING },
                  { STR_INIT("SIZE"), FEATURE_SIZE },         { STR_INIT("SMTPUTF8"), FEATURE_SMTPUTF8 },
                  { STR_INIT("DSN"), FEATURE_DSN },           { STR_INIT("STARTTLS"), FEATURE_STARTTLS } };
    s->xforward = 0;
    struct str line, word, parameter;
    for (bool first = true; str_next(&text, STR("\n"), &line); first = false) {
        line = str_from(line, 4);
        if (first || !str_word(&line, STR_SPACE, &word) || discarded(s, word) || login_offered(s, word, line))
            continue;
        for (size_t i = 0; i < sizeof table / sizeof *table; i++)
            if (str_eq_icase(word, table[i].keyword))
                s->features |= table[i].feature;
        uint64_t size;
        if (str_eq_icase(word, STR("XFORWARD")))
            xforward_offered(s, line);
        if (str_eq_icase(word, STR("SIZE")) && str_word(&line, STR_SPACE, &parameter) &&
            str_to_u64(parameter, UINT64_MAX, &size))
            s->size_limit = size;
    }
}

/* The first word after the code of a hello reply: who the server says it is. */
static struct str reply_host(struct str text) {
    struct str rest = str_from(text, 4), word = STR("");
    return str_word(&rest, STR_SPACE, &word) ? word : STR("");
}

static void refused(struct session *s, const struct reply *r, struct problem *ret_why) {
    struct str text = one_line(s->scratch, r->text);
    *ret_why = session_problem(
        s, reply_dsn(s->scratch, r),
        arena_printf(s->scratch, "host %.*s refused to talk to me: %.*s", STR_ARG(s->host), STR_ARG(text)));
    ret_why->diagnostic = text;
    ret_why->session_dead = true;
}

static bool hello(struct session *s, const struct destination *d, struct str greeting, struct problem *ret_why) {
    const struct client_config *c = s->config;
    struct reply r;
    struct str name = c->helo_name;
    bool try_ehlo = c->lmtp || s->tls || (!c->never_ehlo && (c->always_ehlo || str_contains(greeting, STR("ESMTP"))));
    buf_clear(&s->auth_offered);
    if (try_ehlo) {
        session_send(s, "%s %.*s", c->lmtp ? "LHLO" : "EHLO", STR_ARG(name));
        if (!session_reply(s, c->lmtp ? "performing the LHLO handshake" : "performing the EHLO handshake",
                           c->helo_timeout, &r, ret_why))
            return false;
        if (r.code / 100 == 2) {
            s->features |= FEATURE_ESMTP;
            read_features(s, r.text);
        } else if (s->tls && !c->lmtp) { /* whoever knows STARTTLS knows EHLO */
            refused(s, &r, ret_why);
            return false;
        } else if (c->lmtp || r.code / 100 != 5) {
            session_reply_problem(s, &r, c->lmtp ? "LHLO command" : "EHLO command", ret_why);
            return false;
        } else {
            try_ehlo = false; /* RFC 5321, 3.2: an old server; say HELO */
        }
    }
    if (!try_ehlo) {
        session_send(s, "HELO %.*s", STR_ARG(name));
        if (!session_reply(s, "performing the HELO handshake", c->helo_timeout, &r, ret_why))
            return false;
        if (r.code / 100 != 2) {
            session_reply_problem(s, &r, "HELO command", ret_why);
            return false;
        }
    }
    /* a server on the mail port that bears our name is ourselves */
    if (!c->lmtp && d->port == 25 && str_eq_icase(reply_host(r.text), c->myhostname)) {
        *ret_why = session_problem(s, STR("5.4.6"),
                                   arena_printf(s->scratch, "mail for %.*s loops back to myself", STR_ARG(d->host)));
        return false;
    }
    return true;
}

static bool greeting(struct session *s, struct str *ret_text, struct problem *ret_why) {
    struct reply r;
    if (!session_reply(s, "receiving the initial server greeting", s->config->helo_timeout, &r, ret_why))
        return false;
    *ret_text = arena_str(s->scratch, r.text);
    if (r.code / 100 == 2)
        return s->greeted = true;
    refused(s, &r, ret_why);
    /* smtp_skip_5xx_greeting: a server that does not want to talk is one that is not there */
    if (s->config->skip_5xx_greeting && r.code / 100 == 5)
        ret_why->dsn = dsn_with_class(s->scratch, ret_why->dsn, '4');
    return false;
}

/* The connection alone. */
static bool connect_to(struct session *s, const struct target *t, bool unix_path, struct problem *ret_why) {
    const struct client_config *c = s->config;
    struct endpoint from, *bind_to = NULL;
    struct str bind_text = t->addr.u.sa.sa_family == AF_INET6 ? c->bind_address6 : c->bind_address;
    *ret_why = (struct problem){ .relay = STR("none"), .remote_mta = STR(""), .diagnostic = STR("") };
    ret_why->session_dead = true;
    if (bind_text.n && !unix_path) {
        if (endpoint_ip(bind_text, 0, &from)) {
            bind_to = &from;
        } else if (c->bind_enforce) {
            ret_why->dsn = STR("4.4.0");
            ret_why->text =
                arena_printf(s->scratch, "server configuration error: bad bind address \"%.*s\"", STR_ARG(bind_text));
            return false;
        } else {
            log_warn("bad bind address \"%.*s\" is ignored: write a numeric address", STR_ARG(bind_text));
        }
    }
    int64_t deadline = c->connect_timeout ? deadline_in(c->connect_timeout) : DEADLINE_NEVER;
    error e = io_connect(&t->addr, bind_to, deadline, &s->io);
    if (!e)
        return true;
    ret_why->dsn = STR("4.4.1");
    struct str why = e == &err_timeout ? STR("Connection timed out") : e->text;
    ret_why->text = arena_printf(s->scratch, "connect to %.*s: %.*s", STR_ARG(s->relay), STR_ARG(why));
    return false;
}

/* From the greeting to where MAIL may be said. */
static bool begin(struct session *s, const struct destination *d, const struct tls_policy *p, struct problem *ret_why) {
    struct str text = STR("");
    bool wrapped = s->config->tls.wrapper && p->level != TLS_LEVEL_NONE;
    if (wrapped && !starttls_wrap(s, p, ret_why))
        return false;
    if (!greeting(s, &text, ret_why) || !choose_keywords(s, ret_why) || !hello(s, d, text, ret_why))
        return false;
    switch (wrapped ? STARTTLS_NONE : starttls_begin(s, p, ret_why)) {
    case STARTTLS_FAILED:
        return false;
    case STARTTLS_DONE:
        return hello(s, d, text, ret_why);
    case STARTTLS_NONE:
        break;
    }
    return true;
}

struct session *session_open(const struct client_config *c, struct arena *scratch, const struct target *t,
                             const struct destination *d, const struct errand *errand, struct problem *ret_why) {
    char ip[INET6_ADDRSTRLEN];
    struct arena *a = arena_new();
    struct session *s = ARENA_NEW(a, struct session);
    s->config = c;
    s->arena = a;
    s->scratch = scratch;
    s->address = t->addr;
    s->connected_us = sys->mono_us();
    s->uses = 1;
    s->errand = *errand;
    struct str name = d->unix_path ? c->myhostname : t->name;
    s->remote_mta = arena_str(a, name);
    s->host =
        arena_printf(a, "%.*s[%.*s]", STR_ARG(name), STR_ARG(d->unix_path ? t->name : endpoint_address(&t->addr, ip)));
    s->relay = d->unix_path ? s->host : arena_printf(a, "%.*s:%u", STR_ARG(s->host), d->port);
    s->tls_key = arena_str(a, errand->tls->key);
    s->tls_may_be_kept = errand->tls->reuse;
    if (!connect_to(s, t, d->unix_path, ret_why)) {
        session_drop(s);
        return NULL;
    }
    bool spoken = begin(s, d, errand->tls, ret_why);
    if (spoken && login_session(s, d, ret_why))
        return s;
    bool ours = str_eq(ret_why->dsn, STR("4.3.0"));
    /* nobody there that speaks */
    if (!spoken && !ours && !ret_why->diagnostic.n && !s->greeted && !s->tls && !ret_why->tls_failed) {
        ret_why->relay = STR("none");
        ret_why->remote_mta = STR("");
    }
    session_close(s);
    return NULL;
}

void session_drop(struct session *s) {
    reply_free(&s->reader);
    buf_free(&s->nexthop);
    buf_free(&s->auth_offered);
    io_close(s->io);
    arena_free(s->arena);
}

void session_close(struct session *s) {
    if (!s->broken) {
        struct reply r;
        struct problem ignored;
        s->scratch = s->arena;
        s->errand = (struct errand){ .id = "NOQUEUE" };
        session_send(s, "QUIT");
        if (s->config->skip_quit_response)
            io_flush(s->io, deadline_in(s->config->quit_timeout));
        else
            session_reply(s, "sending QUIT", s->config->quit_timeout, &r, &ignored);
    }
    session_drop(s);
}
