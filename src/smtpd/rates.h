/* rates.h - how often a client may do things: smtpd_client_connection_rate_limit and its like.
 *
 * What has a limit is asked of anvil (proto/anvil.h); connections without one are only noted there, which waits for
 * nobody. Clients in smtpd_client_event_limit_exceptions are not counted. When anvil cannot be asked, nothing is
 * refused. */
#ifndef ANGARIUM_SMTPD_RATES_H
#define ANGARIUM_SMTPD_RATES_H

#include "proto/anvil.h"
#include "smtpd/session.h"

/* Who is it? Before all of these. */
void rates_begin(struct session *s);
/* The client has come, and is to be let in. False: refused, and it has been told. */
bool rates_connect(struct session *s);
void rates_disconnect(struct session *s);
/* One more of these. True: too many; it has been logged and the client told. */
bool rates_refuse(struct session *s, enum anvil_event event);
#endif
