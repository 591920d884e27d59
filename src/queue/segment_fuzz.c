/* Any bytes as a segment: the head, the records one after the other with their envelopes, as the
 * reader goes through them. The checks would stop nearly every input, so a first byte of 1 makes the sums of head and
 * record heads fit before they are read. The rest of the file is zeros that are not there. */
#include "queue/crc32c.h"
#include "queue/log.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink;

static void touch(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        sink += (unsigned char)s.p[i];
}

static void put_u32(char *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (char)(unsigned char)(v >> (8 * i));
}

/* As segment_record_pack() makes it. */
static void mend_record(char *p, const struct segment_head *h) {
    struct segment_record any = { .state = SEGMENT_INCOMING };
    struct buf b = { 0 };
    segment_record_pack(&b, h, &any);
    /* two seeds differ by the same bits over all inputs of one length, so any head gives the difference */
    uint32_t plain = crc32c(0, str_n(b.p + 4, SEGMENT_RECORD_HEAD - 4));
    uint32_t ours = crc32c(0, str_n(p + 4, SEGMENT_RECORD_HEAD - 4));
    uint32_t seeded = 0;
    for (unsigned i = 0; i < 4; i++)
        seeded |= (uint32_t)(unsigned char)b.p[i] << (8 * i);
    put_u32(p, seeded ^ plain ^ ours);
    buf_free(&b);
}

static void read_record(struct str whole, const struct segment_record *r) {
    if (!segment_record_whole(whole, r))
        return;
    struct arena *a = arena_new();
    struct envelope e;
    struct spool_content c = { .fd = -1 };
    if (!log_unpack(whole, r, STR(""), false, a, &e, &c)) {
        touch(e.sender);
        for (size_t i = 0; i < e.rcpt_count; i++)
            touch(e.rcpts[i].address);
        touch(c.bytes);
        struct buf file = { 0 };
        log_file_form(&file, whole, r, STR(""), true, STR(""));
        touch(buf_str(&file));
        buf_free(&file);
    }
    spool_content_close(&c);
    arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > SEGMENT_SIZE_MIN)
        return 0;
    bool mend = data[0] == 1;
    size_t n = size - 1;
    char *bytes = malloc(n ? n : 1); /* exactly as large: what reads too far is seen */
    if (!bytes)
        return 0;
    memcpy(bytes, data + 1, n);
    struct segment_head h;
    if (mend && n >= SEGMENT_HEAD_SIZE)
        put_u32(bytes + SEGMENT_HEAD_SIZE - 4, crc32c(0, str_n(bytes, SEGMENT_HEAD_SIZE - 4)));
    size_t head = n < SEGMENT_HEAD_SIZE ? n : SEGMENT_HEAD_SIZE;
    enum segment_front front = segment_front_unpack(str_n(bytes, head), SEGMENT_SIZE_MIN, &h), second;
    if (front != SEGMENT_OURS)
        h = segment_head_for(SEGMENT_SIZE_MIN, 1);
    char fronts[SEGMENT_FRONT_SIZE] = { 0 }; /* the same where the first one is damaged */
    memcpy(fronts + SEGMENT_HEAD_2_AT, bytes, head);
    struct segment_head same;
    second = segment_front_unpack(str_n(fronts, sizeof fronts), SEGMENT_SIZE_MIN, &same);
    if (second != (front == SEGMENT_OURS ? SEGMENT_OURS_REPAIRED : front))
        abort();
    /* the head page and the marks are left out of the input: records begin behind the head */
    size_t at = n < SEGMENT_HEAD_SIZE ? 0 : SEGMENT_HEAD_SIZE;
    uint64_t pretend = segment_records_at(&h);
    while (n - at >= SEGMENT_RECORD_HEAD) {
        if (mend)
            mend_record(bytes + at, &h);
        struct segment_record r;
        if (!segment_record_unpack(str_n(bytes + at, n - at), &h, pretend, &r))
            break;
        if (segment_record_size(&r) > h.size - pretend || r.mark + (uint64_t)r.rcpt_count >= h.mark_size ||
            !queue_id_valid(queue_id_str(&r.id)))
            abort();
        if (segment_record_size(&r) > n - at)
            break;
        if (mend) { /* and the sums of its parts, which its head has */
            put_u32(bytes + at + 24, crc32c(0, str_n(bytes + at + SEGMENT_RECORD_HEAD, r.content_size)));
            put_u32(bytes + at + 28,
                    crc32c(0, str_n(bytes + at + SEGMENT_RECORD_HEAD + r.content_size, r.envelope_size)));
            mend_record(bytes + at, &h);
            if (!segment_record_unpack(str_n(bytes + at, n - at), &h, pretend, &r))
                abort();
        }
        read_record(str_n(bytes + at, (size_t)segment_record_size(&r)), &r);
        at += (size_t)segment_record_size(&r);
        pretend += segment_record_size(&r);
    }
    free(bytes);
    return 0;
}
