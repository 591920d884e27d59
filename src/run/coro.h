/* coro.h - one session, one coroutine: code that waits is written straight down.
 *
 * A coroutine runs on a stack of its own (CORO_STACK bytes with a guard page, pooled) in the process's one loop
 * thread and gives way only inside the waits of this room. Each wait takes a deadline (run/sys.h) and returns NULL,
 * &err_timeout, &err_cancelled or an error. After coro_cancel() every wait of that coroutine returns &err_cancelled
 * at once, so it unwinds through ordinary error returns; waits in clean-up code can be shielded with
 * coro_shield().
 *
 * errno and OpenSSL's error queue belong to the thread, not to the coroutine. errno is put back after each wait;
 * OpenSSL's queue is not: read it before any wait.
 *
 * A coroutine that never has to wait gives way all the same: io and ipc count what it does and yield for it. Code that
 * computes for long without either calls coro_yield() now and then. */
#ifndef ANGARIUM_RUN_CORO_H
#define ANGARIUM_RUN_CORO_H

#include "base/err.h"
#include "run/sys.h"

enum { CORO_STACK = 64 * 1024, CORO_STACK_SANITIZED = 256 * 1024 };

struct coro;

/* Set up the loop of this process; once, before anything else here. SIGPIPE is ignored from now on. */
error loop_init(void);
/* Run until loop_stop() was called or no coroutine is left. Returns an error only when epoll itself fails. */
error loop_run(void);
void loop_stop(void);
/* Free what loop_init() and the stack pool hold (tests, leak checks). All coroutines should have ended: of one that has
 * not, the stack is freed and what it held is lost. */
void loop_free(void);

/* `fn` is called each time the loop is about to look for events and says how many microseconds it may sleep at most
 * when there are none. It must not wait. One in a process; NULL: none. */
void loop_on_sleep(int64_t (*fn)(void *arg), void *arg);

/* Start `fn(arg)`; it first runs when the loop comes round to it. The handle is valid until fn returns: who needs to
 * know when that was uses a group. NULL when the process is out of stacks (mmap failed). `name` is a literal. */
struct coro *coro_spawn(void (*fn)(void *arg), void *arg, const char *name);
struct coro *coro_self(void); /* NULL outside a coroutine */
/* A waiter that was woken already, or whose time has come, keeps that result: a signal given to it is not lost. */
void coro_cancel(struct coro *c);
bool coro_cancelled(void);          /* has the running one been cancelled? */
int coro_shield(int on);            /* clean-up code that must wait: returns the old value, to be put back */
size_t coro_count(void);            /* alive */
void coro_yield(void);              /* let the others run once */
size_t coro_stack_high_water(void); /* most bytes of stack any coroutine used; 0 unless built with -Dstack_marks */

/* --- waiting ---
 * Outside a coroutine the waits on descriptors and time block the process, so that a command may use io and ipc without
 * a loop; cond_wait() and group_wait() are for coroutines only.
 *
 * Any number of coroutines may wait for one descriptor, in either direction: all are woken, and who finds nothing waits
 * again. A regular file is always ready. The descriptor must stay open while somebody waits. */
error wait_readable(int fd, int64_t deadline);
error wait_writable(int fd, int64_t deadline);
/* A listening socket that several processes wait at: a new connection wakes one of them, not all. Whoever is woken and
 * leaves something behind must see to it that another looks. Without wait_keep(). */
error wait_listener(int fd, int64_t deadline);
error wait_until(int64_t deadline); /* NULL when the time has come */

/* An owner that waits for one descriptor again and again says so: its registration with epoll is then kept between
 * waits. It must call wait_forget() before it closes the descriptor or gives it away, when nobody waits for it any
 * more. io and ipc do both. */
void wait_keep(int fd);
void wait_forget(int fd);

/* A condition: coroutines wait in order of arrival. `{0}` is ready for use. It must outlive its waiters; waiters may
 * leave (deadline, cancellation) or signal it themselves at any moment, also while others are being woken. */
struct cond {
    struct waiter *first, *last;
};
error cond_wait(struct cond *c, int64_t deadline);
void cond_signal(struct cond *c);    /* wakes one */
void cond_broadcast(struct cond *c); /* wakes all that wait now */

/* Wait for `n` coroutines: each calls group_leave() last. */
struct group {
    size_t running;
    struct cond done;
};
void group_enter(struct group *g);
void group_leave(struct group *g);
error group_wait(struct group *g, int64_t deadline);

/* Signals, read by the loop (signalfd): `fn` runs in the loop, outside any coroutine, and must not wait. The signal is
 * blocked from now on; several of one kind may come as one (after SIGCHLD, wait for all children there are). */
error loop_on_signal(int signo, void (*fn)(int signo, void *arg), void *arg);

/* Blocking calls that have no non-blocking form (fsync, getpwnam): run `fn(arg)` in one of a few threads and wait.
 * The threads start at first use and number at most `offload_threads` (default 8; set before first use). A cancelled
 * waiter still waits for `fn` to end: its memory is in use. Seccomp filters and privileges must be in place before. */
void offload(void (*fn)(void *arg), void *arg);
void offload_set_threads(unsigned n);
/* The same for a call that may hang. False: it had not ended at `deadline` (it may not even have begun) and is left to
 * itself; `drop(arg)` follows in the loop's thread when it ends, for `arg` and what it uses must live until then. */
bool offload_until(void (*fn)(void *arg), void *arg, void (*drop)(void *arg), int64_t deadline);
/* The same for work that can wait: in one thread, below the others' priority (nice) while the CPU is wanted. */
void offload_low(void (*fn)(void *arg), void *arg);
#endif
