#include "queue/segment.h"

#include "base/pack.h"
#include "queue/crc32c.h"

enum { HEAD_CRC_AT = SEGMENT_HEAD_SIZE - 4 };

#define MAGIC STR("ANGLOG1\n")

struct segment_head segment_head_for(uint64_t size, uint64_t generation) {
    uint32_t marks = (uint32_t)(size / SEGMENT_MARK_SHARE / SEGMENT_MARKS_AT * SEGMENT_MARKS_AT);
    return (struct segment_head){ .mark_size = marks, .size = size, .generation = generation };
}

static void head_pack(struct buf *b, const struct segment_head *h) {
    size_t start = b->n;
    buf_add(b, MAGIC);
    pack_u32(b, SEGMENT_VERSION);
    pack_u32(b, h->mark_size);
    pack_u64(b, h->size);
    pack_u64(b, h->generation);
    while (b->n - start < HEAD_CRC_AT)
        buf_byte(b, 0);
    pack_u32(b, crc32c(0, str_n(b->p + start, HEAD_CRC_AT)));
}

void segment_front_pack(struct buf *b, const struct segment_head *h) {
    head_pack(b, h);
    for (unsigned i = SEGMENT_HEAD_SIZE; i < SEGMENT_HEAD_2_AT; i++)
        buf_byte(b, 0);
    head_pack(b, h);
}

/* The version; 0: not one of ours, or damaged. All versions have their check sum here. */
static uint32_t head_version(struct str bytes) {
    if (bytes.n < SEGMENT_HEAD_SIZE || !str_starts(bytes, MAGIC))
        return 0;
    struct unpack crc = unpack_from(str_sub(bytes, HEAD_CRC_AT, 4));
    if (unpack_u32(&crc) != crc32c(0, str_sub(bytes, 0, HEAD_CRC_AT)))
        return 0;
    struct unpack u = unpack_from(str_sub(bytes, MAGIC.n, 4));
    return unpack_u32(&u);
}

static bool head_unpack(struct str bytes, uint64_t file_size, struct segment_head *ret) {
    struct unpack u = unpack_from(str_sub(bytes, MAGIC.n + 4, HEAD_CRC_AT - MAGIC.n - 4));
    struct segment_head h = { 0 };
    h.mark_size = unpack_u32(&u);
    h.size = unpack_u64(&u);
    h.generation = unpack_u64(&u);
    if (h.size != file_size || h.size < SEGMENT_SIZE_MIN || h.size > SEGMENT_SIZE_MAX ||
        h.size % SEGMENT_MARKS_AT != 0 || h.mark_size != segment_head_for(h.size, 1).mark_size || h.generation == 0)
        return false;
    *ret = h;
    return true;
}

enum segment_front segment_front_unpack(struct str bytes, uint64_t file_size, struct segment_head *ret) {
    for (unsigned at = 0; at <= SEGMENT_HEAD_2_AT; at += SEGMENT_HEAD_2_AT) {
        struct str head = bytes.n > at ? str_from(bytes, at) : STR("");
        uint32_t version = head_version(head);
        if (version == 0)
            continue;
        if (version != SEGMENT_VERSION)
            return SEGMENT_OF_ANOTHER_VERSION;
        if (!head_unpack(head, file_size, ret))
            return SEGMENT_BAD; /* cut, or of two minds: the other one says nothing else */
        return at ? SEGMENT_OURS_REPAIRED : SEGMENT_OURS;
    }
    return SEGMENT_BAD;
}

static uint32_t seed(const struct segment_head *h) {
    char bytes[8];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(h->generation >> (8 * i));
    return crc32c(0, str_n(bytes, sizeof bytes));
}

void segment_record_pack(struct buf *b, const struct segment_head *h, const struct segment_record *r) {
    size_t start = b->n;
    pack_u32(b, 0);
    pack_u32(b, (uint32_t)r->state);
    pack_u32(b, r->content_size);
    pack_u32(b, r->envelope_size);
    pack_u32(b, r->rcpt_count);
    pack_u32(b, r->mark);
    pack_u32(b, r->content_crc);
    pack_u32(b, r->envelope_crc);
    buf_add(b, str_n(r->id.text, sizeof r->id.text));
    uint32_t crc = crc32c(seed(h), str_n(b->p + start + 4, SEGMENT_RECORD_HEAD - 4));
    for (unsigned i = 0; i < 4; i++)
        b->p[start + i] = (char)(crc >> (8 * i));
}

bool segment_record_unpack(struct str bytes, const struct segment_head *h, uint64_t at, struct segment_record *ret) {
    if (bytes.n < SEGMENT_RECORD_HEAD || at % SEGMENT_ALIGN != 0 || at < segment_records_at(h) || at > h->size)
        return false;
    /* Who looks for a record asks at very many places: most are none by this byte. */
    if (bytes.p[4] != SEGMENT_INCOMING && bytes.p[4] != SEGMENT_HOLD)
        return false;
    struct unpack u = unpack_from(str_sub(bytes, 0, SEGMENT_RECORD_HEAD));
    if (unpack_u32(&u) != crc32c(seed(h), str_sub(bytes, 4, SEGMENT_RECORD_HEAD - 4)))
        return false;
    uint32_t state = unpack_u32(&u);
    if (state != SEGMENT_INCOMING && state != SEGMENT_HOLD)
        return false;
    struct segment_record r = { 0 };
    r.content_size = unpack_u32(&u);
    r.envelope_size = unpack_u32(&u);
    r.rcpt_count = unpack_u32(&u);
    r.mark = unpack_u32(&u);
    r.content_crc = unpack_u32(&u);
    r.envelope_crc = unpack_u32(&u);
    struct str id = str_n(u.rest.p, strnlen(u.rest.p, QUEUE_ID_MAX));
    if (state != SEGMENT_INCOMING && state != SEGMENT_HOLD)
        return false;
    uint64_t size = segment_record_size(&r);
    if (size > SEGMENT_RECORD_MAX || size > h->size - at || r.mark >= h->mark_size ||
        r.rcpt_count >= h->mark_size - r.mark)
        return false;
    if (!queue_id_from(id, &r.id))
        return false;
    r.state = (enum segment_state)state;
    *ret = r;
    return true;
}

bool segment_record_whole(struct str bytes, const struct segment_record *r) {
    if (bytes.n < (size_t)SEGMENT_RECORD_HEAD + r->content_size + r->envelope_size)
        return false;
    return crc32c(0, str_sub(bytes, SEGMENT_RECORD_HEAD, r->content_size)) == r->content_crc &&
           crc32c(0, str_sub(bytes, SEGMENT_RECORD_HEAD + r->content_size, r->envelope_size)) == r->envelope_crc;
}
