/* layout.h - the directories of the mail system, and whether everything is as it must be: `postfix check`, and what
 * `postfix start` does first. */
#ifndef ANGARIUM_CMD_LAYOUT_H
#define ANGARIUM_CMD_LAYOUT_H

#include "conf/conf.h"

/* What must be there before anything can be started; makes the queue directories that are missing. Logs `fatal: ` lines
 * itself; false: there was one. */
bool layout_prepare(const struct conf *c);
/* Owners, permissions and questionable settings: `warning: ` lines. */
void layout_review(const struct conf *c);
#endif
