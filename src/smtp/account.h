/* account.h - which user and password are for a server: smtp_sasl_password_maps, and what was refused a while ago
 * (smtp_sasl_auth_cache_name). */
#ifndef ANGARIUM_SMTP_ACCOUNT_H
#define ANGARIUM_SMTP_ACCOUNT_H

#include "smtp/session.h"

struct account { /* strings in an arena, and to be wiped: account_wipe() */
    struct str username, password;
};

struct account_tables {
    struct maps *passwords;
    struct str delimiter;
    struct extension_rules extensions;
    bool by_sender, lmtp;
    struct table *refused; /* NULL: none are remembered */
    int64_t refused_time;  /* seconds */
};

/* The sender's (where that is asked for), the host's (not LMTP), the nexthop's, and the host's with its port. */
enum table_result account_find(const struct account_tables *t, const struct session *s, struct arena *a,
                               struct account *ret);
void account_wipe(struct account *k);

/* The reply that refused this user and this password at this host lately; `*ret_code` 0: none did. */
void account_refused_get(const struct account_tables *t, struct str host, const struct account *k, struct arena *a,
                         int *ret_code, struct str *ret_dsn, struct str *ret_text);
void account_refused_put(const struct account_tables *t, struct str host, const struct account *k,
                         const struct reply *reply);
#endif
