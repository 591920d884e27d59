/* starttls.h - TLS of a session: STARTTLS (RFC 3207), and from the first byte on (RFC 8314; smtp_tls_wrappermode). */
#ifndef ANGARIUM_SMTP_STARTTLS_H
#define ANGARIUM_SMTP_STARTTLS_H

#include "smtp/session.h"

enum starttls {
    STARTTLS_DONE,   /* what was known of the server before is forgotten: say EHLO again */
    STARTTLS_NONE,   /* go on without: the policy allows it */
    STARTTLS_FAILED, /* *ret_why is filled */
};
/* After EHLO. */
enum starttls starttls_begin(struct session *s, const struct tls_policy *p, struct problem *ret_why);
/* Before the greeting. */
bool starttls_wrap(struct session *s, const struct tls_policy *p, struct problem *ret_why);
#endif
