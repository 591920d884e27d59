/* Stacks for coroutines: mappings with a guard page below, kept in a pool so that a new session costs no system call.
 *
 * Only pages that were touched cost memory, so the size is an upper limit and not a price. Each live stack is told to
 * LeakSanitizer (what only a waiting session points to is not a leak) and to valgrind. */
#include "run/loop.h"

#include "base/die.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef RUN_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(low, high) (0U)
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

#ifdef RUN_ASAN
enum { STACK_SIZE = CORO_STACK_SANITIZED };
#else
enum { STACK_SIZE = CORO_STACK };
#endif

/* Free stacks kept: enough that a busy worker does not map and unmap, few enough that a burst does not cost for ever.
 */
enum { STACK_POOL_MAX = 256 };

#ifdef CORO_STACK_MARKS
enum { STACK_MARK = 0xa5 };
#endif

static struct {
    struct stack *first;
    size_t count;
} pool;

static void stack_unmap(struct stack *s) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    VALGRIND_STACK_DEREGISTER(s->valgrind_id);
    munmap(s->low - page, s->size + page);
    free(s);
}

static struct stack *stack_map(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = STACK_SIZE;
    char *map = mmap(NULL, size + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    if (mprotect(map + page, size, PROT_READ | PROT_WRITE)) {
        munmap(map, size + page);
        return NULL;
    }
    /* a kernel that gives large folios to everybody would give 64 KiB for the first byte */
    madvise(map + page, size, MADV_NOHUGEPAGE);
    struct stack *s = calloc(1, sizeof *s);
    if (!s)
        die_no_memory(sizeof *s);
    s->low = map + page;
    s->size = size;
    s->valgrind_id = VALGRIND_STACK_REGISTER(s->low, s->low + s->size);
    return s;
}

struct stack *stack_get(void) {
    struct stack *s = pool.first;
    if (s) {
        pool.first = s->next;
        pool.count--;
        s->next = NULL;
    } else {
        s = stack_map();
        if (!s)
            return NULL;
    }
#ifdef RUN_ASAN
    /* frames the last user left without returning (it was switched away from for good) still poison it */
    __asan_unpoison_memory_region(s->low, s->size);
    __lsan_register_root_region(s->low, s->size);
#endif
#ifdef CORO_STACK_MARKS
    memset(s->low, STACK_MARK, s->size);
#endif
    return s;
}

void stack_put(struct stack *s) {
#ifdef RUN_ASAN
    __lsan_unregister_root_region(s->low, s->size);
    __asan_unpoison_memory_region(s->low, s->size); /* munmap() does not */
#endif
    if (pool.count >= STACK_POOL_MAX) {
        stack_unmap(s);
        return;
    }
#ifdef RUN_ASAN
    __asan_poison_memory_region(s->low, s->size); /* a pointer into an ended coroutine's stack is an error */
#endif
    s->next = pool.first;
    pool.first = s;
    pool.count++;
}

void stack_free_pool(void) {
    while (pool.first) {
        struct stack *s = pool.first;
        pool.first = s->next;
#ifdef RUN_ASAN
        __asan_unpoison_memory_region(s->low, s->size);
#endif
        stack_unmap(s);
    }
    pool.count = 0;
}

size_t stack_used(const struct stack *s) {
#ifdef CORO_STACK_MARKS
    size_t untouched = 0;
    while (untouched < s->size && (unsigned char)s->low[untouched] == STACK_MARK)
        untouched++;
    return s->size - untouched;
#else
    (void)s;
    return 0;
#endif
}
