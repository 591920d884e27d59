#include "mail/dsn.h"

#include "base/buf.h"
#include "base/utf8.h"

enum { ORCPT_MAX = 500 + 64 }; /* RFC 3461, 4.2: 500 characters of address, and the type */

/* status-code = ("2"/"4"/"5") "." 1*3digit "." 1*3digit     ; RFC 3463, 2 */
size_t dsn_status_length(struct str text) {
    if (text.n < 5 || (text.p[0] != '2' && text.p[0] != '4' && text.p[0] != '5'))
        return 0;
    size_t i = 1;
    for (int part = 0; part < 2; part++) {
        if (i >= text.n || text.p[i] != '.')
            return 0;
        size_t start = ++i;
        while (i < text.n && byte_is_digit(text.p[i]))
            i++;
        if (i == start || i - start > 3)
            return 0;
    }
    return i == text.n || byte_is_space(text.p[i]) ? i : 0;
}

void dsn_split(struct str text, struct str fallback, struct str *ret_status, struct str *ret_text) {
    struct str s = str_trim_left(text);
    size_t n = dsn_status_length(s);
    *ret_status = n ? str_sub(s, 0, n) : fallback;
    *ret_text = n ? str_trim_left(str_from(s, n)) : s;
}

struct str dsn_with_class(struct arena *a, struct str status, char digit) {
    return arena_printf(a, "%c%.*s", digit, STR_ARG(str_from(status, 1)));
}

static const struct {
    struct str name;
    unsigned mask;
} notify_names[] = {
    { STR_INIT("NEVER"), DSN_NOTIFY_NEVER },
    { STR_INIT("SUCCESS"), DSN_NOTIFY_SUCCESS },
    { STR_INIT("FAILURE"), DSN_NOTIFY_FAILURE },
    { STR_INIT("DELAY"), DSN_NOTIFY_DELAY },
};
enum { NOTIFY_NAMES = sizeof notify_names / sizeof notify_names[0] };

unsigned dsn_notify_parse(struct str s) {
    unsigned mask = 0;
    struct str word;
    while (str_next(&s, STR(","), &word)) {
        unsigned bit = 0;
        for (size_t i = 0; i < NOTIFY_NAMES; i++)
            if (str_eq_icase(word, notify_names[i].name))
                bit = notify_names[i].mask;
        if (bit == 0 || (mask & bit)) /* RFC 3461, 4.1: each at most once */
            return 0;
        mask |= bit;
    }
    return (mask & DSN_NOTIFY_NEVER) && mask != DSN_NOTIFY_NEVER ? 0 : mask;
}

struct str dsn_notify_format(struct arena *a, unsigned mask) {
    struct str out = STR("");
    for (size_t i = 0; i < NOTIFY_NAMES; i++)
        if (mask & notify_names[i].mask)
            out = arena_printf(a, "%.*s%s%.*s", STR_ARG(out), out.n ? "," : "", STR_ARG(notify_names[i].name));
    return out;
}

/* --- xtext --- */

/* xchar = any ASCII CHAR between "!" (33) and "~" (126) inclusive, except for "+" and "="     ; RFC 3461, 4 */
static bool is_xchar(char c) {
    return c >= 33 && c <= 126 && c != '+' && c != '=';
}

struct str xtext_encode(struct arena *a, struct str s) {
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_alloc(a, s.n * 3 + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (is_xchar(s.p[i])) {
            out[n++] = s.p[i];
        } else {
            out[n++] = '+';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        }
    }
    out[n] = 0;
    return str_n(out, n);
}

/* hexchar = "+" and two hexadecimal digits; the RFC wants capitals, senders do not keep to it. */
static int hex_value(char c) {
    if (byte_is_digit(c))
        return c - '0';
    char l = byte_lower(c);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

bool xtext_decode(struct arena *a, struct str s, struct str *ret) {
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '+') {
            if (s.n - i < 3)
                return false;
            int high = hex_value(s.p[i + 1]), low = hex_value(s.p[i + 2]);
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return false;
            c = (char)(unsigned char)(high * 16 + low);
            i += 2;
        } else if (!is_xchar(c)) {
            /* utf-8-addr-unitext of an SMTPUTF8 session (RFC 6533, 3): whole characters stand for themselves */
            size_t length = utf8_length(str_from(s, i));
            if (length < 2)
                return false;
            memcpy(out + n, s.p + i, length);
            n += length;
            i += length - 1;
            continue;
        }
        out[n++] = c;
    }
    out[n] = 0;
    *ret = str_n(out, n);
    return true;
}

/* --- unitext --- */

/* EmbeddedUnicodeChar = "\x{" HEXPOINT "}"     ; RFC 6533, 3. Returns its length, or 0. */
static size_t embedded_char(struct str s, uint32_t *ret) {
    uint32_t value = 0;
    size_t i = 3;
    if (!str_starts(s, STR("\\x{")))
        return 0;
    for (int digit; i < s.n && i < 3 + 6 && (digit = hex_value(s.p[i])) >= 0; i++)
        value = value * 16 + (uint32_t)digit;
    if (i == 3 || i == s.n || s.p[i] != '}')
        return 0;
    *ret = value;
    return i + 1;
}

static size_t put_utf8(char *to, uint32_t c) {
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    to[0] = (char)(lead[n] | c >> 6 * (n - 1));
    for (size_t i = 1; i < n; i++)
        to[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
    return n;
}

bool unitext_decode(struct arena *a, struct str s, struct str *ret) {
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t c;
        if (s.p[i] != '\\') {
            out[n++] = s.p[i++];
            continue;
        }
        size_t length = embedded_char(str_from(s, i), &c);
        if (length == 0 || (c < 0x80 && c != ' ' && c != '+' && c != '=' && c != '\\'))
            return false;
        i += length;
        n += put_utf8(out + n, c); /* at most four bytes, of an escape that has five or more */
    }
    out[n] = 0;
    *ret = str_n(out, n);
    return utf8_valid(*ret);
}

struct str dsn_orcpt_encode(struct arena *a, struct str orcpt) {
    ptrdiff_t semicolon = str_index(orcpt, ';');
    if (semicolon <= 0)
        return STR("");
    struct str type = str_sub(orcpt, 0, (size_t)semicolon), address = str_from(orcpt, (size_t)semicolon + 1);
    if (str_is_ascii(address))
        return arena_printf(a, "%.*s;%.*s", STR_ARG(type), STR_ARG(xtext_encode(a, address)));
    if (!utf8_valid(address))
        return STR("");
    struct buf b = { 0 };
    buf_add(&b, STR("utf-8;"));
    while (address.n > 0) {
        char c = address.p[0];
        size_t n = utf8_length(address);
        if (n == 1 && is_xchar(c) && c != '\\') {
            buf_byte(&b, c);
        } else {
            uint32_t point = (unsigned char)c;
            if (n > 1)
                point &= 0x7fu >> n;
            for (size_t i = 1; i < n; i++)
                point = point << 6 | ((unsigned char)address.p[i] & 0x3f);
            buf_printf(&b, "\\x{%X}", (unsigned)point);
        }
        address = str_from(address, n);
    }
    struct str result = arena_str(a, buf_str(&b));
    buf_free(&b);
    return result;
}

bool dsn_orcpt_valid(struct str decoded) {
    ptrdiff_t at = str_index(decoded, ';');
    if (at <= 0 || decoded.n > ORCPT_MAX)
        return false;
    struct str type = str_sub(decoded, 0, (size_t)at), address = str_from(decoded, (size_t)at + 1);
    for (size_t i = 0; i < type.n; i++) /* atom, RFC 5322 3.2.3 */
        if (!byte_is_alnum(type.p[i]) && (type.p[i] == 0 || !strchr("!#$%&'*+-/=?^_`{|}~", type.p[i])))
            return false;
    if (address.n == 0)
        return false;
    for (size_t i = 0; i < address.n; i++)
        if ((unsigned char)address.p[i] < 0x20 || address.p[i] == 0x7f)
            return false;
    return str_eq_icase(type, STR("utf-8")) ? utf8_valid(address) : str_is_ascii(address);
}
