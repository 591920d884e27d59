/* native.h - logins as a client without plug-ins: PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), SCRAM-SHA-1 and
 * SCRAM-SHA-256 with and without -PLUS (RFC 5802, RFC 7677), XOAUTH2, OAUTHBEARER (RFC 7628).
 *
 * With a password the strongest mechanism is used, and XOAUTH2 or OAUTHBEARER where there is nothing else; with a token
 * only these. Nothing here waits or reads files, but a step of SCRAM computes for as long as the server has wished, up
 * to NATIVE_ITERATIONS_MAX. */
#ifndef ANGARIUM_SASL_NATIVE_H
#define ANGARIUM_SASL_NATIVE_H

#include "sasl/client.h"

enum {
    NATIVE_ITERATIONS_MIN =
        4096, /* RFC 5802, 5.1; fewer make the password cheap to guess for whoever plays the server */
    NATIVE_ITERATIONS_MAX = 1000000,
};

struct native_login;

/* Fetch what OpenSSL loads from files, for processes that have none later. False: it has no such algorithms. */
bool native_prepare(void);
/* `l` must live as long as the login. Never NULL; to be ended in any case. */
struct native_login *native_begin(const struct sasl_login *l, struct arena *a, struct sasl_move *ret);
void native_step(struct native_login *n, struct str challenge, struct arena *a, struct sasl_move *ret);
/* The server has said yes. False: it has not proved that it knows the password, as the mechanism wants it to (RFC 5802,
 * 3), so it may be anybody. */
bool native_accepted(const struct native_login *n);
void native_end(struct native_login *n);
/* Does a step of it take long enough to be done in a thread? */
bool native_is_slow(const struct native_login *n);

/* For tests: the nonce of the next SCRAM logins; empty: random. */
void native_fix_nonce(struct str nonce);
#endif
