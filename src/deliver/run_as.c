#include "deliver/run_as.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

static error bad(struct arena *a, const char *what, struct str value) {
    return err_make(a, ERR_CONFIG, "%s \"%.*s\": need user=name[:group]", what, STR_ARG(value));
}

static error find(struct arena *a, struct str value, struct run_as *ret) {
    ptrdiff_t colon = str_index(value, ':');
    struct str name = colon < 0 ? value : str_sub(value, 0, (size_t)colon);
    const struct passwd *user = getpwnam(arena_cstr(a, name));
    if (!user)
        return bad(a, "unknown user name:", name);
    *ret = (struct run_as){ user->pw_uid, user->pw_gid };
    if (colon < 0)
        return NULL;
    name = str_from(value, (size_t)colon + 1);
    const struct group *group = getgrnam(arena_cstr(a, name));
    if (!group)
        return bad(a, "unknown group name:", name);
    ret->gid = group->gr_gid;
    return NULL;
}

error run_as_parse(struct arena *a, struct str user, bool root, uid_t owner, gid_t owner_group, struct run_as *ret) {
    error e = find(a, user, ret);
    if (e)
        return e;
    if (ret->uid == 0 || ret->gid == 0)
        return bad(a, "user= must not have root's rights:", user);
    if (root && (ret->uid == owner || ret->gid == owner_group))
        return bad(a, "user= must not have the rights of mail_owner:", user);
    if (!root && ret->uid != geteuid())
        return bad(a, "only root can run commands as another user:", user);
    return NULL;
}
