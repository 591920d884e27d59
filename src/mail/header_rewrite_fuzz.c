/* Address fields with groups, comments, routes and what looks like them: each address gets a domain, the field stays
 * the one field it was. */
#include "mail/address.h"
#include "mail/header.h"
#include "mail/header_rewrite.h"

#include <stdlib.h>

static struct str complete(void *ctx, struct arena *a, struct str address, unsigned header_flags) {
    size_t *asked = ctx;
    ++*asked;
    if (address.n == 0)
        abort();
    bool bare = header_flags & HEADER_ONE_WORD || !address_split(address).has_domain;
    return bare ? arena_cat(a, address, STR("@d.example")) : address;
}

static size_t lines(struct str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == '\n';
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena *a = arena_new();
    struct str field = arena_cat(a, STR("To: "), (struct str){ (const char *)data, size }), name, value;
    size_t asked = 0;
    struct str out = header_rewrite(a, field, HEADER_RECIPIENT_ADDRESS, size > 0 ? data[0] + 1U : 1, complete, &asked);
    if (!header_split(out, &name, &value) || !str_eq(name, STR("To")))
        abort();
    if (asked == 0 && !str_eq(out, field))
        abort();
    /* quoting may double every byte; behind each address are ten of domain, a pair of quotes, blanks before comments */
    if (out.n > 3 * field.n + 16 * asked)
        abort();
    if (lines(out) > lines(field))
        abort();
    arena_free(a);
    return 0;
}
