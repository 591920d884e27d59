#include "tls/internal.h"

#include "base/log.h"
#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>

/* --- protocols: names, !names, >=name, <=name --- */
static const struct {
    struct str name;
    int version;
    uint64_t off;
} versions[] = {
    { STR_INIT("SSLv3"), SSL3_VERSION, SSL_OP_NO_SSLv3 },
    { STR_INIT("TLSv1"), TLS1_VERSION, SSL_OP_NO_TLSv1 },
    { STR_INIT("TLSv1.1"), TLS1_1_VERSION, SSL_OP_NO_TLSv1_1 },
    { STR_INIT("TLSv1.2"), TLS1_2_VERSION, SSL_OP_NO_TLSv1_2 },
    { STR_INIT("TLSv1.3"), TLS1_3_VERSION, SSL_OP_NO_TLSv1_3 },
};
enum { VERSIONS = sizeof versions / sizeof *versions };

static int version_find(struct str name) {
    for (int i = 0; i < VERSIONS; i++)
        if (str_eq_icase(name, versions[i].name))
            return i;
    return -1;
}

/* A bound may also be the number of a version, as TLS has it on the wire: 0303. */
static bool version_bound(struct str name, int *ret) {
    int at = version_find(name);
    if (at >= 0) {
        *ret = versions[at].version;
        return true;
    }
    if (name.n == 0 || name.n > 6)
        return false;
    char text[8], *end;
    memcpy(text, name.p, name.n);
    text[name.n] = 0;
    long v = strtol(text, &end, 16);
    *ret = (int)v;
    return *end == 0 && v > 0 && v <= 0xffff;
}

bool protocols_parse(struct str list, struct protocols *ret) {
    *ret = (struct protocols){ 0 };
    struct str rest = list, word;
    unsigned included = 0, excluded = 0;
    bool ok = true;
    while (ok && str_word(&rest, STR(", \t\r\n:"), &word)) {
        bool not = word.p[0] == '!';
        if (str_starts(word, STR(">="))) {
            ok = version_bound(str_from(word, 2), &ret->low);
        } else if (str_starts(word, STR("<="))) {
            ok = version_bound(str_from(word, 2), &ret->high);
        } else {
            struct str name = str_from(word, not );
            int at = version_find(name);
            if (at < 0)
                ok = str_eq_icase(name, STR("SSLv2")); /* there is none: neither word has an effect */
            else
                *(not ? &excluded : &included) |= 1u << at;
        }
    }
    for (unsigned i = 0; i < VERSIONS; i++)
        if ((excluded & 1u << i) || (included && !(included & 1u << i)))
            ret->off |= versions[i].off;
    return ok;
}

bool settings_protocols(SSL_CTX *ctx, struct str list) {
    struct protocols p;
    bool ok = protocols_parse(list, &p);
    if (ok) { /* what openssl.cnf says of versions gives way to main.cf */
        SSL_CTX_clear_options(ctx, SSL_OP_NO_SSL_MASK);
        SSL_CTX_set_options(ctx, p.off);
        ok = SSL_CTX_set_min_proto_version(ctx, p.low) == 1 && SSL_CTX_set_max_proto_version(ctx, p.high) == 1;
    }
    if (!ok)
        log_warn("Invalid TLS protocol list \"%.*s\": disabling TLS support", STR_ARG(list));
    return ok;
}

/* --- ciphers --- */
struct str settings_ciphers(const struct conf *c, struct arena *a, struct str peer, struct str grade,
                            const struct str *excluded, size_t excluded_count) {
    static const struct {
        struct str name;
        enum param list;
    } grades[] = {
        { STR_INIT("high"), PARAM_tls_high_cipherlist }, { STR_INIT("medium"), PARAM_tls_medium_cipherlist },
        { STR_INIT("low"), PARAM_tls_low_cipherlist },   { STR_INIT("export"), PARAM_tls_medium_cipherlist },
        { STR_INIT("null"), PARAM_tls_null_cipherlist },
    };
    struct str list = STR("");
    for (size_t i = 0; i < sizeof grades / sizeof *grades; i++)
        if (str_eq_icase(grade, grades[i].name)) {
            list = conf_str(c, grades[i].list);
            if (list.n == 0) /* the grade `low` of today */
                list = conf_str(c, PARAM_tls_medium_cipherlist);
        }
    if (list.n == 0) {
        if (peer.n)
            log_warn("%.*s: invalid cipher grade: \"%.*s\"", STR_ARG(peer), STR_ARG(grade));
        else
            log_warn("invalid TLS cipher grade: \"%.*s\"", STR_ARG(grade));
        return list;
    }
    struct buf b = { 0 };
    buf_add(&b, list);
    for (size_t i = 0; i < excluded_count; i++) {
        struct str rest = excluded[i], word;
        while (str_word(&rest, STR_COMMA_SPACE, &word))
            buf_printf(&b, ":!%.*s", STR_ARG(word));
    }
    struct str all = arena_str(a, buf_str(&b));
    buf_free(&b);
    return all;
}

/* --- options of OpenSSL --- */
struct option {
    struct str name;
    uint64_t bits;
};
#define OPTION(name)                                                                                                   \
    { STR_INIT(#name), SSL_OP_##name }
static const struct option features[] = {
    OPTION(ENABLE_MIDDLEBOX_COMPAT), OPTION(LEGACY_SERVER_CONNECT), OPTION(NO_TICKET),
    OPTION(NO_COMPRESSION),          OPTION(NO_RENEGOTIATION),      OPTION(NO_SESSION_RESUMPTION_ON_RENEGOTIATION),
    OPTION(PRIORITIZE_CHACHA),       OPTION(NO_ENCRYPT_THEN_MAC),   OPTION(ALLOW_NO_DHE_KEX),
    OPTION(NO_ANTI_REPLAY),          OPTION(CLEANSE_PLAINTEXT),     OPTION(DISABLE_TLSEXT_CA_NAMES),
    OPTION(IGNORE_UNEXPECTED_EOF),
};
static const struct option workarounds[] = {
    OPTION(CRYPTOPRO_TLSEXT_BUG),
    OPTION(DONT_INSERT_EMPTY_FRAGMENTS),
    OPTION(LEGACY_SERVER_CONNECT),
    OPTION(TLSEXT_PADDING),
    OPTION(SAFARI_ECDHE_ECDSA_BUG),
    /* known to OpenSSL by name, for which there is nothing left to do */
    OPTION(MICROSOFT_BIG_SSLV3_BUFFER),
    OPTION(MICROSOFT_SESS_ID_BUG),
    OPTION(MSIE_SSLV2_RSA_PADDING),
    OPTION(NETSCAPE_CHALLENGE_BUG),
    OPTION(NETSCAPE_REUSE_CIPHER_CHANGE_BUG),
    OPTION(SSLEAY_080_CLIENT_DH_BUG),
    OPTION(SSLREF2_REUSE_CERT_TYPE_BUG),
    OPTION(TLS_BLOCK_PADDING_BUG),
    OPTION(TLS_D5_BUG),
    OPTION(TLS_ROLLBACK_BUG),
    { STR_INIT("CVE-2005-2969"), SSL_OP_MSIE_SSLV2_RSA_PADDING },
    { STR_INIT("CVE-2010-4180"), SSL_OP_NETSCAPE_REUSE_CIPHER_CHANGE_BUG },
};
#define COUNT(list) (sizeof(list) / sizeof *(list))

static bool hexadecimal(struct str s, uint64_t *ret) {
    if (!str_starts_icase(s, STR("0x")) || s.n < 3 || s.n > 18)
        return false;
    *ret = 0;
    for (size_t i = 2; i < s.n; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *d = memchr(digits, byte_lower(s.p[i]), 16);
        if (!d)
            return false;
        *ret = *ret << 4 | (uint64_t)(d - digits);
    }
    return true;
}

static uint64_t option_bits(struct str list, const struct option *names, size_t count, const char *parameter) {
    uint64_t bits = 0;
    if (hexadecimal(list, &bits))
        return bits;
    bits = 0;
    struct str rest = list, word;
    while (str_word(&rest, STR_COMMA_SPACE, &word)) {
        size_t i = 0;
        while (i < count && !str_eq_icase(word, names[i].name))
            i++;
        if (i == count) {
            log_warn("unknown %s value \"%.*s\" in \"%.*s\"", parameter, STR_ARG(word), STR_ARG(list));
            continue;
        }
        bits |= names[i].bits;
    }
    return bits;
}

void settings_options(SSL_CTX *ctx, const struct conf *c) {
    uint64_t off = option_bits(conf_str(c, PARAM_tls_disable_workarounds), workarounds, COUNT(workarounds),
                               "tls_disable_workarounds");
    uint64_t on = option_bits(conf_str(c, PARAM_tls_ssl_options), features, COUNT(features), "tls_ssl_options");
    /* A client may not make us work for ever (renegotiation); a connection that just ends is an end of stream: SMTP has
     * its own framing (RFC 8446, 6.1). */
    SSL_CTX_set_options(ctx, (SSL_OP_ALL & ~off) | on | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                 SSL_OP_NO_COMPRESSION);
}

/* --- groups of the key exchange: those that this library has, in order --- */
bool settings_groups(SSL_CTX *ctx, const struct conf *c) {
    struct str lists[] = { conf_str(c, PARAM_tls_eecdh_auto_curves), conf_str(c, PARAM_tls_ffdhe_auto_groups) }, word;
    struct buf b = { 0 };
    for (size_t i = 0; i < COUNT(lists); i++)
        while (str_word(&lists[i], STR(", \t\r\n:"), &word)) {
            struct buf one = { 0 };
            buf_add(&one, word);
            SSL_CTX *probe = SSL_CTX_new(TLS_server_method());
            if (probe && SSL_CTX_set1_groups_list(probe, one.p) == 1)
                buf_printf(&b, "%s%s", b.n ? ":" : "", one.p);
            SSL_CTX_free(probe);
            buf_free(&one);
        }
    ERR_clear_error();
    bool ok = b.n == 0 || SSL_CTX_set1_groups_list(ctx, b.p) == 1;
    if (!ok) {
        log_warn("cannot use the groups \"%s\" of tls_eecdh_auto_curves and tls_ffdhe_auto_groups", b.p);
        log_library_problems();
    }
    buf_free(&b);
    return ok;
}

bool settings_dh(SSL_CTX *ctx, struct str file) {
    if (file.n == 0 || str_eq_icase(file, STR("auto"))) {
        SSL_CTX_set_dh_auto(ctx, 1);
        return true;
    }
    BIO *in = BIO_new_file(file.p, "r");
    EVP_PKEY *pkey = in ? PEM_read_bio_Parameters(in, NULL) : NULL;
    BIO_free(in);
    if (pkey && SSL_CTX_set0_tmp_dh_pkey(ctx, pkey) == 1)
        return true;
    EVP_PKEY_free(pkey);
    log_warn("error loading DH parameters from file \"%.*s\": using OpenSSL's", STR_ARG(file));
    log_library_problems();
    SSL_CTX_set_dh_auto(ctx, 1);
    return true;
}

/* --- the library's own configuration --- */
bool settings_library(const struct conf *c) {
    static enum { NOT_YET, GOOD, BAD } state;
    if (state != NOT_YET)
        return state == GOOD;
    struct str file = conf_str(c, PARAM_tls_config_file), name = conf_str(c, PARAM_tls_config_name);
    OPENSSL_INIT_SETTINGS *init = OPENSSL_INIT_new();
    if (!init)
        return false;
    uint64_t load = OPENSSL_INIT_LOAD_CONFIG;
    bool by_path = file.p[0] == '/';
    if (str_eq(file, STR("none"))) {
        load = OPENSSL_INIT_NO_LOAD_CONFIG;
    } else if (by_path) {
        OPENSSL_INIT_set_config_filename(init, file.p);
        OPENSSL_INIT_set_config_file_flags(init, 0);
    } else if (!str_eq(file, STR("default"))) {
        log_warn("non-absolute %s value: \"%.*s\": disabling TLS support", "tls_config_file", STR_ARG(file));
        state = BAD;
    }
    if (name.n)
        OPENSSL_INIT_set_config_appname(init, name.p);
    if (state == NOT_YET) {
        bool ok = OPENSSL_init_ssl(load, init) == 1;
        if (!ok && by_path) {
            log_warn("error loading the \"%.*s\" settings from the %.*s OpenSSL configuration file: disabling TLS "
                     "support",
                     STR_ARG(name.n ? name : STR("openssl_conf")), STR_ARG(file));
            log_library_problems();
        }
        ERR_clear_error();
        state = ok || !by_path ? GOOD : BAD;
    }
    OPENSSL_INIT_free(init);
    return state == GOOD;
}

int tls_log_level(struct str text, const char *parameter) {
    struct str rest = text, word;
    uint32_t level = 0;
    while (str_word(&rest, STR_COMMA_SPACE, &word))
        if (!str_to_u32(word, UINT32_MAX, &level) && !str_eq_icase(word, STR("trace")))
            log_warn("unknown %s value \"%.*s\" in \"%.*s\"", parameter, STR_ARG(word), STR_ARG(text));
    return level < TLS_LOG_ALL ? (int)level : TLS_LOG_ALL;
}
