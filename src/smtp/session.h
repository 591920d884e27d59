/* session.h - one connection to a server (RFC 5321; LMTP: RFC 2033), for one message or for several, one after the
 * other. */
#ifndef ANGARIUM_SMTP_SESSION_H
#define ANGARIUM_SMTP_SESSION_H

#include "mail/reply.h"
#include "smtp/tls_policy.h"

enum { LINE_MAX_REPLY = 2048, COMMANDS_IN_FLIGHT = 100 };

enum session_features {
    FEATURE_ESMTP = 1,
    FEATURE_8BITMIME = 2,
    FEATURE_PIPELINING = 4,
    FEATURE_SIZE = 8,
    FEATURE_SMTPUTF8 = 16,
    FEATURE_DSN = 32,
    FEATURE_AUTH = 64, /* offered; behind login_session(): logged in */
    FEATURE_STARTTLS = 128,
};

/* What a session is opened for. Strings live as long as the request. */
struct errand {
    struct str nexthop; /* as it was written */
    struct str sender;
    const char *id;
    const struct tls_policy *tls;
};

struct session {
    const struct client_config *config;
    struct arena *arena;   /* ends with the session */
    struct arena *scratch; /* of the request it works for: texts of problems */
    struct io *io;
    struct str host;       /* "mx.example[192.0.2.1]": log texts */
    struct str relay;      /* "mx.example[192.0.2.1]:25": the relay= field */
    struct str remote_mta; /* "mx.example" */
    struct str doing;      /* what is waited for: "receiving the initial server greeting" */
    struct endpoint address;
    struct tls *tls; /* NULL: in the clear */
    enum tls_level tls_level;
    bool tls_verified; /* the server has proved to be the one its policy wants */
    bool tls_may_be_kept;
    struct str tls_key; /* of the policy it was opened with, used or not */
    unsigned features;
    uint64_t size_limit; /* 0: none announced */
    struct reply_reader reader;
    struct errand errand;    /* while it is opened */
    struct buf auth_offered; /* mechanisms, with blanks between */
    unsigned xforward;       /* attributes that are offered: xforward.c */
    struct str discard;      /* keywords of EHLO that are left alone */
    int64_t connected_us;    /* when connecting began (mono) */
    unsigned uses;           /* requests it has worked for, with this one */
    bool in_transaction;     /* MAIL was accepted, and neither a message nor RSET has ended that */
    bool broken;             /* no more can be said: no QUIT */
    bool lost;               /* and that was the connection's end, or its silence */
    bool greeted;            /* it has said who it is */

    /* while it is kept: kept.c */
    struct kept *kept;
    struct session *older, *newer;
    struct buf nexthop;
    int64_t quit_us;
};

/* What went wrong, for one recipient or for all that are left. Strings live as long as the request. */
struct problem {
    struct str dsn, text;
    struct str diagnostic;        /* the reply, or empty */
    struct str relay, remote_mta; /* the server, or "none" and empty: none has answered */
    unsigned conn_use;
    bool session_dead; /* nothing more over this session */
    bool tls_failed;   /* the TLS of this session: another one without might do */
};

/* Connect, greet, say hello, log in, with TLS as the errand wants. NULL with *ret_why. */
struct session *session_open(const struct client_config *c, struct arena *scratch, const struct target *t,
                             const struct destination *d, const struct errand *errand, struct problem *ret_why);
/* QUIT when the session is whole; the descriptor goes in any case. Frees `s`. */
void session_close(struct session *s);
/* Without a word. */
void session_drop(struct session *s);

bool session_address_is(const struct endpoint *a, const struct endpoint *b);

/* Gathered until the next read. */
void session_send(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The next reply. `doing` goes into texts; `timeout` in seconds from now. False: *ret_why is filled, the session is
 * broken. */
bool session_reply(struct session *s, const char *doing, int64_t timeout, struct reply *ret, struct problem *ret_why);
/* An I/O failure in words: "lost connection with H while D", "conversation with H timed out while D". */
void session_io_problem(struct session *s, error e, struct problem *ret);
/* "host H said: TEXT (in reply to CMD command)"; the status is the reply's, or made from its code. */
void session_reply_problem(struct session *s, const struct reply *r, const char *command, struct problem *ret);
/* A table of ours failed, which the caller has logged: nothing more can be done with this server now. */
void session_data_problem(struct session *s, struct problem *ret);
/* A problem of our own with it. */
struct problem session_problem(struct session *s, struct str dsn, struct str text);
#endif
