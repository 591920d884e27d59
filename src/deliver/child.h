/* child.h - do one delivery in a child process, under the recipient's user id.
 *
 * The daemon serves many requests in one process, so what may hang, crash or needs other rights happens in a child: it
 * has a process group of its own, no descriptors but those it needs, and an end in time. The parent's other coroutines
 * go on meanwhile. */
#ifndef ANGARIUM_DELIVER_CHILD_H
#define ANGARIUM_DELIVER_CHILD_H

#include "base/arena.h"
#include "base/err.h"
#include <sys/types.h>

enum {
    CHILD_OUTPUT_MAX = 64 * 1024, /* bytes kept of what the child writes; the rest is read and dropped */
    CHILD_EXIT_RIGHTS = 250,      /* exit status: the child could not become the user */
};

struct child {
    uid_t uid; /* the child's rights, all of them, when we are root; otherwise uid must be our own */
    gid_t gid;
    bool stay_root;    /* keep root (uid and gid are ignored): the function sees to its rights itself */
    int keep_fd;       /* a descriptor it may use, under the same number; -1: none */
    size_t output_max; /* instead of CHILD_OUTPUT_MAX; 0: that */
    int64_t deadline;  /* then the whole process group is killed */
    /* Runs in the child, which then exits with what it returns. It must not wait on the loop nor log; what it writes to
     * `out_fd` is for the parent. Signals have their default actions, SIGPIPE is ignored. */
    int (*run)(void *arg, int out_fd);
    void *arg;
    /* `run` does no more than take its place and execute a program: no copy of our memory is made for it (vfork(2)), so
     * it may write to its own stack alone, must not allocate, and gives up rights with child_become(). */
    bool execs;
};

struct child_result {
    bool timed_out;
    int signal;        /* that ended it, or 0 */
    int status;        /* exit status, when signal is 0 */
    struct str output; /* in the arena */
};

/* An error: it could not be started, or the coroutine was cancelled (the child is killed then). */
error child_run(const struct child *c, struct arena *a, struct child_result *ret);

/* In a child: give up all rights but those of uid and gid, for good. False: not possible, and the caller must end. As
 * an ordinary user only the own uid is possible. Secondary groups are dropped. */
bool child_become(uid_t uid, gid_t gid);
#endif
