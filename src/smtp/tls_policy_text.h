/* tls_policy_text.h - values of smtp_tls_policy_maps: "encrypt protocols=>=TLSv1.2 ciphers=high". Text of a table is
 * the administrator's, but may come from a server: lengths and counts have limits, nothing is recursive. */
#ifndef ANGARIUM_SMTP_TLS_POLICY_TEXT_H
#define ANGARIUM_SMTP_TLS_POLICY_TEXT_H

#include "tls/client.h"

enum {
    POLICY_TEXT_MAX = 16384, /* bytes of a value */
    POLICY_MATCH_MAX = 64,   /* match= attributes */
};

struct policy_text { /* strings are borrowed from the value; empty and not given are told apart where it matters */
    enum tls_level level;
    bool protocols_given, grade_given, exclude_given, sni_given, reuse_given;
    struct str protocols, grade, exclude, sni;
    bool reuse;
    struct str match[POLICY_MATCH_MAX]; /* the values of match=, each a list */
    size_t match_count;
    struct str ignored; /* with level none: the first attribute, which has no effect; empty: none */
};

/* False: *ret_why says what is wrong, as in `smtp_tls_policy_maps, next-hop destination "X": WHY`; it lives as long as
 * `a`. */
bool policy_text_parse(struct arena *a, struct str value, struct policy_text *ret, struct str *ret_why);
#endif
