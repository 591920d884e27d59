/* pipe.h - the pipe(8) agent: each request is one command (attributes.h) that gets the message as its standard input.
 *
 * Its exit status decides (sysexits.h), for all recipients alike. As an ordinary user only the own user id can run
 * commands. */
#ifndef ANGARIUM_PIPE_PIPE_H
#define ANGARIUM_PIPE_PIPE_H

#include "deliver/agent.h"

error pipe_init(struct service_ctx *ctx, struct arena *err_arena);
void pipe_end(struct service_ctx *ctx); /* what pipe_init() made: for tests */
void pipe_deliver(struct agent_request *r);
#endif
