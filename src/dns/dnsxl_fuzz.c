/* Filters of DNS lists come from main.cf, and are parsed before anything is confined. */
#include "dns/dnsxl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena *a = arena_new();
    struct dnsxl_filter f;
    if (!dnsxl_filter_parse(a, str_n((const char *)data, size), &f)) {
        bool any[4] = { false };
        for (uint32_t n = 0; n <= UINT8_MAX; n++)
            for (int i = 0; i < 4; i++)
                any[i] |= f.allowed[i][n / 32] >> n % 32 & 1;
        if (!any[0] || !any[1] || !any[2] || !any[3]) /* what was taken matches something */
            __builtin_trap();
    }
    arena_free(a);
    return 0;
}
