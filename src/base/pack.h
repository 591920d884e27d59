/* pack.h - values in and out of bytes, for messages between our own processes and for queue files.
 * Little endian, no alignment, strings with a 32-bit length in front. The reader trusts nothing: the first
 * value that does not fit sets `bad`, and from then on every value is zero or empty, so one check at the end will do.
 */
#ifndef ANGARIUM_BASE_PACK_H
#define ANGARIUM_BASE_PACK_H

#include "base/buf.h"

void pack_u8(struct buf *b, uint8_t v);
void pack_u32(struct buf *b, uint32_t v);
void pack_u64(struct buf *b, uint64_t v);
void pack_i64(struct buf *b, int64_t v);
void pack_str(struct buf *b, struct str s);

struct unpack {
    struct str rest;
    bool bad;
};
static inline struct unpack unpack_from(struct str s) {
    return (struct unpack){ s, false };
}
uint8_t unpack_u8(struct unpack *u);
uint32_t unpack_u32(struct unpack *u);
uint64_t unpack_u64(struct unpack *u);
int64_t unpack_i64(struct unpack *u);
struct str unpack_str(struct unpack *u); /* borrowed from the input */
/* True when nothing was bad and nothing is left. */
bool unpack_done(const struct unpack *u);
#endif
