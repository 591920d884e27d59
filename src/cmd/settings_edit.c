#include "cmd/settings_edit.h"

#include "base/log.h"
#include "cmd/child.h"
#include "conf/main_cf.h"

void settings_edit(const struct conf *c, struct str directory, const struct conf_override *settings, size_t n) {
    if (n == 0)
        return;
    struct arena *a = arena_new();
    enum { FIXED = 4 };
    char **argv = arena_array(a, FIXED + n + 1, sizeof *argv);
    argv[0] = arena_cstr(a, arena_printf(a, "%.*s/postconf", STR_ARG(conf_str(c, PARAM_command_directory))));
    argv[1] = arena_cstr(a, STR("-c"));
    argv[2] = arena_cstr(a, directory);
    argv[3] = arena_cstr(a, STR("-e"));
    for (size_t i = 0; i < n; i++)
        argv[FIXED + i] =
            arena_cstr(a, arena_printf(a, "%.*s=%.*s", STR_ARG(settings[i].name), STR_ARG(settings[i].value)));
    if (child_command(c, argv) != 0)
        log_fatal("cannot change settings in %.*s/main.cf", STR_ARG(directory));
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
