/* dovecot.h - the client side of Dovecot's authentication protocol, version 1.
 *
 * One connection serves all logins of the process: a request has a number, answers come in any order. It is made at the
 * first need and again when it was lost; a server that is not there is left alone for DOVECOT_REST_SECONDS. A login
 * that began on a connection which was gone before it answered is begun anew, once.
 *
 * Lines of fields with tabs between them:
 *   both     VERSION major minor
 *   server   MECH name property...   SPID pid   CUID n   COOKIE hex   DONE
 *   client   CPID n                  unique among the server's clients
 *   client   AUTH id mechanism name=value... [resp=base64]   CONT id base64   CANCEL id
 *   server   CONT id base64          OK id name=value...     FAIL id name=value... */
#ifndef ANGARIUM_SASL_DOVECOT_H
#define ANGARIUM_SASL_DOVECOT_H

#include "run/io.h"
#include "sasl/server.h"

enum {
    DOVECOT_LINE_MAX = 16 * 1024, /* bytes of one line of the server; more is a broken server */
    DOVECOT_HANDSHAKE_LINES_MAX = 256,
    DOVECOT_CONNECT_SECONDS = 10, /* for connection and handshake */
    DOVECOT_REST_SECONDS = 1,
};

/* Makes a connection. */
typedef error dovecot_dial(void *ctx, int64_t deadline, struct io **ret);

struct sasl_server *dovecot_new(dovecot_dial *dial, void *ctx);
/* In a coroutine; no login may be under way. */
void dovecot_free(struct sasl_server *s);
#endif
