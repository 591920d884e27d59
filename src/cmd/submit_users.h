/* submit_users.h - authorized_submit_users: who may hand in mail with sendmail and postdrop. */
#ifndef ANGARIUM_CMD_SUBMIT_USERS_H
#define ANGARIUM_CMD_SUBMIT_USERS_H

#include "conf/conf.h"

/* Ends the program with Postfix's fatal line when the real user may not. */
void submit_users_check(const struct conf *c);
/* local_login_sender_maps: may the real user send mail from `sender` (internal form; its extension does not count)?
 * ERR_TEMP: a table cannot be asked. */
error submit_sender_check(const struct conf *c, struct str sender, struct arena *a, bool *ret_allowed);
#endif
