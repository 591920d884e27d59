#include "proto/notice.h"

/* The payload is one string of at most QUEUE_ID_MAX bytes, so the frame's first byte (the low byte of the payload's
 * length) is below 'A': it cannot be taken for a trigger. */
_Static_assert(4 + QUEUE_ID_MAX < 'A', "a notice must not begin like a trigger byte");

static void send_id(struct ipc *ipc, enum notice_type type, const struct queue_id *id) {
    struct buf b = { 0 };
    pack_str(&b, queue_id_str(id));
    ipc_send(ipc, (uint8_t)type, buf_str(&b), -1);
    buf_free(&b);
}

void notice_new(struct ipc *ipc, const struct queue_id *id) {
    send_id(ipc, NOTICE_NEW, id);
}

void notice_flush_id(struct ipc *ipc, const struct queue_id *id) {
    send_id(ipc, NOTICE_FLUSH_ID, id);
}

bool notice_unpack(const struct ipc_msg *m, struct queue_id *ret_id) {
    if (m->type != NOTICE_NEW && m->type != NOTICE_FLUSH_ID)
        return false;
    struct unpack u = unpack_from(m->payload);
    struct queue_id id;
    if (!queue_id_unpack(&u, &id) || !unpack_done(&u))
        return false;
    *ret_id = id;
    return true;
}
