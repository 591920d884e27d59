/* list.h - what the files of the walk share; nobody else includes it. */
#ifndef ANGARIUM_SHOWQ_LIST_H
#define ANGARIUM_SHOWQ_LIST_H

#include "base/die.h"
#include "showq/showq.h"
#include <stdlib.h>

/* One message of the queue, in `a` and borrowed from `peek` until its next; false: it has gone, or is damaged. In any
 * thread with a `peek` of its own, for a state without the log. */
bool showq_read(const struct showq *q, struct spool_peek *peek, const struct spool_entry *se, struct arena *a,
                struct listing_entry *ret);
/* All of a state that is only files; `sink` gets what is too large to be packed. False: they have had enough. */
bool showq_walk_batches(struct showq *q, enum spool_state state, showq_sink *sink, showq_packed_sink *packed,
                        void *ctx);
#endif
