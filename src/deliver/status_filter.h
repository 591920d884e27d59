/* status_filter.h - local_delivery_status_filter and its like: tables that change what became of a recipient before it
 * is logged and reported. Only the programs that have such a parameter are asked (local, virtual, pipe, smtp, lmtp). */
#ifndef ANGARIUM_DELIVER_STATUS_FILTER_H
#define ANGARIUM_DELIVER_STATUS_FILTER_H

#include "service/service.h"

/* In init(): opens the tables of ctx->program's parameter. A process has one filter. */
void status_filter_open(const struct service_ctx *ctx);
void status_filter_close(void);
/* Asks for "DSN REASON", and replaces `*dsn` and `*reason` (in `a`): 2.x.x by 2.x.x, other classes by 4.x.x or 5.x.x.
 * No answer, an answer of another form, and a table that fails (both are logged): nothing changes. */
void status_filter(struct arena *a, struct str *dsn, struct str *reason);
#endif
