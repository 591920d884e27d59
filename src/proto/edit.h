/* edit.h - changes of the queue on an administrator's behalf: postsuper -> qmgr (public/qmgr), because only the queue
 * manager in office moves messages. Frames on the socket that notices come to (proto/notice.h):
 *
 * postsuper                          qmgr
 * OPEN()                         ->
 *                                <-  OPENED(u8 enum edit_welcome)   anything but EDIT_WELCOME: it closes
 * EDIT(what, queues, ids)        ->
 *                                <-  EDITED(a byte for each id: enum queue_edited)
 * ... until postsuper closes.
 *
 * Only root and mail_owner are served, by what the kernel says of the peer. EDITED means done, or, of a message that is
 * being delivered, decided: no recipient that an agent does not have yet is tried any more, and the rest of the change
 * is made as soon as the agents are done. What goes wrong is in qmgr's log. The empty payload of OPEN keeps the first
 * byte of the connection from being taken for a trigger. */
#ifndef ANGARIUM_PROTO_EDIT_H
#define ANGARIUM_PROTO_EDIT_H

#include "queue/queue_edit.h"
#include "run/ipc.h"

enum edit_type { EDIT_MSG_OPEN = 32, EDIT_MSG_OPENED, EDIT_MSG_EDIT, EDIT_MSG_EDITED };
enum edit_welcome {
    EDIT_WELCOME = 1,
    EDIT_LATER,     /* not in office: another one still is, or it is ending. Connect again */
    EDIT_FORBIDDEN, /* neither root nor mail_owner */
};
enum { EDIT_IDS_MAX = 500 }; /* of one frame: qmgr serves others between frames */

struct edit_request {
    enum queue_edit what;
    unsigned states; /* mask of queue_states() */
    const struct queue_id *ids;
    size_t count;
};

/* --- postsuper --- */
/* Connected and welcome when this returns NULL. ERR_TEMP: EDIT_LATER; ERR_PERM: EDIT_FORBIDDEN; others: nobody there,
 * or the connection broke. */
error edit_open(struct str path, int64_t deadline, struct ipc **ret);
/* `ret`: one for each id, in their order. Results of a batch whose connection broke are not known. */
error edit_ask(struct ipc *ipc, const struct edit_request *r, int64_t deadline, enum queue_edited *ret);

/* --- qmgr --- */
void edit_welcome(struct ipc *ipc, enum edit_welcome w);
/* False: malformed, too many, or an id that is none. Ids live in `a`. */
bool edit_unpack(const struct ipc_msg *m, struct arena *a, struct edit_request *ret);
void edit_answer(struct ipc *ipc, const enum queue_edited *results, size_t count);
#endif
