#include "queue/queue_id.h"

#include "run/sys.h"
#include <stdio.h>

/* Digits and consonants: no vowels, so no words; the last one never stands in a number of base 51, so that 'z' ends the
 * microseconds (postconf(5), enable_long_queue_ids). */
static const char digits[] = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";

enum {
    TIME_BASE = 52,
    UNIQUE_BASE = 51,
    LONG_SECONDS_MIN = 6, /* digits */
    LONG_USEC = 4,
    SHORT_USEC = 5,
};

/* At the end of `out`, which has room for `room` bytes; at least `width` digits. Returns where they begin. */
static size_t put_number(char *out, size_t room, uint64_t v, unsigned base, size_t width) {
    size_t at = room;
    while (v > 0 || room - at < width) {
        out[--at] = digits[v % base];
        v /= base;
    }
    return at;
}

static size_t add_number(char *text, size_t n, uint64_t v, unsigned base, size_t width) {
    char tmp[24];
    size_t at = put_number(tmp, sizeof tmp, v, base, width);
    size_t len = sizeof tmp - at;
    memcpy(text + n, tmp + at, len);
    return n + len;
}

void queue_id_make(struct queue_id *ret, int64_t wall_us, uint64_t unique, bool long_form) {
    uint64_t us = wall_us < 0 ? 0 : (uint64_t)wall_us;
    *ret = (struct queue_id){ 0 };
    if (!long_form) {
        snprintf(ret->text, sizeof ret->text, "%0*X%llX", SHORT_USEC, (unsigned)(us % (uint64_t)US_PER_S),
                 (unsigned long long)unique);
        return;
    }
    /* at most 9 + 4 + 1 + 12 digits: 64-bit seconds in use and a 64-bit unique number fit */
    size_t n = add_number(ret->text, 0, us / (uint64_t)US_PER_S, TIME_BASE, LONG_SECONDS_MIN);
    n = add_number(ret->text, n, us % (uint64_t)US_PER_S, TIME_BASE, LONG_USEC);
    ret->text[n++] = 'z';
    add_number(ret->text, n, unique, UNIQUE_BASE, 1);
}

void queue_id_make_of_time(struct queue_id *ret, int64_t wall_us, unsigned lane, bool long_form) {
    queue_id_make(ret, wall_us, long_form || wall_us < 0 ? lane : (uint64_t)(wall_us / US_PER_S), long_form);
}

bool queue_id_valid(struct str s) {
    if (s.n == 0 || s.n >= QUEUE_ID_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is_alnum(s.p[i]))
            return false;
    return true;
}

bool queue_id_from(struct str s, struct queue_id *ret) {
    if (!queue_id_valid(s))
        return false;
    *ret = (struct queue_id){ 0 };
    memcpy(ret->text, s.p, s.n);
    return true;
}

bool queue_id_unpack(struct unpack *u, struct queue_id *ret) {
    struct str s = unpack_str(u);
    if (!u->bad && queue_id_from(s, ret))
        return true;
    u->bad = true;
    return false;
}

void queue_id_hash(const struct queue_id *id, char ret[QUEUE_ID_HASH_MAX + 1]) {
    struct str s = queue_id_str(id);
    ptrdiff_t z = str_rindex(s, 'z');
    if (z >= LONG_SECONDS_MIN + LONG_USEC) {
        unsigned us = 0;
        for (size_t i = (size_t)z - LONG_USEC; i < (size_t)z; i++) {
            const char *d = memchr(digits, s.p[i], TIME_BASE);
            us = us * TIME_BASE + (d ? (unsigned)(d - digits) : 0);
        }
        snprintf(ret, QUEUE_ID_HASH_MAX + 1, "%0*X", SHORT_USEC, us & 0xFFFFF);
        return;
    }
    /* a name of another make (a short one, or one put there by hand): its own first characters */
    for (size_t i = 0; i < QUEUE_ID_HASH_MAX; i++)
        ret[i] = i < s.n ? s.p[i] : '_';
    ret[QUEUE_ID_HASH_MAX] = 0;
}
