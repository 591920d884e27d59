/* bounce.h - the bounce(8) service (also defer, trace): qmgr says which recipients of a message failed, wait or were
 * reached; the sender, and the postmaster where notify_classes says so, hear of it.
 *
 * Who is told what:
 *   sender                     FAILED           DELAYED         SUCCESS
 *   an address                 sender, [bounce] sender, [delay] sender
 *   <> (a notice itself)       [2bounce]        [delay]         nobody
 *   $double_bounce_sender      nobody: a warning and BOUNCE_NOTHING
 * [class]: to the postmaster when the class is in notify_classes. Recipients that did not ask for this kind of report
 * (RFC 3461, 4.1) are left out of what the sender gets. */
#ifndef ANGARIUM_BOUNCE_BOUNCE_H
#define ANGARIUM_BOUNCE_BOUNCE_H

#include "proto/bounce.h"
#include "service/service.h"

/* Reads bounce_template_file and expands the texts, for all notices of this process. What is wrong there is logged, and
 * the built-in words stand in its place: never fails, mail must be returned. Before bounce_serve(). */
error bounce_init(struct service_ctx *ctx, struct arena *err_arena);
/* Serve requests until the peer closes. */
void bounce_serve(struct service_ctx *ctx, struct ipc *ipc);
#endif
