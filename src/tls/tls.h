/* tls.h - TLS sessions under struct io (RFC 8446, RFC 5246), by OpenSSL 3. A client's side: client.h.
 *
 * A struct tls is the transport of an io: what reads and writes lines need not know of it. Handshakes wait in their
 * coroutine, reads and writes as the io does. A `struct tls_server` is what main.cf says, made ready once, while files
 * can be read; a confined process needs no files after that.
 *
 * This room logs by itself what Postfix's TLS library logs: broken certificates, failed handshakes, and, by log level,
 * summaries (1), steps of the negotiation (2), its bytes (3), all bytes (4). */
#ifndef ANGARIUM_TLS_TLS_H
#define ANGARIUM_TLS_TLS_H

#include "conf/conf.h"
#include "run/io.h"

struct tls_ticket_keys; /* tickets.h */

/* --- the server's side --- */

/* Which parameters say it: smtpd and others have names of their own. */
struct tls_server_params {
    enum param ca_file, ca_path, chain_files;
    enum param cert_file, key_file, eccert_file, eckey_file, dcert_file, dkey_file;
    enum param ask_ccert, req_ccert, ccert_verifydepth, fingerprint_digest;
    enum param protocols, mandatory_protocols, ciphers, mandatory_ciphers, exclude_ciphers, mandatory_exclude_ciphers;
    enum param dh_param_file, always_issue_session_ids, session_cache_timeout;
};
extern const struct tls_server_params tls_smtpd_params; /* smtpd's */
/* Of parameters and policies, weakest first; the last six are a client's. HALF_DANE has no name: DANE for a host whose
 * MX record was not secure. */
enum tls_level {
    TLS_LEVEL_NONE,
    TLS_LEVEL_MAY,
    TLS_LEVEL_ENCRYPT,
    TLS_LEVEL_FINGERPRINT,
    TLS_LEVEL_HALF_DANE,
    TLS_LEVEL_DANE,
    TLS_LEVEL_DANE_ONLY,
    TLS_LEVEL_VERIFY,
    TLS_LEVEL_SECURE,
};
bool tls_level_parse(struct str name, enum tls_level *ret);
struct str tls_level_name(enum tls_level l);

/* none, may, encrypt; without a level the two older switches count. `name`: of the level's parameter, for warnings.
 * ERR_CONFIG: the text of the fatal line. */
struct tls_level_params {
    enum param level, use, enforce;
    const char *name;
};
error tls_server_level(const struct conf *c, const struct tls_level_params *p, struct arena *err_arena, bool *ret_on,
                       bool *ret_mandatory);

struct tls_server;

/* Reads keys and certificates: in init(). `service` is the name of the service: tickets of one are not taken by
 * another, whose checks of clients may be others. `mandatory`: the settings for mandatory TLS count. NULL when there
 * can be no TLS; why has been logged. */
struct tls_server *tls_server_open(const struct conf *c, const struct tls_server_params *p, struct str service,
                                   bool mandatory, int log_level);
void tls_server_close(struct tls_server *s); /* NULL is allowed */
bool tls_server_asks_cert(const struct tls_server *s);
bool tls_server_requires_cert(const struct tls_server *s); /* smtpd_tls_req_ccert, where it counts */
/* Does it give out tickets once it has keys? */
bool tls_server_wants_keys(const struct tls_server *s);
/* Tickets are given out and taken with these from now on. */
void tls_server_set_keys(struct tls_server *s, const struct tls_ticket_keys *keys);

/* --- a session --- */
struct tls;

/* What is known of a session; strings live as long as the arena given to tls_facts(). All zero and empty: no TLS. */
struct tls_facts {
    bool active;
    bool client;                   /* we are it */
    bool trusted;                  /* the peer's certificate chain leads to a CA we know */
    bool matched;                  /* of a server: it has proved to be the one we wanted (tls/client.h) */
    bool requested_cert;           /* we asked for one */
    bool reused;                   /* an earlier session was resumed */
    struct str protocol, cipher;   /* "TLSv1.3", "TLS_AES_256_GCM_SHA384" */
    unsigned bits, algorithm_bits; /* of the cipher */
    struct str details;            /* what Received: and the log add for TLSv1.3: "key-exchange X25519 ..." */
    struct str subject, issuer;    /* common names of the peer's certificate */
    struct str serial;             /* hexadecimal */
    struct str cert_print,
        key_print;  /* fingerprints of certificate and public key, "AB:CD:..."; empty: no certificate */
    struct str sni; /* the name the client asked for, when there is a certificate for it */
};

/* The handshake of a server (`peer`: "name[address]", for logs). `began`: what the client has sent of it already,
 * copied from the io, which must hold no input. ERR_SYNTAX: it holds some, nothing has been changed. After any other
 * error the io is good for nothing but io_close(). The session belongs to the io and ends with it. */
error tls_accept(struct tls_server *s, struct io *io, struct str began, struct str peer, int log_level,
                 int64_t deadline, struct tls **ret);
void tls_facts(struct tls *t, struct arena *a, struct tls_facts *ret);
/* "Anonymous TLS connection established from PEER: TLSv1.3 with cipher ...", as log levels from 1 have it; "to" for a
 * client. */
void tls_log_summary(const struct tls_facts *f, struct str peer);
/* Say goodbye (close_notify) and wait for the peer's. io_close() says it, too, but waits for nothing. */
void tls_shutdown(struct tls *t, struct io *io, int64_t deadline);

/* Asked about once a second: NULL, or a file of keys or certificates that is another one than when it was read, and has
 * not changed any more for a moment. Works by descriptors, also in a process that has no files. */
const char *tls_files_changed(void);

/* smtpd_tls_loglevel and its like: "0" to "4", with or without the word trace, which asks Postfix for a file. Another
 * word is logged and has no effect. */
int tls_log_level(struct str text, const char *parameter);
enum { TLS_LOG_SUMMARY = 1, TLS_LOG_STEPS = 2, TLS_LOG_NEGOTIATION = 3, TLS_LOG_ALL = 4 };

enum {
    TLS_CHAIN_FILES_MAX = 32,
    TLS_FILE_MAX = 4 * 1024 * 1024, /* bytes of one file of certificates */
    TLS_NAME_MAX = 255,             /* of a server name: RFC 1035, 2.3.4 */
    TLS_COMMON_NAME_MAX = 128,      /* bytes of a common name that are kept */
};
#endif
