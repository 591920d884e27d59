/* lookup_client.h - how a daemon asks tables that it may not open itself: over a few connections to proxymap
 * (proto/lookup.h). One per process; service_main() starts it before the program opens its tables. */
#ifndef ANGARIUM_SERVICE_LOOKUP_CLIENT_H
#define ANGARIUM_SERVICE_LOOKUP_CLIENT_H

#include "service/service.h"

/* From now on table_get() waits in coroutines for such tables; before the loop runs it answers TABLE_ERROR. */
void lookup_client_start(struct service_ctx *ctx);
/* Ends what the connections hold; no look-up may be waiting. */
void lookup_client_stop(void);
#endif
