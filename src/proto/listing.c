#include "proto/listing.h"

enum {
    LISTED_RCPT_MIN = 16,                 /* four string lengths */
    LISTING_SOFT_MAX = IPC_FRAME_MAX / 2, /* a frame is closed once it is this large: one recipient more still fits */
};

static size_t pack_rcpts(struct buf *b, const struct listing_rcpt *rcpts, size_t count) {
    struct buf list = { 0 };
    size_t n = 0;
    while (n < count && b->n + list.n < LISTING_SOFT_MAX) {
        const struct listing_rcpt *r = &rcpts[n++];
        pack_str(&list, r->address);
        pack_str(&list, r->orig);
        pack_str(&list, r->delay_reason);
        pack_str(&list, r->bounce_reason);
    }
    pack_u32(b, (uint32_t)n);
    buf_add(b, buf_str(&list));
    buf_free(&list);
    return n;
}

void listing_send(struct ipc *ipc, const struct listing_entry *e) {
    struct buf b = { 0 };
    pack_str(&b, e->queue_name);
    pack_str(&b, queue_id_str(&e->id));
    pack_i64(&b, e->arrival_s);
    pack_u64(&b, e->size);
    pack_u8(&b, e->forced_expire);
    pack_str(&b, e->sender);
    size_t at = pack_rcpts(&b, e->rcpts, e->rcpt_count);
    ipc_send(ipc, LISTING_MSG_ENTRY, buf_str(&b), -1);
    while (at < e->rcpt_count) {
        buf_clear(&b);
        at += pack_rcpts(&b, e->rcpts + at, e->rcpt_count - at);
        ipc_send(ipc, LISTING_MSG_RCPTS, buf_str(&b), -1);
    }
    buf_free(&b);
}

void listing_end(struct ipc *ipc) {
    ipc_send(ipc, LISTING_MSG_END, STR(""), -1);
}

bool listing_unpack(const struct ipc_msg *m, struct arena *a, struct listing_entry *ret) {
    struct unpack u = unpack_from(arena_str(a, m->payload));
    struct listing_entry e = { 0 };
    e.queue_name = e.sender = STR("");
    if (m->type == LISTING_MSG_ENTRY) {
        e.queue_name = unpack_str(&u);
        if (!queue_id_unpack(&u, &e.id))
            return false;
        e.arrival_s = unpack_i64(&u);
        e.size = unpack_u64(&u);
        e.forced_expire = unpack_u8(&u) != 0;
        e.sender = unpack_str(&u);
    } else if (m->type != LISTING_MSG_RCPTS) {
        return false;
    }
    size_t count = unpack_u32(&u);
    if (u.bad || count > u.rest.n / LISTED_RCPT_MIN)
        return false;
    e.rcpts = arena_array(a, count, sizeof *e.rcpts);
    e.rcpt_count = count;
    for (size_t i = 0; i < count; i++) {
        struct listing_rcpt *r = &e.rcpts[i];
        r->address = unpack_str(&u);
        r->orig = unpack_str(&u);
        r->delay_reason = unpack_str(&u);
        r->bounce_reason = unpack_str(&u);
    }
    if (!unpack_done(&u))
        return false;
    *ret = e;
    return true;
}
