/* transaction.h - one message over one session, for the recipients that have no answer yet. */
#ifndef ANGARIUM_SMTP_TRANSACTION_H
#define ANGARIUM_SMTP_TRANSACTION_H

#include "deliver/agent.h"
#include "smtp/session.h"

/* Recipients are answered through deliver/agent.h. While `more_targets` a temporary refusal leaves its recipients
 * unanswered for the next target and logs why. After it returns, `s->broken` says whether the session can still QUIT.
 */
void transaction_run(struct session *s, struct agent_request *r, bool more_targets);

/* A problem that concerns every recipient without an answer. */
void transaction_fail_all(struct agent_request *r, struct str relay, struct str remote_mta, const struct problem *p,
                          bool more_targets);
size_t transaction_unanswered(const struct agent_request *r);
#endif
