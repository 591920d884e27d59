/* tls_settings.h - smtp_tls_... or lmtp_tls_... of main.cf (postconf(5)), and what is read from files because of them.
 * Strings live as long as the conf. */
#ifndef ANGARIUM_SMTP_TLS_SETTINGS_H
#define ANGARIUM_SMTP_TLS_SETTINGS_H

#include "table/table.h"
#include "tls/client.h"

struct tls_settings {
    bool lmtp;
    enum tls_level level;
    int log_level;
    struct tls_client *client; /* NULL: TLS is off everywhere, or cannot be had (logged) */

    /* as in main.cf */
    struct str level_name, log_level_name;
    bool use, enforce, enforce_peername;
    bool wrapper, note_offer, connection_reuse;
    int64_t starttls_timeout;  /* seconds */
    int64_t retry_plain_after; /* age of a message in seconds: minimal_backoff_time */
    struct str protocols, mandatory_protocols, ciphers, mandatory_ciphers, exclude, mandatory_exclude;
    struct str policy_list, site_list;
    struct maps *policies, *sites; /* smtp_tls_policy_maps, or the older smtp_tls_per_site; NULL: none */
    struct str servername, verify_match, secure_match, print_match, print_digest;
};

/* Before confinement. Errors: ERR_CONFIG with the text of the fatal line. */
error tls_settings_load(const struct conf *c, bool lmtp, struct arena *err_arena, struct tls_settings *ret);
void tls_settings_free(struct tls_settings *s);
#endif
