/* session.h - one SMTP client from connect to disconnect (RFC 5321).
 *
 * A session runs in a coroutine of its own over a struct io. Whatever it needs from other processes goes through
 * struct backend, so that tests run whole sessions against scripted peers. Lifetimes: `struct session` lasts for the
 * connection, `struct tx` from MAIL to the end of DATA (tx_end() is the one place where it ends), the scratch arena for
 * one command. */
#ifndef ANGARIUM_SMTPD_SESSION_H
#define ANGARIUM_SMTPD_SESSION_H

#include "dns/dns.h"
#include "mail/envelope.h"
#include "proto/anvil.h"
#include "proto/flush.h"
#include "proto/submit.h"
#include "proto/verify.h"
#include "route/route.h"
#include "smtpd/settings.h"
#include "smtpd/transcript.h"
#include "tls/tls.h"

struct bdat;            /* bdat.c */
struct clients;         /* clients.h */
struct dial_target;     /* service/dial.h */
struct dns_cache;       /* dnsbl.h */
struct proxy;           /* proxy.h */
struct sasl_server;     /* sasl/server.h */
struct session_milters; /* milter.c */
struct submission;      /* one message on its way to cleanup; the backend's own */

struct backend {
    void *ctx;
    /* The names of a client. Never fails otherwise than by what `ret` says. */
    void (*client_name)(void *ctx, struct arena *a, const struct endpoint *client, struct dns_client *ret);
    /* As dns_query() and dns_addresses() with the hosts file; when they must answer is the back end's business. */
    void (*dns_query)(void *ctx, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret);
    void (*dns_addresses)(void *ctx, struct arena *a, struct str host, struct dns_answer *ret);
    /* As route_check(); the outer error is the connection's. */
    error (*check_address)(void *ctx, struct arena *a, const struct route_question *q, struct route_check *ret);
    /* Begin a message. NULL error with ret->status not SUBMIT_OK: refused, and there is no submission. */
    error (*submit_open)(void *ctx, struct arena *a, unsigned flags, struct submission **ret, struct queue_id *ret_id,
                         struct submit_result *ret_refused);
    /* A failure of these is kept: submit_end() has it, too. */
    error (*submit_envelope)(struct submission *m, const struct envelope *e);
    error (*submit_rcpt)(struct submission *m, const struct rcpt *r);
    error (*submit_content)(struct submission *m, struct str bytes);
    error (*submit_action)(struct submission *m, enum submit_action action, struct str value);
    error (*submit_milters)(struct submission *m, struct str packed, const int *fds, size_t n);
    /* The submission is gone after either of these; texts of `ret` are in `a`. */
    error (*submit_end)(struct submission *m, struct arena *a, struct submit_result *ret);
    void (*submit_abort)(struct submission *m); /* cleanup keeps nothing */
    /* What is known of an address now (proto/verify.h). */
    error (*verify)(void *ctx, struct arena *a, struct str address, struct verify_answer *ret);
    /* A connection to a server that main.cf names, as dial(). */
    error (*dial)(void *ctx, const struct dial_target *t, int64_t deadline, struct io **ret);
    /* A file without a name, for reading and writing; as service_scratch_file(). */
    error (*scratch_file)(void *ctx, int64_t deadline, int *ret_fd);
    /* Give `server` the keys of session tickets, when it needs new ones; NULL: there are none to be had. */
    void (*ticket_keys)(void *ctx, struct tls_server *server);
    /* Something a client did (proto/anvil.h). `ret` NULL: it is only noted, which neither waits nor fails. The member
     * is NULL where there is no anvil. */
    error (*anvil)(void *ctx, enum anvil_event event, struct str ident, int64_t deadline, struct anvil_answer *ret);
    /* As in proto/flush.h. */
    error (*flush_site)(void *ctx, struct str site, enum flush_status *ret);
    /* As rewrite_resolve(): where mail for an address goes. */
    error (*resolve)(void *ctx, struct arena *a, struct str address, struct route *ret, error *ret_route_error);
    struct sasl_server *sasl; /* who knows the passwords; NULL: nobody logs in here */
};

/* What a check wants to happen later: smtpd(8) defer_if_permit, defer_if_reject. */
struct deferral {
    bool active;
    int code;
    struct str dsn, text;
};

/* What access tables want done with the message (access(5)). */
struct tx_actions {
    bool hold, discard;
    struct str filter, redirect;  /* empty: none */
    VEC(struct str) bcc, prepend; /* addresses; header fields without LF */
};

/* MAIL .. end of DATA */
struct tx {
    struct arena *arena;
    struct str sender;       /* internal form; empty: <> */
    uint64_t declared_size;  /* SIZE=; 0: not given */
    unsigned envelope_flags; /* enum envelope_flags: ENVELOPE_8BIT, ENVELOPE_SMTPUTF8 */
    struct str dsn_envid;    /* decoded ENVID= (RFC 3461, 4.4) */
    unsigned dsn_ret;        /* enum dsn_ret, or 0 */
    struct str verp;         /* delimiters (mail/verp.h), or empty */
    uint32_t rcpts, overshoot;
    struct str first_rcpt; /* internal form */
    struct queue_id id;    /* while `message` is there */
    struct submission *message;
    struct proxy *proxy;  /* in its place: the content filter; NULL: none, or not yet */
    struct str mail_line; /* for it: the command MAIL */
    uint64_t received;    /* content bytes, lines counted with CRLF */
    int64_t arrival_us;
    struct deferral defer_if_permit; /* from MAIL's restrictions, when they ran at MAIL */
    struct tx_actions actions;
    struct bdat *bdat;     /* content that comes in chunks; NULL: none yet */
    struct str instance;   /* of policy requests; empty: none yet */
    bool has_policy_links; /* connections are set aside for it */
};

/* Who has logged in (auth.c); empty: nobody. */
struct session_login {
    struct str method, username;
    struct str sender; /* AUTH= of MAIL (RFC 4954, 5); of this transaction only */
};

/* Where BDAT stands (bdat.c): between two chunks no other content is taken, and after one that was refused neither are
 * the chunks behind it, up to LAST. Without a transaction it can only have failed. */
enum bdat_state { BDAT_NONE, BDAT_TAKING, BDAT_FAILED };

enum { COMMAND_MAX = 18 /* rows of the command table, at most */ };
struct command_count {
    uint32_t ok, total;
};

enum session_end {           /* why the loop ended; decides the closing log line */
                   END_OPEN, /* it has not */
                   END_QUIT, /* also every ending that was logged by itself */
                   END_LOST,
                   END_TIMEOUT,
                   END_ERRORS,
                   END_HANGUP, /* by an access table: what was not sent stays unsent */
};

struct session {
    const struct settings *set;
    const struct backend *back;
    const bool *draining;
    struct clients *clients; /* who else is connected; NULL: nobody counts */
    struct io *io;

    /* the client */
    struct arena *arena; /* names, HELO */
    struct str name, reverse_name, address, port;
    struct str log_name; /* NAME[ADDR], or NAME[ADDR]:PORT */
    enum dns_status name_status, reverse_status;
    bool trusted; /* standard input: sendmail -bs; no access checks */
    bool bare_newline_excluded;
    bool debug;                  /* debug_peer_list: what is said is logged */
    struct dns_cache *dns_cache; /* what DNS lists have said; NULL: not asked yet */

    struct str server_address, server_port; /* where the client came in; empty: standard input */

    struct tls_facts tls;    /* all zero and empty without TLS */
    struct tls *tls_session; /* the io's; NULL: none */
    struct session_login login;
    struct str instance; /* of policy requests without a transaction; empty: none yet */
    /* XFORWARD (xclient.c): what stands in log lines and filters in place of the client's own; empty: its own. `helo`,
     * `protocol` and `ident` as in mail/envelope.h. */
    struct client_info forward;
    bool forward_client; /* it names another client; else only `ident` may be there */
    enum { FORWARD_UNKNOWN, FORWARD_LOCAL, FORWARD_REMOTE } forward_source;
    struct arena *forward_arena; /* of these; NULL: none */

    struct str rate_ident;                /* its name at anvil; empty: it is not counted (rates.c) */
    struct str ehlo_off;                  /* smtpd_discard_ehlo_keywords for this client, when it is known (ehlo.c) */
    bool ehlo_off_known, ehlo_off_failed; /* failed: its table cannot be asked */

    struct str helo; /* empty: none yet */
    bool esmtp;
    struct deferral defer_client, defer_helo; /* when their restrictions ran before RCPT */
    bool denied;                              /* refused at connect: only QUIT is of use */

    struct session_milters *milters; /* NULL: there are none */
    uint32_t client_sessions;        /* of this client, at its beginning; 0: not counted */

    struct tx *tx;
    enum bdat_state bdat;
    uint64_t bdat_skipped; /* bytes of refused chunks, of the whole session */
    struct arena *scratch; /* this command's */

    struct str line;            /* the command that is run, without its end; in the scratch arena */
    const char *stage;          /* "CONNECT", "MAIL", ...: the last command, for logs */
    struct str check_recipient; /* while a recipient is looked at */

    uint32_t errors, junk;
    unsigned error_classes;        /* enum error_class: of these there were some */
    struct transcript *transcript; /* NULL: nothing is kept, or was said yet */
    struct command_count count[COMMAND_MAX];
    struct command_count unknown;
    bool pipelined; /* improper pipelining was seen */
    bool hang_up;   /* the last reply ends the session */
    bool quit;      /* because the client has said QUIT: nothing follows from it */
    bool bare_newline_seen;
    bool command_bare_newline; /* the line just read ended in a bare LF */
    bool command_cut;          /* it was longer than we look at */
    bool after_auth;           /* the command before it was AUTH, and failed: it may hold a password */
    enum session_end end;
};

struct session_client {      /* who is connected, as the service found out */
    struct endpoint address; /* len 0: standard input */
    struct endpoint local;   /* our end; len 0: not known */
};

/* The whole session; returns when the connection may be closed. */
void session_run(struct session *s, const struct session_client *client);
/* A session ready to run; fields not named are zero. session_free() also ends what is still open. */
void session_init(struct session *s, const struct settings *set, const struct backend *back, struct io *io,
                  const bool *draining);
void session_free(struct session *s);

void bdat_free(struct bdat *b); /* what tx->arena does not hold of it */
/* End the transaction, good or bad; without one it does nothing. */
void tx_end(struct session *s);
/* Memory that lives until the command is done. */
struct arena *session_scratch(struct session *s);
struct str session_queue_id(const struct session *s);  /* or "NOQUEUE" */
int64_t session_deadline(const struct session *s);     /* smtpd_timeout from now */
const char *session_protocol(const struct session *s); /* "SMTP", "ESMTP": proto= in logs, policy servers, filters */
/* With S for TLS and A for a login behind it (RFC 3848), UTF8SMTP for SMTPUTF8 mail (RFC 6531, 4.3): Received: */
const char *session_received_with(const struct session *s);
/* Read on to the end of a line that was too long. False: too long for that too, or gone. */
bool session_skip_line(struct session *s, int64_t deadline);
/* Another client than before (XCLIENT): what follows from its name and address. */
void session_client_changed(struct session *s);
/* 220, or the refusal of a client that may not come in. */
bool session_greet(struct session *s);
/* The read or write failed: sets how the session ends. */
void session_broken(struct session *s, error e);
#endif
