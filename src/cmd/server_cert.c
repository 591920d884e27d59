#include "cmd/server_cert.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

enum {
    SERIAL_BITS = 159,    /* positive, and no more than 20 bytes (RFC 5280, 4.1.2.2) */
    COMMON_NAME_MAX = 64, /* RFC 5280, A.1: ub-common-name */
    CERT_DAYS = 36525,    /* CERT_YEARS with their leap days */
};

struct server_key {
    EVP_PKEY *pkey;
    enum key_algorithm algorithm;
};

static const struct {
    struct str name;
    enum key_algorithm algorithm;
    int type;
} algorithms[] = {
    { STR_INIT("rsa"), KEY_RSA, EVP_PKEY_RSA },
    { STR_INIT("ecdsa"), KEY_ECDSA, EVP_PKEY_EC },
};
enum { ALGORITHMS = sizeof algorithms / sizeof *algorithms };

struct str key_algorithm_name(enum key_algorithm algorithm) {
    for (size_t i = 0; i < ALGORITHMS; i++)
        if (algorithms[i].algorithm == algorithm)
            return algorithms[i].name;
    return STR("");
}

bool key_algorithm_find(struct str name, enum key_algorithm *ret) {
    for (size_t i = 0; i < ALGORITHMS; i++)
        if (str_eq(algorithms[i].name, name)) {
            *ret = algorithms[i].algorithm;
            return true;
        }
    return false;
}

/* What OpenSSL says last is nearest to what we asked; the rest of its list is cleared. */
static error library_error(struct arena *a, const char *what) {
    char text[256] = "unknown error";
    unsigned long code = ERR_peek_last_error();
    if (code)
        ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return err_make(a, ERR_CONFIG, "%s: %s", what, text);
}

/* --- keys --- */
static error take(EVP_PKEY *pkey, struct str origin, struct arena *a, struct server_key **ret) {
    for (size_t i = 0; i < ALGORITHMS; i++)
        if (EVP_PKEY_get_base_id(pkey) == algorithms[i].type) {
            struct server_key *k = ARENA_NEW(a, struct server_key);
            *k = (struct server_key){ pkey, algorithms[i].algorithm };
            *ret = k;
            return NULL;
        }
    EVP_PKEY_free(pkey);
    return err_make(a, ERR_CONFIG, "%.*s: unsupported public key algorithm: use rsa or ecdsa", STR_ARG(origin));
}

error server_key_new(enum key_algorithm algorithm, struct str size, struct arena *a, struct server_key **ret) {
    EVP_PKEY *pkey;
    if (algorithm == KEY_RSA) {
        uint32_t bits = 2048;
        if (size.n && (!str_to_u32(size, RSA_BITS_MAX, &bits) || bits < RSA_BITS_MIN))
            return err_make(a, ERR_CONFIG, "bad size of an rsa key: \"%.*s\"; use %d to %d bits", STR_ARG(size),
                            RSA_BITS_MIN, RSA_BITS_MAX);
        pkey = EVP_RSA_gen(bits);
    } else {
        struct str curve = size.n ? size : STR("secp256r1");
        if (str_eq(curve, STR("secp256r1"))) /* OpenSSL knows it by its older name (RFC 8422, appendix A) */
            curve = STR("prime256v1");
        pkey = EVP_EC_gen(arena_cstr(a, curve));
        if (!pkey) {
            ERR_clear_error();
            return err_make(a, ERR_CONFIG, "bad curve of an ecdsa key: \"%.*s\"; use secp256r1, secp384r1 or secp521r1",
                            STR_ARG(size));
        }
    }
    return pkey ? take(pkey, STR("new key"), a, ret) : library_error(a, "cannot make a key");
}

static error open_pem(struct str path, struct buf *content, BIO **ret, struct arena *a) {
    if (!buf_read_file(content, path.p, KEY_FILE_MAX))
        return err_make(a, ERR_CONFIG, "open %.*s: %s", STR_ARG(path), strerror(errno));
    *ret = BIO_new_mem_buf(content->p, (int)content->n);
    return *ret ? NULL : library_error(a, "no memory");
}

/* A key that asks for a password cannot serve: nobody is there to type it. */
static int no_password(char *to, int room, int writing, void *arg) {
    (void)to, (void)room, (void)writing, (void)arg;
    return -1;
}

error server_key_read(struct str path, struct arena *a, struct server_key **ret) {
    struct buf content = { 0 };
    BIO *bio = NULL;
    error e = open_pem(path, &content, &bio, a);
    if (!e) {
        EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
        BIO_free(bio);
        if (pkey)
            e = take(pkey, path, a, ret);
        else
            e = err_make(a, ERR_CONFIG, "%.*s: no private key in PEM form, or one with a password", STR_ARG(path));
        ERR_clear_error();
    }
    buf_wipe(&content);
    return e;
}

void server_key_free(struct server_key *k) {
    if (k)
        EVP_PKEY_free(k->pkey);
}

enum key_algorithm server_key_algorithm(const struct server_key *k) {
    return k->algorithm;
}

/* --- PEM --- */
static void drain_bio(BIO *bio, struct buf *ret) {
    char *p;
    long n = BIO_get_mem_data(bio, &p);
    if (n > 0)
        buf_add(ret, str_n(p, (size_t)n));
}

error server_key_pem(const struct server_key *k, struct arena *a, struct buf *ret) {
    BIO *bio = BIO_new(BIO_s_secmem()); /* cleared when it goes */
    error e = NULL;
    if (!bio || PEM_write_bio_PrivateKey(bio, k->pkey, NULL, NULL, 0, NULL, NULL) != 1)
        e = library_error(a, "cannot write a private key");
    else
        drain_bio(bio, ret);
    BIO_free(bio);
    return e;
}

/* --- certificates --- */

/* The names as the value of a subjectAltName extension. Host names hold no comma or colon: the caller has checked. */
static void alternative_names(const struct str *names, size_t n, struct buf *ret) {
    for (size_t i = 0; i < n; i++)
        buf_printf(ret, "%sDNS:%.*s", i ? "," : "", STR_ARG(names[i]));
}

static X509_EXTENSION *extension(X509V3_CTX *ctx, int nid, const char *value) {
    return X509V3_EXT_conf_nid(NULL, ctx, nid, value);
}

static bool add_extension(X509 *cert, X509V3_CTX *ctx, int nid, const char *value) {
    X509_EXTENSION *x = extension(ctx, nid, value);
    bool ok = x && X509_add_ext(cert, x, -1) == 1;
    X509_EXTENSION_free(x);
    return ok;
}

static bool set_serial(X509 *cert) {
    BIGNUM *n = BN_new();
    bool ok = n && BN_rand(n, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
              BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;
    BN_free(n);
    return ok;
}

static bool set_names(X509 *cert, struct str common) {
    X509_NAME *name = X509_get_subject_name(cert);
    if (common.n <= COMMON_NAME_MAX &&
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)common.p, (int)common.n, -1, 0) !=
            1)
        return false;
    return X509_set_issuer_name(cert, name) == 1;
}

static bool fill_certificate(X509 *cert, const struct server_key *k, const struct str *names,
                             const char *alternatives) {
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    if (X509_set_version(cert, X509_VERSION_3) != 1 || !set_serial(cert) || !set_names(cert, names[0]) ||
        !X509_gmtime_adj(X509_getm_notBefore(cert), 0) ||
        !X509_time_adj_ex(X509_getm_notAfter(cert), CERT_DAYS, 0, NULL) || X509_set_pubkey(cert, k->pkey) != 1)
        return false;
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    return add_extension(cert, &ctx, NID_basic_constraints, "CA:FALSE") &&
           add_extension(cert, &ctx, NID_subject_key_identifier, "hash") &&
           add_extension(cert, &ctx, NID_ext_key_usage, "serverAuth,clientAuth") &&
           add_extension(cert, &ctx, NID_subject_alt_name, alternatives) && X509_sign(cert, k->pkey, EVP_sha256()) > 0;
}

error server_key_certificate(const struct server_key *k, const struct str *names, size_t n, struct arena *a,
                             struct buf *ret) {
    struct buf alternatives = { 0 };
    alternative_names(names, n, &alternatives);
    X509 *cert = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    error e = NULL;
    if (!cert || !bio || !fill_certificate(cert, k, names, alternatives.p) || PEM_write_bio_X509(bio, cert) != 1)
        e = library_error(a, "cannot make a certificate");
    else
        drain_bio(bio, ret);
    BIO_free(bio);
    X509_free(cert);
    buf_free(&alternatives);
    return e;
}

static bool push_extension(STACK_OF(X509_EXTENSION) * list, X509V3_CTX *ctx, int nid, const char *value) {
    X509_EXTENSION *x = extension(ctx, nid, value);
    if (x && sk_X509_EXTENSION_push(list, x) > 0)
        return true;
    X509_EXTENSION_free(x);
    return false;
}

/* The subject is left to the authority, which goes by the alternative names. */
static bool fill_request(X509_REQ *req, const struct server_key *k, const char *alternatives) {
    X509V3_CTX ctx;
    STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
    bool ok = list && X509_REQ_set_version(req, X509_REQ_VERSION_1) == 1 && X509_REQ_set_pubkey(req, k->pkey) == 1;
    if (ok) {
        X509V3_set_ctx_nodb(&ctx);
        X509V3_set_ctx(&ctx, NULL, NULL, req, NULL, 0);
        ok = push_extension(list, &ctx, NID_subject_key_identifier, "hash") &&
             push_extension(list, &ctx, NID_ext_key_usage, "serverAuth,clientAuth") &&
             push_extension(list, &ctx, NID_subject_alt_name, alternatives) &&
             X509_REQ_add_extensions(req, list) == 1 && X509_REQ_sign(req, k->pkey, EVP_sha256()) > 0;
    }
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    return ok;
}

error server_key_request(const struct server_key *k, const struct str *names, size_t n, struct arena *a,
                         struct buf *ret) {
    struct buf alternatives = { 0 };
    alternative_names(names, n, &alternatives);
    X509_REQ *req = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    error e = NULL;
    if (!req || !bio || !fill_request(req, k, alternatives.p) || PEM_write_bio_X509_REQ(bio, req) != 1)
        e = library_error(a, "cannot make a certificate signing request");
    else
        drain_bio(bio, ret);
    BIO_free(bio);
    X509_REQ_free(req);
    buf_free(&alternatives);
    return e;
}

/* --- digests --- */
static error digest_of(EVP_PKEY *pkey, struct arena *a, struct str *ret) {
    unsigned char *der = NULL, digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int length = pkey ? i2d_PUBKEY(pkey, &der) : -1;
    bool ok = length > 0 && EVP_Digest(der, (size_t)length, digest, &n, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    if (!ok)
        return library_error(a, "cannot compute the digest of a public key");
    struct buf hex = { 0 };
    for (unsigned i = 0; i < n; i++)
        buf_printf(&hex, "%02x", digest[i]);
    *ret = arena_str(a, buf_str(&hex));
    buf_free(&hex);
    return NULL;
}

error server_key_digest(const struct server_key *k, struct arena *a, struct str *ret) {
    return digest_of(k->pkey, a, ret);
}

error certificate_digest(struct str path, struct arena *a, struct str *ret) {
    struct buf content = { 0 };
    BIO *bio = NULL;
    error e = open_pem(path, &content, &bio, a);
    if (!e) {
        X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        if (cert)
            e = digest_of(X509_get0_pubkey(cert), a, ret);
        else
            e = err_make(a, ERR_CONFIG, "%.*s: no certificate in PEM form", STR_ARG(path));
        ERR_clear_error();
        X509_free(cert);
        BIO_free(bio);
    }
    buf_wipe(&content);
    return e;
}
