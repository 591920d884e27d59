#include "postscreen/engine.h"

#include "base/log.h"
#include "mail/header.h"

enum {
    HELO_SHOWN_MAX = 255,    /* RFC 5321, 4.5.3.1.2 */
    ADDRESS_SHOWN_MAX = 320, /* 4.5.3.1.1, .2: 64, "@", 255 */
};

struct engine {
    struct client *c;
    struct arena *arena; /* this session's texts */
    struct str helo, sender;
    bool esmtp, mail, tls;
    const char *last; /* the command before, for logs */
    uint32_t commands;
    bool end;
};

/* What postscreen_reject_footer may name; other names stand for nothing. */
static bool footer_name(void *ctx, struct str name, struct expand_value *ret) {
    struct engine *e = ctx;
    const struct client *c = e->c;
    const struct {
        struct str name, value;
    } rows[] = {
        { STR_INIT("client"), c->name },
        { STR_INIT("client_address"), c->address },
        { STR_INIT("client_port"), arena_printf(e->arena, "%u", endpoint_port(&c->peer)) },
        { STR_INIT("localtime"), footer_time(e->arena) },
        { STR_INIT("server_name"), c->set->myhostname },
    };
    *ret = (struct expand_value){ STR(""), true };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (str_eq(name, rows[i].name))
            ret->text = filtered_text(e->arena, c->set->expansion_filter, rows[i].value);
    return true;
}

/* soft_bounce: "550 5.1.1" becomes "450 4.1.1". */
static void soften(const struct settings *set, struct buf *b) {
    if (!set->soft_bounce || b->n < 5 || b->p[0] != '5')
        return;
    b->p[0] = '4';
    if (b->p[4] == '5')
        b->p[4] = '4';
}

static void reply(struct engine *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void reply(struct engine *e, const char *format, ...) {
    struct buf b = { 0 };
    va_list ap;
    va_start(ap, format);
    buf_vprintf(&b, format, ap);
    va_end(ap);
    soften(e->c->set, &b);
    footer_add(&e->c->set->reject_footer, footer_name, e, &b);
    struct str lines = buf_str(&b), line;
    while (str_next(&lines, STR("\n"), &line)) { /* code and a dash where another line follows (RFC 5321, 4.2.1) */
        bool more = lines.n > 0;
        io_write(e->c->io, str_sub(line, 0, 3));
        io_write(e->c->io, more ? STR("-") : str_sub(line, 3, 1));
        io_write(e->c->io, str_from(line, 4));
        io_write(e->c->io, STR("\r\n"));
    }
    buf_free(&b);
}

/* --- commands --- */
static struct str keep(struct engine *e, struct str text, size_t max) {
    struct buf b = { 0 };
    buf_printable(&b, text, max);
    struct str kept = arena_str(e->arena, buf_str(&b));
    buf_free(&b);
    return kept;
}

static void greet(struct engine *e, struct str args, bool esmtp) {
    e->helo = keep(e, args, HELO_SHOWN_MAX);
    e->esmtp = esmtp;
    e->mail = false;
}

static void command_helo(struct engine *e, struct str args) {
    if (args.n == 0) {
        reply(e, "501 Syntax: HELO hostname");
        return;
    }
    greet(e, args, false);
    reply(e, "250 %.*s", STR_ARG(e->c->set->myhostname));
}

static bool keyword_off(struct engine *e, struct str keyword) {
    const struct settings *set = e->c->set;
    struct str list = set->ehlo_keywords_off, word;
    if (!maps_is_empty(set->ehlo_keywords_off_maps) &&
        maps_get(set->ehlo_keywords_off_maps, e->c->address, e->arena, &word, NULL) == TABLE_FOUND)
        list = word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        if (str_eq_icase(word, keyword))
            return true;
    return false;
}

/* PIPELINING is not offered: to see whether the client waits is what we are here for. */
static void command_ehlo(struct engine *e, struct str args) {
    const struct settings *set = e->c->set;
    if (args.n == 0) {
        reply(e, "501 Syntax: EHLO hostname");
        return;
    }
    greet(e, args, true);
    struct str size =
        set->message_size ? arena_printf(e->arena, "SIZE %llu", (unsigned long long)set->message_size) : STR("SIZE");
    const struct {
        struct str keyword, line;
        bool on;
    } rows[] = {
        { STR("SIZE"), size, true },
        { STR("VRFY"), STR("VRFY"), !set->vrfy_off },
        { STR("ETRN"), STR("ETRN"), true },
        { STR("STARTTLS"), STR("STARTTLS"), set->tls && !e->tls },
        { STR("ENHANCEDSTATUSCODES"), STR("ENHANCEDSTATUSCODES"), true },
        { STR("8BITMIME"), STR("8BITMIME"), true },
        { STR("DSN"), STR("DSN"), true },
        { STR("SMTPUTF8"), STR("SMTPUTF8"), set->smtputf8 },
        { STR("CHUNKING"), STR("CHUNKING"), true },
    };
    struct str line = set->myhostname;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].on && !keyword_off(e, rows[i].keyword)) {
            reply(e, "250-%.*s", STR_ARG(line));
            line = rows[i].line;
        }
    reply(e, "250 %.*s", STR_ARG(line));
}

/* What stands between < and >, or the first word. */
static bool path(struct engine *e, struct str args, struct str keyword, struct str *ret) {
    if (!str_starts_icase(args, keyword))
        return false;
    struct str rest = str_trim_left(str_from(args, keyword.n)), word = STR("");
    if (str_starts(rest, STR("<"))) {
        ptrdiff_t end = str_index(rest, '>');
        word = str_sub(rest, 1, end < 0 ? rest.n : (size_t)end - 1);
    } else {
        (void)str_word(&rest, STR_SPACE, &word);
    }
    *ret = keep(e, word, ADDRESS_SHOWN_MAX);
    return true;
}

static void command_mail(struct engine *e, struct str args) {
    struct str sender;
    if (e->c->set->helo_required && e->helo.n == 0)
        reply(e, "503 5.5.1 Error: send HELO/EHLO first");
    else if (e->mail)
        reply(e, "503 5.5.1 Error: nested MAIL command");
    else if (!path(e, args, STR("FROM:"), &sender))
        reply(e, "501 5.5.4 Syntax: MAIL FROM:<address>");
    else {
        e->mail = true;
        e->sender = sender;
        reply(e, "250 2.1.0 Ok");
    }
}

/* The client has gone as far as it will come: what it did not do wrong, it passed. */
static void pass_deep_tests(struct client *c) {
    for (int t = DEEP_TESTS_FIRST; t < TESTS; t++)
        if (c->due >> t & 1 && !(c->failed >> t & 1))
            client_passes(c, (enum test)t, c->set->tests[t].ttl);
}

static void command_rcpt(struct engine *e, struct str args) {
    struct client *c = e->c;
    struct str to;
    if (!e->mail) {
        reply(e, "503 5.5.1 Error: need MAIL command");
        return;
    }
    if (!path(e, args, STR("TO:"), &to)) {
        reply(e, "501 5.5.4 Syntax: RCPT TO:<address>");
        return;
    }
    struct buf refusal = { 0 };
    buf_add(&refusal, c->refusal.n ? c->refusal : STR("450 4.3.2 Service currently unavailable"));
    soften(c->set, &refusal);
    struct str text = arena_str(e->arena, buf_str(&refusal));
    buf_free(&refusal);
    log_info("NOQUEUE: reject: RCPT from %.*s: %.*s; from=<%.*s>, to=<%.*s>, proto=%s, helo=<%.*s>", STR_ARG(c->name),
             STR_ARG(text), STR_ARG(e->sender), STR_ARG(to), e->esmtp ? "ESMTP" : "SMTP", STR_ARG(e->helo));
    reply(e, "%.*s", STR_ARG(text));
    pass_deep_tests(c);
}

static void no_recipients(struct engine *e, const char *command) {
    log_info("%s without valid RCPT from %.*s", command, STR_ARG(e->c->name));
    e->end = true;
}

static void command_data(struct engine *e, struct str args) {
    if (args.n)
        reply(e, "501 5.5.4 Syntax: DATA");
    else if (!e->mail)
        reply(e, "503 5.5.1 Error: need RCPT command");
    else
        reply(e, "554 5.5.1 Error: no valid recipients");
    no_recipients(e, "DATA");
}

static void command_bdat(struct engine *e, struct str args) {
    (void)args;
    reply(e, e->mail ? "554 5.5.1 Error: no valid recipients" : "554 5.5.1 Error: need MAIL command");
    no_recipients(e, "BDAT");
}

static void command_rset(struct engine *e, struct str args) {
    (void)args;
    e->mail = false;
    reply(e, "250 2.0.0 Ok");
}

static void command_noop(struct engine *e, struct str args) {
    (void)args;
    reply(e, "250 2.0.0 Ok");
}

static void command_vrfy(struct engine *e, struct str args) {
    if (e->c->set->vrfy_off)
        reply(e, "502 5.5.1 VRFY command is disabled");
    else if (args.n == 0)
        reply(e, "501 5.5.4 Syntax: VRFY address");
    else
        reply(e, "450 4.3.2 Service currently unavailable");
}

static void command_etrn(struct engine *e, struct str args) {
    reply(e, args.n ? "458 Unable to queue messages" : "500 Syntax: ETRN domain");
}

static int tls_level(struct engine *e) {
    const struct settings *set = e->c->set;
    struct str value;
    if (!maps_is_empty(set->tls_log_levels) &&
        ip_find(set->tls_log_levels, e->c->address, e->arena, &value) == TABLE_FOUND)
        return tls_log_level(value, "postscreen_tls_loglevel_maps");
    return set->tls_log_level;
}

/* What was said in the clear is forgotten (RFC 3207, 4.2). */
static void command_starttls(struct engine *e, struct str args) {
    struct client *c = e->c;
    if (args.n)
        reply(e, "501 5.5.4 Syntax: STARTTLS");
    else if (e->tls)
        reply(e, "554 5.5.1 Error: TLS already active");
    else if (!c->set->tls_on)
        reply(e, "502 5.5.1 Error: command not implemented");
    else if (!c->set->tls)
        reply(e, "454 4.7.0 TLS not available due to local problem");
    else if (io_pending(c->io, true) > 0) { /* not encrypted, and never to be taken for something that was */
        client_drop(c, "554 5.5.0 Error: SMTP protocol synchronization");
    } else {
        struct tls *session;
        int64_t deadline = deadline_in(c->set->starttls_timeout);
        int level = tls_level(e);
        reply(e, "220 2.0.0 Ready to start TLS");
        error why = io_flush(c->io, deadline);
        if (!why)
            why = tls_accept(c->set->tls, c->io, STR(""), c->name, level, deadline, &session);
        if (why) {
            client_hung_up(c, "after");
            return;
        }
        struct tls_facts facts;
        tls_facts(session, e->arena, &facts);
        if (level >= TLS_LOG_SUMMARY)
            tls_log_summary(&facts, c->name);
        e->tls = true;
        e->helo = STR("");
        e->esmtp = e->mail = false;
    }
}

static void command_quit(struct engine *e, struct str args) {
    (void)args;
    reply(e, "221 2.0.0 Bye");
    e->end = true;
}

static const struct command {
    struct str name;
    const char *shown;
    void (*run)(struct engine *e, struct str args);
    bool in_the_clear; /* also where TLS is mandatory (RFC 3207, 4) */
} commands[] = {
    { STR_INIT("HELO"), "HELO", command_helo, false },
    { STR_INIT("EHLO"), "EHLO", command_ehlo, true },
    { STR_INIT("MAIL"), "MAIL", command_mail, false },
    { STR_INIT("RCPT"), "RCPT", command_rcpt, false },
    { STR_INIT("DATA"), "DATA", command_data, false },
    { STR_INIT("BDAT"), "BDAT", command_bdat, false },
    { STR_INIT("RSET"), "RSET", command_rset, false },
    { STR_INIT("NOOP"), "NOOP", command_noop, true },
    { STR_INIT("VRFY"), "VRFY", command_vrfy, false },
    { STR_INIT("ETRN"), "ETRN", command_etrn, false },
    { STR_INIT("STARTTLS"), "STARTTLS", command_starttls, true },
    { STR_INIT("QUIT"), "QUIT", command_quit, true },
};

static const struct command *find(struct str name) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (str_eq_icase(commands[i].name, name))
            return &commands[i];
    return NULL;
}

/* --- how it is spoken --- */
static void too_much(struct engine *e, const char *what) {
    struct client *c = e->c;
    log_info("COMMAND %s LIMIT from %.*s after %s", what, STR_ARG(c->name), e->last);
    client_drop(c, "421 %.*s Service unavailable - try again later", STR_ARG(c->set->myhostname));
}

/* True: the client has been dropped. */
static bool bare_newline(struct engine *e, struct str line) {
    struct client *c = e->c;
    if (!test_is_due(c, TEST_BARE_NEWLINE) || str_ends(line, STR("\r\n")))
        return false;
    log_info("BARE NEWLINE from %.*s after %.*s", STR_ARG(c->name), STR_ARG(client_text(c, str_trim(line))));
    return client_fails(c, TEST_BARE_NEWLINE, NULL, NULL);
}

/* A header, or another protocol's command (RFC 5321 has no colon behind a verb). */
static bool non_smtp(struct engine *e, struct str line, struct str verb) {
    struct client *c = e->c;
    struct str name, value;
    if (!test_is_due(c, TEST_NON_SMTP) || find(verb) ||
        (!header_split(line, &name, &value) && match_find(c->set->forbidden_commands, verb, STR("")) != MATCH_YES))
        return false;
    log_info("NON-SMTP COMMAND from %.*s after %s: %.*s", STR_ARG(c->name), e->last, STR_ARG(client_text(c, line)));
    return client_fails(c, TEST_NON_SMTP, NULL, "5.7.0 Error: I can break rules, too. Goodbye.");
}

static bool pipelining(struct engine *e, const char *command) {
    struct client *c = e->c;
    if (!test_is_due(c, TEST_PIPELINING) || io_pending(c->io, true) == 0)
        return false;
    log_info("COMMAND PIPELINING from %.*s after %s: %.*s", STR_ARG(c->name), command,
             STR_ARG(client_text(c, io_peek(c->io))));
    return client_fails(c, TEST_PIPELINING, NULL, NULL);
}

static struct str filtered(struct engine *e, struct str line) {
    struct str other;
    struct maps *filter = e->c->set->command_filter;
    if (!maps_is_empty(filter) && maps_get(filter, line, e->arena, &other, NULL) == TABLE_FOUND) {
        log_info("%.*s: replacing command \"%.*s\" with \"%.*s\"", STR_ARG(e->c->name),
                 STR_ARG(client_text(e->c, line)), STR_ARG(other));
        return other;
    }
    return line;
}

static void handle(struct engine *e, struct str raw) {
    if (bare_newline(e, raw))
        return;
    struct str line = filtered(e, arena_str(e->arena, str_trim(raw))), rest = line, verb = STR("");
    (void)str_word(&rest, STR_SPACE, &verb);
    if (non_smtp(e, line, verb))
        return;
    const struct command *command = find(verb);
    const char *shown = command ? command->shown : "UNKNOWN";
    if (pipelining(e, shown))
        return;
    if (++e->commands > e->c->set->commands) {
        too_much(e, "COUNT");
        return;
    }
    if (command) {
        e->last = shown;
        if (e->c->set->tls_mandatory && !e->tls && !command->in_the_clear)
            reply(e, "530 5.7.0 Must issue a STARTTLS command first");
        else
            command->run(e, str_trim(rest));
    } else {
        reply(e, line.n ? "502 5.5.2 Error: command not recognized" : "500 5.5.2 Error: bad syntax");
    }
}

static void cannot_read(struct engine *e, error why) {
    struct client *c = e->c;
    if (why->kind == ERR_LIMIT) {
        too_much(e, "LENGTH");
    } else if (why->kind == ERR_TIMEOUT) {
        log_info("COMMAND TIME LIMIT from %.*s after %s", STR_ARG(c->name), e->last);
        client_drop(c, "421 4.4.2 %.*s Error: timeout exceeded", STR_ARG(c->set->myhostname));
    } else {
        client_hung_up(c, "after");
    }
}

void engine_run(struct client *c) {
    struct engine e = { .c = c, .arena = arena_new(), .helo = STR(""), .sender = STR(""), .last = "CONNECT" };
    unsigned due = c->due;
    if (!(c->failed >> TEST_PREGREET & 1)) /* it has spoken already, and hears the answer to that */
        reply(&e, "220 %.*s", STR_ARG(c->set->banner));
    while (!e.end && !c->gone) {
        struct str line;
        io_set_write_deadline(c->io, deadline_in(c->pace.command_time));
        error why = io_line(c->io, c->set->line_length, deadline_in(c->pace.command_time), &line);
        if (why)
            cannot_read(&e, why);
        else
            handle(&e, line);
    }
    if (e.end && !c->failed && due && c->due == 0)
        log_info("PASS NEW %.*s", STR_ARG(c->name));
    if (!c->gone)
        (void)io_flush(c->io, deadline_in(c->pace.command_time));
    c->gone = true;
    arena_free(e.arena);
}
