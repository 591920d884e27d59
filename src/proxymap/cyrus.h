/* cyrus.h - logins by the Cyrus SASL library (smtpd_sasl_type = cyrus), which reads files, asks saslauthd or a
 * database, and blocks: so it is here, in threads, and smtpd talks to it as to a Dovecot login server (sasl/serve.h).
 */
#ifndef ANGARIUM_PROXYMAP_CYRUS_H
#define ANGARIUM_PROXYMAP_CYRUS_H

#include "conf/conf.h"
#include "conf/master_cf.h"
#include "run/io.h"
#include "run/ipc.h"

enum { CYRUS_THREADS = 8 /* logins that wait for the library at a time; others queue */ };

/* In init(): does any smtpd, smtp or lmtp use it? Then load the library with its mechanisms and its configuration. What
 * goes wrong is logged; logins then fail. */
void cyrus_open(const struct conf *c, const struct master_cf *services);
/* Has this connection been made to log in? Looks at its first bytes without taking them. */
bool cyrus_wanted(struct io *io);
/* Until the client goes. */
void cyrus_session(struct io *io);

/* A client of ours logs in elsewhere with it: from LOGIN_BEGIN (`first`) until the connection ends. */
void cyrus_client_session(struct ipc *ipc, const struct ipc_msg *first);
#endif
