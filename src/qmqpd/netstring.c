#include "qmqpd/netstring.h"

static const struct err malformed = { .kind = ERR_SYNTAX, .text = STR_INIT("netstring format error") };
static const struct err too_long = { .kind = ERR_LIMIT, .text = STR_INIT("netstring length exceeds storage limit") };

enum { DIGITS_MAX = 18 /* fits 64 bits with room */ };

static error byte(struct netstrings *n, char *ret) {
    return io_full(n->io, ret, 1, n->deadline);
}

/* `*ret_bytes`: how many were read. */
static error length(struct netstrings *n, uint64_t limit, uint64_t *ret, unsigned *ret_bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i <= DIGITS_MAX; i++) {
        char c;
        error e = byte(n, &c);
        if (e)
            return e;
        if (c == ':' && i > 0) {
            *ret = value;
            *ret_bytes = i + 1;
            return value > limit ? &too_long : NULL;
        }
        if (!byte_is_digit(c) || i == DIGITS_MAX)
            return byte_is_digit(c) ? &too_long : &malformed;
        value = value * 10 + (uint64_t)(c - '0');
    }
    return &malformed;
}

error netstring_open(struct netstrings *n, uint64_t limit) {
    unsigned bytes;
    return length(n, limit, &n->left, &bytes);
}

error netstring_next(struct netstrings *n, uint64_t limit, uint64_t *ret_length) {
    unsigned bytes;
    error e = length(n, limit, ret_length, &bytes);
    if (e)
        return e;
    if (n->left < bytes || n->left - bytes <= *ret_length) /* it and its comma are inside */
        return &malformed;
    n->left -= bytes;
    return NULL;
}

error netstring_some(struct netstrings *n, uint64_t want, struct str *ret) {
    error e = io_some(n->io, want > IO_READ_BULK_SIZE ? IO_READ_BULK_SIZE : (size_t)want, n->deadline, ret);
    if (!e)
        n->left -= ret->n;
    return e;
}

static error comma(struct netstrings *n) {
    char c;
    error e = byte(n, &c);
    return e ? e : c == ',' ? NULL : &malformed;
}

error netstring_end(struct netstrings *n) {
    n->left--;
    return comma(n);
}

error netstring_whole(struct netstrings *n, struct arena *a, uint64_t limit, struct str *ret) {
    uint64_t want;
    error e = netstring_next(n, limit, &want);
    char *p = e ? NULL : arena_alloc(a, (size_t)want + 1);
    if (!e && want)
        e = io_full(n->io, p, (size_t)want, n->deadline);
    if (e)
        return e;
    p[want] = 0;
    n->left -= want;
    *ret = str_n(p, (size_t)want);
    return netstring_end(n);
}

error netstring_close(struct netstrings *n) {
    return n->left ? &malformed : comma(n);
}
