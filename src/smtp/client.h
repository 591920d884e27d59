/* client.h - one delivery request from its first target to its last: the nexthop's hosts in order, then those of
 * smtp_fallback_relay, until every recipient has an answer. */
#ifndef ANGARIUM_SMTP_CLIENT_H
#define ANGARIUM_SMTP_CLIENT_H

#include "deliver/agent.h"
#include "smtp/kept.h"
#include "smtp/resolved.h"

struct client { /* one worker's */
    struct client_config config;
    struct kept kept;
    struct resolved resolved;
};
/* Takes over `config`; `work` is waited for before the process ends. */
void client_init(struct client *c, const struct client_config *config, struct group *work);
/* No session may be kept any more (kept_drain()). */
void client_end(struct client *c);
void client_deliver(struct client *c, struct agent_request *r);
#endif
