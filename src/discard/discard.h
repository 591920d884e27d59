/* discard.h - the discard(8) agent: pretends to deliver; the request's nexthop is the reason that is logged. */
#ifndef ANGARIUM_DISCARD_DISCARD_H
#define ANGARIUM_DISCARD_DISCARD_H

#include "deliver/agent.h"

void discard_deliver(struct agent_request *r);
#endif
