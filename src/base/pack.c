#include "base/pack.h"

#include "base/die.h"

static void put_le(struct buf *b, uint64_t v, size_t bytes) {
    char out[8];
    for (size_t i = 0; i < bytes; i++)
        out[i] = (char)(unsigned char)(v >> (8 * i));
    buf_add(b, str_n(out, bytes));
}

void pack_u8(struct buf *b, uint8_t v) {
    put_le(b, v, 1);
}
void pack_u32(struct buf *b, uint32_t v) {
    put_le(b, v, 4);
}
void pack_u64(struct buf *b, uint64_t v) {
    put_le(b, v, 8);
}
void pack_i64(struct buf *b, int64_t v) {
    put_le(b, (uint64_t)v, 8);
}
void pack_str(struct buf *b, struct str s) {
    if (s.n > UINT32_MAX)
        die("pack_str: %zu bytes", s.n);
    pack_u32(b, (uint32_t)s.n);
    buf_add(b, s);
}

static struct str take(struct unpack *u, size_t n) {
    if (u->bad || u->rest.n < n) {
        u->bad = true;
        return STR("");
    }
    struct str s = str_sub(u->rest, 0, n);
    u->rest = str_from(u->rest, n);
    return s;
}

static uint64_t take_le(struct unpack *u, size_t bytes) {
    struct str s = take(u, bytes);
    uint64_t v = 0;
    for (size_t i = s.n; i-- > 0;)
        v = v << 8 | (unsigned char)s.p[i];
    return v;
}

uint8_t unpack_u8(struct unpack *u) {
    return (uint8_t)take_le(u, 1);
}
uint32_t unpack_u32(struct unpack *u) {
    return (uint32_t)take_le(u, 4);
}
uint64_t unpack_u64(struct unpack *u) {
    return take_le(u, 8);
}
int64_t unpack_i64(struct unpack *u) {
    return (int64_t)take_le(u, 8);
}
struct str unpack_str(struct unpack *u) {
    return take(u, unpack_u32(u));
}
bool unpack_done(const struct unpack *u) {
    return !u->bad && u->rest.n == 0;
}
