#include "smtpd/command.h"

#include "smtpd/auth.h"
#include "smtpd/log.h"
#include "smtpd/milter.h"
#include "smtpd/reply.h"
#include "smtpd/restriction.h"
#include "smtpd/starttls.h"
#include "smtpd/xclient.h"

enum { HELO_MAX = 512 /* bytes of a HELO argument that are kept; RFC 5321, 4.5.3.1.2 says 255 for a domain */ };

/* --- HELO, EHLO (RFC 5321, 4.1.1.1) --- */

/* The name goes into headers and logs: what could be mistaken for their syntax is masked. */
struct str helo_clean(struct session *s, struct str args) {
    struct buf b = { 0 };
    buf_printable(&b, args, HELO_MAX);
    for (size_t i = 0; i < b.n; i++)
        if (str_index(STR(" <>()\\\";@"), b.p[i]) >= 0)
            b.p[i] = '?';
    struct str helo = arena_str(session_scratch(s), buf_str(&b));
    buf_free(&b);
    return helo;
}

/* The greeting is checked under its new name; refused, it leaves no name behind (smtpd_helo_required means a good one).
 */
static bool greet(struct session *s, struct str args, bool esmtp) {
    tx_end(s);
    s->helo = helo_clean(s, args);
    s->defer_helo = (struct deferral){ 0 };
    error e = check_helo(s);
    if (e) {
        s->helo = STR("");
        return reply_refusal(s, e);
    }
    if (!milter_helo(s)) {
        s->helo = STR("");
        return false;
    }
    s->helo = arena_str(s->arena, s->helo);
    s->esmtp = esmtp;
    return true;
}

enum { GREETINGS_BYTES_MAX = 16 * 1024 /* of names one session may leave behind in its arena */ };

bool may_greet(struct session *s) {
    if (arena_used(s->arena) < GREETINGS_BYTES_MAX)
        return true;
    s->hang_up = true;
    return reply_fail(s, "421 4.7.0 %.*s Error: too many errors", STR_ARG(s->set->myhostname));
}

static bool command_helo(struct session *s, struct str args) {
    if (args.n == 0)
        return reply_fail(s, "501 Syntax: HELO hostname");
    if (!may_greet(s) || !greet(s, args, false))
        return false;
    return reply_ok(s, "250 %.*s", STR_ARG(s->set->myhostname));
}

static bool command_ehlo(struct session *s, struct str args) {
    if (args.n == 0)
        return reply_fail(s, "501 Syntax: EHLO hostname");
    transcript_flush(s);
    if (!may_greet(s) || !greet(s, args, true))
        return false;
    return ehlo_reply(s);
}

/* --- the small ones --- */
static bool command_rset(struct session *s, struct str args) {
    if (args.n)
        return reply_fail(s, "501 5.5.4 Syntax: RSET");
    tx_end(s);
    transcript_flush(s);
    return reply_ok(s, "250 2.0.0 Ok");
}

static bool command_noop(struct session *s, struct str args) {
    (void)args;
    return reply_ok(s, "250 2.0.0 Ok");
}

static bool command_quit(struct session *s, struct str args) {
    (void)args;
    s->hang_up = s->quit = true;
    return reply_ok(s, "221 2.0.0 Bye");
}

/* In the order of the disconnect line. */
#define COMMAND(name, lower, flags, run)                                                                               \
    { STR_INIT(name), name, lower, flags, run }
const struct command commands[] = {
    COMMAND("HELO", "helo", COMMAND_LAST | COMMAND_JUNK | COMMAND_PRE_TLS, command_helo),
    COMMAND("EHLO", "ehlo", COMMAND_LAST | COMMAND_JUNK | COMMAND_PRE_TLS, command_ehlo),
    COMMAND("XCLIENT", "xclient", COMMAND_LAST | COMMAND_PRE_TLS, command_xclient),
    COMMAND("XFORWARD", "xforward", COMMAND_LAST | COMMAND_PRE_TLS, command_xforward),
    COMMAND("STARTTLS", "starttls", COMMAND_LAST | COMMAND_PRE_TLS, command_starttls),
    COMMAND("AUTH", "auth", COMMAND_LAST, command_auth),
    COMMAND("MAIL", "mail", 0, command_mail),
    COMMAND("RCPT", "rcpt", 0, command_rcpt),
    COMMAND("DATA", "data", COMMAND_LAST, command_data),
    COMMAND("BDAT", "bdat", 0, command_bdat),
    COMMAND("RSET", "rset", COMMAND_JUNK, command_rset),
    COMMAND("NOOP", "noop", COMMAND_LAST | COMMAND_JUNK | COMMAND_PRE_TLS, command_noop),
    COMMAND("VRFY", "vrfy", COMMAND_LAST | COMMAND_JUNK, command_vrfy),
    COMMAND("ETRN", "etrn", COMMAND_LAST | COMMAND_JUNK, command_etrn),
    COMMAND("QUIT", "quit", COMMAND_PRE_TLS, command_quit),
};
const size_t command_count = sizeof commands / sizeof *commands;
_Static_assert(sizeof commands / sizeof *commands <= COMMAND_MAX, "a counter for each command");

const struct command *command_find(struct str name) {
    for (size_t i = 0; i < command_count; i++)
        if (str_eq_icase(name, commands[i].name))
            return &commands[i];
    return NULL;
}
