#include "smtpd/session.h"

#include "base/log.h"
#include "base/utf8.h"
#include "mail/header.h"
#include "smtpd/clients.h"
#include "smtpd/command.h"
#include "smtpd/dnsbl.h"
#include "smtpd/log.h"
#include "smtpd/milter.h"
#include "smtpd/policy.h"
#include "smtpd/proxy.h"
#include "smtpd/rates.h"
#include "smtpd/reply.h"
#include "smtpd/restriction.h"
#include "smtpd/starttls.h"
#include "smtpd/xclient.h"

enum {
    PROXY_SHOWN = 200,         /* bytes of what came instead of a PROXY header that are logged */
    LINE_SKIP_MAX = 64 * 1024, /* bytes of a too long command that are read before we hang up */
};

/* --- lifetimes --- */
void session_init(struct session *s, const struct settings *set, const struct backend *back, struct io *io,
                  const bool *draining) {
    *s = (struct session){ .set = set,
                           .back = back,
                           .draining = draining,
                           .io = io,
                           .arena = arena_new(),
                           .stage = "CONNECT",
                           .helo = STR(""),
                           .check_recipient = STR("") };
}

void session_free(struct session *s) {
    tx_end(s);
    milter_end(s);
    dns_cache_free(s->dns_cache);
    transcript_free(s->transcript);
    arena_free(s->scratch);
    arena_free(s->arena);
    s->scratch = s->arena = NULL;
}

void tx_end(struct session *s) {
    struct tx *tx = s->tx;
    s->tx = NULL;
    s->bdat = BDAT_NONE;
    xforward_reset(s);
    if (!tx)
        return;
    milter_tx_end(s);
    s->login.sender = STR("");
    bdat_free(tx->bdat);
    if (tx->message)
        s->back->submit_abort(tx->message);
    proxy_free(tx->proxy);
    if (tx->has_policy_links)
        policy_tx_end(s->set, tx);
    arena_free(tx->arena);
}

struct arena *session_scratch(struct session *s) {
    if (!s->scratch)
        s->scratch = arena_new();
    return s->scratch;
}

static void scratch_end(struct session *s) {
    arena_free(s->scratch);
    s->scratch = NULL;
}

struct str session_queue_id(const struct session *s) {
    return s->tx && s->tx->id.text[0] ? queue_id_str(&s->tx->id) : STR("NOQUEUE");
}

int64_t session_deadline(const struct session *s) {
    return deadline_in(s->set->timeout);
}

const char *session_protocol(const struct session *s) {
    return s->esmtp ? "ESMTP" : "SMTP";
}

const char *session_received_with(const struct session *s) {
    static const char *const utf8[2][2] = { { "UTF8SMTP", "UTF8SMTPA" }, { "UTF8SMTPS", "UTF8SMTPSA" } };
    if (s->tx && (s->tx->envelope_flags & ENVELOPE_SMTPUTF8))
        return utf8[s->tls.active][s->login.username.n > 0];
    if (!s->esmtp)
        return "SMTP";
    if (s->tls.active)
        return s->login.username.n ? "ESMTPSA" : "ESMTPS";
    return s->login.username.n ? "ESMTPA" : "ESMTP";
}

void session_broken(struct session *s, error e) {
    if (s->end == END_OPEN)
        s->end = e->kind == ERR_TIMEOUT ? END_TIMEOUT : END_LOST;
}

/* --- the client --- */
static void set_log_name(struct session *s) {
    s->log_name = arena_printf(s->arena, "%.*s[%.*s]", STR_ARG(s->name), STR_ARG(s->address));
    if (s->set->port_logging)
        s->log_name =
            arena_printf(s->arena, "%.*s:%.*s", STR_ARG(s->log_name), STR_ARG(s->port.n ? s->port : STR("unknown")));
}

static void set_exclusions(struct session *s) {
    s->debug = s->set->debug_peers && match_find(s->set->debug_peers, s->name, s->address) == MATCH_YES;
    s->bare_newline_excluded = s->set->bare_newline != BARE_ALLOW &&
                               match_find(s->set->bare_newline_exclusions, s->name, s->address) == MATCH_YES;
}

static void local_client(struct session *s) {
    s->trusted = true;
    s->name = s->reverse_name = STR("localhost");
    s->address = STR("127.0.0.1");
    s->port = STR("");
    set_log_name(s);
}

static void network_client(struct session *s, const struct session_client *from) {
    const struct endpoint *client = &from->address;
    char text[INET6_ADDRSTRLEN];
    s->address = arena_str(s->arena, endpoint_address(client, text));
    s->port = arena_printf(s->arena, "%u", endpoint_port(client));
    if (from->local.len) {
        s->server_address = arena_str(s->arena, endpoint_address(&from->local, text));
        s->server_port = arena_printf(s->arena, "%u", endpoint_port(&from->local));
    }
    struct dns_client names = {
        .name = STR("unknown"), .reverse_name = STR("unknown"), .name_status = DNS_RETRY, .reverse_status = DNS_RETRY
    };
    struct arena *a = session_scratch(s);
    if (s->set->peername_lookup)
        s->back->client_name(s->back->ctx, a, client, &names);
    s->name = arena_str(s->arena, names.name);
    s->reverse_name = arena_str(s->arena, names.reverse_name);
    s->name_status = names.name_status;
    s->reverse_status = names.reverse_status;
    set_log_name(s);
    if (names.mismatch)
        log_name_mismatch(s, s->reverse_name,
                          names.forward_status == DNS_OK ? "" : arena_cstr(a, dns_status_text(names.forward_status)));
    scratch_end(s);
    set_exclusions(s);
}

void session_client_changed(struct session *s) {
    s->denied = false;
    s->defer_client = s->defer_helo = (struct deferral){ 0 };
    set_log_name(s);
    set_exclusions(s);
}

/* --- pipelining --- */

/* Input that came before it was allowed (RFC 2920, 3.1): behind HELO, DATA and their like, before the greeting, or at
 * all when the client never asked for PIPELINING. True: that was forbidden, and the client has been told. */
static bool spoke_too_soon(struct session *s) {
    if (s->trusted) /* `sendmail -bs < commands`: there is nobody to keep in step with */
        return false;
    if (!s->pipelined && io_pending(s->io, true) > 0) {
        s->pipelined = true;
        log_pipelining(s, io_peek(s->io));
    }
    if (!s->pipelined || !s->set->unauth_pipelining_off)
        return false;
    reply_error(s, ERROR_NONE, "554 5.5.0 Error: SMTP protocol synchronization");
    s->hang_up = true;
    return true;
}

/* --- reading commands --- */

/* `*ret_last` is the end of the line. */
static bool skip_line(struct session *s, int64_t deadline, struct str *ret_last) {
    size_t skipped = 0;
    for (;;) {
        error e = io_line(s->io, IO_READ_SIZE, deadline, ret_last);
        if (!e)
            return true;
        if (e->kind != ERR_LIMIT) {
            session_broken(s, e);
            return false;
        }
        skipped += ret_last->n;
        if (skipped > LINE_SKIP_MAX) {
            s->hang_up = true;
            return reply_fail(s, "500 5.5.2 %.*s Error: command too long", STR_ARG(s->set->myhostname));
        }
    }
}

bool session_skip_line(struct session *s, int64_t deadline) {
    struct str last;
    return skip_line(s, deadline, &last);
}

/* One command line without its end, in the scratch arena. */
static bool read_command(struct session *s, struct str *ret) {
    int64_t deadline = session_deadline(s);
    struct str line, end;
    error e = io_line(s->io, s->set->line_length, deadline, &line);
    if (e && e->kind != ERR_LIMIT) {
        session_broken(s, e);
        return false;
    }
    *ret = arena_str(session_scratch(s), line);
    if (str_starts_icase(line, STR("AUTH "))) /* command_auth() ends it */
        io_secret(s->io, true);
    end = line;
    s->command_cut = e != NULL;
    if (e) {
        log_line_too_long(s, *ret);
        if (!skip_line(s, deadline, &end))
            return false;
    }
    s->command_bare_newline = !str_ends(end, STR("\r\n"));
    *ret = str_trim(*ret);
    s->after_auth = strcmp(s->stage, "AUTH") == 0 && s->login.username.n == 0;
    bool secret = s->after_auth || str_starts_icase(line, STR("AUTH "));
    struct str shown = secret ? STR("(not shown: it may be a password)") : *ret;
    log_conversation(s, '<', shown);
    transcript_add(s, '<', shown);
    return true;
}

/* A command that ended in a bare LF, where that is not wanted. True: it was refused. */
static bool refuse_bare_newline(struct session *s) {
    if (!s->command_bare_newline || s->bare_newline_excluded || s->set->bare_newline == BARE_ALLOW)
        return false;
    s->bare_newline_seen = true;
    if (s->set->bare_newline != BARE_REJECT)
        return false;
    log_refusal(s, "reject", STR("bare <LF> received"));
    reply_fail(s, "%d 5.5.2 %.*s Error: bare <LF> received", s->set->bare_newline_code, STR_ARG(s->set->myhostname));
    return true;
}

/* Lists of exceptions: where a table fails, which match.c logs, nothing is excepted. For smtpd_forbidden_commands,
 * which only unknown commands are looked up in, that is a 500 in place of the end. */
static bool in_list(struct match *list, struct str verb) {
    return match_find(list, verb, STR("")) == MATCH_YES;
}

static void count_junk(struct session *s) {
    if (s->junk++ > s->set->junk_commands)
        s->errors++;
}

/* Not a command of ours: a header, or an HTTP request, is somebody else's protocol. */
static void unknown_command(struct session *s, struct str line, struct str verb) {
    struct str name, value;
    s->stage = "UNKNOWN";
    if (!s->esmtp && spoke_too_soon(s))
        return;
    if (header_split(line, &name, &value) || in_list(s->set->forbidden_commands, verb)) {
        log_not_smtp(s, line);
        reply_error(s, ERROR_NONE, "221 2.7.0 Error: I can break rules, too. Goodbye.");
        s->hang_up = true;
        return;
    }
    (void)milter_unknown(s, line, STR("500 5.5.2 Error: command not recognized"));
}

static bool malformed(struct session *s, const char *reply) {
    s->unknown.total++;
    reply_fail(s, "%s", reply);
    return false;
}

static bool well_formed(struct session *s, struct str line) {
    if (line.n == 0 || memchr(line.p, 0, line.n))
        return malformed(s, "500 5.5.2 Error: bad syntax");
    if (s->set->smtputf8 && !utf8_valid(line))
        return malformed(s, "500 5.5.2 Error: bad UTF-8 syntax");
    return true;
}

static void run_command(struct session *s, const struct command *c, struct str args) {
    struct command_count *count = &s->count[c - commands];
    s->stage = c->stage;
    count->total++;
    if ((!s->esmtp || (c->flags & COMMAND_LAST)) && spoke_too_soon(s))
        return;
    if (s->denied && !str_eq(c->name, STR("QUIT"))) {
        reply_error(s, ERROR_POLICY, "503 5.7.0 Error: access denied for %.*s", STR_ARG(s->log_name));
        return;
    }
    if (!(c->flags & COMMAND_PRE_TLS) && starttls_missing(s)) {
        reply_error(s, ERROR_NONE, "530 5.7.0 Must issue a STARTTLS command first");
        return;
    }
    if (c->flags & COMMAND_JUNK)
        count_junk(s);
    count->ok += c->run(s, args);
}

/* smtpd_command_filter. False: a table failed, and the session ends. */
static bool filter_command(struct session *s, struct str *line) {
    struct str found;
    if (!s->set->command_filter)
        return true;
    switch (maps_get(s->set->command_filter, *line, session_scratch(s), &found, NULL)) {
    case TABLE_FOUND:
        log_replaced_command(s, *line, found);
        *line = found;
        return true;
    case TABLE_NOT_FOUND:
        return true;
    case TABLE_ERROR:
        break;
    }
    log_lookup_error(STR("smtpd_command_filter"), *line);
    log_local_data_error(s);
    return reply_error(s, ERROR_DATA, "421 4.3.0 %.*s Server local data error", STR_ARG(s->set->myhostname));
}

static void handle_line(struct session *s, struct str line) {
    if (refuse_bare_newline(s) || !filter_command(s, &line) || !well_formed(s, line))
        return;
    s->line = line;
    struct str rest = line, verb = STR("");
    (void)str_word(&rest, STR_SPACE, &verb);
    rest = str_trim(rest);
    if (in_list(s->set->noop_commands, verb)) {
        count_junk(s);
        reply_ok(s, "250 2.0.0 Ok");
        return;
    }
    const struct command *c = command_find(verb);
    if (c) {
        run_command(s, c, rest);
        return;
    }
    s->unknown.total++;
    unknown_command(s, line, verb);
}

/* --- the session --- */

/* Does the client have too many sessions already? */
static bool too_many_sessions(struct session *s, uint32_t sessions) {
    if (s->set->client_connections == 0 || sessions <= s->set->client_connections ||
        match_find(s->set->limit_exceptions, s->name, s->address) == MATCH_YES)
        return false;
    log_concurrency(s, sessions);
    reply_error(s, ERROR_NONE, "421 4.7.0 %.*s Error: too many connections from %.*s", STR_ARG(s->set->myhostname),
                STR_ARG(s->log_name));
    return true;
}

bool session_greet(struct session *s) {
    milter_end(s); /* what was told of the client before (XCLIENT) counts no more */
    if (!milter_connect(s))
        return false;
    error e = check_client(s);
    if (e) {
        s->denied = true;
        return reply_refusal(s, e);
    }
    return reply_ok(s, "220 %.*s", STR_ARG(s->set->banner));
}

static void greeting(struct session *s) {
    if (!spoke_too_soon(s))
        (void)session_greet(s);
}

/* The proxy in front of us has not said who the client is: nobody can be served. */
static void proxy_failed(struct session *s, const char *fault, struct str seen) {
    log_haproxy(s, fault, seen);
    reply_error(s, ERROR_NONE, "421 4.3.0 %.*s Server local error", STR_ARG(s->set->myhostname));
    s->hang_up = true;
}

/* The process wants to end: nothing new is begun. True: the client has been told. */
static bool closing_down(struct session *s, struct str line) {
    if (!s->draining || !*s->draining || s->tx || str_starts_icase(line, STR("QUIT")))
        return false;
    reply_error(s, ERROR_NONE, "421 4.3.2 %.*s Service shutting down, closing transmission channel",
                STR_ARG(s->set->myhostname));
    return true;
}

/* What is left to say. */
static error flush_rest(struct session *s) {
    bool closed_at_once = s->quit && !starttls_waits_at_end(s) && io_pending(s->io, false) == 0;
    return (closed_at_once ? io_flush_last : io_flush)(s->io, session_deadline(s));
}

static void command_loop(struct session *s) {
    while (!s->hang_up && s->end == END_OPEN) {
        if (s->errors >= s->set->hard_errors) {
            reply_ok(s, "421 4.7.0 %.*s Error: too many errors", STR_ARG(s->set->myhostname));
            s->end = END_ERRORS;
            break;
        }
        struct str line;
        if (read_command(s, &line) && !closing_down(s, line))
            handle_line(s, line);
        scratch_end(s);
    }
    if (s->end == END_TIMEOUT) {
        /* where the time ran out may be in the middle of content: END_TIMEOUT is logged with that stage */
        reply_part(s, "421 4.4.2 %.*s Error: timeout exceeded", STR_ARG(s->set->myhostname));
    }
    if (s->end != END_LOST && s->end != END_HANGUP && flush_rest(s) && s->end == END_OPEN && !s->hang_up)
        s->end = END_LOST;
}

void session_run(struct session *s, const struct session_client *connected) {
    uint32_t sessions = 0;
    struct client_count *counted = NULL;
    struct session_client behind = *connected, *client = &behind;
    const char *fault = NULL;
    struct str seen = STR("");
    if (s->set->front.haproxy && client->address.len)
        fault = haproxy_front(s, client, &seen);
    if (fault)
        seen = arena_str(s->arena, str_sub(seen, 0, PROXY_SHOWN));
    if (client->address.len == 0 ||
        (client->address.u.sa.sa_family != AF_INET && client->address.u.sa.sa_family != AF_INET6)) {
        local_client(s);
    } else {
        if (s->clients)
            counted = client_enter(s->clients, &client->address, s->set->ipv4_block, s->set->ipv6_block, &sessions);
        network_client(s, client);
    }
    s->client_sessions = sessions;
    log_connect(s);
    rates_begin(s);
    if (fault)
        proxy_failed(s, fault, seen);
    else if (!s->set->tls.wrapper || starttls_wrap(s))
        if (!too_many_sessions(s, sessions) && rates_connect(s))
            greeting(s);
    scratch_end(s);
    command_loop(s);
    starttls_end(s);
    log_session_end(s);
    transcript_send(s);
    log_disconnect(s);
    rates_disconnect(s);
    if (counted)
        client_leave(s->clients, counted);
}
