/* client.h - TLS sessions to servers: who the server has to be, and whether it was.
 *
 * A `struct tls_client` is a program's keys, authorities and library options, read once while files can be read. What
 * differs between destinations goes with each handshake. Handshakes succeed whatever the certificate is; tls_facts()
 * says what it was worth (trusted, matched), and the caller decides. */
#ifndef ANGARIUM_TLS_CLIENT_H
#define ANGARIUM_TLS_CLIENT_H

#include "tls/tls.h"

/* Which parameters name its files. */
struct tls_client_params {
    enum param ca_file, ca_path, chain_files;
    enum param cert_file, key_file, eccert_file, eckey_file, dcert_file, dkey_file, verify_depth;
    const char *program; /* "smtp": the beginning of their names, for logs */
};

struct tls_client;
enum { TLS_EXCLUSIONS_MAX = 4 /* lists */ };
/* NULL when there can be no TLS; why has been logged. `c` has to outlive it. */
struct tls_client *tls_client_open(const struct conf *c, const struct tls_client_params *p, int log_level);
void tls_client_close(struct tls_client *c); /* NULL is allowed */

/* What one handshake is to be like; all of it is borrowed for the call. */
struct tls_wants {
    struct str peer; /* "name[address]:port", for logs */
    int log_level;
    struct str protocols, grade; /* as in smtp_tls_protocols, smtp_tls_ciphers */
    const struct str *excluded;  /* lists of ciphers */
    size_t excluded_count;
    struct str sni; /* the server's name, told to it; empty: none */
    enum tls_level level;
    /* VERIFY, SECURE: names one of which the certificate has to have; ".domain": any below. FINGERPRINT: fingerprints
     * of certificates or public keys in hexadecimal with colons. */
    const struct str *match;
    size_t match_count;
    struct str digest; /* of fingerprints, in logs too */
};

/* ERR_SYNTAX: the io holds input; nothing has been changed. Any other error has been logged; the io is good for nothing
 * but io_close() then, or, for ERR_CONFIG (what is wanted cannot be had), as it was. */
error tls_connect(struct tls_client *c, struct io *io, const struct tls_wants *w, int64_t deadline, struct tls **ret);

/* What a login can be bound to (RFC 5056): "tls-exporter" or "tls-unique", and its bytes. False: the session has none
 * that is safe. */
bool tls_binding(struct tls *t, struct arena *a, struct str *ret_type, struct str *ret_bytes);
#endif
