#include "cmd/settings_edit.h"

#include "base/log.h"
#include "conf/main_cf.h"
#include "conf/main_edit.h"

void settings_edit(struct str directory, const struct conf_override *settings, size_t n) {
    if (n == 0)
        return;
    for (size_t i = 0; i < n; i++) /* it would be a setting of its own there */
        if (str_index_any(settings[i].value, STR("\r\n")) >= 0)
            log_fatal("a value with a line break: %.*s = %.*s", STR_ARG(settings[i].name), STR_ARG(settings[i].value));
    struct arena *a = arena_new();
    struct main_edits edits = { .kind = EDIT_SET, .path = arena_printf(a, "%.*s/main.cf", STR_ARG(directory)) };
    for (size_t i = 0; i < n; i++)
        *vec_add(a, &edits.list) = (struct main_edit){ settings[i].name, settings[i].value };
    error e = conf_file_edit(edits.path, main_edits_apply, &edits, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    for (size_t i = 0; i < edits.warnings.n; i++)
        log_warn("%.*s", STR_ARG(edits.warnings.at[i]));
    arena_free(a);
}

bool settings_read(char *const *args, struct arena *a, const struct conf_override **ret, size_t *ret_n,
                   const char **ret_bad) {
    VEC(struct conf_override) list = { 0 };
    for (; *args; args++) {
        struct conf_override s;
        if (assignment_split(str_c(*args), &s.name, &s.value)) {
            *ret_bad = *args;
            return false;
        }
        s = (struct conf_override){ arena_str(a, s.name), arena_str(a, s.value) };
        *vec_add(a, &list) = s;
    }
    *ret = list.at;
    *ret_n = list.n;
    return true;
}
