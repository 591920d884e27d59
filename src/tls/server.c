#include "tls/internal.h"

#include "base/log.h"
#include "table/file_values.h"
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

/* --- client certificates --- */

/* The chain is looked at, the handshake goes on whatever comes of it: what an untrusted certificate is good for (its
 * fingerprint may be in a table) is the business of restrictions. */
static int on_verify(int ok, X509_STORE_CTX *x) {
    SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *t = SSL_get_app_data(ssl);
    X509 *cert = X509_STORE_CTX_get_current_cert(x);
    int depth = X509_STORE_CTX_get_error_depth(x);
    if (!ok && cert && t->server->server_certs_too && X509_STORE_CTX_get_error(x) == X509_V_ERR_INVALID_PURPOSE &&
        X509_check_purpose(cert, X509_PURPOSE_SSL_SERVER, depth > 0) > 0) {
        X509_STORE_CTX_set_error(x, X509_V_OK);
        ok = 1;
    }
    log_verify(t, ok, x);
    if (!ok && t->verify_error == X509_V_OK) {
        t->verify_error = X509_STORE_CTX_get_error(x);
        if (cert)
            X509_NAME_oneline(X509_get_issuer_name(cert), t->verify_issuer, sizeof t->verify_issuer);
    }
    return 1;
}

/* --- the name the client asks for (RFC 6066, 3) --- */

/* server_name_list: u16 length, then u8 type (0: host_name), u16 length, the name. */
static struct str hello_name(SSL *ssl) {
    const unsigned char *p;
    size_t n;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) != 1 || n < 5)
        return STR("");
    size_t list = (size_t)p[0] << 8 | p[1], name = (size_t)p[3] << 8 | p[4];
    if (list != n - 2 || p[2] != TLSEXT_NAMETYPE_host_name || name > n - 5)
        return STR("");
    return str_n((const char *)p + 5, name);
}

static bool is_host_name(struct str s) {
    if (s.n == 0 || s.n > TLS_NAME_MAX || s.p[0] == '.' || s.p[0] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '.' && s.p[i] != '_')
            return false;
    return true;
}

/* The table may have to wait for its server, which nobody may in here: the handshake stops (SSL_CLIENT_HELLO_RETRY),
 * the coroutine looks the name up and goes on. */
static int on_client_hello(SSL *ssl, int *alert, void *arg) {
    struct tls *t = SSL_get_app_data(ssl);
    (void)arg;
    if (t->sni_state == SNI_FAILED) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (t->sni_state != SNI_NOT_YET)
        return SSL_CLIENT_HELLO_SUCCESS;
    struct str name = hello_name(ssl);
    t->sni_state = SNI_NONE;
    if (name.n == 0)
        return SSL_CLIENT_HELLO_SUCCESS;
    if (!is_host_name(name)) {
        struct buf shown = { 0 };
        buf_printable(&shown, name, TLS_NAME_MAX);
        log_warn("TLS SNI from %.*s is invalid: %.*s", STR_ARG(t->peer), STR_ARG(buf_str(&shown)));
        buf_free(&shown);
        return SSL_CLIENT_HELLO_SUCCESS;
    }
    t->sni = strndup(name.p, name.n);
    t->sni_state = SNI_ASKED;
    return SSL_CLIENT_HELLO_RETRY;
}

/* The files themselves; from databases and other servers in base64. */
static bool use_value(struct tls *t, struct str value, struct arena *a) {
    if (!str_contains(value, STR("-----BEGIN")) && !base64_decode(a, value, &value)) {
        log_warn("tls_server_sni_maps: malformed base64 value for %s", t->sni);
        return false;
    }
    return certs_use_pem(NULL, t->ssl, value, t->sni);
}

void server_choose_certificate(struct tls *t) {
    struct arena *a = arena_new();
    struct str key = str_c(t->sni), pem, table;
    enum table_result r = maps_get(t->server->sni_maps, key, a, &pem, &table);
    for (ptrdiff_t dot; r == TABLE_NOT_FOUND && (dot = str_index(str_from(key, 1), '.')) >= 0;) {
        key = str_from(key, (size_t)dot + 1);
        r = maps_get_partial(t->server->sni_maps, key, a, &pem, &table);
    }
    t->sni_state = SNI_DEFAULT;
    if (r == TABLE_ERROR) {
        log_warn("tls_server_sni_maps: %s map lookup problem", t->sni);
        t->sni_state = SNI_FAILED;
    } else if (r == TABLE_NOT_FOUND) {
        if (t->log_level >= TLS_LOG_SUMMARY)
            log_info("TLS SNI %s from %.*s not matched, using default chain", t->sni, STR_ARG(t->peer));
    } else if (use_value(t, pem, a)) {
        t->sni_state = SNI_MATCHED;
    } else {
        log_warn("error loading private keys and certificates from: SNI data for %s", t->sni);
        log_library_problems();
        t->sni_state = SNI_FAILED;
    }
    arena_free(a);
}

/* --- making one --- */

/* Tickets are good for one service and one way of looking at certificates. */
static bool set_context_id(struct tls_server *s, const struct conf *c, const struct tls_server_params *p,
                           struct str service) {
    unsigned char id[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    struct buf b = { 0 };
    pack_str(&b, service);
    pack_u8(&b, s->asks_cert);
    pack_u8(&b, s->requires_cert);
    pack_u8(&b, s->server_certs_too);
    pack_str(&b, conf_str(c, p->ca_file));
    pack_str(&b, conf_str(c, p->ca_path));
    pack_i64(&b, conf_int(c, p->ccert_verifydepth));
    pack_u8(&b, conf_bool(c, PARAM_tls_append_default_CA));
    bool ok =
        EVP_Digest(b.p, b.n, id, &n, EVP_sha256(), NULL) == 1 && SSL_CTX_set_session_id_context(s->ctx, id, n) == 1;
    buf_free(&b);
    return ok;
}

static bool set_ciphers(struct tls_server *s, const struct conf *c, const struct tls_server_params *p, bool mandatory) {
    struct str grade = conf_str(c, mandatory ? p->mandatory_ciphers : p->ciphers);
    struct str excluded[] = { conf_str(c, p->exclude_ciphers),
                              mandatory ? conf_str(c, p->mandatory_exclude_ciphers) : STR(""),
                              /* without a certificate of ours none can be asked of the client */
                              s->asks_cert ? STR("aNULL") : STR("") };
    s->cipher_list = settings_ciphers(c, s->arena, STR(""), grade, excluded, sizeof excluded / sizeof *excluded);
    if (s->cipher_list.n == 0)
        return false;
    if (SSL_CTX_set_cipher_list(s->ctx, s->cipher_list.p) == 1)
        return true;
    log_warn("error setting cipher grade: \"%.*s\": disabling TLS support", STR_ARG(grade));
    log_library_problems();
    return false;
}

static void set_tickets(struct tls_server *s, const struct conf *c, const struct tls_server_params *p) {
    struct str name = conf_str(c, PARAM_tls_session_ticket_cipher);
    int64_t lifetime = conf_time(c, p->session_cache_timeout);
    bool wanted = name.n && lifetime > 0 && !(SSL_CTX_get_options(s->ctx) & SSL_OP_NO_TICKET);
    if (wanted) {
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name.p, NULL);
        int key = cipher ? EVP_CIPHER_get_key_length(cipher) : 0;
        if (cipher && EVP_CIPHER_get_mode(cipher) == EVP_CIPH_CBC_MODE && EVP_CIPHER_get_block_size(cipher) == 16 &&
            EVP_CIPHER_get_iv_length(cipher) == 16 && key >= 16 && key <= TICKET_SECRET) {
            s->ticket_cipher = cipher;
        } else {
            EVP_CIPHER_free(cipher);
            ERR_clear_error();
            log_warn("tls_session_ticket_cipher: invalid value: %.*s; session tickets disabled", STR_ARG(name));
        }
    }
    if (!s->ticket_cipher) {
        SSL_CTX_set_options(s->ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(s->ctx, 0);
        return;
    }
    SSL_CTX_set_timeout(s->ctx, (long)lifetime);
    SSL_CTX_set_num_tickets(s->ctx, 1);
    tickets_start(s);
}

static bool set_certificates(struct tls_server *s, const struct conf *c, const struct tls_server_params *p) {
    const struct cert_params files = { .ca_file = p->ca_file,
                                       .ca_path = p->ca_path,
                                       .chain_files = p->chain_files,
                                       .cert_file = p->cert_file,
                                       .key_file = p->key_file,
                                       .eccert_file = p->eccert_file,
                                       .eckey_file = p->eckey_file,
                                       .dcert_file = p->dcert_file,
                                       .dkey_file = p->dkey_file,
                                       .program = "smtpd" };
    if (!certs_load(s->ctx, c, &files) || !certs_load_authorities(s->ctx, c, &files, s->asks_cert))
        return false;
    const EVP_MD *md = EVP_get_digestbyname(conf_str(c, p->fingerprint_digest).p);
    if (!md) {
        log_warn("Digest algorithm \"%.*s\" not found", STR_ARG(conf_str(c, p->fingerprint_digest)));
        log_warn("disabling TLS support");
        return false;
    }
    s->fingerprint = md;
    SSL_CTX_set_verify_depth(s->ctx, (int)conf_int(c, p->ccert_verifydepth));
    if (s->asks_cert)
        SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, on_verify);
    return true;
}

static bool set_up(struct tls_server *s, const struct conf *c, const struct tls_server_params *p, struct str service,
                   bool mandatory) {
    /* Protocols and ciphers are main.cf's: a security level of the library's would take away what it names. */
    SSL_CTX_set_security_level(s->ctx, 0);
    SSL_CTX_set_mode(s->ctx,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(s->ctx, conf_bool(c, p->always_issue_session_ids)
                                               ? SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL |
                                                     SSL_SESS_CACHE_NO_AUTO_CLEAR
                                               : SSL_SESS_CACHE_OFF);
    const enum param protocols = mandatory ? p->mandatory_protocols : p->protocols;
    settings_options(s->ctx, c);
    if (!settings_protocols(s->ctx, conf_str(c, protocols)) || !set_certificates(s, c, p) ||
        !set_ciphers(s, c, p, mandatory) || !settings_groups(s->ctx, c) ||
        !settings_dh(s->ctx, conf_str(c, p->dh_param_file)) || !set_context_id(s, c, p, service))
        return false;
    if (conf_bool(c, PARAM_tls_preempt_cipherlist))
        SSL_CTX_set_options(s->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    set_tickets(s, c, p);
    struct str maps = conf_str(c, PARAM_tls_server_sni_maps);
    if (maps.n) {
        s->sni_maps = maps_open(c, maps, TABLE_FOLD | TABLE_FILES | TABLE_NO_REGSUB);
        SSL_CTX_set_client_hello_cb(s->ctx, on_client_hello, NULL);
    }
    return true;
}

/* No certificate may be wanted so (smtpd_tls_cert_file = none), but not by mistake. */
static bool has_certificate(const struct conf *c, const struct tls_server_params *p, bool asks_cert) {
    struct str rsa = conf_str(c, p->cert_file);
    bool none = str_eq_icase(rsa, STR("none"));
    bool any = conf_str(c, p->chain_files).n || (rsa.n && !none) || conf_str(c, p->dcert_file).n ||
               conf_str(c, p->eccert_file).n;
    if (any)
        return true;
    if (none && asks_cert) /* anonymous ciphers and client certificates do not go together */
        log_warn("Need a server cert to request client certs");
    if (!none || asks_cert)
        log_warn("No server certs available. TLS won't be enabled");
    return none && !asks_cert;
}

struct tls_server *tls_server_open(const struct conf *c, const struct tls_server_params *p, struct str service,
                                   bool mandatory, int log_level) {
    bool requires = conf_bool(c, p->req_ccert);
    if (requires && !mandatory)
        log_warn("Can't require client certs unless TLS is required");
    bool asks = conf_bool(c, p->ask_ccert) || (requires && mandatory);
    if (!has_certificate(c, p, asks) || !settings_library(c))
        return NULL;
    if (log_level >= TLS_LOG_STEPS)
        log_info("initializing the server-side TLS engine");
    struct tls_server *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->arena = arena_new();
    s->asks_cert = asks;
    s->requires_cert = requires && mandatory;
    s->server_certs_too = conf_bool(c, PARAM_tls_trust_server_ccerts);
    s->ctx = SSL_CTX_new(TLS_server_method());
    if (s->ctx && set_up(s, c, p, service, mandatory))
        return s;
    if (!s->ctx)
        log_library_problems();
    tls_server_close(s);
    return NULL;
}

void tls_server_close(struct tls_server *s) {
    if (!s)
        return;
    SSL_CTX_free(s->ctx);
    EVP_CIPHER_free(s->ticket_cipher);
    if (s->sni_maps)
        maps_close(s->sni_maps);
    ticket_keys_wipe(&s->keys);
    arena_free(s->arena);
    free(s);
}

bool tls_server_asks_cert(const struct tls_server *s) {
    return s->asks_cert;
}
bool tls_server_requires_cert(const struct tls_server *s) {
    return s && s->requires_cert;
}
