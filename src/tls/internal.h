/* internal.h - shared by the files of this room. */
#ifndef ANGARIUM_TLS_INTERNAL_H
#define ANGARIUM_TLS_INTERNAL_H

#include "table/table.h"
#include "tls/tickets.h"
#include "tls/tls.h"
#include <openssl/ssl.h>

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
    struct tls_server *server;
    struct str peer;  /* for the log */
    struct buf began; /* input that was read before us and is ours */
    int log_level;
    char *sni; /* NULL: none */
    enum sni_state sni_state;
    bool shaken;      /* the handshake has succeeded */
    bool drained;     /* the newest read took all there was */
    bool failed;      /* no more may be asked of the library */
    int verify_error; /* the first thing that is wrong with the peer's certificate: X509_V_ERR_... */
    char verify_issuer[128];
};

/* --- server.c --- */
void server_choose_certificate(struct tls *t); /* for t->sni; t->sni_state says what came of it */

/* --- certs.c: each false after it has logged why --- */
bool certs_load(SSL_CTX *ctx, const struct conf *c, const struct tls_server_params *p);
/* Keys, each with its chain behind it, as smtpd_tls_chain_files and tls_server_sni_maps have them. `what` for logs. */
bool certs_use_pem(SSL_CTX *ctx_or_null, SSL *ssl_or_null, struct str pem, const char *what);
bool certs_load_authorities(SSL_CTX *ctx, const struct conf *c, const struct tls_server_params *p, bool send_names);

/* --- watch.c --- */
/* Remember what the file, and every symbolic link on the way to it, is now. */
void watch_file(const char *path);

/* --- settings.c --- */
bool settings_protocols(SSL_CTX *ctx, struct str list);
/* The cipher list of a grade with its exclusions; empty: no such grade (logged). */
struct str settings_ciphers(const struct conf *c, struct arena *a, struct str grade, const struct str *excluded,
                            size_t excluded_count);
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
