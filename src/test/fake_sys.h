/* fake_sys.h - for tests: the table of run/sys.h with a clock of its own, faults on demand and small portions.
 *
 *     fake_sys_install();                        in the test's set-up
 *     fake_sys_fail("fdatasync", 3, EIO);        the third one from now fails
 *     ... loop_run() ...
 *     assert_int_equal(fake_sys_calls("fdatasync"), 3);
 *     fake_sys_remove();                         in the tear-down; sys is sys_real again
 *
 * Time stands still while code runs, and jumps when the loop would sleep: a timeout of five minutes takes no time and
 * happens at exactly its point. Descriptors are real and are looked at before each jump, so that what another coroutine
 * or thread of this process has sent arrives before time goes on; while an offload() runs the clock waits for it. What
 * comes from another process has no such order: fake_sys_real_wait().
 *
 * A call is named by the member of struct sys: "writev", "openat". An unknown name ends the test process. */
#ifndef ANGARIUM_TEST_FAKE_SYS_H
#define ANGARIUM_TEST_FAKE_SYS_H

#include "run/sys.h"
#include <stdbool.h>

#define FAKE_MONO_START (INT64_C(1000) * US_PER_S)
#define FAKE_WALL_START (INT64_C(1800000000) * US_PER_S) /* 2027-01-15 08:00:00 UTC */

/* Also clears everything the functions below have set, and all counts. */
void fake_sys_install(void);
void fake_sys_remove(void);

/* --- the clock --- */
void fake_sys_advance(int64_t us);   /* both clocks, at once */
void fake_sys_step_wall(int64_t us); /* the wall clock alone, also back: as an administrator or NTP does */
/* Before each jump give descriptors up to `ms` of real time to become ready. Default 0. */
void fake_sys_real_wait(int ms);
/* With no timer left the loop can only wait for descriptors: after this long in real time the test process is ended
 * with a message, for nothing will come. Default 20 s. */
void fake_sys_give_up(int ms);

/* --- faults --- */
/* The n-th call from now on (1: the next) fails with `errnum` and does nothing. Any number may be set. */
void fake_sys_fail(const char *call, unsigned n, int errnum);
/* That one and all after it. */
void fake_sys_fail_from(const char *call, unsigned n, int errnum);
/* Forget all faults; returns how many of fake_sys_fail() had not come to pass. */
unsigned fake_sys_clear_faults(void);
/* Calls since install, failed ones included. */
unsigned fake_sys_calls(const char *call);

/* --- small portions: each call moves at most so many bytes; 0: no limit --- */
void fake_sys_read_max(size_t n);  /* read, recvmsg (descriptors still come with the first byte) */
void fake_sys_write_max(size_t n); /* writev, sendmsg */
/* pwrite() stores so many bytes more, then a short count, then ENOSPC. SIZE_MAX: no limit. */
void fake_sys_disk_room(size_t n);

/* Told of each call that reaches the system, before it is made, from whatever thread makes it; `fd` and `path` where
 * the call has them (-1, NULL). For recording what a crash at each point would leave. NULL: nobody. */
struct fake_call {
    const char *name;
    int fd;           /* the descriptor, or the directory `path` is relative to */
    const char *path; /* renameat: the old one */
    const char *to;   /* renameat: the new one */
    const void *data; /* pwrite; writev: the first piece */
    size_t n;
    int64_t at; /* pwrite */
};
void fake_sys_watch(void (*fn)(void *arg, const struct fake_call *call), void *arg);
#endif
