#include "run/switch.h"

#include <stdint.h>

#ifdef CORO_UCONTEXT

/* makecontext() passes ints: a pointer goes in two halves. */
static void ucontext_entry(unsigned fn_high, unsigned fn_low, unsigned arg_high, unsigned arg_low) {
    uintptr_t fn = (uintptr_t)((uint64_t)fn_high << 32 | fn_low);
    uintptr_t arg = (uintptr_t)((uint64_t)arg_high << 32 | arg_low);
    ((void (*)(void *))fn)((void *)arg);
}

void context_make(struct context *c, void *low, size_t n, void (*fn)(void *arg), void *arg) {
    uint64_t f = (uintptr_t)fn, a = (uintptr_t)arg;
    getcontext(&c->uc);
    c->uc.uc_stack.ss_sp = low;
    c->uc.uc_stack.ss_size = n;
    c->uc.uc_link = NULL;
    makecontext(&c->uc, (void (*)(void))(uintptr_t)ucontext_entry, 4, (unsigned)(f >> 32), (unsigned)f,
                (unsigned)(a >> 32), (unsigned)a);
}

void context_switch(struct context *from, struct context *to) {
    swapcontext(&from->uc, &to->uc);
}

#else

void coro_switch_asm(void **save_sp, void *to_sp);
void coro_entry_asm(void);

/* What switch.S takes off the stack, lowest address first. On x86-64 nine words: six registers and the return address
 * leave the stack on a 16-byte boundary, as the ABI wants it before the call of the first function. */
#ifdef __x86_64__
enum { SAVED_WORDS = 9, WORD_FN = 3, WORD_ARG = 2, WORD_RETURN = 6 };
#else
enum { SAVED_WORDS = 20, WORD_FN = 0, WORD_ARG = 1, WORD_RETURN = 11 };
#endif

void context_make(struct context *c, void *low, size_t n, void (*fn)(void *arg), void *arg) {
    uintptr_t top = ((uintptr_t)low + n) & ~(uintptr_t)15;
    uintptr_t *frame = (uintptr_t *)top - SAVED_WORDS;
    for (unsigned i = 0; i < SAVED_WORDS; i++)
        frame[i] = 0;
    frame[WORD_FN] = (uintptr_t)fn;
    frame[WORD_ARG] = (uintptr_t)arg;
    frame[WORD_RETURN] = (uintptr_t)coro_entry_asm;
    c->sp = frame;
}

void context_switch(struct context *from, struct context *to) {
    coro_switch_asm(&from->sp, to->sp);
}

#endif
