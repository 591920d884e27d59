/* setgid.h - what set-gid commands do first: the environment of whoever runs them is not to be trusted with more rights
 * than that person has. The same rule for all of them. */
#ifndef ANGARIUM_CMD_SETGID_H
#define ANGARIUM_CMD_SETGID_H

#include "conf/conf.h"

/* Are we run with more rights than the caller has (and is the caller not root)? */
bool setgid_elevated(void);
/* Choose the configuration directory: `wanted` (-c, may be NULL), else $MAIL_CONFIG, else the built-in one. When
 * elevated, the environment is emptied but for TZ, LANG and LC_ALL, and a directory other than the built-in one must be
 * named by alternate_config_directories or multi_instance_directories of the built-in one's main.cf: else the program
 * ends with Postfix's fatal line. `*ret_source` gets config_directory only. */
void setgid_begin(const char *wanted, struct arena *a, struct conf_source *ret_source);
#endif
