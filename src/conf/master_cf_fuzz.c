#include "conf/master_cf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena *a = arena_new();
    struct master_cf got;
    master_cf_parse((struct str){ (const char *)data, size }, STR("master.cf"), false, 100, a, &got);
    arena_free(a);
    return 0;
}
