/* error.h - the error(8) agent: every recipient fails, with the request's nexthop as the reason.
 * Under the service name "retry" they are deferred, under any other name bounced. */
#ifndef ANGARIUM_ERROR_ERROR_H
#define ANGARIUM_ERROR_ERROR_H

#include "deliver/agent.h"

void error_deliver(struct agent_request *r);
#endif
