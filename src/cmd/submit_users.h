/* submit_users.h - authorized_submit_users: who may hand in mail with sendmail and postdrop. */
#ifndef ANGARIUM_CMD_SUBMIT_USERS_H
#define ANGARIUM_CMD_SUBMIT_USERS_H

#include "conf/conf.h"

/* Ends the program with Postfix's fatal line when the real user may not. */
void submit_users_check(const struct conf *c);
#endif
