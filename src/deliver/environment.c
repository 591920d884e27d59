#include "deliver/environment.h"

#include <stdlib.h>

void environment_add(struct environment *e, const char *name, struct str value) {
    *vec_add(e->arena, &e->vars) = arena_cstr(e->arena, arena_printf(e->arena, "%s=%.*s", name, STR_ARG(value)));
}

void environment_export(struct environment *e, struct str list) {
    struct str item;
    while (str_word_braced(&list, STR_COMMA_SPACE, &item)) {
        if (item.p[0] == '{' && item.n >= 2)
            item = str_trim(str_sub(item, 1, item.n - 2));
        ptrdiff_t equal = str_index(item, '=');
        struct str name = equal < 0 ? item : str_trim(str_sub(item, 0, (size_t)equal));
        const char *c_name = arena_cstr(e->arena, name);
        if (equal >= 0) {
            environment_add(e, c_name, str_trim(str_from(item, (size_t)equal + 1)));
            continue;
        }
        const char *value = getenv(c_name);
        if (value)
            environment_add(e, c_name, str_c(value));
    }
}

char **environment_end(struct environment *e) {
    *vec_add(e->arena, &e->vars) = NULL;
    return e->vars.at;
}
