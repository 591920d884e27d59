/* queue_edit.h - what an administrator does to messages (postsuper): takes them away, holds them, lets them go, queues
 * them anew, gives them up.
 *
 * For the READER in office only: qmgr when it runs (it is asked, proto/edit.h), postsuper itself when it does not. One
 * place for both, so that a message fares the same either way. Calls may block on the disk for a moment; they log
 * nothing. */
#ifndef ANGARIUM_QUEUE_QUEUE_EDIT_H
#define ANGARIUM_QUEUE_QUEUE_EDIT_H

#include "queue/spool.h"

enum queue_edit {
    QUEUE_DELETE = 1,
    QUEUE_HOLD,    /* into the hold queue */
    QUEUE_RELEASE, /* from there to deferred: tried when it is due, at the latest at the next queue run */
    QUEUE_REQUEUE, /* into maildrop/, from where pickup hands it to cleanup like new mail, under a new name */
    QUEUE_EXPIRE,  /* returned to its sender at the next attempt */
};
enum queue_edited {
    QUEUE_NOTHING = 0, /* not in one of these queues, or in this condition already */
    QUEUE_EDITED,
    QUEUE_BUSY,   /* in the hands of one who cannot be stopped: cleanup, or an agent whose queue manager has gone */
    QUEUE_FAILED, /* the disk: nothing or part is done, `*ret_error` says why */
};
static inline unsigned queue_states(enum spool_state s) {
    return 1U << s;
}
#define QUEUE_STATES_ALL ((1U << SPOOL_INCOMING) | (1U << SPOOL_ACTIVE) | (1U << SPOOL_DEFERRED) | (1U << SPOOL_HOLD))
/* A hold only makes sense for what is not held, a release for what is. */
unsigned queue_edit_states(enum queue_edit what);

/* `states`: a mask of queue_states(). The message must not be one the caller has in work itself. */
enum queue_edited queue_edit(struct spool *s, const struct queue_id *id, enum queue_edit what, unsigned states,
                             error *ret_error);
/* The same for a message in a known state, which the caller may have locked. */
enum queue_edited queue_edit_in(struct spool *s, const struct queue_id *id, enum queue_edit what,
                                enum spool_state state, error *ret_error);

/* The file becomes maildrop/ID, with no logs; recipients that were to be returned and are not told of yet are to be
 * done again. Not synced: power may bring the old place back, whole. ERR_SYS EEXIST: maildrop/ID is there. */
error spool_requeue(struct spool *s, const struct queue_id *id, enum spool_state state);
#endif
