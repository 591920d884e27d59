/* spool_file.h - the bytes of a queue file. Pure: no files, no clock. All numbers little endian (base/pack.h).
 *
 *   at 0                 head, SPOOL_HEAD_SIZE bytes:
 *                        magic "ANGMAIL\n", u32 version, u32 recipient count, u64 content size, u64 where the envelope
 *                        begins, u32 its length, u32 CRC32C of the content, u32 CRC32C of the envelope, zeros, and in
 *                        the last four bytes CRC32C of the 60 before them
 *   at SPOOL_HEAD_SIZE   content, LF line endings, contiguous: a delivery agent gets the descriptor and this offset
 *   then                 envelope: mail/envelope.h's packed form, then each recipient's
 *   then                 one byte per recipient, one for the delay warning, one for postsuper -e: SPOOL_MARK_TODO or
 *                        SPOOL_MARK_DONE. Outside the checks, because overwriting one byte cannot tear. Anything but
 *                        DONE means to do, and seven bits of the two differ: damage here costs a duplicate, not a
 *                        message
 *   then                 why its recipients wait: u32 the bytes of records that count, and those (spool_reasons.c),
 *                        each with its own check. What stands behind them is of an earlier attempt, and not read
 *
 * Marks and reasons are the only bytes that ever change in a finished file. The content comes first because the
 * envelope is complete only after it; the head is written last. The rest stands together, so that a list needs one read
 * of a small message and two of a large one. */
#ifndef ANGARIUM_QUEUE_SPOOL_FILE_H
#define ANGARIUM_QUEUE_SPOOL_FILE_H

#include "mail/envelope.h"

enum {
    SPOOL_VERSION = 2,
    SPOOL_HEAD_SIZE = 64,
    SPOOL_REASONS_HEAD = 4,
    SPOOL_ENVELOPE_MAX = 64 * 1024 * 1024, /* bytes of packed envelope and recipients */
    SPOOL_MARK_TODO = ';',
    SPOOL_MARK_DONE = 'D',
};

struct spool_head {
    uint64_t content_size, envelope_at;
    uint32_t envelope_size, rcpt_count;
    uint32_t content_crc, envelope_crc;
};
/* Behind those of the recipients: marks of the message. */
enum spool_flag { SPOOL_FLAG_WARNED, SPOOL_FLAG_EXPIRED, SPOOL_FLAGS };
static inline uint64_t spool_mark_count(const struct spool_head *h) {
    return (uint64_t)h->rcpt_count + SPOOL_FLAGS;
}
static inline uint64_t spool_marks_at(const struct spool_head *h) {
    return h->envelope_at + h->envelope_size;
}
static inline uint64_t spool_reasons_at(const struct spool_head *h) {
    return spool_marks_at(h) + spool_mark_count(h);
}
/* Appends SPOOL_HEAD_SIZE bytes. */
void spool_head_pack(struct buf *b, const struct spool_head *h);
/* `bytes` is the front of a file of `file_size` bytes. False: not one of ours, damaged or cut; nothing is set. When
 * true, all parts but the reasons lie inside the file, and so does the number in front of those. */
bool spool_head_unpack(struct str bytes, uint64_t file_size, struct spool_head *ret);
/* Appends the envelope and, behind it, the marks and that there are no reasons; sets the four fields of `h` that
 * concern them. False: over SPOOL_ENVELOPE_MAX, or more recipients than 32 bits. */
bool spool_envelope_pack(struct buf *b, struct spool_head *h, const struct envelope *e);
/* What the marks of the message, the last SPOOL_FLAGS, mean for its envelope's flags. */
unsigned spool_flags(struct str marks);
/* `bytes`: envelope_size bytes of envelope and the marks; the result borrows from them. False: damaged. */
bool spool_envelope_unpack(struct str bytes, const struct spool_head *h, struct arena *a, struct envelope *ret);
#endif
