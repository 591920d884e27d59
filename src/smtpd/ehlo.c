/* The answer to EHLO (RFC 5321, 4.1.1.1) as a table: a row a keyword, in the order the client sees them. */
#include "smtpd/auth.h"
#include "smtpd/command.h"
#include "smtpd/reply.h"

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

static const struct {
    struct str keyword; /* as smtpd_discard_ehlo_keywords names it */
    ehlo_line *line;
} rows[] = {
    { STR_INIT("PIPELINING"), line_pipelining },
    { STR_INIT("SIZE"), line_size },
    { STR_INIT("VRFY"), line_vrfy },
    { STR_INIT("ETRN"), line_etrn },
    { STR_INIT("AUTH"), line_auth },
    { STR_INIT("AUTH"), line_auth_equals },
    { STR_INIT("ENHANCEDSTATUSCODES"), line_enhanced },
    { STR_INIT("8BITMIME"), line_8bit },
};
enum { ROWS = sizeof rows / sizeof *rows };

bool ehlo_keyword_off(const struct session *s, struct str keyword) {
    struct str list = s->set->ehlo_keywords_off, word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        if (str_eq_icase(word, keyword))
            return true;
    return false;
}

bool ehlo_reply(struct session *s) {
    struct str said[ROWS];
    size_t n = 0;
    for (size_t i = 0; i < ROWS; i++) {
        struct str line = ehlo_keyword_off(s, rows[i].keyword) ? STR("") : rows[i].line(s);
        if (line.n)
            said[n++] = line;
    }
    if (n == 0)
        return reply_ok(s, "250 %.*s", STR_ARG(s->set->myhostname));
    reply_part(s, "250-%.*s", STR_ARG(s->set->myhostname));
    for (size_t i = 0; i + 1 < n; i++)
        reply_part(s, "250-%.*s", STR_ARG(said[i]));
    return reply_ok(s, "250 %.*s", STR_ARG(said[n - 1]));
}
