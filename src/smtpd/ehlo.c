/* The answer to EHLO (RFC 5321, 4.1.1.1) as a table: a row a keyword, in the order the client sees them. */
#include "smtpd/auth.h"
#include "smtpd/command.h"

#include "base/log.h"
#include "smtpd/log.h"
#include "smtpd/milter.h"
#include "smtpd/params.h"
#include "smtpd/reply.h"
#include "smtpd/starttls.h"
#include "smtpd/xclient.h"

/* The line after its code; empty: not offered now. */
typedef struct str ehlo_line(struct session *s);

static struct str line_pipelining(struct session *s) {
    (void)s;
    return STR("PIPELINING");
}
static struct str line_size(struct session *s) {
    if (s->set->message_size == 0)
        return STR("SIZE");
    return arena_printf(session_scratch(s), "SIZE %llu", (unsigned long long)s->set->message_size);
}
static struct str line_vrfy(struct session *s) {
    return s->set->vrfy_off ? STR("") : STR("VRFY");
}
static struct str line_etrn(struct session *s) {
    (void)s;
    return STR("ETRN");
}
static struct str line_starttls(struct session *s) {
    return starttls_offered(s) ? STR("STARTTLS") : STR("");
}
static struct str line_auth(struct session *s) {
    return auth_ehlo_line(s, ' ');
}
static struct str line_auth_equals(struct session *s) {
    return auth_ehlo_line(s, '=');
}
static struct str line_enhanced(struct session *s) {
    (void)s;
    return STR("ENHANCEDSTATUSCODES");
}
static struct str line_8bit(struct session *s) {
    (void)s;
    return STR("8BITMIME");
}

static struct str line_dsn(struct session *s) {
    (void)s;
    return STR("DSN");
}
static struct str line_smtputf8(struct session *s) {
    return s->set->smtputf8 ? STR("SMTPUTF8") : STR("");
}
/* Over plain text it would be a promise to nobody (RFC 8689, 2). */
static struct str line_requiretls(struct session *s) {
    return s->set->requiretls && s->tls.active ? STR("REQUIRETLS") : STR("");
}
static struct str line_chunking(struct session *s) {
    (void)s;
    return STR("CHUNKING");
}

static const struct {
    struct str keyword; /* as smtpd_discard_ehlo_keywords names it */
    ehlo_line *line;
} rows[] = {
    { STR_INIT("PIPELINING"), line_pipelining },
    { STR_INIT("SIZE"), line_size },
    { STR_INIT("VRFY"), line_vrfy },
    { STR_INIT("ETRN"), line_etrn },
    { STR_INIT("STARTTLS"), line_starttls },
    { STR_INIT("AUTH"), line_auth },
    { STR_INIT("AUTH"), line_auth_equals },
    { STR_INIT("VERP"), xverp_ehlo_line },
    { STR_INIT("XCLIENT"), xclient_ehlo_line },
    { STR_INIT("XFORWARD"), xforward_ehlo_line },
    { STR_INIT("ENHANCEDSTATUSCODES"), line_enhanced },
    { STR_INIT("8BITMIME"), line_8bit },
    { STR_INIT("DSN"), line_dsn },
    { STR_INIT("SMTPUTF8"), line_smtputf8 },
    { STR_INIT("REQUIRETLS"), line_requiretls },
    { STR_INIT("CHUNKING"), line_chunking },
};
enum { ROWS = sizeof rows / sizeof *rows };

/* What the log says of keywords that are not offered, in its order. */
static const struct str discardable[] = {
    STR_INIT("8BITMIME"),
    STR_INIT("AUTH"),
    STR_INIT("ETRN"),
    STR_INIT("PIPELINING"),
    STR_INIT("SIZE"),
    STR_INIT("VERP"),
    STR_INIT("VRFY"),
    STR_INIT("XCLIENT"),
    STR_INIT("XFORWARD"),
    STR_INIT("STARTTLS"),
    STR_INIT("ENHANCEDSTATUSCODES"),
    STR_INIT("DSN"),
    STR_INIT("SMTPUTF8"),
    STR_INIT("REQUIRETLS"),
    STR_INIT("CHUNKING"),
};

/* smtpd_discard_ehlo_keyword_address_maps has its own list for some clients; looked up once a session. */
static struct str keywords_off(struct session *s) {
    if (s->ehlo_off_known)
        return s->ehlo_off;
    s->ehlo_off = s->set->ehlo_keywords_off;
    s->ehlo_off_known = true;
    struct str found;
    if (maps_is_empty(s->set->ehlo_keyword_maps))
        return s->ehlo_off;
    switch (maps_get(s->set->ehlo_keyword_maps, s->address, s->arena, &found, NULL)) {
    case TABLE_FOUND:
        s->ehlo_off = found;
        break;
    case TABLE_ERROR:
        s->ehlo_off_failed = true;
        log_lookup_error(STR("smtpd_discard_ehlo_keyword_address_maps"), s->address);
        break;
    case TABLE_NOT_FOUND:
        break;
    }
    return s->ehlo_off;
}

bool ehlo_keyword_off(struct session *s, struct str keyword) {
    struct str list = keywords_off(s), word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        if (str_eq_icase(word, keyword))
            return true;
    return false;
}

static void log_discarded(struct session *s) {
    if (keywords_off(s).n == 0 || ehlo_keyword_off(s, STR("silent-discard")))
        return;
    struct buf b = { 0 };
    for (size_t i = 0; i < sizeof discardable / sizeof *discardable; i++)
        if (ehlo_keyword_off(s, discardable[i]))
            buf_printf(&b, " %.*s", STR_ARG(discardable[i]));
    if (b.n)
        log_info("discarding EHLO keywords:%.*s", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

bool ehlo_reply(struct session *s) {
    struct str said[ROWS];
    size_t n = 0;
    if (milter_refuses_client(s)) { /* nothing of what is offered would be of use */
        reply_part(s, "250-%.*s", STR_ARG(s->set->myhostname));
        return reply_ok(s, "250 ENHANCEDSTATUSCODES");
    }
    (void)keywords_off(s);
    if (s->ehlo_off_failed) {
        log_local_data_error(s);
        return reply_error(s, ERROR_DATA, "421 4.3.0 %.*s Server local data error", STR_ARG(s->set->myhostname));
    }
    for (size_t i = 0; i < ROWS; i++) {
        struct str line = ehlo_keyword_off(s, rows[i].keyword) ? STR("") : rows[i].line(s);
        if (line.n)
            said[n++] = line;
    }
    if (n == 0)
        return reply_ok(s, "250 %.*s", STR_ARG(s->set->myhostname));
    log_discarded(s);
    reply_part(s, "250-%.*s", STR_ARG(s->set->myhostname));
    for (size_t i = 0; i + 1 < n; i++)
        reply_part(s, "250-%.*s", STR_ARG(said[i]));
    return reply_ok(s, "250 %.*s", STR_ARG(said[n - 1]));
}
