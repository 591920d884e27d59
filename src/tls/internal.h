/* internal.h - shared by the files of this room. */
#ifndef ANGARIUM_TLS_INTERNAL_H
#define ANGARIUM_TLS_INTERNAL_H

#include "table/table.h"
#include "tls/tickets.h"
#include "tls/tls.h"
#include <openssl/ssl.h>

/* Which parameters name keys, certificates and authorities. */
struct cert_params {
    enum param ca_file, ca_path, chain_files;
    enum param cert_file, key_file, eccert_file, eckey_file, dcert_file, dkey_file;
    const char *program; /* "smtpd": the beginning of their names, for logs */
};

struct tls_server {
    SSL_CTX *ctx;
    struct maps *sni_maps; /* NULL: none */
    EVP_CIPHER *ticket_cipher;
    struct tls_ticket_keys keys;
    const EVP_MD *fingerprint;
    struct str cipher_list; /* for the log */
    struct arena *arena;
    bool asks_cert, requires_cert;
    bool server_certs_too; /* tls_trust_server_ccerts */
};

enum sni_state { SNI_NOT_YET, SNI_NONE, SNI_ASKED, SNI_DEFAULT, SNI_MATCHED, SNI_FAILED };

struct tls {
    SSL *ssl;
    int fd;
    struct tls_server *server; /* NULL: a client's session */
    const EVP_MD *fingerprint;
    struct str peer;  /* for the log */
    struct buf began; /* input that was read before us and is ours */
    int log_level;
    char *sni; /* NULL: none */
    enum sni_state sni_state;
    bool requested_cert, distrust_matters; /* of the peer */
    bool matched;                          /* the server is the one we wanted */
    bool shaken;                           /* the handshake has succeeded */
    bool drained;                          /* the newest read took all there was */
    bool failed;                           /* no more may be asked of the library */
    int verify_error; /* the first thing that is wrong with the peer's certificate: X509_V_ERR_... */
    char verify_issuer[128];
};

/* --- server.c --- */
void server_choose_certificate(struct tls *t); /* for t->sni; t->sni_state says what came of it */

/* --- certs.c: each false after it has logged why --- */
bool certs_load(SSL_CTX *ctx, const struct conf *c, const struct cert_params *p);
/* Keys, each with its chain behind it, as smtpd_tls_chain_files and tls_server_sni_maps have them. `what` for logs. */
bool certs_use_pem(SSL_CTX *ctx_or_null, SSL *ssl_or_null, struct str pem, const char *what);
bool certs_load_authorities(SSL_CTX *ctx, const struct conf *c, const struct cert_params *p, bool send_names);

/* --- session.c --- */
/* A session of `ctx` over the descriptor of `io`; nothing has been said yet. */
struct tls *tls_session_new(SSL_CTX *ctx, struct io *io, struct str peer, int log_level);
void tls_session_free(struct tls *t);
/* Puts it under `io`; ERR_SYNTAX as in tls_accept(). */
error tls_session_attach(struct tls *t, struct io *io);
/* The handshake. An error has been logged. */
error tls_session_shake(struct tls *t, int64_t deadline);
/* Fingerprints with t->fingerprint, "AB:CD:..."; empty: none. */
struct str tls_session_cert_print(const struct tls *t, X509 *cert, struct arena *a);
struct str tls_session_key_print(const struct tls *t, X509 *cert, struct arena *a);

/* --- watch.c --- */
/* Remember what the file, and every symbolic link on the way to it, is now. */
void watch_file(const char *path);

/* --- settings.c --- */
struct protocols {
    uint64_t off; /* SSL_OP_NO_... */
    int low, high;
};
bool protocols_parse(struct str list, struct protocols *ret);
bool settings_protocols(SSL_CTX *ctx, struct str list);
/* The cipher list of a grade with its exclusions; empty: no such grade (logged, with `peer` unless that is empty). */
struct str settings_ciphers(const struct conf *c, struct arena *a, struct str peer, struct str grade,
                            const struct str *excluded, size_t excluded_count);
void settings_options(SSL_CTX *ctx, const struct conf *c);
bool settings_groups(SSL_CTX *ctx, const struct conf *c);
bool settings_dh(SSL_CTX *ctx, struct str file);
bool settings_library(const struct conf *c); /* tls_config_file, once per process */

/* --- tickets.c --- */
void tickets_start(struct tls_server *s);

/* --- log.c --- */
/* "TLS library problem: ..." for each error in OpenSSL's queue, which is empty after. */
void log_library_problems(void);
void log_follow(struct tls *t); /* steps and bytes, as the log level says */
int log_verify(const struct tls *t, int ok, X509_STORE_CTX *x);
void log_distrust(const struct tls *t);
#endif
