/* run_as.h - whose rights a command has that master.cf names: user=NAME[:GROUP] of pipe(8) and spawn(8). */
#ifndef ANGARIUM_DELIVER_RUN_AS_H
#define ANGARIUM_DELIVER_RUN_AS_H

#include "base/arena.h"
#include "base/err.h"
#include <sys/types.h>

struct run_as {
    uid_t uid;
    gid_t gid;
};

/* ERR_CONFIG: what is wrong. Root, and `owner` (mail_owner) with its group, run no commands; where we are not root
 * there is only ourselves: `root` false allows the owner. Looks users up in files, for daemons that start. */
error run_as_parse(struct arena *a, struct str user, bool root, uid_t owner, gid_t owner_group, struct run_as *ret);
#endif
