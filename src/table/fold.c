#include "table/fold.h"

#include "base/utf8.h"
#include <stdlib.h>
#include <unicase.h>

static void fold_ascii(struct buf *b, struct str key) {
    buf_add(b, key);
    for (size_t i = 0; i < key.n; i++)
        b->p[i] = byte_lower(key.p[i]);
}

void fold_key(struct buf *ret, struct str key, bool utf8) {
    buf_clear(ret);
    if (!utf8 || str_is_ascii(key) || !utf8_valid(key)) {
        fold_ascii(ret, key);
        return;
    }
    size_t n = 0; /* no language: the same on every host; no normalization: as Postfix */
    uint8_t *folded = u8_casefold((const uint8_t *)key.p, key.n, NULL, NULL, NULL, &n);
    if (folded)
        buf_add(ret, str_n((const char *)folded, n));
    else
        fold_ascii(ret, key);
    free(folded);
}

struct str arena_fold(struct arena *a, struct str key, bool utf8) {
    if (!utf8 || str_is_ascii(key))
        return arena_lower(a, key);
    struct buf b = { 0 };
    fold_key(&b, key, utf8);
    struct str folded = arena_str(a, buf_str(&b));
    buf_free(&b);
    return folded;
}
