#include "run/loop.h"

#include "base/die.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { OFFLOAD_THREADS_DEFAULT = 8, OFFLOAD_THREADS_MAX = 256, OFFLOAD_THREAD_STACK = 512 * 1024 };

/* A job lives on the stack of the coroutine that waits for it; that is why a cancelled one still waits. */
struct job {
    void (*fn)(void *arg);
    void *arg;
    struct coro *coro;
    struct job *next;
};

static unsigned threads_max = OFFLOAD_THREADS_DEFAULT;
static pthread_t *threads;
static unsigned thread_count, idle_count;
static size_t busy; /* jobs not yet given back; the loop's thread only */
static int event_fd = -1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static struct job *todo_first, *todo_last; /* under lock, as all below */
static size_t todo_count;
static struct job *done_first, *done_last;
static bool quit;

static void *thread_main(void *arg) {
    (void)arg;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!todo_first && !quit) {
            idle_count++;
            pthread_cond_wait(&work, &lock);
            idle_count--;
        }
        struct job *job = todo_first;
        if (!job)
            break;
        todo_first = job->next;
        todo_count--;
        pthread_mutex_unlock(&lock);
        job->fn(job->arg);
        pthread_mutex_lock(&lock);
        bool first = !done_first;
        job->next = NULL;
        if (first)
            done_first = job;
        else
            done_last->next = job;
        done_last = job;
        if (!first) /* the loop takes the whole list at one event */
            continue;
        pthread_mutex_unlock(&lock); /* which the loop, once awake, wants */
        uint64_t one = 1;
        ssize_t n = write(event_fd, &one, sizeof one);
        (void)n; /* fails only when the counter is full, that is, when the loop is told already */
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void jobs_done(void) {
    uint64_t n;
    while (read(event_fd, &n, sizeof n) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&lock);
    struct job *job = done_first;
    done_first = NULL;
    pthread_mutex_unlock(&lock);
    while (job) {
        struct job *next = job->next;
        busy--;
        loop_wake(job->coro, NULL);
        job = next;
    }
}

/* With the lock held. False: no thread at all. */
static bool thread_start(void) {
    if (thread_count == threads_max)
        return true;
    if (!threads)
        threads = calloc(OFFLOAD_THREADS_MAX, sizeof *threads);
    if (!threads)
        die_no_memory(OFFLOAD_THREADS_MAX * sizeof *threads);
    /* signals are the loop's business */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, OFFLOAD_THREAD_STACK);
    if (pthread_create(&threads[thread_count], &attr, thread_main, NULL) == 0)
        thread_count++;
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return thread_count > 0;
}

void offload_set_threads(unsigned n) {
    threads_max = n < 1 ? 1 : n > OFFLOAD_THREADS_MAX ? OFFLOAD_THREADS_MAX : n;
}

size_t offload_busy(void) {
    return busy;
}

static bool offload_begin(void) {
    if (event_fd >= 0)
        return true;
    event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (event_fd >= 0 && loop_watch(event_fd, jobs_done)) {
        close(event_fd);
        event_fd = -1;
    }
    return event_fd >= 0;
}

void offload(void (*fn)(void *arg), void *arg) {
    struct coro *c = coro_self();
    if (!c || !offload_begin()) {
        fn(arg);
        return;
    }
    struct job job = { .fn = fn, .arg = arg, .coro = c };
    pthread_mutex_lock(&lock);
    if (todo_count >= idle_count && !thread_start()) {
        pthread_mutex_unlock(&lock);
        fn(arg); /* no thread to be had: everybody waits, but the work is done */
        return;
    }
    if (todo_first)
        todo_last->next = &job;
    else
        todo_first = &job;
    todo_last = &job;
    todo_count++;
    pthread_mutex_unlock(&lock); /* which the thread, once awake, wants */
    pthread_cond_signal(&work);
    busy++;
    int shield = coro_shield(1); /* cancellation does not end this wait */
    loop_wait(c, DEADLINE_NEVER, NULL);
    coro_shield(shield);
}

void offload_free(void) {
    pthread_mutex_lock(&lock);
    quit = true;
    pthread_cond_broadcast(&work);
    pthread_mutex_unlock(&lock);
    for (unsigned i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    threads = NULL;
    thread_count = 0;
    quit = false;
    todo_first = done_first = NULL;
    todo_count = 0;
    busy = 0;
    if (event_fd >= 0) {
        loop_unwatch(event_fd);
        close(event_fd);
        event_fd = -1;
    }
}
