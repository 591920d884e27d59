/* milter.h - mail filters of a session (smtpd_milters, smtpd_milter_maps): what they are told of it, and what becomes
 * of their verdicts. The content is told by cleanup.
 *
 * Without filters each of these returns at once. Those that return bool: true, the command may go on; false, it has
 * been refused, logged and answered. Waits. */
#ifndef ANGARIUM_SMTPD_MILTER_H
#define ANGARIUM_SMTPD_MILTER_H

#include "smtpd/session.h"

/* Before the greeting. False: the client has been greeted otherwise. */
bool milter_connect(struct session *s);
bool milter_helo(struct session *s);
/* A filter has refused the client for good: EHLO offers nothing. */
bool milter_refuses_client(const struct session *s);
bool milter_mail(struct session *s, struct str options);
/* `refusal`: our own, which filters may want to hear of; then the answer is true. */
bool milter_rcpt(struct session *s, struct str rcpt, struct str options, error refusal);
bool milter_data(struct session *s);
/* A command that we do not know, or do not have: `line` is all of it, `reply` what it is answered. Returns false. */
bool milter_unknown(struct session *s, struct str line, struct str reply);
/* The message is about to be ended at cleanup, which will tell its content. */
void milter_hand_over(struct session *s);
/* Cleanup did not answer: nobody knows what the filters have heard. */
void milter_lost(struct session *s);
void milter_tx_end(struct session *s);
void milter_end(struct session *s);
#endif
