#include "queue/spool_file.h"

#include "queue/crc32c.h"

enum { HEAD_CRC_AT = SPOOL_HEAD_SIZE - 4 };

#define MAGIC STR("ANGMAIL\n")

void spool_head_pack(struct buf *b, const struct spool_head *h) {
    size_t start = b->n;
    buf_add(b, MAGIC);
    pack_u32(b, SPOOL_VERSION);
    pack_u32(b, h->rcpt_count);
    pack_u64(b, h->content_size);
    pack_u64(b, h->envelope_at);
    pack_u32(b, h->envelope_size);
    pack_u32(b, h->content_crc);
    pack_u32(b, h->envelope_crc);
    while (b->n - start < HEAD_CRC_AT)
        buf_byte(b, 0);
    pack_u32(b, crc32c(0, str_n(b->p + start, HEAD_CRC_AT)));
}

bool spool_head_unpack(struct str bytes, uint64_t file_size, struct spool_head *ret) {
    if (bytes.n < SPOOL_HEAD_SIZE || !str_starts(bytes, MAGIC))
        return false;
    struct unpack crc = unpack_from(str_sub(bytes, HEAD_CRC_AT, 4));
    if (unpack_u32(&crc) != crc32c(0, str_sub(bytes, 0, HEAD_CRC_AT)))
        return false;
    struct unpack u = unpack_from(str_sub(bytes, MAGIC.n, SPOOL_HEAD_SIZE - MAGIC.n));
    uint32_t version = unpack_u32(&u);
    struct spool_head h = { 0 };
    h.rcpt_count = unpack_u32(&u);
    h.content_size = unpack_u64(&u);
    h.envelope_at = unpack_u64(&u);
    h.envelope_size = unpack_u32(&u);
    h.content_crc = unpack_u32(&u);
    h.envelope_crc = unpack_u32(&u);
    if (version != SPOOL_VERSION || h.envelope_size > SPOOL_ENVELOPE_MAX || file_size > INT64_MAX)
        return false;
    if (h.content_size > file_size || h.envelope_at != SPOOL_HEAD_SIZE + h.content_size || h.envelope_at > file_size ||
        file_size - h.envelope_at < h.envelope_size + spool_mark_count(&h) + SPOOL_REASONS_HEAD)
        return false;
    *ret = h;
    return true;
}

bool spool_envelope_pack(struct buf *b, struct spool_head *h, const struct envelope *e) {
    size_t start = b->n;
    envelope_pack(b, e);
    for (size_t i = 0; i < e->rcpt_count; i++) {
        rcpt_pack(b, &e->rcpts[i]);
        if (b->n - start > SPOOL_ENVELOPE_MAX)
            return false;
    }
    size_t size = b->n - start;
    if (size > SPOOL_ENVELOPE_MAX || e->rcpt_count > UINT32_MAX)
        return false;
    h->envelope_at = SPOOL_HEAD_SIZE + h->content_size;
    h->envelope_size = (uint32_t)size;
    h->envelope_crc = crc32c(0, str_n(b->p + start, size));
    h->rcpt_count = (uint32_t)e->rcpt_count;
    for (size_t i = 0; i < e->rcpt_count; i++)
        buf_byte(b, e->rcpts[i].state == RCPT_DONE ? SPOOL_MARK_DONE : SPOOL_MARK_TODO);
    for (int i = 0; i < SPOOL_FLAGS; i++)
        buf_byte(b, SPOOL_MARK_TODO);
    pack_u32(b, 0);
    return true;
}

unsigned spool_flags(struct str marks) {
    static const unsigned flags[SPOOL_FLAGS] = {
        [SPOOL_FLAG_WARNED] = ENVELOPE_WARNED, [SPOOL_FLAG_EXPIRED] = ENVELOPE_EXPIRED
    };
    unsigned set = 0;
    for (size_t i = 0; i < SPOOL_FLAGS && i < marks.n; i++)
        if (marks.p[i] == SPOOL_MARK_DONE)
            set |= flags[i];
    return set;
}

bool spool_envelope_unpack(struct str bytes, const struct spool_head *h, struct arena *a, struct envelope *ret) {
    if (bytes.n != h->envelope_size + spool_mark_count(h))
        return false;
    struct str packed = str_sub(bytes, 0, h->envelope_size), marks = str_from(bytes, h->envelope_size);
    if (crc32c(0, packed) != h->envelope_crc)
        return false;
    struct unpack u = unpack_from(packed);
    struct envelope e = { 0 };
    envelope_unpack(&u, &e);
    /* each recipient takes more than a byte, so this bounds the array by the file's size */
    if (u.bad || h->rcpt_count > u.rest.n)
        return false;
    e.rcpt_count = h->rcpt_count;
    e.rcpts = arena_array(a, e.rcpt_count, sizeof *e.rcpts);
    for (size_t i = 0; i < e.rcpt_count; i++) {
        rcpt_unpack(&u, &e.rcpts[i]);
        e.rcpts[i].state = marks.p[i] == SPOOL_MARK_DONE ? RCPT_DONE : RCPT_TODO;
    }
    if (!unpack_done(&u))
        return false;
    e.size = h->content_size;
    e.flags |= spool_flags(str_from(marks, h->rcpt_count));
    *ret = e;
    return true;
}
