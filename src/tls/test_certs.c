#include "tls/test_certs.h"

#include "base/die.h"
#include "run/coro.h"
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <unistd.h>

void test_chain(struct buf *to, const char *name) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    BIO *out = BIO_new(BIO_s_mem());
    if (!key || !cert || !out)
        die("test certificate");
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 4711);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *subject = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, subject);
    if (!X509_sign(cert, key, EVP_sha256()))
        die("test certificate");
    PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);
    PEM_write_bio_X509(out, cert);
    char *p;
    long n = BIO_get_mem_data(out, &p);
    buf_add(to, str_n(p, (size_t)n));
    BIO_free(out);
    X509_free(cert);
    EVP_PKEY_free(key);
}

void test_chain_file(char path[64], const char *name) {
    struct buf pem = { 0 };
    memcpy(path, "/tmp/angarium-tls-XXXXXX", sizeof "/tmp/angarium-tls-XXXXXX");
    int fd = mkstemp(path);
    test_chain(&pem, name);
    if (fd < 0 || write(fd, pem.p, pem.n) != (ssize_t)pem.n)
        die("test certificate");
    close(fd);
    buf_free(&pem);
}

/* True: done; false: an error, or the end. */
static bool settle(SSL *ssl, int result) {
    int why = SSL_get_error(ssl, result);
    ERR_clear_error();
    if (why == SSL_ERROR_WANT_READ)
        return !wait_readable(SSL_get_fd(ssl), deadline_in(20));
    return why == SSL_ERROR_WANT_WRITE && !wait_writable(SSL_get_fd(ssl), deadline_in(20));
}

static void talk(struct test_client *c, SSL *ssl) {
    int r;
    while ((r = SSL_connect(ssl)) != 1)
        if (!settle(ssl, r))
            return;
    c->shaken = true;
    c->resumed = SSL_session_reused(ssl);
    X509 *cert = SSL_get0_peer_certificate(ssl);
    if (cert)
        X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, c->subject, sizeof c->subject);
    size_t n = strlen(c->text);
    while (n && (r = SSL_write(ssl, c->text, (int)n)) <= 0)
        if (!settle(ssl, r))
            return;
    char some[512];
    while ((r = SSL_read(ssl, some, sizeof some)) > 0 || settle(ssl, r))
        if (r > 0)
            buf_add(&c->heard, str_n(some, (size_t)r));
}

void test_client_run(void *arg) {
    struct test_client *c = arg;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    if (c->highest)
        SSL_CTX_set_max_proto_version(ctx, c->highest);
    if (c->chain && (SSL_CTX_use_certificate_chain_file(ctx, c->chain) != 1 ||
                     SSL_CTX_use_PrivateKey_file(ctx, c->chain, SSL_FILETYPE_PEM) != 1))
        die("client certificate");
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, c->fd);
    if (c->sni)
        SSL_set_tlsext_host_name(ssl, (char *)(uintptr_t)c->sni);
    if (c->session)
        SSL_set_session(ssl, c->session);
    talk(c, ssl);
    SSL_SESSION_free(c->session);
    c->session = c->shaken ? SSL_get1_session(ssl) : NULL;
    if (!c->abrupt && c->shaken)
        SSL_shutdown(ssl);
    ERR_clear_error();
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(c->fd);
}
