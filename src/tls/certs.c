#include "tls/internal.h"

#include "base/log.h"
#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>

/* --- keys with their chains --- */

/* PEM_read_bio_X() would ask at the terminal for the passphrase of an encrypted key. */
static int no_passphrase(char *buf, int size, int writing, void *arg) {
    (void)buf, (void)size, (void)writing, (void)arg;
    return -1;
}

struct chain {
    EVP_PKEY *key;
    X509 *cert;
    STACK_OF(X509) * issuers;
};

static void chain_drop(struct chain *c) {
    EVP_PKEY_free(c->key);
    X509_free(c->cert);
    sk_X509_pop_free(c->issuers, X509_free);
    *c = (struct chain){ 0 };
}

static bool chain_use(struct chain *c, SSL_CTX *ctx, SSL *ssl, const char *what) {
    bool ok = false;
    if (!c->cert)
        log_warn("key without a certificate behind it in %s", what);
    else if (X509_check_private_key(c->cert, c->key) != 1)
        log_warn("key and certificate behind it do not match in %s", what);
    else
        ok = (ctx ? SSL_CTX_use_cert_and_key(ctx, c->cert, c->key, c->issuers, 1)
                  : SSL_use_cert_and_key(ssl, c->cert, c->key, c->issuers, 1)) == 1;
    chain_drop(c);
    return ok;
}

static bool is_key(const char *name) {
    size_t n = strlen(name);
    return n >= 11 && strcmp(name + n - 11, "PRIVATE KEY") == 0;
}
static bool is_cert(const char *name) {
    return strcmp(name, PEM_STRING_X509) == 0 || strcmp(name, PEM_STRING_X509_TRUSTED) == 0 ||
           strcmp(name, PEM_STRING_X509_OLD) == 0;
}

/* One object of the text: a key begins a chain, certificates follow. */
static bool chain_add(struct chain *c, SSL_CTX *ctx, SSL *ssl, const char *name, bool encrypted,
                      const unsigned char *der, long n, const char *what) {
    if (is_key(name)) {
        if (c->key && !chain_use(c, ctx, ssl, what))
            return false;
        if (encrypted || strcmp(name, PEM_STRING_PKCS8) == 0)
            log_warn("private key with a passphrase in %s", what);
        else
            c->key = d2i_AutoPrivateKey(NULL, &der, n);
        return c->key != NULL;
    }
    if (!is_cert(name))
        return true; /* parameters and the like */
    X509 *cert = strcmp(name, PEM_STRING_X509_TRUSTED) == 0 ? d2i_X509_AUX(NULL, &der, n) : d2i_X509(NULL, &der, n);
    if (!cert)
        return false;
    if (!c->key) {
        log_warn("certificate without a private key in front of it in %s", what);
        X509_free(cert);
        return false;
    }
    if (!c->cert) {
        c->cert = cert;
        return true;
    }
    if ((c->issuers || (c->issuers = sk_X509_new_null())) && sk_X509_push(c->issuers, cert) > 0)
        return true;
    X509_free(cert);
    return false;
}

bool certs_use_pem(SSL_CTX *ctx, SSL *ssl, struct str pem, const char *what) {
    if (pem.n > TLS_FILE_MAX)
        return false;
    BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
    struct chain chain = { 0 };
    bool ok = in != NULL, any = false;
    while (ok) {
        char *name = NULL, *header = NULL;
        unsigned char *der = NULL;
        long n;
        if (PEM_read_bio(in, &name, &header, &der, &n) != 1)
            break;
        any = true;
        ok = chain_add(&chain, ctx, ssl, name, strstr(header, "ENCRYPTED") != NULL, der, n, what);
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_clear_free(der, (size_t)n);
    }
    BIO_free(in);
    if (ok && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
        ERR_clear_error(); /* the end */
    if (ok && !any)
        log_warn("No PEM data in %s", what);
    ok = ok && any && ERR_peek_error() == 0 && chain.key;
    ok = ok && chain_use(&chain, ctx, ssl, what);
    chain_drop(&chain);
    return ok;
}

/* --- files --- */
static bool read_file(const char *path, struct buf *to) {
    watch_file(path);
    if (buf_read_file(to, path, TLS_FILE_MAX))
        return true;
    log_warn("open \"%s\": %s", path, strerror(errno));
    return false;
}

/* Together they are as one: a key may be in the file before that of its certificate. */
static bool load_chain_files(SSL_CTX *ctx, struct str list) {
    struct buf all = { 0 };
    struct str rest = list, word;
    bool ok = true;
    for (int i = 0; ok && str_word(&rest, STR_COMMA_SPACE, &word); i++) {
        struct buf path = { 0 };
        buf_add(&path, word);
        ok = i < TLS_CHAIN_FILES_MAX && read_file(path.p, &all);
        buf_add(&all, STR("\n"));
        buf_free(&path);
    }
    ok = ok && certs_use_pem(ctx, NULL, buf_str(&all), list.p);
    buf_wipe(&all);
    if (!ok) {
        log_warn("error loading private keys and certificates from: %.*s: disabling TLS support", STR_ARG(list));
        log_library_problems();
    }
    return ok;
}

static bool load_pair(SSL_CTX *ctx, struct str cert, struct str key, const char *type) {
    watch_file(cert.p);
    watch_file(key.p);
    if (SSL_CTX_use_certificate_chain_file(ctx, cert.p) != 1) {
        log_warn("cannot get %s certificate from file \"%.*s\": disabling TLS support", type, STR_ARG(cert));
        log_library_problems();
        return false;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, key.p, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
        log_warn("cannot get %s private key from file \"%.*s\": disabling TLS support", type, STR_ARG(key));
        log_library_problems();
        return false;
    }
    return true;
}

bool certs_load(SSL_CTX *ctx, const struct conf *c, const struct cert_params *p) {
    const struct {
        enum param cert, key;
        const char *type;
    } pairs[] = { { p->cert_file, p->key_file, "RSA" },
                  { p->dcert_file, p->dkey_file, "DSA" },
                  { p->eccert_file, p->eckey_file, "ECDSA" } };
    enum { PAIRS = sizeof pairs / sizeof *pairs };
    struct str chain = conf_str(c, p->chain_files);
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    bool any = false;
    for (int i = 0; i < PAIRS; i++)
        any = any || conf_str(c, pairs[i].cert).n;
    if (chain.n) {
        if (any)
            log_warn("Both %s_tls_chain_files and one or more of the legacy  %s_tls_cert_file, "
                     "%s_tls_eccert_file or %s_tls_dcert_file are non-empty; the legacy  parameters will be "
                     "ignored",
                     p->program, p->program, p->program, p->program);
        return load_chain_files(ctx, chain);
    }
    if (str_eq_icase(conf_str(c, p->cert_file), STR("none")))
        return true; /* wanted so: anonymous ciphers only */
    for (int i = 0; i < PAIRS; i++) {
        struct str cert = conf_str(c, pairs[i].cert), key = conf_str(c, pairs[i].key);
        if (cert.n && !load_pair(ctx, cert, key, pairs[i].type))
            return false;
    }
    return true;
}

/* --- authorities --- */

/* All certificates of a file. False: there is none, and why is in OpenSSL's queue. */
static bool add_authorities(X509_STORE *store, const char *path) {
    watch_file(path);
    return X509_STORE_load_file(store, path) == 1;
}

/* OpenSSL would look for files of a directory by their hashes when it needs them; a confined process has none then. */
static bool add_directory(X509_STORE *store, const char *path) {
    watch_file(path);
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    const struct dirent *d;
    while ((d = readdir(dir))) {
        const char *dot = strrchr(d->d_name, '.');
        if (!dot || dot - d->d_name != 8 || strspn(d->d_name, "0123456789abcdefABCDEF") != 8 ||
            strspn(dot + 1, "0123456789") != strlen(dot + 1) || !dot[1])
            continue; /* "1a2b3c4d.0", as openssl rehash(1) makes them */
        struct buf file = { 0 };
        buf_printf(&file, "%s/%s", path, d->d_name);
        add_authorities(store, file.p);
        buf_free(&file);
    }
    closedir(dir);
    return true;
}

bool certs_load_authorities(SSL_CTX *ctx, const struct conf *c, const struct cert_params *p, bool send_names) {
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    struct str file = conf_str(c, p->ca_file), path = conf_str(c, p->ca_path);
    if (file.n && !add_authorities(store, file.p)) {
        log_info("cannot load Certification Authority data, CAfile=\"%.*s\": disabling TLS support", STR_ARG(file));
        log_library_problems();
        return false;
    }
    if (path.n && !add_directory(store, path.p))
        log_warn("open directory \"%.*s\" of Certification Authority data: %s", STR_ARG(path), strerror(errno));
    if ((file.n || path.n) && conf_bool(c, PARAM_tls_append_default_CA)) {
        add_authorities(store, X509_get_default_cert_file());
        add_directory(store, X509_get_default_cert_dir());
    }
    if (send_names && file.n)
        SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(file.p));
    ERR_clear_error();
    return true;
}
