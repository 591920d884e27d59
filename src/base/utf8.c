#include "base/utf8.h"

size_t utf8_length(struct str s) {
    if (s.n == 0)
        return 0;
    const unsigned char *p = (const unsigned char *)s.p;
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (n == 0 || s.n < n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* RFC 3629, 4: the second byte is narrower after E0 (over-long), ED (surrogates), F0, F4 (range) */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

/* Bytes at the front of `s` that are below 0x80: eight at a time, as most text is all of them. */
static size_t ascii_length(struct str s) {
    size_t i = 0;
    for (uint64_t eight; s.n - i >= sizeof eight; i += sizeof eight) {
        memcpy(&eight, s.p + i, sizeof eight);
        if (eight & 0x8080808080808080u)
            break;
    }
    while (i < s.n && (unsigned char)s.p[i] < 0x80)
        i++;
    return i;
}

bool utf8_valid(struct str s) {
    for (size_t i = 0, n;; i += n) {
        i += ascii_length(str_from(s, i));
        if (i == s.n)
            return true;
        if ((n = utf8_length(str_from(s, i))) == 0)
            return false;
    }
}

bool str_is_ascii(struct str s) {
    return ascii_length(s) == s.n;
}
