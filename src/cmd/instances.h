/* instances.h - the mail systems of one machine: the default one and those its multi_instance_directories lists.
 *
 * An instance whose main.cf cannot be read is listed all the same, with what could not be learned empty and `problem`
 * set, so that it can be looked at and taken out of the list. */
#ifndef ANGARIUM_CMD_INSTANCES_H
#define ANGARIUM_CMD_INSTANCES_H

#include "conf/conf.h"

struct instance {
    struct str config_directory, queue_directory, data_directory;
    struct str name, group; /* empty: none */
    bool enabled, primary;
    error problem;
};

struct instances {
    VEC(struct instance) list; /* in the order of starting; the primary one first */
    struct arena *arena;
};

struct instance_choice { /* at most one is set; none or `all`: every instance */
    bool all;
    const char *group, *name;
};

/* From `primary`, the default instance's main.cf. Without further ones it counts as enabled whatever it says. */
void instances_load(const struct conf *primary, struct arena *a, struct instances *ret);
/* What main.cf of one directory says of it. */
void instance_read(struct str config_directory, struct arena *a, struct instance *ret);
/* `name` may also be the configuration directory; "-" is the primary one. */
bool instance_chosen(const struct instance *i, const struct instance_choice *choice);
struct instance *instance_find(struct instances *all, const char *name);
#endif
