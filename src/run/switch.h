/* switch.h - changing from one stack to another (inside run/ only).
 *
 * x86-64 and aarch64 have a short assembly switch (switch.S) that saves what the C calling convention says a function
 * keeps; others, and builds with -DCORO_UCONTEXT, use ucontext(3), which also saves the signal mask by a system call.
 */
#ifndef ANGARIUM_RUN_SWITCH_H
#define ANGARIUM_RUN_SWITCH_H

#include <stddef.h>

#if !defined(CORO_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define CORO_UCONTEXT 1
#endif

#ifdef CORO_UCONTEXT
#include <ucontext.h>
struct context {
    ucontext_t uc;
};
#else
struct context {
    void *sp;
};
#endif

/* Make `c` call fn(arg) on the stack of `n` bytes that begins at `low` when first switched to. fn never returns. */
void context_make(struct context *c, void *low, size_t n, void (*fn)(void *arg), void *arg);
/* Leave the running context in `from` and go on in `to`. */
void context_switch(struct context *from, struct context *to);
#endif
