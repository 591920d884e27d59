/* running.h - is the mail system running? */
#ifndef ANGARIUM_CMD_RUNNING_H
#define ANGARIUM_CMD_RUNNING_H

#include "conf/conf.h"

/* The process id of the running master; 0: it is not running. Only its lock knows: a pid file may be from before a
 * crash. `pid_directory` is process_id_directory. */
int master_pid(struct str queue_directory, struct str pid_directory);
int master_pid_of(const struct conf *c);
#endif
