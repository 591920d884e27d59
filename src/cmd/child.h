/* child.h - run another program and wait for it: what postfix, postmulti and postlock have in common. */
#ifndef ANGARIUM_CMD_CHILD_H
#define ANGARIUM_CMD_CHILD_H

#include "conf/conf.h"
#include <sys/types.h>

/* A child, tried again as fork_attempts and fork_delay say; ends the program with a fatal error when there is none.
 * 0: we are the child, with default signal actions. */
pid_t child_fork(const struct conf *c);
/* Its exit status; 1 when a signal ended it. */
int child_wait(pid_t pid);
/* Fork, execvp, wait. An exec failure is logged by the child ("fatal: execvp PROGRAM: why") and is status 1. */
int child_command(const struct conf *c, char *const *argv);
#endif
