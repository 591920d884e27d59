/* The first line is a value, the others are "name=value" that it may refer to. */
#include "base/map.h"
#include "conf/expand.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lookup(void *ctx, struct str name, struct expand_value *ret) {
    const struct str *value = map_get(ctx, name);
    if (!value)
        return false;
    *ret = (struct expand_value){ *value, str_eq(name, STR("raw")) };
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096)
        return 0;
    struct arena *a = arena_new();
    struct map names = { 0 };
    struct str rest = { (const char *)data, size }, text = STR(""), line;
    str_next(&rest, STR("\n"), &text);
    while (str_next(&rest, STR("\n"), &line)) {
        ptrdiff_t eq = str_index(line, '=');
        if (eq <= 0)
            continue;
        struct str *value = ARENA_NEW(a, struct str);
        *value = str_from(line, (size_t)eq + 1);
        map_put(&names, str_sub(line, 0, (size_t)eq), value);
    }
    struct str got;
    expand(text, lookup, &names, a, &got);
    map_free(&names);
    arena_free(a);
    return 0;
}
