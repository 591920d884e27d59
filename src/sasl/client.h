/* client.h - the client's side of a login (RFC 4422): what is asked of those who know mechanisms. There are two:
 * native.h, and the Cyrus library in the look-up process (proto/login.h).
 *
 * Challenges and responses are not in base64 here. Responses and passwords are secrets: nothing here logs them. */
#ifndef ANGARIUM_SASL_CLIENT_H
#define ANGARIUM_SASL_CLIENT_H

#include "sasl/server.h"

enum {
    SASL_CHALLENGE_MAX = 64 * 1024, /* bytes */
    SASL_STEPS_MAX = 100,           /* challenges of one login */
};

struct sasl_login {           /* one login to be made */
    struct str service, host; /* "smtp", and the name of the server */
    uint16_t port;
    struct str local, remote; /* "192.0.2.1;4711" of either end, or empty */
    struct str mechanisms;    /* that may be used, with blanks between */
    struct sasl_policy policy;
    struct str username, authzid, password; /* authzid empty: the user's own */
    bool token;                             /* the password is an OAuth 2.0 access token (RFC 6750) */
    /* The TLS session below (RFC 5056), "tls-exporter" and its bytes; empty: none. */
    struct str binding_type, binding;
    bool
        plus_excluded; /* the server offers mechanisms with channel binding, and the administrator does not want them */
};

struct sasl_move { /* what is to be said next */
    enum { SASL_SAY, SASL_NO_MECHANISM, SASL_GIVE_UP } what;
    struct str mechanism; /* at the beginning */
    bool has_response;    /* at the beginning: there is an initial response, maybe an empty one */
    struct str response;
    struct str why; /* SASL_NO_MECHANISM, SASL_GIVE_UP */
};

/* What is known of a mechanism by its name; false: nothing. */
bool sasl_mechanism_known(struct str name, struct sasl_mechanism *ret);
/* Which of the options keeps the mechanism out: "noplaintext"; empty: none does. */
struct str sasl_policy_against(const struct sasl_policy *p, const struct sasl_mechanism *m);
#endif
