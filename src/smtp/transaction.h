/* transaction.h - one message over one session, for the recipients that have no answer yet. */
#ifndef ANGARIUM_SMTP_TRANSACTION_H
#define ANGARIUM_SMTP_TRANSACTION_H

#include "deliver/agent.h"
#include "smtp/session.h"

/* One request, over all the servers it is tried at. */
struct attempts {
    struct agent_request *r;
    /* Per recipient, dsn empty: none. Refused for now; the answer, should no other server take it. */
    struct problem *refused;
    bool plain_next; /* a session lost for its TLS is not the end: one without comes next */
};
struct attempts attempts_new(struct agent_request *r);

/* Recipients are answered through deliver/agent.h. While `more_targets` a temporary refusal leaves its recipients
 * unanswered for the next target and logs why. After it returns, `s->broken` says whether the session can go on. False:
 * it was lost before the message was sent and had been used before, or `plain_next`; nobody has been told anything, for
 * that says nothing about the server. */
bool transaction_run(struct session *s, struct attempts *t, bool more_targets);
/* Bring a session to where the next message may begin. False: it cannot go on. */
bool transaction_reset(struct session *s);

/* A problem that concerns every recipient without an answer. */
void attempts_fail(struct attempts *t, const struct problem *p, bool more_targets);
/* No server is left: what they were refused for is their answer, or `otherwise`. */
void attempts_end(struct attempts *t, const struct problem *otherwise);
size_t attempts_unanswered(const struct attempts *t);
#endif
