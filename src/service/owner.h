/* owner.h - under which user and group the mail system runs. */
#ifndef ANGARIUM_SERVICE_OWNER_H
#define ANGARIUM_SERVICE_OWNER_H

#include "conf/conf.h"
#include <sys/types.h>

struct owner {
    bool root;      /* we started as root: mail_owner and setgid_group mean something */
    uid_t mail_uid; /* mail_owner; not root: who we are */
    gid_t mail_gid;
    gid_t setgid_gid; /* setgid_group; not root: our group */
};
/* Reads the user database. ERR_CONFIG with Postfix's text when a name is unknown. */
error owner_lookup(const struct conf *c, struct arena *err_arena, struct owner *ret);
#endif
