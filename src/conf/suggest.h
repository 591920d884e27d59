/* suggest.h - the known name that was most likely meant. */
#ifndef ANGARIUM_CONF_SUGGEST_H
#define ANGARIUM_CONF_SUGGEST_H

#include "base/arena.h"

enum { SUGGEST_NAME_MAX = 200 }; /* longer names get no suggestion */

/* The parameter, or <service><suffix> name, nearest to `name`; empty: none is near. In `a` or static. */
struct str suggest_param(struct str name, struct arena *a);

/* Insertions, deletions, replacements and swaps of neighbours between two strings; `limit` + 1 as soon as it is
 * more than `limit`. Each at most SUGGEST_NAME_MAX bytes. */
size_t edit_distance(struct str a, struct str b, size_t limit);
#endif
