/* segment.h - the bytes of a segment of the log (queue_directory/log). Pure: no files, no clock. Little endian.
 *
 * At 0: the head: magic "ANGLOG1\n", u32 version, u32 bytes of the mark area, u64 size of the file, u64 generation,
 * zeros, u32 CRC32C of all before it. The same again at SEGMENT_HEAD_2_AT, in another sector: without a head nothing of
 * the segment can be read, so the first copy that passes its check counts. Zeros between and up to SEGMENT_MARKS_AT.
 * At SEGMENT_MARKS_AT: the mark area: one byte a message and one a recipient, SEGMENT_MARK_*; zeros at first. The only
 * bytes that the reader writes, and outside all checks: overwriting one byte cannot tear.
 * Then records, each beginning at a multiple of SEGMENT_ALIGN: u32 CRC32C (seeded with the generation) of the rest of
 * the record's head, u32 state, u32 content size, u32 envelope size, u32 recipients, u32 first mark, u32 CRC32C of the
 * content, u32 CRC32C of the envelope, queue id (QUEUE_ID_MAX bytes, zeros behind it); content (LF line endings);
 * envelope as in spool_file.h, without marks.
 *
 * A segment is used again and again; each use is a new generation, and what earlier ones have left behind the last
 * record does not pass the check. Records follow each other without gaps: the first that is not whole ends the log. */
#ifndef ANGARIUM_QUEUE_SEGMENT_H
#define ANGARIUM_QUEUE_SEGMENT_H

#include "base/buf.h"
#include "queue/queue_id.h"

enum {
    SEGMENT_VERSION = 1,
    SEGMENT_MARKS_AT = 4096,
    SEGMENT_HEAD_SIZE = 48,
    SEGMENT_HEAD_2_AT = 2048,
    SEGMENT_FRONT_SIZE = SEGMENT_HEAD_2_AT + SEGMENT_HEAD_SIZE, /* both heads */
    SEGMENT_ALIGN = 8,
    SEGMENT_RECORD_HEAD = 64,
    SEGMENT_MARK_SHARE = 32, /* the mark area is this part of the segment: about 20 bytes a recipient fit */
    SEGMENT_SIZE_MIN = 1024 * 1024,
    SEGMENT_SIZE_MAX = 64 * 1024 * 1024,
    SEGMENT_SIZE = 16 * 1024 * 1024,
    SEGMENT_CONTENT_MAX = 128 * 1024, /* larger content gets a file of its own, */
    SEGMENT_RECORD_MAX = 512 * 1024,  /* and so does a message with very many recipients */
    SEGMENT_RCPTS_MAX = 1000,
};

/* Mark bytes. Of a message (its first mark): DONE: it has left the segment. Of a recipient: DONE. Anything but DONE
 * means to do; ACTIVE and MOVED (a file has it, log.h) are there for who lists the queue. */
enum { SEGMENT_MARK_NEW = 0, SEGMENT_MARK_ACTIVE = 'A', SEGMENT_MARK_MOVED = 'M', SEGMENT_MARK_DONE = 'D' };

enum segment_state { SEGMENT_INCOMING = 1, SEGMENT_HOLD = 2 };

struct segment_head {
    uint32_t mark_size;
    uint64_t size;       /* of the file */
    uint64_t generation; /* not 0 */
};
static inline uint64_t segment_records_at(const struct segment_head *h) {
    return (uint64_t)SEGMENT_MARKS_AT + h->mark_size;
}
/* The head of a segment of `size` bytes (a multiple of SEGMENT_MARKS_AT between MIN and MAX). */
struct segment_head segment_head_for(uint64_t size, uint64_t generation);
/* Appends SEGMENT_FRONT_SIZE bytes. */
void segment_front_pack(struct buf *b, const struct segment_head *h);
enum segment_front {
    SEGMENT_OURS,
    SEGMENT_OURS_REPAIRED,      /* by the second head: the first is damaged */
    SEGMENT_OF_ANOTHER_VERSION, /* than this program knows: to be left alone, and said */
    SEGMENT_BAD,                /* none of ours, damaged or cut */
    SEGMENT_UNREADABLE,         /* for who reads it from a file */
};
/* `bytes` are the first of a file of `file_size` bytes, SEGMENT_FRONT_SIZE or, when there are no more, fewer. `*ret` is
 * set when it is ours. */
enum segment_front segment_front_unpack(struct str bytes, uint64_t file_size, struct segment_head *ret);

struct segment_record {
    enum segment_state state;
    uint32_t content_size, envelope_size, rcpt_count;
    uint32_t mark; /* index of the message's mark; its recipients' follow */
    uint32_t content_crc, envelope_crc;
    struct queue_id id;
};
static inline uint64_t segment_record_size(const struct segment_record *r) {
    uint64_t n = (uint64_t)SEGMENT_RECORD_HEAD + r->content_size + r->envelope_size;
    return (n + SEGMENT_ALIGN - 1) / SEGMENT_ALIGN * SEGMENT_ALIGN;
}
/* Appends SEGMENT_RECORD_HEAD bytes; content, envelope and zeros up to segment_record_size() follow. */
void segment_record_pack(struct buf *b, const struct segment_head *h, const struct segment_record *r);
/* The head of the record at `at`. True: whole, in bounds (its content, envelope and marks lie inside the segment) and
 * of this generation. The checks of content and envelope are the caller's. */
bool segment_record_unpack(struct str bytes, const struct segment_head *h, uint64_t at, struct segment_record *ret);
/* With the whole record at hand (segment_record_size() bytes from its head on): do content and envelope pass? */
bool segment_record_whole(struct str bytes, const struct segment_record *r);
#endif
