/* attributes.h - what spawn(8) runs, as master.cf says it: user=NAME[:GROUP] argv=COMMAND ARGUMENT... */
#ifndef ANGARIUM_SPAWN_ATTRIBUTES_H
#define ANGARIUM_SPAWN_ATTRIBUTES_H

#include "base/arena.h"
#include "base/err.h"
#include <sys/types.h>

struct spawn_attributes {
    uid_t uid;
    gid_t gid;
    char **argv; /* with NULL at the end */
};

/* ERR_CONFIG: what is wrong. Root, and `owner` (mail_owner) with its group, run no commands; where we are not root
 * there is only ourselves: `root` false allows the owner. Looks up users in files. */
error spawn_attributes_parse(struct arena *a, const struct str *args, size_t count, bool root, uid_t owner,
                             gid_t owner_group, struct spawn_attributes *ret);
#endif
