#include "smtp/tls_settings.h"

#include "base/log.h"
#include <stddef.h>

/* One row a setting: where it goes, and its name in either program. */
#define ROW(kind, field, smtp_param, lmtp_param)                                                                       \
    { kind, offsetof(struct tls_settings, field), smtp_param, lmtp_param }
static const struct {
    enum { T_TIME, T_BOOL, T_STR } kind;
    size_t offset;
    enum param smtp, lmtp;
} rows[] = {
    ROW(T_STR, level_name, PARAM_smtp_tls_security_level, PARAM_lmtp_tls_security_level),
    ROW(T_STR, log_level_name, PARAM_smtp_tls_loglevel, PARAM_lmtp_tls_loglevel),
    ROW(T_BOOL, use, PARAM_smtp_use_tls, PARAM_lmtp_use_tls),
    ROW(T_BOOL, enforce, PARAM_smtp_enforce_tls, PARAM_lmtp_enforce_tls),
    ROW(T_BOOL, enforce_peername, PARAM_smtp_tls_enforce_peername, PARAM_lmtp_tls_enforce_peername),
    ROW(T_BOOL, wrapper, PARAM_smtp_tls_wrappermode, PARAM_lmtp_tls_wrappermode),
    ROW(T_BOOL, note_offer, PARAM_smtp_tls_note_starttls_offer, PARAM_lmtp_tls_note_starttls_offer),
    ROW(T_BOOL, connection_reuse, PARAM_smtp_tls_connection_reuse, PARAM_lmtp_tls_connection_reuse),
    ROW(T_TIME, starttls_timeout, PARAM_smtp_starttls_timeout, PARAM_lmtp_starttls_timeout),
    ROW(T_STR, protocols, PARAM_smtp_tls_protocols, PARAM_lmtp_tls_protocols),
    ROW(T_STR, mandatory_protocols, PARAM_smtp_tls_mandatory_protocols, PARAM_lmtp_tls_mandatory_protocols),
    ROW(T_STR, ciphers, PARAM_smtp_tls_ciphers, PARAM_lmtp_tls_ciphers),
    ROW(T_STR, mandatory_ciphers, PARAM_smtp_tls_mandatory_ciphers, PARAM_lmtp_tls_mandatory_ciphers),
    ROW(T_STR, exclude, PARAM_smtp_tls_exclude_ciphers, PARAM_lmtp_tls_exclude_ciphers),
    ROW(T_STR, mandatory_exclude, PARAM_smtp_tls_mandatory_exclude_ciphers, PARAM_lmtp_tls_mandatory_exclude_ciphers),
    ROW(T_STR, policy_list, PARAM_smtp_tls_policy_maps, PARAM_lmtp_tls_policy_maps),
    ROW(T_STR, site_list, PARAM_smtp_tls_per_site, PARAM_lmtp_tls_per_site),
    ROW(T_STR, servername, PARAM_smtp_tls_servername, PARAM_lmtp_tls_servername),
    ROW(T_STR, verify_match, PARAM_smtp_tls_verify_cert_match, PARAM_lmtp_tls_verify_cert_match),
    ROW(T_STR, secure_match, PARAM_smtp_tls_secure_cert_match, PARAM_lmtp_tls_secure_cert_match),
    ROW(T_STR, print_match, PARAM_smtp_tls_fingerprint_cert_match, PARAM_lmtp_tls_fingerprint_cert_match),
    ROW(T_STR, print_digest, PARAM_smtp_tls_fingerprint_digest, PARAM_lmtp_tls_fingerprint_digest),
};

static const struct tls_client_params smtp_files = {
    .ca_file = PARAM_smtp_tls_CAfile,
    .ca_path = PARAM_smtp_tls_CApath,
    .chain_files = PARAM_smtp_tls_chain_files,
    .cert_file = PARAM_smtp_tls_cert_file,
    .key_file = PARAM_smtp_tls_key_file,
    .eccert_file = PARAM_smtp_tls_eccert_file,
    .eckey_file = PARAM_smtp_tls_eckey_file,
    .dcert_file = PARAM_smtp_tls_dcert_file,
    .dkey_file = PARAM_smtp_tls_dkey_file,
    .verify_depth = PARAM_smtp_tls_scert_verifydepth,
    .program = "smtp",
};
static const struct tls_client_params lmtp_files = {
    .ca_file = PARAM_lmtp_tls_CAfile,
    .ca_path = PARAM_lmtp_tls_CApath,
    .chain_files = PARAM_lmtp_tls_chain_files,
    .cert_file = PARAM_lmtp_tls_cert_file,
    .key_file = PARAM_lmtp_tls_key_file,
    .eccert_file = PARAM_lmtp_tls_eccert_file,
    .eckey_file = PARAM_lmtp_tls_eckey_file,
    .dcert_file = PARAM_lmtp_tls_dcert_file,
    .dkey_file = PARAM_lmtp_tls_dkey_file,
    .verify_depth = PARAM_lmtp_tls_scert_verifydepth,
    .program = "lmtp",
};

/* The level without a policy: of smtp_tls_security_level, else of the older switches. */
static bool read_level(struct tls_settings *s) {
    if (s->level_name.n)
        return tls_level_parse(s->level_name, &s->level);
    if (s->enforce)
        s->level = s->enforce_peername ? TLS_LEVEL_VERIFY : TLS_LEVEL_ENCRYPT;
    else
        s->level = s->use ? TLS_LEVEL_MAY : TLS_LEVEL_NONE;
    return true;
}

static void open_tables(struct tls_settings *s, const struct conf *c) {
    const char *program = s->lmtp ? "lmtp" : "smtp";
    if (s->policy_list.n && s->site_list.n)
        log_warn("%s_tls_per_site ignored when %s_tls_policy_maps is not empty.", program, program);
    if (s->policy_list.n)
        s->policies = maps_open(c, s->policy_list, TABLE_FOLD);
    else if (s->site_list.n)
        s->sites = maps_open(c, s->site_list, TABLE_FOLD);
}

error tls_settings_load(const struct conf *c, bool lmtp, struct arena *err_arena, struct tls_settings *ret) {
    struct tls_settings *s = ret;
    *s = (struct tls_settings){ .lmtp = lmtp };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum param p = lmtp ? rows[i].lmtp : rows[i].smtp;
        void *field = (char *)s + rows[i].offset;
        switch (rows[i].kind) {
        case T_TIME:
            *(int64_t *)field = conf_time(c, p);
            break;
        case T_BOOL:
            *(bool *)field = conf_bool(c, p);
            break;
        case T_STR:
            *(struct str *)field = conf_str(c, p);
            break;
        }
    }
    s->retry_plain_after = conf_time(c, PARAM_minimal_backoff_time);
    if (!read_level(s))
        return err_make(err_arena, ERR_CONFIG, "Invalid TLS level \"%.*s\"", STR_ARG(s->level_name));
    s->log_level = tls_log_level(s->log_level_name, lmtp ? "lmtp_tls_loglevel" : "smtp_tls_loglevel");
    open_tables(s, c);
    if (s->level > TLS_LEVEL_NONE || s->policies || s->sites)
        s->client = tls_client_open(c, lmtp ? &lmtp_files : &smtp_files, s->log_level);
    return NULL;
}

void tls_settings_free(struct tls_settings *s) {
    tls_client_close(s->client);
    s->client = NULL;
    if (s->policies)
        maps_close(s->policies);
    if (s->sites)
        maps_close(s->sites);
    s->policies = s->sites = NULL;
}
