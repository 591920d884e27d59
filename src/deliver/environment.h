/* environment.h - what a command that we run finds in its environment. */
#ifndef ANGARIUM_DELIVER_ENVIRONMENT_H
#define ANGARIUM_DELIVER_ENVIRONMENT_H

#include "base/arena.h"

struct environment { /* set `arena`, zero the rest */
    struct arena *arena;
    VEC(char *) vars;
};
void environment_add(struct environment *e, const char *name, struct str value);
/* export_environment: a name is passed on, name=value or { name = value } is set. */
void environment_export(struct environment *e, struct str list);
/* For execve(); nothing may be added after it. */
char **environment_end(struct environment *e);
#endif
