/* entry_fuzz.c - entries of the cache, which another program may have written. */
#include "verify/verify.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct verify_entry e, again;
    if (!verify_entry_parse(str_n((const char *)data, size), &e))
        return 0;
    struct arena *a = arena_new();
    struct str text = verify_entry_format(a, &e);
    if (!verify_entry_parse(text, &again) || again.status != e.status || again.updated != e.updated ||
        again.probed != e.probed)
        abort();
    arena_free(a);
    return 0;
}
