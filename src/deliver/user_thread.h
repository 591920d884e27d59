/* user_thread.h - call a function that works on somebody's files under his rights, in a thread, while other deliveries
 * go on.
 *
 * Threads of one process have credentials of their own in the kernel (credentials(7)); the C library hides that, so the
 * calls here are the bare ones. Effective ids and the groups are changed, and put back when the function returns: the
 * process stays root, and what the function must not do it must not be written to do. Programs run in a child, which
 * gives up everything (child.h).
 *
 * Many threads are what makes deliveries fast: those that wait for the disk at the same time share its flushes. */
#ifndef ANGARIUM_DELIVER_USER_THREAD_H
#define ANGARIUM_DELIVER_USER_THREAD_H

#include "base/arena.h"
#include <sys/types.h>

enum user_thread_result {
    USER_THREAD_DONE,
    USER_THREAD_NO_RIGHTS, /* we cannot act as that user; nothing was done */
    USER_THREAD_TIMED_OUT, /* not back at the deadline: it may still happen */
    USER_THREAD_STUCK,     /* something of this user's has timed out and is not back yet; nothing was done */
};

/* Calls fn(arg) with the effective ids and the one group given; as an ordinary user only the own uid is possible. The
 * arena holds `arg` and all it uses, and the call takes it over: it is freed with the caller's `*done`, see below, or
 * when a function that was given up returns after all. `fn` must not wait on the loop, log, or use another's arena.
 *
 *     struct arena *own = arena_new();
 *     ... job, in `own` ...
 *     if (user_thread_run(own, uid, gid, deadline, work, job) == USER_THREAD_DONE)
 *         ... read the results ..., arena_free(own);
 *
 * After USER_THREAD_DONE the arena is the caller's again; after all else it is gone. */
enum user_thread_result user_thread_run(struct arena *own, uid_t uid, gid_t gid, int64_t deadline,
                                        void (*fn)(void *arg), void *arg);

/* For such a function: go on as root (0, 0), or as the owner again. Without root: true for who we are. */
bool user_thread_act_as(uid_t uid, gid_t gid);
#endif
