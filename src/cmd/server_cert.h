/* server_cert.h - private keys of an SMTP server and what is made with them: self-signed certificates, requests (CSR),
 * digests for TLSA records. RSA and ECDSA. Errors are ERR_CONFIG with a text for the administrator, in `a`. */
#ifndef ANGARIUM_CMD_SERVER_CERT_H
#define ANGARIUM_CMD_SERVER_CERT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum {
    RSA_BITS_MIN = 1024,
    RSA_BITS_MAX = 8192,
    KEY_FILE_MAX = 1 << 20,
    CERT_YEARS = 100,
    CERT_NAMES_MAX = 100,
};
enum key_algorithm { KEY_RSA = 1, KEY_ECDSA };

struct server_key; /* holds a secret: server_key_free() clears it */

struct str key_algorithm_name(enum key_algorithm algorithm); /* "rsa", "ecdsa" */
bool key_algorithm_find(struct str name, enum key_algorithm *ret);

/* `size`: bits of RSA (2048 when empty), or the name of an EC curve (secp256r1 when empty). */
error server_key_new(enum key_algorithm algorithm, struct str size, struct arena *a, struct server_key **ret);
/* From the first private key of a PEM file. */
error server_key_read(struct str path, struct arena *a, struct server_key **ret);
void server_key_free(struct server_key *k); /* NULL is allowed */
enum key_algorithm server_key_algorithm(const struct server_key *k);

/* All append PEM to `ret`. The private key: end with buf_wipe(). */
error server_key_pem(const struct server_key *k, struct arena *a, struct buf *ret);
/* Self-signed, for CERT_YEARS; `names` (1 to CERT_NAMES_MAX) become DNS alternative names, the first the CN. */
error server_key_certificate(const struct server_key *k, const struct str *names, size_t n, struct arena *a,
                             struct buf *ret);
error server_key_request(const struct server_key *k, const struct str *names, size_t n, struct arena *a,
                         struct buf *ret);

/* SHA-256 over the public key (SubjectPublicKeyInfo) in lower-case hexadecimal: TLSA 3 1 1 (RFC 6698, 2.1; RFC 7672,
 * 3.1.1). The second: of the first certificate in a PEM file. */
error server_key_digest(const struct server_key *k, struct arena *a, struct str *ret);
error certificate_digest(struct str path, struct arena *a, struct str *ret);
#endif
