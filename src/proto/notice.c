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

void notice_retry_id(struct ipc *ipc, const struct queue_id *id) {
    send_id(ipc, NOTICE_RETRY_ID, id);
}

void notice_log(struct ipc *ipc, struct spool_position position) {
    struct buf b = { 0 };
    pack_u64(&b, position.segment);
    pack_u64(&b, position.end);
    ipc_send(ipc, NOTICE_LOG, buf_str(&b), -1);
    buf_free(&b);
}

bool notice_unpack(const struct ipc_msg *m, struct notice *ret) {
    struct unpack u = unpack_from(m->payload);
    struct notice n = { .type = m->type };
    switch (m->type) {
    case NOTICE_NEW:
    case NOTICE_FLUSH_ID:
    case NOTICE_RETRY_ID:
        if (!queue_id_unpack(&u, &n.id))
            return false;
        break;
    case NOTICE_LOG:
        n.position.segment = unpack_u64(&u);
        n.position.end = unpack_u64(&u);
        break;
    default:
        return false;
    }
    if (!unpack_done(&u))
        return false;
    *ret = n;
    return true;
}
