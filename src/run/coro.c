#include "run/loop.h"

#include "base/die.h"
#include <errno.h>
#include <stdlib.h>

#ifdef RUN_ASAN
#include <sanitizer/common_interface_defs.h>
#else
/* AddressSanitizer keeps one shadow and one fake stack per real stack and must be told of each change. */
#define __sanitizer_start_switch_fiber(save, low, size) ((void)(save), (void)(low), (void)(size))
#define __sanitizer_finish_switch_fiber(saved, low, size) ((void)(saved), (void)(low), (void)(size))
#endif

static size_t high_water;

static void ready_add(struct coro *c) {
    c->ready_next = NULL;
    if (loop.ready.last)
        loop.ready.last->ready_next = c;
    else
        loop.ready.first = c;
    loop.ready.last = c;
}

/* errno belongs to the thread; a coroutine finds it after a switch as it left it. */
static void switch_to_loop(struct coro *c) {
    c->saved_errno = errno;
    __sanitizer_start_switch_fiber(c->ended ? NULL : &c->fake_stack, loop.main_low, loop.main_size);
    context_switch(&c->context, &loop.context);
    __sanitizer_finish_switch_fiber(c->fake_stack, NULL, NULL);
    errno = c->saved_errno;
}

static void coro_main(void *arg) {
    struct coro *c = arg;
    __sanitizer_finish_switch_fiber(NULL, &loop.main_low, &loop.main_size);
    errno = 0;
    c->fn(c->arg);
    c->ended = true;
    switch_to_loop(c);
    die("coroutine %s: resumed after its end", c->name);
}

static void note_high_water(const struct coro *c) {
    size_t used = stack_used(c->stack);
    if (used > high_water)
        high_water = used;
}

static void coro_release(struct coro *c) {
    note_high_water(c);
    if (c->all_prev)
        c->all_prev->all_next = c->all_next;
    else
        loop.all = c->all_next;
    if (c->all_next)
        c->all_next->all_prev = c->all_prev;
    loop.count--;
    stack_put(c->stack);
    free(c);
}

void loop_resume(struct coro *c) {
    loop.current = c;
    loop.now = 0;
    c->budget = LOOP_BUDGET;
    __sanitizer_start_switch_fiber(&loop.fake_stack, c->stack->low, c->stack->size);
    context_switch(&loop.context, &c->context);
    __sanitizer_finish_switch_fiber(loop.fake_stack, NULL, NULL);
    loop.current = NULL;
    if (c->ended)
        coro_release(c);
}

struct coro *coro_spawn(void (*fn)(void *arg), void *arg, const char *name) {
    if (!loop.ready_for_use)
        die("coro_spawn: %s before loop_init", name);
    struct stack *stack = stack_get();
    if (!stack)
        return NULL;
    struct coro *c = calloc(1, sizeof *c);
    if (!c)
        die_no_memory(sizeof *c);
    c->stack = stack;
    c->fn = fn;
    c->arg = arg;
    c->name = name;
    c->fd = -1;
    c->waiter.coro = c;
    context_make(&c->context, stack->low, stack->size, coro_main, c);
    c->all_next = loop.all;
    if (loop.all)
        loop.all->all_prev = c;
    loop.all = c;
    loop.count++;
    ready_add(c);
    return c;
}

struct coro *coro_self(void) {
    return loop.current;
}

size_t coro_count(void) {
    return loop.count;
}

size_t coro_stack_high_water(void) {
    for (const struct coro *c = loop.all; c; c = c->all_next)
        note_high_water(c);
    return high_water;
}

void coro_cancel(struct coro *c) {
    c->cancelled = true;
    if (c->waiting && !c->shield)
        loop_wake(c, &err_cancelled);
}

bool coro_cancelled(void) {
    return loop.current && loop.current->cancelled;
}

int coro_shield(int on) {
    if (!loop.current)
        return 0;
    int old = loop.current->shield;
    loop.current->shield = on;
    return old;
}

error loop_may_wait(void) {
    const struct coro *c = loop.current;
    return c && c->cancelled && !c->shield ? &err_cancelled : NULL;
}

error loop_wait(struct coro *c, int64_t deadline, error on_time) {
    c->result = NULL;
    c->on_time = on_time;
    c->waiting = true;
    if (deadline != DEADLINE_NEVER)
        timer_add(c, deadline);
    switch_to_loop(c);
    return c->result;
}

void loop_wake(struct coro *c, error result) {
    if (!c->waiting)
        die("loop_wake: coroutine %s is not waiting", c->name);
    if (c->waiter.on)
        cond_leave(&c->waiter);
    if (c->fd >= 0)
        fd_leave(c);
    if (c->timer_at)
        timer_remove(c);
    c->waiting = false;
    c->result = result;
    ready_add(c);
}

void coro_yield(void) {
    struct coro *c = loop.current;
    if (!c)
        return;
    ready_add(c);
    switch_to_loop(c);
}

void loop_charge(int cost) {
    struct coro *c = loop.current;
    if (!c)
        return;
    c->budget -= cost;
    if (c->budget <= 0)
        coro_yield();
}

error wait_until(int64_t deadline) {
    struct coro *c = loop.current;
    error e = loop_may_wait();
    if (e)
        return e;
    if (!c)
        return loop_wait_fd(-1, 0, deadline);
    /* also when the time has come already: a loop around this must let the others run */
    return loop_wait(c, deadline, NULL);
}
