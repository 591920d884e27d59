#include "deliver/user_thread.h"

#include "base/die.h"
#include "run/coro.h"
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STUCK_USERS = 256 /* remembered at most: beyond that a hanging delivery costs its thread, no more */ };

struct job {
    struct arena *arena;
    uid_t uid;
    gid_t gid;
    void (*fn)(void *arg);
    void *arg;
    bool ran;
};

/* Users with deliveries that did not come back, so that they do not take one thread after the other. Loop only. */
static uid_t stuck[STUCK_USERS];
static size_t stuck_count;

static bool is_stuck(uid_t uid) {
    for (size_t i = 0; i < stuck_count; i++)
        if (stuck[i] == uid)
            return true;
    return false;
}

static void drop(void *arg) {
    struct job *job = arg;
    for (size_t i = 0; i < stuck_count; i++)
        if (stuck[i] == job->uid) {
            stuck[i] = stuck[--stuck_count];
            break;
        }
    arena_free(job->arena);
}

/* --- in the thread --- */
bool user_thread_act_as(uid_t uid, gid_t gid) {
    if (getuid() != 0)
        return uid == geteuid();
    const uid_t same_uid = (uid_t)-1;
    const gid_t same_gid = (gid_t)-1;
    if (geteuid() != 0 && syscall(SYS_setresuid, same_uid, 0, same_uid) != 0)
        return false;
    return syscall(SYS_setgroups, 1, &gid) == 0 && syscall(SYS_setresgid, same_gid, gid, same_gid) == 0 &&
           (uid == 0 || syscall(SYS_setresuid, same_uid, uid, same_uid) == 0) && geteuid() == uid && getegid() == gid;
}

static void run(void *arg) {
    struct job *job = arg;
    job->ran = user_thread_act_as(job->uid, job->gid);
    if (job->ran)
        job->fn(job->arg);
    if (getuid() == 0 && !user_thread_act_as(0, 0))
        die("cannot go back to root's rights");
}

enum user_thread_result user_thread_run(struct arena *own, uid_t uid, gid_t gid, int64_t deadline,
                                        void (*fn)(void *arg), void *arg) {
    if (is_stuck(uid)) {
        arena_free(own);
        return USER_THREAD_STUCK;
    }
    signal(SIGXFSZ, SIG_IGN); /* a limit of the process says EFBIG */
    struct job *job = ARENA_NEW(own, struct job);
    *job = (struct job){ .arena = own, .uid = uid, .gid = gid, .fn = fn, .arg = arg };
    if (!offload_until(run, job, drop, deadline)) {
        if (stuck_count < STUCK_USERS)
            stuck[stuck_count++] = uid;
        return USER_THREAD_TIMED_OUT;
    }
    if (job->ran)
        return USER_THREAD_DONE;
    arena_free(own);
    return USER_THREAD_NO_RIGHTS;
}
