#include "table/regexp_ends.h"

#include "base/buf.h"
#include <regex.h>

static bool is_one_of(char c, const char *set) {
    return c && strchr(set, c);
}

/* The byte that the pattern has literally at `at`, and how many of its bytes say so; 0: something else. */
static size_t literal_at(struct str p, size_t at, char *ret) {
    static const char plain[] = "-_@:/,=#%&!~ ";
    size_t n = p.p[at] == '\\' ? 2 : 1;
    if (at + n > p.n)
        return 0;
    *ret = p.p[at + n - 1];
    if (n == 2 ? !is_one_of(*ret, ".-@:/_") : !byte_is_alnum(*ret) && !is_one_of(*ret, plain))
        return 0;
    /* what is repeated, or may be missing */
    return at + n < p.n && is_one_of(p.p[at + n], "*+?{") ? 0 : n;
}

struct regexp_ends regexp_ends(struct str pattern, int options, struct arena *a) {
    struct regexp_ends e = { STR(""), STR("") };
    struct buf run = { 0 }; /* of literals, up to here */
    bool from_start = str_starts(pattern, STR("^"));
    if (!(options & REG_EXTENDED) || options & REG_NEWLINE || str_index(pattern, '|') >= 0)
        return e;
    for (size_t at = from_start; at < pattern.n;) {
        char c;
        size_t n = literal_at(pattern, at, &c);
        if (n) {
            buf_byte(&run, c);
            at += n;
            continue;
        }
        if (from_start)
            e.head = arena_str(a, buf_str(&run));
        from_start = false;
        if (pattern.p[at] == '$' && at + 1 == pattern.n)
            e.tail = arena_str(a, buf_str(&run));
        if (pattern.p[at] == '[') /* where it ends is not looked for */
            break;
        buf_clear(&run);
        at += pattern.p[at] == '\\' ? 2 : 1;
    }
    if (from_start)
        e.head = arena_str(a, buf_str(&run));
    buf_free(&run);
    return e;
}

bool regexp_ends_fit(const struct regexp_ends *e, struct str key) {
    return str_starts_icase(key, e->head) && str_ends_icase(key, e->tail);
}
