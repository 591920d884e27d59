#include "tls/client.h"

#include "base/log.h"
#include "tls/internal.h"
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

struct tls_client {
    SSL_CTX *ctx;
    const struct conf *conf;
};

/* The handshake goes on whatever the certificate is: the caller wants to say why it gives up, and may not want to. */
static int on_verify(int ok, X509_STORE_CTX *x) {
    SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *t = SSL_get_app_data(ssl);
    const X509 *cert = X509_STORE_CTX_get_current_cert(x);
    log_verify(t, ok, x);
    if (!ok && t->verify_error == X509_V_OK) {
        t->verify_error = X509_STORE_CTX_get_error(x);
        if (cert)
            X509_NAME_oneline(X509_get_issuer_name(cert), t->verify_issuer, sizeof t->verify_issuer);
    }
    return 1;
}

static bool set_up(struct tls_client *client, const struct conf *c, const struct tls_client_params *p) {
    const struct cert_params files = { .ca_file = p->ca_file,
                                       .ca_path = p->ca_path,
                                       .chain_files = p->chain_files,
                                       .cert_file = p->cert_file,
                                       .key_file = p->key_file,
                                       .eccert_file = p->eccert_file,
                                       .eckey_file = p->eckey_file,
                                       .dcert_file = p->dcert_file,
                                       .dkey_file = p->dkey_file,
                                       .program = p->program };
    SSL_CTX *ctx = client->ctx;
    /* Protocols and ciphers are main.cf's: a security level of the library's would take away what it names. */
    SSL_CTX_set_security_level(ctx, 0);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    settings_options(ctx, c);
    SSL_CTX_clear_options(ctx, SSL_OP_NO_SSL_MASK);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify_depth(ctx, (int)conf_int(c, p->verify_depth) + 1); /* OpenSSL counts what is between */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_verify);
    unsigned flags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
    if (conf_bool(c, PARAM_tls_wildcard_matches_multiple_labels))
        flags |= X509_CHECK_FLAG_MULTI_LABEL_WILDCARDS;
    X509_VERIFY_PARAM_set_hostflags(SSL_CTX_get0_param(ctx), flags);
    return certs_load(ctx, c, &files) && certs_load_authorities(ctx, c, &files, false) && settings_groups(ctx, c);
}

struct tls_client *tls_client_open(const struct conf *c, const struct tls_client_params *p, int log_level) {
    if (log_level >= TLS_LOG_STEPS)
        log_info("initializing the client-side TLS engine");
    if (!settings_library(c))
        return NULL;
    struct tls_client *client = calloc(1, sizeof *client);
    if (!client)
        return NULL;
    client->conf = c;
    client->ctx = SSL_CTX_new(TLS_client_method());
    if (client->ctx && set_up(client, c, p))
        return client;
    if (!client->ctx)
        log_library_problems();
    tls_client_close(client);
    return NULL;
}

void tls_client_close(struct tls_client *c) {
    if (!c)
        return;
    SSL_CTX_free(c->ctx);
    free(c);
}

/* --- one session --- */
static const struct err err_wants = { .kind = ERR_CONFIG, .text = STR_INIT("TLS settings cannot be used") };

static bool want_protocols(struct tls *t, const struct tls_wants *w) {
    struct protocols p;
    if (protocols_parse(w->protocols, &p) && SSL_set_min_proto_version(t->ssl, p.low) == 1 &&
        SSL_set_max_proto_version(t->ssl, p.high) == 1) {
        SSL_set_options(t->ssl, p.off);
        return true;
    }
    log_warn("%.*s: Invalid TLS protocol list \"%.*s\": aborting TLS session", STR_ARG(w->peer), STR_ARG(w->protocols));
    return false;
}

static bool want_ciphers(const struct tls_client *c, struct tls *t, const struct tls_wants *w, struct arena *a) {
    struct str excluded[TLS_EXCLUSIONS_MAX + 1];
    size_t n = 0;
    for (; n < w->excluded_count && n < TLS_EXCLUSIONS_MAX; n++)
        excluded[n] = w->excluded[n];
    if (w->level > TLS_LEVEL_ENCRYPT) /* who shows no certificate proves nothing */
        excluded[n++] = STR("aNULL");
    struct str list = settings_ciphers(c->conf, a, w->peer, w->grade, excluded, n);
    if (list.n == 0)
        return false;
    if (SSL_set_cipher_list(t->ssl, list.p) != 1) {
        log_warn("%.*s: error setting cipher grade: \"%.*s\"", STR_ARG(w->peer), STR_ARG(w->grade));
        log_library_problems();
        return false;
    }
    if (w->log_level >= TLS_LOG_STEPS) {
        log_info("setting up TLS connection to %.*s", STR_ARG(w->peer));
        log_info("%.*s: TLS cipher list \"%.*s\"", STR_ARG(w->peer), STR_ARG(list));
    }
    return true;
}

static bool want_names(struct tls *t, const struct tls_wants *w) {
    bool ok = true;
    if (w->level == TLS_LEVEL_VERIFY || w->level == TLS_LEVEL_SECURE)
        for (size_t i = 0; i < w->match_count && ok; i++)
            ok = SSL_add1_host(t->ssl, w->match[i].p) == 1;
    if (ok && w->sni.n)
        ok = SSL_set_tlsext_host_name(t->ssl, w->sni.p) == 1;
    if (!ok) {
        log_warn("%.*s: a name to look for in the certificate cannot be used", STR_ARG(w->peer));
        log_library_problems();
    }
    return ok;
}

static bool want_digest(struct tls *t, const struct tls_wants *w) {
    t->fingerprint = EVP_get_digestbyname(w->digest.p);
    if (!t->fingerprint)
        log_warn("%.*s: Digest algorithm \"%.*s\" not found", STR_ARG(w->peer), STR_ARG(w->digest));
    return t->fingerprint != NULL;
}

static bool listed(const struct tls_wants *w, struct str print) {
    for (size_t i = 0; i < w->match_count; i++)
        if (print.n && str_eq_icase(w->match[i], print))
            return true;
    return false;
}

/* Is it the server we wanted? */
static void judge(struct tls *t, const struct tls_wants *w, struct arena *a) {
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    t->requested_cert = true;
    if (w->level == TLS_LEVEL_FINGERPRINT) { /* whose chain is nobody's business */
        t->matched =
            cert && (listed(w, tls_session_cert_print(t, cert, a)) || listed(w, tls_session_key_print(t, cert, a)));
        t->verify_error = t->matched ? X509_V_OK : X509_V_ERR_DANE_NO_MATCH;
        SSL_set_verify_result(t->ssl, t->verify_error);
        t->distrust_matters = true;
    } else if (w->level >= TLS_LEVEL_VERIFY) {
        t->matched = cert && w->match_count && SSL_get_verify_result(t->ssl) == X509_V_OK;
        t->distrust_matters = true;
    }
}

error tls_connect(struct tls_client *c, struct io *io, const struct tls_wants *w, int64_t deadline, struct tls **ret) {
    *ret = NULL;
    struct arena *a = arena_new();
    struct tls *t = tls_session_new(c->ctx, io, w->peer, w->log_level);
    SSL_set_connect_state(t->ssl);
    bool ok = want_protocols(t, w) && want_ciphers(c, t, w, a) && want_names(t, w) && want_digest(t, w);
    error e = ok ? tls_session_attach(t, io) : &err_wants;
    if (e) {
        tls_session_free(t);
    } else if (!(e = tls_session_shake(t, deadline))) {
        judge(t, w, a);
        *ret = t;
    }
    arena_free(a);
    return e;
}
