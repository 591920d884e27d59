/* starttls.h - TLS of a session: STARTTLS (RFC 3207), and from the first byte on (RFC 8314; smtpd_tls_wrappermode). */
#ifndef ANGARIUM_SMTPD_STARTTLS_H
#define ANGARIUM_SMTPD_STARTTLS_H

#include "base/buf.h"
#include "smtpd/session.h"

/* The parameters; NULL, or ERR_CONFIG with the text of the fatal line. */
error starttls_settings(struct starttls *ret, const struct conf *c, struct arena *err_arena);
/* Read keys and certificates: in init(). Without any that can be used there is no TLS, which has been logged. */
void starttls_open(struct starttls *t, const struct conf *c, struct str service);
void starttls_close(struct starttls *t);
/* A user's own session: none (smtpd -S). */
void starttls_off(struct starttls *t);

bool command_starttls(struct session *s, struct str args);
/* Wrapper mode, before the greeting. False: the session is over. */
bool starttls_wrap(struct session *s);
/* STARTTLS may be offered to this client now. */
bool starttls_offered(const struct session *s);
/* Mandatory, and not there yet: most commands have to wait. */
bool starttls_missing(const struct session *s);
/* What Received: says of it; nothing unless smtpd_tls_received_header. */
void starttls_received(struct buf *b, const struct session *s);
/* The session ends: wait for the client's goodbye where tls_fast_shutdown_enable says so. */
void starttls_end(struct session *s);
bool starttls_waits_at_end(const struct session *s);
#endif
