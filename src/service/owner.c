#include "service/owner.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

error owner_lookup(const struct conf *c, struct arena *err_arena, struct owner *ret) {
    *ret = (struct owner){ .mail_uid = geteuid(), .mail_gid = getegid(), .setgid_gid = getegid() };
    if (geteuid() != 0)
        return NULL;
    struct str name = conf_str(c, PARAM_mail_owner), group = conf_str(c, PARAM_setgid_group), dir = conf_directory(c);
    const struct passwd *pw = getpwnam(name.p);
    if (!pw)
        return err_make(err_arena, ERR_CONFIG, "file %.*s/main.cf: parameter mail_owner: unknown user name value: %.*s",
                        STR_ARG(dir), STR_ARG(name));
    if (pw->pw_uid == 0)
        return err_make(err_arena, ERR_CONFIG,
                        "file %.*s/main.cf: parameter mail_owner: user %.*s has privileged user ID: %u", STR_ARG(dir),
                        STR_ARG(name), (unsigned)pw->pw_uid);
    if (pw->pw_gid == 0)
        return err_make(err_arena, ERR_CONFIG,
                        "file %.*s/main.cf: parameter mail_owner: user %.*s has privileged group ID: %u", STR_ARG(dir),
                        STR_ARG(name), (unsigned)pw->pw_gid);
    ret->root = true;
    ret->mail_uid = pw->pw_uid;
    ret->mail_gid = pw->pw_gid;
    const struct group *gr = getgrnam(group.p);
    if (!gr)
        return err_make(err_arena, ERR_CONFIG, "file %.*s/main.cf: parameter setgid_group: unknown group name: %.*s",
                        STR_ARG(dir), STR_ARG(group));
    ret->setgid_gid = gr->gr_gid;
    return NULL;
}
