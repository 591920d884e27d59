/* login.h - logging in to a server (RFC 4954) with what smtp_sasl_password_maps have for it (postconf(5): smtp_sasl_...
 * and lmtp_sasl_...).
 *
 * The table is opened before the process gives up its rights, so only root needs to be able to read it. Mechanisms are
 * those of sasl/native.h, or the Cyrus library's in the look-up process (proto/login.h). Passwords live from look-up to
 * response, and their memory is overwritten. */
#ifndef ANGARIUM_SMTP_LOGIN_H
#define ANGARIUM_SMTP_LOGIN_H

#include "smtp/session.h"

struct login_config;

/* Before confinement. `*ret` is NULL where logins are not enabled. */
error login_load(struct service_ctx *ctx, bool lmtp, struct arena *err_arena, struct login_config **ret);
void login_free(struct login_config *l); /* NULL is allowed */

/* A line of the EHLO reply: `keyword` is AUTH, or AUTH= with the first mechanism (before RFC 2554). False: neither. */
bool login_offered(struct session *s, struct str keyword, struct str parameters);
/* To be called after the last EHLO. True also where nothing is to be logged in for: FEATURE_AUTH is then gone. */
bool login_session(struct session *s, const struct destination *d, struct problem *ret_why);
/* Under what a session for `nexthop` may be kept and found again: with smtp_sender_dependent_authentication only mail
 * of the same sender may use it. */
struct str login_kept_key(const struct client_config *c, struct arena *a, struct str nexthop, struct str sender);
#endif
