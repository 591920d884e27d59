/* attributes.h - what spawn(8) runs, as master.cf says it: user=NAME[:GROUP] argv=COMMAND ARGUMENT... */
#ifndef ANGARIUM_SPAWN_ATTRIBUTES_H
#define ANGARIUM_SPAWN_ATTRIBUTES_H

#include "deliver/run_as.h"

struct spawn_attributes {
    struct run_as as;
    char **argv; /* with NULL at the end */
};

/* ERR_CONFIG: what is wrong, also with the user, as run_as_parse() sees it. */
error spawn_attributes_parse(struct arena *a, const struct str *args, size_t count, bool root, uid_t owner,
                             gid_t owner_group, struct spawn_attributes *ret);
#endif
