#include "lookup/memcache_reply.h"

static bool take_line(struct str *rest, size_t limit, struct str *ret_line, enum memcache_reply *ret_why) {
    *ret_line = STR("");
    ptrdiff_t lf = str_index(*rest, '\n');
    size_t n = lf < 0 ? rest->n : (size_t)lf;
    bool cr = n && rest->p[n - 1] == '\r';
    if (n - cr > limit) {
        *ret_why = MEMCACHE_BAD;
        return false;
    }
    if (lf < 0) {
        *ret_why = MEMCACHE_MORE;
        return false;
    }
    *ret_line = str_sub(*rest, 0, n - cr);
    *rest = str_from(*rest, (size_t)lf + 1);
    *ret_why = MEMCACHE_BAD;
    return cr;
}

/* VALUE key flags bytes [cas] */
static bool parse_value_line(struct str line, struct str key, size_t data_limit, uint64_t *ret_bytes) {
    struct str word[5] = { { 0 } }, rest = line;
    size_t n = 0;
    while (n < 5 && str_next(&rest, STR(" "), &word[n]))
        n++;
    uint64_t number;
    return rest.n == 0 && n >= 4 && str_eq(word[0], STR("VALUE")) && str_eq(word[1], key) &&
           str_to_u64(word[2], UINT64_MAX, &number) && str_to_u64(word[3], data_limit, ret_bytes) &&
           (n == 4 || str_to_u64(word[4], UINT64_MAX, &number));
}

enum memcache_reply memcache_reply_get(struct str received, struct str key, size_t line_limit, size_t data_limit,
                                       struct str *ret) {
    struct str rest = received, line, data;
    enum memcache_reply why;
    *ret = STR("");
    if (!take_line(&rest, line_limit, &line, &why))
        return why;
    *ret = line;
    if (str_eq(line, STR("END")))
        return rest.n ? MEMCACHE_BAD : MEMCACHE_NONE;
    uint64_t bytes;
    if (!parse_value_line(line, key, data_limit, &bytes))
        return MEMCACHE_BAD;
    if (rest.n < bytes + 2)
        return MEMCACHE_MORE;
    data = str_sub(rest, 0, bytes);
    if (!str_eq(str_sub(rest, bytes, 2), STR("\r\n")))
        return MEMCACHE_BAD;
    rest = str_from(rest, bytes + 2);
    if (!take_line(&rest, line_limit, &line, &why))
        return why;
    if (!str_eq(line, STR("END")) || rest.n)
        return MEMCACHE_BAD;
    *ret = data;
    return MEMCACHE_VALUE;
}

enum memcache_reply memcache_reply_line(struct str received, size_t line_limit, struct str *ret) {
    enum memcache_reply why;
    struct str rest = received;
    if (!take_line(&rest, line_limit, ret, &why))
        return why;
    return rest.n ? MEMCACHE_BAD : MEMCACHE_VALUE;
}
