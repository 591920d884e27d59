#include "deliver/child.h"

#include <grp.h>
#include <unistd.h>

bool child_become(uid_t uid, gid_t gid) {
    if (geteuid() != 0)
        return uid == geteuid() && uid == getuid();
    if (setgroups(1, &gid) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
        return false;
    uid_t r, e, s;
    gid_t rg, eg, sg;
    if (getresuid(&r, &e, &s) != 0 || getresgid(&rg, &eg, &sg) != 0)
        return false;
    return r == uid && e == uid && s == uid && rg == gid && eg == gid && sg == gid;
}
