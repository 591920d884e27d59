#include "mail/encoded_word.h"

#include "base/buf.h"
#include "base/utf8.h"

enum {
    WORD_MAX = 75,      /* RFC 2047, 2 */
    CHARSET_MAX = 40,   /* so that there is room for text */
    READABLE_MAX = 10,  /* bytes of text that are Q in any case */
    CHARACTER_MAX = 12, /* bytes of output for one character of four bytes */
};

static bool is_charset(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is_alnum(s.p[i]) && !memchr("-_.:+", s.p[i], 5))
            return false;
    return s.n > 0 && s.n <= CHARSET_MAX;
}

/* What may stand for itself in a phrase (RFC 2047, 5 (3)). */
static bool is_plain(char c) {
    return byte_is_alnum(c) || (c && strchr("!*+-/", c));
}

static size_t q_length(struct str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += is_plain(s.p[i]) || s.p[i] == ' ' ? 1 : 3;
    return n;
}

static void put_q(struct buf *b, struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        if (is_plain(s.p[i]))
            buf_byte(b, s.p[i]);
        else if (s.p[i] == ' ')
            buf_byte(b, '_');
        else
            buf_printf(b, "=%02X", (unsigned char)s.p[i]);
    }
}

static void put_b(struct buf *b, struct str s) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < s.n; i += 3) {
        unsigned long v = (unsigned long)(unsigned char)s.p[i] << 16;
        v |= i + 1 < s.n ? (unsigned long)(unsigned char)s.p[i + 1] << 8 : 0;
        v |= i + 2 < s.n ? (unsigned long)(unsigned char)s.p[i + 2] : 0;
        buf_byte(b, digits[v >> 18]);
        buf_byte(b, digits[v >> 12 & 63]);
        buf_byte(b, i + 1 < s.n ? digits[v >> 6 & 63] : '=');
        buf_byte(b, i + 2 < s.n ? digits[v & 63] : '=');
    }
}

/* Bytes of the character at the front; one where it is none. */
static size_t character(struct str s) {
    for (size_t n = 1; n <= 4 && n <= s.n; n++)
        if (utf8_valid(str_sub(s, 0, n)))
            return n;
    return 1;
}

struct str encoded_words(struct arena *a, struct str text, struct str charset) {
    bool utf8 = str_eq_icase(charset, STR("utf-8"));
    if (!is_charset(charset) || (utf8 && !utf8_valid(text))) {
        charset = STR("unknown-8bit");
        utf8 = false;
    }
    bool q = text.n <= READABLE_MAX || q_length(text) <= 2 * text.n; /* at most half of it in digits */
    const size_t room = WORD_MAX - charset.n -
                        (sizeof "=?"
                                "?Q?"
                                "?=" -
                         1);
    struct buf b = { 0 };
    while (text.n > 0) {
        size_t n = 0;
        for (size_t next; n < text.n; n = next) {
            struct str rest = str_from(text, n);
            next = n + (utf8 ? character(rest) : 1);
            struct str part = str_sub(text, 0, next);
            if ((q ? q_length(part) : (next + 2) / 3 * 4) > room)
                break;
        }
        buf_printf(&b, "%s=?%.*s?%c?", b.n ? "\n " : "", STR_ARG(charset), q ? 'Q' : 'B');
        (q ? put_q : put_b)(&b, str_sub(text, 0, n));
        buf_add(&b, STR("?="));
        text = str_from(text, n);
    }
    struct str out = arena_str(a, buf_str(&b));
    buf_free(&b);
    return out;
}
_Static_assert(WORD_MAX - CHARSET_MAX - 7 >= CHARACTER_MAX, "each word holds a character at least");
