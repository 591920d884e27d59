/* settings_edit.h - change settings of a main.cf: comments and order stay, the file is replaced whole. */
#ifndef ANGARIUM_CMD_SETTINGS_EDIT_H
#define ANGARIUM_CMD_SETTINGS_EDIT_H

#include "conf/conf.h"

/* Set `settings` (each name once) in main.cf of `directory`; a failure, or a value with a line break, ends the program
 * with a fatal line. */
void settings_edit(struct str directory, const struct conf_override *settings, size_t n);

/* "name=value" arguments of a command, up to NULL. False: `*ret_bad` is not one. Everything lives in `a`. */
bool settings_read(char *const *args, struct arena *a, const struct conf_override **ret, size_t *ret_n,
                   const char **ret_bad);
#endif
