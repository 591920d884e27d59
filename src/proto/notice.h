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
    NOTICE_FLUSH_ID, /* queue id of deferred mail: try now (postqueue -i, -s, ETRN) */
    NOTICE_RETRY_ID, /* the same, but as if it were due: it waits for what other mail waits for (flush's refresh) */
    NOTICE_LOG,      /* a segment of the log is on stable storage up to `end` */
};
struct notice {
    enum notice_type type;
    struct queue_id id;             /* NEW, FLUSH_ID, RETRY_ID */
    struct spool_position position; /* LOG */
};
/* One-way; nothing is lost when it does not arrive: qmgr scans incoming at its wakeup. */
void notice_new(struct ipc *ipc, const struct queue_id *id);
void notice_flush_id(struct ipc *ipc, const struct queue_id *id);
void notice_retry_id(struct ipc *ipc, const struct queue_id *id);
void notice_log(struct ipc *ipc, struct spool_position position);
bool notice_unpack(const struct ipc_msg *m, struct notice *ret);
#endif
