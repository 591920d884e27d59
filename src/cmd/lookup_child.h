/* lookup_child.h - how a command asks tables whose clients it does not have: it starts the look-up process for itself,
 * with its own rights, at the first question, and the child ends with it. A table named as proxy: is asked of the
 * running mail system, as Postfix's commands do. */
#ifndef ANGARIUM_CMD_LOOKUP_CHILD_H
#define ANGARIUM_CMD_LOOKUP_CHILD_H

#include "conf/conf.h"

/* Before the first table is opened. `c` must outlive the last look-up. */
void lookup_child_use(const struct conf *c);
/* No table may be asked any more. */
void lookup_child_end(void);
#endif
