/* footer.h - what the templates of replies (smtpd_reject_footer, default_rbl_reply) may say of a session. */
#ifndef ANGARIUM_SMTPD_FOOTER_H
#define ANGARIUM_SMTPD_FOOTER_H

#include "proto/footer.h"
#include "smtpd/session.h"

/* $client_address and the others that every template may have, filtered by smtpd_expansion_filter. False: no such name.
 */
bool session_value(struct arena *a, const struct session *s, struct str name, struct expand_value *ret);
/* As footer_add(). */
void session_footer(const struct session *s, struct buf *b);
#endif
