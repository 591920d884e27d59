/* postmulti.h - what postmulti(1) is asked for. Its parts end the program with a fatal line at what cannot be done. */
#ifndef ANGARIUM_CMD_POSTMULTI_H
#define ANGARIUM_CMD_POSTMULTI_H

#include "cmd/instances.h"

struct postmulti {
    const struct conf *primary;
    struct instances instances;
    struct instance_choice choice;
    bool reverse, json;
    int verbose;
    const char *new_name, *new_group; /* -I, -G; NULL: not given */
    char *const *args;                /* behind the options; NULL-terminated */
    struct arena *arena;
};

/* postmulti_run.c: all chosen instances, one after the other. The exit status. */
int postmulti_list(const struct postmulti *m);
int postmulti_postfix(const struct postmulti *m);
int postmulti_command(const struct postmulti *m);
/* Run `argv` in the context of one instance: its exit status. */
int postmulti_run_one(const struct postmulti *m, const struct instance *i, char *const *argv);

/* postmulti_edit.c: -e ACTION */
int postmulti_edit(struct postmulti *m, const char *action);
/* postmulti_destroy.c: remove what the mail system has made in the private directories of `i`; what else is there stays
 * and is warned of. Ends the program while there is mail. */
void postmulti_destroy(const struct postmulti *m, const struct instance *i);
#endif
