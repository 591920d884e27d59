/* notice.h - what qmgr is told on public/qmgr.
 *
 * Two kinds of peers: cleanup keeps a connection and sends frames (a message has come); commands write bare trigger bytes
 * and close: 'W' wake up, scan for due mail; 'I' scan incoming; 'F' flush: everything deferred is due now; 'D' the same
 * as a scan of deferred; 'A' forget what is known of dead destinations. A frame's first byte is never one of these letters
 * (its length is below 256 bytes: the first byte is the low byte of the length, and notices are padded to avoid them). */
#ifndef ANGARIUM_PROTO_NOTICE_H
#define ANGARIUM_PROTO_NOTICE_H

#include "queue/queue_id.h"
#include "queue/spool.h"
#include "run/ipc.h"

enum notice_type {
    NOTICE_NEW = 1, /* queue id, state INCOMING */
    NOTICE_FLUSH_ID, /* queue id: try now (postqueue -i) */
};
/* One-way; nothing is lost when it does not arrive: qmgr scans incoming at its wakeup. */
void notice_new(struct ipc *ipc, const struct queue_id *id);
void notice_flush_id(struct ipc *ipc, const struct queue_id *id);
bool notice_unpack(const struct ipc_msg *m, struct queue_id *ret_id);
#endif
