/* Fuzz: what a memcached says. The first line is the key; the rest comes byte by byte. */
#include "base/die.h"
#include "lookup/memcache_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LINE = 40, DATA = 100, INPUT_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str rest = str_n((const char *)data, size < INPUT_MAX ? size : INPUT_MAX), key, got;
    if (!str_next(&rest, STR("\n"), &key))
        return 0;
    enum memcache_reply before = MEMCACHE_MORE;
    for (size_t n = 0; n <= rest.n; n++) {
        struct str part = str_sub(rest, 0, n);
        enum memcache_reply r = memcache_reply_get(part, key, LINE, DATA, &got);
        if (before == MEMCACHE_BAD && r != MEMCACHE_BAD)
            die("more bytes mend a bad reply");
        if (before != MEMCACHE_MORE && r == MEMCACHE_MORE)
            die("a finished reply asks for more");
        if (r == MEMCACHE_VALUE && (got.n > DATA || got.p < part.p || got.p + got.n > part.p + part.n))
            die("the value is not in the reply");
        if (memcache_reply_line(part, LINE, &got) == MEMCACHE_VALUE && (got.n > LINE || str_index(got, '\n') >= 0))
            die("not one line");
        before = r;
    }
    return 0;
}
