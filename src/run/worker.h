/* worker.h - starting processes, and making them unable to do more than their one thing.
 *
 * The parent forks and execs a program by role; the child gets fixed descriptors and nothing else. The child, once
 * it has opened what it needs, calls worker_confine(). Steps that need root are left out when there is no root; what
 * the kernel does not offer (Landlock, an old seccomp) is left out too and can be asked for. */
#ifndef ANGARIUM_RUN_WORKER_H
#define ANGARIUM_RUN_WORKER_H

#include "base/err.h"
#include <sys/types.h>

enum { WORKER_FD_CONTROL = 3, WORKER_FD_LISTEN = 4 /* and up: one per listening socket */ };

struct worker_start {
    const char *path; /* absolute */
    char *const *argv, *const *envp;
    int control_fd;        /* becomes WORKER_FD_CONTROL; -1: none */
    const int *listen_fds; /* become WORKER_FD_LISTEN + i */
    size_t listen_count;
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null (stderr: inherited) */
    const char *directory;              /* chdir here before exec, or NULL */
};
/* ret_pid > 0. An exec failure is reported here, not as a dying child. */
error worker_start(const struct worker_start *w, pid_t *ret_pid);

enum confine_flags {
    CONFINE_NO_FILES = 1,    /* no call that takes a path: no openat, stat, unlink, exec, unix connect */
    CONFINE_READ_FILES = 2,  /* paths may be opened for reading only */
    CONFINE_WRITE_FILES = 4, /* files and directories may be made (below `writable` where Landlock is there) */
    CONFINE_NO_NETWORK = 8,  /* no internet sockets */
    CONFINE_EXEC = 16,       /* may start programs: local, pipe, spawn (see below) */
    CONFINE_ACT_AS = 32,     /* threads may act as another user: virtual */
};
/* Programs that users and administrators have put behind a pipe must find a world without our filters (they are
 * inherited, and a set-user-id mail tool must still work), so CONFINE_EXEC leaves out no_new_privs, seccomp and
 * Landlock: such a daemon delivers in a child under the recipient's user id instead.
 *
 * What the seccomp filter meets: calls on the list go through; calls that the C library tries by itself and can do
 * without (opening a file where there are no files, clone3, ...) fail with an error; any other call ends the process
 * with SIGSYS, which master logs. A sanitizer's runtime needs /proc and ptrace: builds with one have no seccomp and no
 * Landlock. */
struct confine {
    const char *chroot_dir; /* NULL: no chroot */
    uid_t uid;              /* with gid: dropped to when we are root (chroot, too, is for root only); 0: stay root */
    gid_t gid;
    const char *user; /* dropped to with the groups the user database gives this user; NULL: with `gid` alone */
    unsigned flags;
    const char *const *writable; /* NULL-terminated directories, for Landlock; NULL: not restricted by path */
};
struct confined { /* what is really in force, for `postfix status` and tests */
    bool chroot, uid, no_new_privs, seccomp, landlock;
};
/* Nothing is undone after an error: the caller must end. */
error worker_confine(const struct confine *c, struct confined *ret);
#endif
