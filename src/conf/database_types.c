#include "conf/database_types.h"

#define SQL_SETTINGS "query result_format domain expansion_limit table select_field where_field additional_conditions "
#define SERVER_SETTINGS "hosts user password dbname retry_interval idle_interval "

static const struct database_type rows[] = {
    { STR_INIT("ldap:"),
      STR_INIT("server_host server_port version scope search_base timeout query_filter result_format result_filter "
               "result_attribute terminal_result_attribute leaf_result_attribute special_result_attribute bind bind_dn "
               "bind_pw recursion_limit expansion_limit size_limit dereference chase_referrals domain sasl_mechs "
               "sasl_realm sasl_authz_id sasl_minssf start_tls tls_require_cert tls_ca_cert_file tls_ca_cert_dir "
               "tls_cert tls_key tls_random_file tls_cipher_suite debuglevel cache cache_expiry cache_size") },
    { STR_INIT("mysql:"),
      STR_INIT(SQL_SETTINGS SERVER_SETTINGS "charset option_file option_group tls_key_file tls_cert_file "
                                            "tls_CAfile tls_CApath tls_ciphers tls_verify_cert "
                                            "require_result_set") },
    { STR_INIT("pgsql:"), STR_INIT(SQL_SETTINGS SERVER_SETTINGS "encoding select_function") },
    { STR_INIT("sqlite:"), STR_INIT(SQL_SETTINGS "dbpath") },
    { STR_INIT("memcache:"), STR_INIT("memcache backup key_format key_digest ttl flags timeout max_try retry_pause "
                                      "line_size_limit data_size_limit domain") },
    { STR_INIT("mongodb:"), STR_INIT("uri dbname collection query_filter projection result_attribute result_format "
                                     "expansion_limit domain") },
    { STR_INIT(""), STR_INIT("") },
};

const struct database_type *database_types(void) {
    return rows;
}

const struct database_type *database_split(struct str word, struct str *ret_name) {
    while (str_starts(word, STR("proxy:")))
        word = str_from(word, STR("proxy:").n);
    for (const struct database_type *type = rows; type->prefix.n; type++) {
        *ret_name = str_from(word, type->prefix.n);
        if (str_starts(word, type->prefix) && ret_name->n)
            return type;
    }
    return NULL;
}

bool database_has_setting(const struct database_type *type, struct str name) {
    struct str rest = type->settings, word;
    while (str_word(&rest, STR(" "), &word))
        if (str_eq(word, name))
            return true;
    return false;
}
