/* A value of smtp_tls_policy_maps: whatever it is, a policy or a reason, within limits. */
#include "smtp/tls_policy_text.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena *a = arena_new();
    struct policy_text p;
    struct str why = STR("");
    if (policy_text_parse(a, str_n((const char *)data, n), &p, &why)) {
        if (p.match_count > POLICY_MATCH_MAX || tls_level_name(p.level).n == 0)
            abort();
        for (size_t i = 0; i < p.match_count; i++)
            if (p.match[i].n == 0 || p.match[i].p < (const char *)data ||
                p.match[i].p + p.match[i].n > (const char *)data + n)
                abort();
    } else if (why.n == 0) {
        abort();
    }
    arena_free(a);
    return 0;
}
