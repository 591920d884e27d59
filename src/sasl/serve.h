/* serve.h - the server side of Dovecot's authentication protocol (dovecot.h): what makes a library that knows passwords
 * but may block (Cyrus SASL, in the look-up process) a login server like any other.
 *
 * Each step of a login runs in a coroutine of its own, so that one that takes long holds up no other. */
#ifndef ANGARIUM_SASL_SERVE_H
#define ANGARIUM_SASL_SERVE_H

#include "run/io.h"
#include "sasl/server.h"

enum {
    SERVE_LINE_MAX = 1024 * 1024, /* bytes; the client, one of our own processes, has its own limit (smtpd) */
    SERVE_LOGINS_MAX = 1000,      /* under way on one connection: more are told to come again */
};

struct login_library {
    const struct sasl_mechanism *mechanisms;
    size_t mechanism_count;
    void *ctx;
    /* Begin, with an initial response if `initial` is not NULL (base64). Answers are in `a`. The state is there after
     * LOGIN_MORE only. May wait. */
    void *(*begin)(void *ctx, const struct sasl_peer *peer, struct str mechanism, const struct str *initial,
                   struct arena *a, struct sasl_answer *ret);
    void (*step)(void *state, struct str response, struct arena *a, struct sasl_answer *ret); /* may wait */
    void (*end)(void *state); /* does not wait; after the last answer, or none */
};

/* Until the client goes (NULL) or breaks the protocol (ERR_SYNTAX). In a coroutine; no step is under way afterwards.
 * `io` stays the caller's. */
error login_serve(struct io *io, const struct login_library *l);
#endif
