/* server.h - logins (RFC 4422): talking to the server that knows the passwords.
 *
 * A struct sasl_server stands for one login server and is shared by all sessions of a process. What kind it is
 * (dovecot.h, cyrus.h) nobody else sees. All calls may wait, for as long as the deadline lets them, and are made in
 * coroutines.
 *
 * Challenges and responses are base64 (RFC 4648, 4) on this interface, as they are on the wire. Responses are secrets:
 * nothing here logs them, and copies are overwritten. */
#ifndef ANGARIUM_SASL_SERVER_H
#define ANGARIUM_SASL_SERVER_H

#include "base/arena.h"
#include "base/err.h"

enum {
    SASL_MECHANISMS_MAX = 64,
    SASL_MECHANISM_NAME_MAX = 64, /* bytes; RFC 4422, 3.1 has 20, but a server may do as it likes */
    SASL_USERNAME_MAX = 1024,
    SASL_REASON_MAX = 400,
};

enum sasl_property {
    SASL_PLAINTEXT = 1, /* the password is sent as it is */
    SASL_ACTIVE = 2,    /* open to active attacks without a dictionary */
    SASL_DICTIONARY = 4,
    SASL_ANONYMOUS = 8,
    SASL_FORWARD_SECRECY = 16,
    SASL_MUTUAL_AUTH = 32,
};
struct sasl_mechanism {
    struct str name;
    unsigned properties; /* enum sasl_property */
};

/* smtpd_sasl_security_options: which mechanisms may be used. */
struct sasl_policy {
    unsigned forbidden, required; /* enum sasl_property */
};
/* "noplaintext, noanonymous, mutual_auth". False: `*ret_word` is none of these. */
bool sasl_policy_parse(struct str text, struct sasl_policy *ret, struct str *ret_word);
bool sasl_policy_allows(const struct sasl_policy *p, const struct sasl_mechanism *m);

struct sasl_peer { /* who wants to log in, and where */
    struct str service;
    struct str realm;                                    /* for our own login service (serve.h); empty: none */
    struct str address, port, local_address, local_port; /* empty: not known */
    bool tls;
};

enum sasl_outcome {
    LOGIN_MORE,   /* `challenge` is for the client, the exchange goes on */
    LOGIN_OK,     /* `username` has logged in */
    LOGIN_FAILED, /* `reason`, and `username` where they are known */
    LOGIN_TEMP,   /* no decision now: `reason` for the client; `detail` for the log when our side or the server broke */
};
struct sasl_answer {
    enum sasl_outcome outcome;
    struct str challenge;        /* base64 */
    struct str username, reason; /* printable, of limited length, may be empty */
    struct str detail;
};

struct sasl_server;
struct sasl_exchange; /* one login under way */

struct sasl_ops {
    /* An error: the server is not there, why is in its text. The result is in `a`. */
    error (*mechanisms)(struct sasl_server *s, const struct sasl_peer *peer, const struct sasl_policy *p,
                        int64_t deadline, struct arena *a, struct sasl_mechanism **ret, size_t *ret_count);
    /* Begin, with an initial response if `initial` is not NULL. Answers are in `a`. The exchange is there after
     * LOGIN_MORE only. */
    struct sasl_exchange *(*begin)(struct sasl_server *s, const struct sasl_peer *peer, const struct sasl_policy *p,
                                   struct str mechanism, const struct str *initial, int64_t deadline, struct arena *a,
                                   struct sasl_answer *ret);
    /* After anything but LOGIN_MORE the exchange is gone. */
    void (*respond)(struct sasl_exchange *x, struct str response, int64_t deadline, struct arena *a,
                    struct sasl_answer *ret);
    void (*cancel)(struct sasl_exchange *x); /* does not wait */
};
struct sasl_server {
    const struct sasl_ops *ops;
};
struct sasl_exchange {
    struct sasl_server *server;
};

/* For the two kinds: LOGIN_TEMP, the server is not there or not to be understood. `reason` is a literal. */
void sasl_lost(struct arena *a, struct sasl_answer *ret, const char *reason, struct str detail);
/* Text of a server, made printable and cut. */
struct str sasl_printable(struct arena *a, struct str text, size_t max);
/* May this be told to a client as a challenge, or to a server as a response? Empty: yes. */
bool sasl_base64_valid(struct str s);
#endif
