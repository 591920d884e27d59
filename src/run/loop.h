/* loop.h - what the files of run/ share about coroutines and the loop; other rooms use run/coro.h.
 *
 * Invariants. A coroutine is in exactly one of these states: running (loop.current), in the ready queue, or waiting.
 * A waiting one hangs on at most one condition and at most one descriptor, and has at most one timer; loop_wake()
 * takes it off all of them at once and puts it in the ready queue, so that nothing can wake it twice and nobody who
 * walks a list ever meets it again. Nothing runs a coroutine but loop_run(): waking never switches stacks. */
#ifndef ANGARIUM_RUN_LOOP_H
#define ANGARIUM_RUN_LOOP_H

#include "run/io.h"
#include "run/switch.h"

/* gcc and clang say in different ways that AddressSanitizer is there */
#if defined(__SANITIZE_ADDRESS__)
#define RUN_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RUN_ASAN 1
#endif
#endif

enum {
    /* Work a coroutine may do before it gives way although it never had to wait: units of loop_charge(). */
    LOOP_BUDGET = 256,
    LOOP_COST_CALL = 8, /* a system call that moved data */
    LOOP_COST_LINE = 1, /* a line out of a buffer */
};

struct stack { /* one mapping: guard page, then `size` bytes */
    char *low;
    size_t size;
    unsigned valgrind_id;
    struct stack *next; /* in the pool */
};

struct waiter {
    struct waiter *prev, *next;
    struct cond *on; /* NULL: not waiting for a condition */
    struct coro *coro;
};

struct coro {
    struct context context;
    struct stack *stack;
    void *fake_stack; /* AddressSanitizer's, while switched away */
    void (*fn)(void *arg);
    void *arg;
    const char *name;
    struct coro *ready_next;
    struct coro *all_prev, *all_next;

    struct waiter waiter;
    int fd; /* waited for; -1: none */
    uint32_t events;
    struct coro *fd_prev, *fd_next;
    int64_t deadline;
    uint64_t timer_seq; /* equal deadlines go in order of arrival */
    size_t timer_at;    /* index in the heap + 1; 0: no timer */
    error on_time;      /* what the wait returns when its deadline comes */
    error result;
    bool waiting, cancelled, ended;
    int shield;
    int budget;
    int saved_errno;
};

struct coro_list {
    struct coro *first, *last;
};

struct fd_slot {
    struct coro *first, *last; /* waiting, in order of arrival */
    uint32_t registered;       /* events epoll knows for it; 0: not in epoll */
    bool keep;
    bool unread; /* somebody was told of input, and loop_fd_emptied() has not been called since */
};

struct loop {
    bool ready_for_use, running, stop;
    int epoll_fd;
    struct coro *current;
    struct coro *all;
    size_t count;
    struct coro_list ready;
    struct context context; /* of loop_run() */
    int64_t now;            /* when the running coroutine first asked in its turn; 0: it has not */
    void *fake_stack;
    const void *main_low; /* the thread's own stack, learnt from the sanitizer */
    size_t main_size;

    struct coro **timers; /* heap, [0] is the earliest */
    size_t timer_count, timer_room;
    uint64_t timer_seq;

    struct fd_slot *fds;
    size_t fd_room;
    size_t fds_waiting; /* coroutines that wait for a descriptor */
};
extern struct loop loop;

/* --- coro.c --- */
void loop_resume(struct coro *c);
/* Give way until loop_wake(). The caller has put the coroutine on the lists it waits on. At `deadline` the result is
 * `on_time`. */
error loop_wait(struct coro *c, int64_t deadline, error on_time);
void loop_wake(struct coro *c, error result);
/* NULL, or &err_cancelled when the running coroutine must not wait any more. */
error loop_may_wait(void);
/* The running coroutine did something without waiting. Gives way when its budget is used up. */
void loop_charge(int cost);

/* --- loop.c --- */
void timer_add(struct coro *c, int64_t deadline);
void timer_remove(struct coro *c);
/* Wait until one of `events` (EPOLLIN, EPOLLOUT) is there; errors and hang-up count as both. */
error loop_wait_fd(int fd, uint32_t events, int64_t deadline);
void fd_leave(struct coro *c);
/* True: when the loop last looked, nothing had come for `fd` since its owner, who keeps it registered, had read all
 * there was and said so. False also when that is not known. */
bool loop_fd_quiet(int fd);
void loop_fd_emptied(int fd);
/* A descriptor of the loop itself: `fn` runs in the loop when it is readable. */
error loop_watch(int fd, void (*fn)(void));
void loop_unwatch(int fd);

/* --- cond.c --- */
void cond_leave(struct waiter *w);

/* --- stack.c --- */
struct stack *stack_get(void); /* NULL: no memory */
void stack_put(struct stack *s);
void stack_free_pool(void);
size_t stack_used(const struct stack *s); /* 0 unless built with stack marks */

/* --- io.c --- */
/* Bytes that came or were to go by other means before this io was made. */
void io_preload(struct io *io, struct str in, struct str out);

/* --- offload.c, signal.c: freed by loop_free() --- */
void offload_free(void);
size_t offload_busy(void); /* jobs not yet given back */
void signal_free(void);
#endif
