/* tls_policy.h - what TLS with one server has to be (postfix.org's TLS_README: levels, matching). */
#ifndef ANGARIUM_SMTP_TLS_POLICY_H
#define ANGARIUM_SMTP_TLS_POLICY_H

#include "smtp/destination.h"

struct tls_policy { /* strings live as long as the arena it was made in, or the conf */
    enum tls_level level;
    int log_level;
    struct str protocols, grade, excluded[TLS_EXCLUSIONS_MAX];
    size_t excluded_count;
    struct str sni;
    VEC(struct str) match; /* names, or fingerprints: tls/client.h */
    bool reuse;            /* a connection with TLS may be kept for the next message */
    struct str key;        /* the same for equal policies, and no others */
};

/* For `host` of the destination `text`, parsed: `d`. False: mail for it has to wait; more than *ret_why has been
 * logged. `optional`: the sender would rather have the message go without TLS than not at all (RFC 8689, 5). */
bool tls_policy_find(const struct client_config *c, struct arena *a, struct str text, const struct destination *d,
                     struct str host, bool optional, struct tls_policy *ret, struct failure *ret_why);
/* The same without TLS, for another try with a server whose TLS does not work. */
void tls_policy_plain(struct tls_policy *p);

/* smtp_tls_verify_cert_match and its like: "hostname", "nexthop", "dot-nexthop" and names, separated by colons, commas
 * or blanks. `nexthop`: without brackets and port. */
void tls_policy_match(struct arena *a, struct str list, struct str nexthop, struct str host, struct tls_policy *p);
#endif
