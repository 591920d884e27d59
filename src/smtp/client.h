/* client.h - one delivery request from its first target to its last: the nexthop's hosts in order, then those of
 * smtp_fallback_relay, until every recipient has an answer. */
#ifndef ANGARIUM_SMTP_CLIENT_H
#define ANGARIUM_SMTP_CLIENT_H

#include "deliver/agent.h"
#include "smtp/config.h"

void client_deliver(const struct client_config *c, struct agent_request *r);
#endif
