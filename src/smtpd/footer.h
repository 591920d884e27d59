/* footer.h - templates of replies (smtpd_reject_footer, default_rbl_reply), and what stands for the names in them.
 *
 * Values come from clients: they are never expanded again, and bytes that smtpd_expansion_filter does not have become
 * "_". */
#ifndef ANGARIUM_SMTPD_FOOTER_H
#define ANGARIUM_SMTPD_FOOTER_H

#include "base/buf.h"
#include "conf/expand.h"
#include "smtpd/session.h"

/* The bytes of smtpd_expansion_filter, which is written with escapes as C has them (\t, \40, \\). */
struct str expansion_filter(struct arena *a, struct str text);
/* `value` with the bytes that the filter does not have made "_". */
struct str filtered_text(struct arena *a, const struct settings *set, struct str value);
/* $client_address and the others that every template may have. False: no such name. */
bool session_value(struct arena *a, const struct session *s, struct str name, struct expand_value *ret);

/* Add the footer that belongs to the reply in `b`: "550 5.1.1 text" becomes lines with LF between them, none at the
 * end. Other replies than 4xx and 5xx, and those that are several lines, stay as they are. */
void footer_add(const struct session *s, struct buf *b);
#endif
