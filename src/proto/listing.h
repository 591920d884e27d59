/* listing.h - the queue as mailq shows it: showq (public/showq) -> postqueue. The client connects and reads frames
 * until END: ENTRY for each message, followed by RCPTS when its recipients do not fit into one frame. */
#ifndef ANGARIUM_PROTO_LISTING_H
#define ANGARIUM_PROTO_LISTING_H

#include "queue/spool.h"
#include "run/ipc.h"

enum listing_type { LISTING_MSG_ENTRY = 1, LISTING_MSG_END, LISTING_MSG_RCPTS };
struct listing_rcpt {
    struct str address, orig;
    struct str delay_reason, bounce_reason; /* empty: none yet */
};
struct listing_entry {
    struct str queue_name; /* "active", "maildrop", ... */
    struct queue_id id;
    int64_t arrival_s;
    uint64_t size;
    bool forced_expire;
    struct str sender;
    struct listing_rcpt *rcpts;
    size_t rcpt_count;
};
void listing_send(struct ipc *ipc, const struct listing_entry *e);
void listing_end(struct ipc *ipc);
/* Also for RCPTS frames: then only the recipients are set, more of those of the entry before. Copied to `a`. */
bool listing_unpack(const struct ipc_msg *m, struct arena *a, struct listing_entry *ret);
#endif
