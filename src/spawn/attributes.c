#include "spawn/attributes.h"

enum { ARGUMENTS_MAX = 1000 };

static error bad(struct arena *a, const char *what, struct str value) {
    return err_make(a, ERR_CONFIG, "%s \"%.*s\": need user=name[:group] argv=command...", what, STR_ARG(value));
}

error spawn_attributes_parse(struct arena *a, const struct str *args, size_t count, bool root, uid_t owner,
                             gid_t owner_group, struct spawn_attributes *ret) {
    struct str user = STR("");
    size_t at = 0;
    *ret = (struct spawn_attributes){ 0 };
    for (; at < count && !str_starts(args[at], STR("argv=")); at++) {
        if (!str_starts(args[at], STR("user=")))
            return bad(a, "unknown attribute", args[at]);
        user = str_from(args[at], 5);
    }
    if (user.n == 0)
        return bad(a, "missing user= attribute in", STR("master.cf"));
    if (at == count || args[at].n == 5)
        return bad(a, "missing argv= attribute behind", user);
    error e = run_as_parse(a, user, root, owner, owner_group, &ret->as);
    if (e)
        return e;
    if (count - at > ARGUMENTS_MAX)
        return bad(a, "too many arguments behind", args[at]);
    ret->argv = arena_array(a, count - at + 1, sizeof *ret->argv);
    ret->argv[0] = arena_cstr(a, str_from(args[at], 5));
    for (size_t i = at + 1; i < count; i++)
        ret->argv[i - at] = arena_cstr(a, args[i]);
    return NULL;
}
