/* test_certs.h - keys and certificates for tests, made on the spot; and the other end of a TLS session. */
#ifndef ANGARIUM_TLS_TEST_CERTS_H
#define ANGARIUM_TLS_TEST_CERTS_H

#include "base/buf.h"
#include "base/err.h"
#include <openssl/ssl.h>

/* A key (P-256) and its self-signed certificate for `name`, as PEM: what smtpd_tls_chain_files has. */
void test_chain(struct buf *to, const char *name);
/* The same in a file below /tmp, to be removed. */
void test_chain_file(char path[64], const char *name);

/* A client over `fd`: handshake, send `text`, read until the end into `ret`. Waits in its coroutine. `alpn`: NULL. */
struct test_client {
    int fd;
    int highest;          /* TLS1_2_VERSION, or 0 */
    const char *sni;      /* NULL: none */
    const char *chain;    /* file of a client certificate, or NULL */
    SSL_SESSION *session; /* to be resumed; then the one to resume next; free it */
    const char *text;
    bool abrupt; /* close without close_notify */
    /* results */
    bool shaken, resumed;
    struct buf heard;
    char subject[64]; /* of the server's certificate */
};
void test_client_run(void *arg); /* a coroutine's function: struct test_client */
#endif
