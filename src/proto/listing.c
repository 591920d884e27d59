#include "proto/listing.h"

enum {
    LISTED_RCPT_MIN = 16,                 /* four string lengths */
    LISTING_SOFT_MAX = IPC_FRAME_MAX / 2, /* a frame is closed once it is this large: one recipient more still fits */
};

static size_t pack_rcpts(struct buf *b, const struct listing_rcpt *rcpts, size_t count) {
    size_t n = 0, number_at = b->n;
    pack_u32(b, 0); /* overwritten below */
    while (n < count && b->n < LISTING_SOFT_MAX) {
        const struct listing_rcpt *r = &rcpts[n++];
        pack_str(b, r->address);
        pack_str(b, r->orig);
        pack_str(b, r->delay_reason);
        pack_str(b, r->bounce_reason);
    }
    size_t end = b->n;
    pack_u32(b, (uint32_t)n);
    memcpy(b->p + number_at, b->p + end, b->n - end);
    buf_truncate(b, end);
    return n;
}

static size_t pack_entry(struct buf *b, const struct listing_entry *e) {
    pack_str(b, e->queue_name);
    pack_str(b, queue_id_str(&e->id));
    pack_i64(b, e->arrival_s);
    pack_u64(b, e->size);
    pack_u8(b, e->forced_expire);
    pack_str(b, e->sender);
    return pack_rcpts(b, e->rcpts, e->rcpt_count);
}

bool listing_pack(struct buf *b, const struct listing_entry *e) {
    size_t start = b->n;
    if (pack_entry(b, e) == e->rcpt_count && b->n <= IPC_FRAME_MAX)
        return true;
    buf_truncate(b, start);
    return false;
}

void listing_send_packed(struct ipc *ipc, struct str entries) {
    ipc_send(ipc, LISTING_MSG_ENTRIES, entries, -1);
}

void listing_send(struct ipc *ipc, const struct listing_entry *e) {
    struct buf b = { 0 };
    size_t at = pack_entry(&b, e);
    ipc_send(ipc, LISTING_MSG_ENTRIES, buf_str(&b), -1);
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

bool listing_unpack(struct unpack *u, uint8_t type, struct arena *a, struct listing_entry *ret) {
    struct listing_entry e = { 0 };
    e.queue_name = e.sender = STR("");
    if (type == LISTING_MSG_ENTRIES) {
        e.queue_name = unpack_str(u);
        if (!queue_id_unpack(u, &e.id))
            return false;
        e.arrival_s = unpack_i64(u);
        e.size = unpack_u64(u);
        e.forced_expire = unpack_u8(u) != 0;
        e.sender = unpack_str(u);
    } else if (type != LISTING_MSG_RCPTS) {
        return false;
    }
    size_t count = unpack_u32(u);
    if (u->bad || count > u->rest.n / LISTED_RCPT_MIN)
        return false;
    e.rcpts = arena_array(a, count, sizeof *e.rcpts);
    e.rcpt_count = count;
    for (size_t i = 0; i < count; i++) {
        struct listing_rcpt *r = &e.rcpts[i];
        r->address = unpack_str(u);
        r->orig = unpack_str(u);
        r->delay_reason = unpack_str(u);
        r->bounce_reason = unpack_str(u);
    }
    if (u->bad)
        return false;
    *ret = e;
    return true;
}
