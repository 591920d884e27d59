/* Any payload as a question: what is taken keeps its limits and lies inside the payload. */
#include "proto/lookup.h"

#include <stdint.h>
#include <stdlib.h>

static void inside(struct str part, struct str whole) {
    if (part.n && (part.p < whole.p || part.p + part.n > whole.p + whole.n))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct ipc_msg m = { .type = LOOKUP_ASK, .payload = { (const char *)data, size }, .fd = -1 };
    struct table_question q;
    if (lookup_read(&m, &q))
        return 0;
    if (q.spec.n > LOOKUP_SPEC_MAX || q.key.n > LOOKUP_KEY_MAX || q.value.n > LOOKUP_VALUE_MAX)
        abort();
    inside(q.spec, m.payload);
    inside(q.key, m.payload);
    inside(q.value, m.payload);
    return 0;
}
