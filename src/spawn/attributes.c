#include "spawn/attributes.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 1000 };

static error bad(struct arena *a, const char *what, struct str value) {
    return err_make(a, ERR_CONFIG, "%s \"%.*s\": need user=name[:group] argv=command...", what, STR_ARG(value));
}

static error find_user(struct arena *a, struct str value, struct spawn_attributes *ret) {
    ptrdiff_t colon = str_index(value, ':');
    struct str name = colon < 0 ? value : str_sub(value, 0, (size_t)colon);
    const struct passwd *user = getpwnam(arena_cstr(a, name));
    if (!user)
        return bad(a, "unknown user name:", name);
    ret->uid = user->pw_uid;
    ret->gid = user->pw_gid;
    if (colon < 0)
        return NULL;
    name = str_from(value, (size_t)colon + 1);
    const struct group *group = getgrnam(arena_cstr(a, name));
    if (!group)
        return bad(a, "unknown group name:", name);
    ret->gid = group->gr_gid;
    return NULL;
}

static error check_rights(struct arena *a, struct str user, bool root, uid_t owner, gid_t owner_group,
                          const struct spawn_attributes *s) {
    if (s->uid == 0 || s->gid == 0)
        return bad(a, "user= must not have root's rights:", user);
    if (root && (s->uid == owner || s->gid == owner_group))
        return bad(a, "user= must not have the rights of mail_owner:", user);
    if (!root && s->uid != geteuid())
        return bad(a, "only root can run commands as another user:", user);
    return NULL;
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
    error e = find_user(a, user, ret);
    if (!e)
        e = check_rights(a, user, root, owner, owner_group, ret);
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
