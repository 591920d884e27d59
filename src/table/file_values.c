#include "table/file_values.h"

#include "base/buf.h"
#include <errno.h>

error file_value_read(struct str names, struct arena *a, struct str *ret) {
    struct buf content = { 0 };
    struct str name;
    error e = NULL;
    size_t count = 0;
    while (!e && str_word(&names, STR_COMMA_SPACE, &name)) {
        char *path = arena_cstr(a, name);
        if (count++)
            buf_byte(&content, '\n');
        if (!buf_read_file(&content, path, FILE_VALUE_MAX) || content.n > FILE_VALUE_MAX)
            e = err_make(a, ERR_SYS, "open %s: %s", path,
                         content.n > FILE_VALUE_MAX ? strerror(EFBIG) : strerror(errno));
    }
    if (!e && count == 0)
        e = err_make(a, ERR_SYNTAX, "empty pathname list");
    if (!e)
        *ret = arena_str(a, buf_str(&content));
    buf_wipe(&content); /* often private keys */
    return e;
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct str base64_encode(struct arena *a, struct str s) {
    size_t size = (s.n + 2) / 3 * 4, n = 0;
    char *out = arena_alloc(a, size + 1);
    for (size_t i = 0; i < s.n; i += 3) {
        size_t have = s.n - i < 3 ? s.n - i : 3;
        uint32_t v = 0;
        for (size_t k = 0; k < 3; k++)
            v = v << 8 | (k < have ? (unsigned char)s.p[i + k] : 0u);
        for (size_t k = 0; k < 4; k++)
            out[n++] = k <= have ? alphabet[v >> (18 - 6 * k) & 63] : '=';
    }
    out[n] = 0;
    return str_n(out, n);
}

static int digit_of(char c) {
    const char *at = c ? strchr(alphabet, c) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

bool base64_decode(struct arena *a, struct str s, struct str *ret) {
    if (s.n % 4)
        return false;
    char *out = arena_alloc(a, s.n / 4 * 3 + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i += 4) {
        bool last = i + 4 == s.n;
        size_t padding = last ? (s.p[i + 3] == '=') + (size_t)(s.p[i + 3] == '=' && s.p[i + 2] == '=') : 0;
        uint32_t v = 0;
        for (size_t k = 0; k < 4; k++) {
            int digit = k < 4 - padding ? digit_of(s.p[i + k]) : 0;
            if (digit < 0)
                return false;
            v = v << 6 | (uint32_t)digit;
        }
        for (size_t k = 0; k < 3 - padding; k++)
            out[n++] = (char)(v >> (16 - 8 * k));
    }
    out[n] = 0;
    *ret = str_n(out, n);
    return true;
}
