/* xforward.h - telling a server behind us, a content filter most likely, who the client was (XFORWARD_README). */
#ifndef ANGARIUM_SMTP_XFORWARD_H
#define ANGARIUM_SMTP_XFORWARD_H

#include "deliver/agent.h"
#include "smtp/session.h"

/* A line of the EHLO reply behind XFORWARD: the attributes the server takes. */
void xforward_offered(struct session *s, struct str attributes);
/* Before MAIL, where smtp_send_xforward_command wants it and something is known: two commands at most. A refusal is
 * logged, and no more. False: the session is lost. */
bool xforward_send(struct session *s, const struct agent_request *r, struct problem *ret_why);
#endif
