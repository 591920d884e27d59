#include "table/filemap.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

/* The handler takes the lock, too: it runs in the thread that touched a map, and that is never one that holds the lock.
 * A mutex is not for handlers, so it is an atomic flag, and held for a few instructions. */
static atomic_flag lock = ATOMIC_FLAG_INIT;
static struct filemap *maps;
static struct sigaction before;
static uintptr_t page_size;

static void take_lock(void) {
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
        sched_yield();
}

static void release_lock(void) {
    atomic_flag_clear_explicit(&lock, memory_order_release);
}

static struct filemap *map_at(uintptr_t address) {
    for (struct filemap *m = maps; m; m = m->next)
        if (address >= (uintptr_t)m->p && address - (uintptr_t)m->p < m->n)
            return m;
    return NULL;
}

static void on_sigbus(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)context;
    int saved = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    take_lock();
    struct filemap *m = map_at(address);
    if (m)
        m->broken = 1;
    release_lock();
    if (m) {                                               /* it is still there: this thread is reading it */
        void *page = (void *)(address & ~(page_size - 1)); // NOLINT(performance-no-int-to-ptr)
        if (mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page) {
            errno = saved;
            return;
        }
    }
    /* not ours: the instruction runs again and meets who was there before */
    sigaction(SIGBUS, &before, NULL);
    errno = saved;
}

static void handler_install(void) {
    if (page_size)
        return;
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct sigaction act = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
    sigemptyset(&act.sa_mask);
    sigaction(SIGBUS, &act, &before);
}

void filemap_watch(struct filemap *m, const void *p, size_t n) {
    take_lock();
    handler_install();
    *m = (struct filemap){ .p = p, .n = n, .next = maps, .back = &maps };
    if (maps)
        maps->back = &m->next;
    maps = m;
    release_lock();
}

void filemap_unwatch(struct filemap *m) {
    if (!m->back)
        return;
    take_lock();
    *m->back = m->next;
    if (m->next)
        m->next->back = m->back;
    m->back = NULL;
    release_lock();
}

int filemap_start(struct filemap *m, int fd, size_t n) {
    *m = (struct filemap){ 0 };
    if (n == 0)
        return 0;
    void *p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return errno;
    filemap_watch(m, p, n);
    return 0;
}

void filemap_end(struct filemap *m) {
    if (!m->p)
        return;
    filemap_unwatch(m);
    munmap((void *)(uintptr_t)m->p, m->n); // NOLINT(performance-no-int-to-ptr)
    *m = (struct filemap){ 0 };
}
