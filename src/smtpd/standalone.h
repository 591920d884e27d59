/* standalone.h - `smtpd -S`, which is `sendmail -bs`: one session on standard input with the rights of its user.
 *
 * Nobody is asked whether an address exists (cleanup and the queue manager will find out), and mail goes into maildrop/
 * by way of postdrop(1), as any other local submission does. */
#ifndef ANGARIUM_SMTPD_STANDALONE_H
#define ANGARIUM_SMTPD_STANDALONE_H

#include "smtpd/session.h"

/* Calls block: there is one session. `c` must outlive the backend. */
void standalone_backend(const struct conf *c, struct backend *ret);
#endif
