#include "lookup/reply.h"

/* --- tcp: --- */

static void add_encoded(struct buf *b, struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c > ' ' && c < 127 && c != '%')
            buf_byte(b, (char)c);
        else
            buf_printf(b, "%%%02X", c);
    }
}

bool tcp_request(struct buf *b, struct str key) {
    if (key.n > TCP_LINE_MAX)
        return false;
    buf_add(b, STR("get "));
    add_encoded(b, key);
    buf_byte(b, '\n');
    return b->n <= TCP_LINE_MAX;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool decode(struct str s, struct arena *a, struct str *ret) {
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%') {
            out[n++] = s.p[i];
            continue;
        }
        bool room = s.n - i > 2;
        int high = room ? hex_digit(s.p[i + 1]) : -1, low = room ? hex_digit(s.p[i + 2]) : -1;
        if (high < 0 || low < 0)
            return false;
        out[n++] = (char)(high * 16 + low);
        i += 2;
    }
    out[n] = 0;
    *ret = str_n(out, n);
    return true;
}

enum table_result tcp_reply(struct str line, struct arena *a, struct str *ret) {
    *ret = STR("malformed reply");
    if (line.n < 4 || (line.p[3] != ' ' && line.p[3] != '\t'))
        return TABLE_ERROR;
    struct str code = str_sub(line, 0, 3), text;
    if (!decode(str_from(line, 4), a, &text))
        return TABLE_ERROR;
    if (str_eq(code, STR("200"))) {
        *ret = text;
        return TABLE_FOUND;
    }
    if (str_eq(code, STR("500")) || str_eq(code, STR("400")))
        *ret = text;
    return str_eq(code, STR("500")) ? TABLE_NOT_FOUND : TABLE_ERROR;
}

/* --- socketmap: --- */

void netstring_add(struct buf *b, struct str bytes) {
    buf_printf(b, "%zu:", bytes.n);
    buf_add(b, bytes);
    buf_byte(b, ',');
}

enum netstring netstring_take(struct str in, size_t most, struct str *ret, size_t *ret_used) {
    size_t n = 0, at = 0;
    for (; at < in.n && in.p[at] >= '0' && in.p[at] <= '9'; at++) {
        n = n * 10 + (size_t)(in.p[at] - '0');
        if (n > most || (at == 1 && in.p[0] == '0'))
            return NETSTRING_BAD;
    }
    if (at == in.n)
        return NETSTRING_MORE;
    if (at == 0 || in.p[at] != ':')
        return NETSTRING_BAD;
    at++;
    if (in.n - at < n + 1)
        return NETSTRING_MORE;
    if (in.p[at + n] != ',')
        return NETSTRING_BAD;
    *ret = str_sub(in, at, n);
    *ret_used = at + n + 1;
    return NETSTRING_WHOLE;
}

enum table_result socketmap_reply(struct str reply, struct str *ret) {
    static const struct {
        struct str word;
        enum table_result result;
    } rows[] = {
        { STR_INIT("OK"), TABLE_FOUND },   { STR_INIT("NOTFOUND"), TABLE_NOT_FOUND },
        { STR_INIT("TEMP"), TABLE_ERROR }, { STR_INIT("TIMEOUT"), TABLE_ERROR },
        { STR_INIT("PERM"), TABLE_ERROR },
    };
    ptrdiff_t space = str_index(reply, ' ');
    struct str word = space < 0 ? reply : str_sub(reply, 0, (size_t)space);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!str_eq(word, rows[i].word))
            continue;
        *ret = space < 0 ? STR("") : str_from(reply, (size_t)space + 1);
        return rows[i].result == TABLE_FOUND && space < 0 ? TABLE_NOT_FOUND : rows[i].result;
    }
    *ret = STR("malformed reply");
    return TABLE_ERROR;
}
