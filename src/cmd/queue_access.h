/* queue_access.h - what the commands of the queue share: who may, and the sockets of the running mail system. */
#ifndef ANGARIUM_CMD_QUEUE_ACCESS_H
#define ANGARIUM_CMD_QUEUE_ACCESS_H

#include "conf/conf.h"

enum { QUEUE_CONNECT_SECONDS = 10 };

/* Root, or the user whom the queue directory of a private mail system belongs to. */
bool queue_is_ours(const struct conf *c);
/* From root to mail_owner, for good: what is then made in the queue belongs to the right user. As an ordinary user
 * nothing changes. Ends the program when that fails. */
void queue_become_owner(const struct conf *c);
/* The socket `service` below public/. */
struct str queue_socket(const struct conf *c, struct arena *a, struct str service);
/* Reads main.cf of `directory` (may be NULL: $MAIL_CONFIG, the default) and starts logging; ends the program with a
 * fatal line when either fails. */
struct conf *queue_command_conf(const char *directory, const char *program, struct arena *a, bool log);
#endif
