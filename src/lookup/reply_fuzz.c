/* Replies of servers, and of whoever sits in their place: what is taken lies inside what came, and a request of ours is
 * one line. */
#include "lookup/reply.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str in = { (const char *)data, size }, text, content = { 0 };
    struct arena *a = arena_new();
    struct buf b = { 0 };
    size_t used = 0;
    tcp_reply(in, a, &text);
    if (text.n > size && text.n > sizeof "malformed reply")
        abort();
    socketmap_reply(in, &text);
    if (netstring_take(in, 1000, &content, &used) == NETSTRING_WHOLE && (used > size || content.n > 1000))
        abort();
    if (tcp_request(&b, in) && (b.n > TCP_LINE_MAX || str_index(buf_str(&b), '\n') != (ptrdiff_t)b.n - 1))
        abort();
    buf_clear(&b);
    netstring_add(&b, in);
    if (netstring_take(buf_str(&b), size, &content, &used) != NETSTRING_WHOLE || !str_eq(content, in))
        abort();
    buf_free(&b);
    arena_free(a);
    return 0;
}
