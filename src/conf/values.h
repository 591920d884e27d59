/* values.h - the text of a value as the type of its row reads it. Error texts are those of Postfix after "fatal: ". */
#ifndef ANGARIUM_CONF_VALUES_H
#define ANGARIUM_CONF_VALUES_H

#include "conf/params.h"

/* `text` is expanded already; `name` is for messages. Sets `*ret` for types that have a number (BOOL: 0 or 1,
 * TIME: seconds), else 0. */
error value_convert(const struct param_row *row, struct str name, struct str text, struct arena *a, int64_t *ret);

/* digits [unit], unit one of s m h d w; what follows the unit is ignored, as Postfix does. At most INT_MAX seconds. */
bool time_parse(struct str text, char default_unit, int64_t *ret);
/* A host name as myhostname and mydomain must be: labels of letters, digits, '-' and '_' with dots between, not an
 * address. NULL, or what is wrong with it. */
const char *hostname_problem(struct str name);
#endif
