/* ldap_client.h - servers of a directory and the connections to them (libldap), all with deadlines.
 *
 * The library waits inside its calls, so each is given what is left of the deadline before it is made, sockets do not
 * block, and a guard (ldap_guard.h) ends what does not keep to that. The name service is the C library's and takes the
 * time it takes. Times as in run/sys.h, mono_us. */
#ifndef ANGARIUM_LOOKUP_LDAP_CLIENT_H
#define ANGARIUM_LOOKUP_LDAP_CLIENT_H

#include "lookup/ldap_guard.h"
#include "lookup/lookup.h"
#include <ldap.h>

enum {
    LDAP_PDU_MAX = 4 * 1024 * 1024, /* bytes of one message of a server: more ends the connection */
    LDAP_REST_SECONDS = 1,          /* a server that failed rests so long, or as long as it made us wait */
};

enum ldap_bind { LDAP_BIND_NONE, LDAP_BIND_SIMPLE, LDAP_BIND_SASL };

/* Strings are NUL-terminated; "" or NULL: not set. */
struct ldap_settings {
    int version, deref, ssf_min;
    enum ldap_bind bind;
    const char *bind_dn;
    struct str bind_pw;
    bool chase_referrals, start_tls;
    int64_t timeout; /* seconds, for connecting (with TLS and bind), and for each search */
    const char *sasl_mechs, *sasl_realm, *sasl_authz_id;
    bool tls_require_cert;
    const char *tls_ca_cert_file, *tls_ca_cert_dir, *tls_cert, *tls_key, *tls_random_file, *tls_cipher_suite;
};

struct ldap_host {
    const char *uri;
    LDAP *ld; /* NULL: not connected */
    int64_t rest_until;
    struct ldap_guard guard;
    struct ldap_conncb callback;
};
void ldap_host_init(struct ldap_host *h, const char *uri); /* kept, both */

/* What is left until `deadline`, never negative. */
struct timeval ldap_remaining(int64_t deadline);

/* Connect, begin TLS, bind. False: `why` says what failed (never a password), and the host rests. */
bool ldap_host_connect(struct ldap_host *h, const struct ldap_settings *s, struct buf *why);
void ldap_host_close(struct ldap_host *h);
/* Close, and rest: `started` is when it was asked. */
void ldap_host_failed(struct ldap_host *h, int64_t started);
/* Does this result mean that the server or the connection, not the question, is at fault? */
bool ldap_is_lost(int rc);

/* debuglevel is the library's, for the whole process: the highest that any table wants. What it says goes to the log,
 * but for the dumps of whole messages, which hold passwords. */
void ldap_debug(int level);
/* Before anything else of the library, which sets itself up without a lock. Any number of times. */
void ldap_library_init(void);
#endif
