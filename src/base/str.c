#include "base/str.h"

/* An absent string may come as { NULL, 0 } out of a zeroed struct: memcmp must not see that pointer. */
static int cmp_n(const char *a, const char *b, size_t n) {
    return n ? memcmp(a, b, n) : 0;
}

bool str_eq(struct str a, struct str b) {
    return a.n == b.n && cmp_n(a.p, b.p, a.n) == 0;
}

static int cmp_icase_n(const char *a, const char *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int d = (unsigned char)byte_lower(a[i]) - (unsigned char)byte_lower(b[i]);
        if (d)
            return d;
    }
    return 0;
}

bool str_eq_icase(struct str a, struct str b) {
    return a.n == b.n && cmp_icase_n(a.p, b.p, a.n) == 0;
}

static int cmp_size(size_t a, size_t b) {
    return (a > b) - (a < b);
}

int str_cmp(struct str a, struct str b) {
    int d = cmp_n(a.p, b.p, a.n < b.n ? a.n : b.n);
    return d ? d : cmp_size(a.n, b.n);
}

int str_cmp_icase(struct str a, struct str b) {
    int d = cmp_icase_n(a.p, b.p, a.n < b.n ? a.n : b.n);
    return d ? d : cmp_size(a.n, b.n);
}

bool str_starts(struct str s, struct str prefix) {
    return s.n >= prefix.n && cmp_n(s.p, prefix.p, prefix.n) == 0;
}

bool str_starts_icase(struct str s, struct str prefix) {
    return s.n >= prefix.n && cmp_icase_n(s.p, prefix.p, prefix.n) == 0;
}

bool str_ends(struct str s, struct str suffix) {
    return s.n >= suffix.n && cmp_n(s.p + (s.n - suffix.n), suffix.p, suffix.n) == 0;
}

bool str_ends_icase(struct str s, struct str suffix) {
    return s.n >= suffix.n && cmp_icase_n(s.p + (s.n - suffix.n), suffix.p, suffix.n) == 0;
}

ptrdiff_t str_index(struct str s, char c) {
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? at - s.p : -1;
}

ptrdiff_t str_rindex(struct str s, char c) {
    for (size_t i = s.n; i-- > 0;)
        if (s.p[i] == c)
            return (ptrdiff_t)i;
    return -1;
}

ptrdiff_t str_index_any(struct str s, struct str set) {
    for (size_t i = 0; i < s.n; i++)
        if (memchr(set.p, s.p[i], set.n))
            return (ptrdiff_t)i;
    return -1;
}

bool str_contains(struct str s, struct str needle) {
    if (needle.n == 0)
        return true;
    for (size_t i = 0; i + needle.n <= s.n; i++)
        if (memcmp(s.p + i, needle.p, needle.n) == 0)
            return true;
    return false;
}

struct str str_sub(struct str s, size_t from, size_t n) {
    if (from > s.n)
        from = s.n;
    if (n > s.n - from)
        n = s.n - from;
    return (struct str){ s.p + from, n };
}

struct str str_from(struct str s, size_t from) {
    return str_sub(s, from, s.n);
}

struct str str_trim_left(struct str s) {
    while (s.n && byte_is_space(s.p[0]))
        s = str_from(s, 1);
    return s;
}

struct str str_trim_right(struct str s) {
    while (s.n && byte_is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

struct str str_trim(struct str s) {
    return str_trim_left(str_trim_right(s));
}

bool str_next(struct str *s, struct str set, struct str *ret_piece) {
    if (!s->p)
        return false;
    ptrdiff_t at = str_index_any(*s, set);
    if (at < 0) {
        *ret_piece = *s;
        *s = (struct str){ NULL, 0 };
        return true;
    }
    *ret_piece = str_sub(*s, 0, (size_t)at);
    *s = str_from(*s, (size_t)at + 1);
    return true;
}

static void skip_set(struct str *s, struct str set) {
    while (s->n && memchr(set.p, s->p[0], set.n))
        *s = str_from(*s, 1);
}

bool str_word(struct str *s, struct str set, struct str *ret_word) {
    skip_set(s, set);
    if (s->n == 0)
        return false;
    ptrdiff_t at = str_index_any(*s, set);
    size_t n = at < 0 ? s->n : (size_t)at;
    *ret_word = str_sub(*s, 0, n);
    *s = str_from(*s, n);
    return true;
}

bool str_word_braced(struct str *s, struct str set, struct str *ret_word) {
    skip_set(s, set);
    size_t depth = 0, i = 0;
    for (; i < s->n; i++) {
        char c = s->p[i];
        if (c == '{')
            depth++;
        else if (c == '}' && depth > 0)
            depth--;
        else if (depth == 0 && memchr(set.p, c, set.n))
            break;
    }
    if (i == 0 || depth > 0)
        return false;
    *ret_word = str_sub(*s, 0, i);
    *s = str_from(*s, i);
    return true;
}

bool str_to_u64(struct str s, uint64_t max, uint64_t *ret) {
    uint64_t v = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!byte_is_digit(s.p[i]))
            return false;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    if (v > max)
        return false;
    *ret = v;
    return true;
}

bool str_to_u32(struct str s, uint32_t max, uint32_t *ret) {
    uint64_t v;
    if (!str_to_u64(s, max, &v))
        return false;
    *ret = (uint32_t)v;
    return true;
}

bool str_to_i64(struct str s, int64_t min, int64_t max, int64_t *ret) {
    bool negative = s.n && s.p[0] == '-';
    uint64_t v;
    if (!str_to_u64(negative ? str_from(s, 1) : s, (uint64_t)INT64_MAX, &v))
        return false;
    int64_t i = negative ? -(int64_t)v : (int64_t)v;
    if (i < min || i > max)
        return false;
    *ret = i;
    return true;
}

uint64_t str_hash(struct str s) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    return h;
}

void str_wipe(struct str s) {
    if (s.n)
        explicit_bzero((void *)(uintptr_t)s.p, s.n);
}
