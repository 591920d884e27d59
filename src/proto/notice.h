/* notice.h - what qmgr is told on public/qmgr.
 *
 * Two kinds of peers: cleanup keeps a connection and sends frames (a message has come); commands write bare trigger
 * bytes and close, as in qmgr(8): 'W' wake up and 'I' scan incoming; 'D' scan deferred for mail that is due; 'A' the
 * next scan of deferred ignores the times: all of it is due; 'F' forget what is known of dead transports and
 * destinations. A flush is "AFD" in any order. A frame's first byte is never one of these letters (it is the low byte
 * of the payload's length, and a notice is shorter than 'A'). */
#ifndef ANGARIUM_PROTO_NOTICE_H
#define ANGARIUM_PROTO_NOTICE_H

#include "queue/queue_id.h"
#include "queue/spool.h"
#include "run/ipc.h"

enum notice_type {
    NOTICE_NEW = 1,  /* queue id, state INCOMING */
    NOTICE_FLUSH_ID, /* queue id: try now (postqueue -i) */
};
/* One-way; nothing is lost when it does not arrive: qmgr scans incoming at its wakeup. */
void notice_new(struct ipc *ipc, const struct queue_id *id);
void notice_flush_id(struct ipc *ipc, const struct queue_id *id);
bool notice_unpack(const struct ipc_msg *m, struct queue_id *ret_id);
#endif
