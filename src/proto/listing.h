/* listing.h - the queue as mailq shows it: showq (public/showq) -> postqueue. The client connects and reads frames
 * until END: ENTRIES with one or many messages, and RCPTS when the recipients of the last of them did not fit. */
#ifndef ANGARIUM_PROTO_LISTING_H
#define ANGARIUM_PROTO_LISTING_H

#include "queue/spool.h"
#include "run/ipc.h"

enum listing_type { LISTING_MSG_ENTRIES = 1, LISTING_MSG_END, LISTING_MSG_RCPTS };
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
/* A frame of its own, or several. */
void listing_send(struct ipc *ipc, const struct listing_entry *e);
/* To gather entries for one frame: appends `e`; false: it would make `b` too large for a frame, and nothing is done. */
bool listing_pack(struct buf *b, const struct listing_entry *e);
void listing_send_packed(struct ipc *ipc, struct str entries);
void listing_end(struct ipc *ipc);
/* The next entry of a frame's payload, of which there is some left. Of a RCPTS frame only the recipients are set, more
 * of those of the entry before. Strings are borrowed, the recipients are in `a`. */
bool listing_unpack(struct unpack *u, uint8_t type, struct arena *a, struct listing_entry *ret);
#endif
