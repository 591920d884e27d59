/* queue_repair.h - queue files where they must be: after a restored backup, a changed hash_queue_names or
 * hash_queue_depth, a crash (postsuper -s, -p).
 *
 * For the log of the spool there is nothing to do here: the queue manager puts it in order when it starts. Names are
 * not changed: a message keeps its name in another file system, because names are never made twice by looking at what
 * is there (spool_create()), not by inode alone. All of it may be done beside a running mail system: a file in the
 * wrong place is nobody's, and one without an owner is known by its lock. */
#ifndef ANGARIUM_QUEUE_QUEUE_REPAIR_H
#define ANGARIUM_QUEUE_QUEUE_REPAIR_H

#include "queue/spool.h"

enum queue_repaired {
    REPAIRED_MOVED,     /* `path` is now `other` */
    REPAIRED_FINISHED,  /* `path` is a whole message that had lost its mode */
    REPAIRED_DIRECTORY, /* `path`, a hash directory that is not used any more, is gone */
    REPAIRED_PURGED,    /* `path` was never finished, and its writer is gone */
    REPAIR_BOGUS,       /* `path` has a name that no file of the queue has: left alone */
    REPAIR_IN_THE_WAY,  /* `path` belongs to `other`, where another file is: both are left alone */
    REPAIR_FAILED,      /* `path`: `other` is the text of the error */
};
typedef void queue_repair_report(void *ctx, enum queue_repaired what, struct str path, struct str other);

enum { QUEUE_REPAIR_STRUCTURE = 1 /* -s */, QUEUE_REPAIR_PURGE = 2 /* -p */ };
/* The directories it knows, by name: "incoming" ... "hold", "defer", "bounce", "trace", "maildrop". */
bool queue_repair_knows(struct str directory);
/* `what`: a mask. Paths in reports are below queue_directory. */
void queue_repair(struct spool *s, struct str directory, unsigned what, queue_repair_report *report, void *ctx);
#endif
