#include "run/loop.h"

#include "base/die.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    OFFLOAD_LOW_NICE = 10,
    OFFLOAD_THREADS_DEFAULT = 8,
    OFFLOAD_THREADS_MAX = 256,
    OFFLOAD_THREAD_STACK = 512 * 1024
};

/* A job of offload() lives on the stack of the coroutine that waits for it; that is why a cancelled one still waits.
 * One that may be left behind is allocated. */
struct job {
    void (*fn)(void *arg);
    void *arg;
    struct coro *coro;
    struct job *next;
    bool finished, left; /* the loop's thread only */
    void (*drop)(void *arg);
};

/* Threads that share a list of jobs. */
struct lane {
    unsigned threads_max;
    int nice; /* added to the process's */
    pthread_t *threads;
    unsigned thread_count, idle_count;
    pthread_cond_t work;
    struct job *todo_first, *todo_last; /* under lock, as all below */
    size_t todo_count;
};
static struct lane ordinary = { .threads_max = OFFLOAD_THREADS_DEFAULT, .work = PTHREAD_COND_INITIALIZER };
static struct lane low = { .threads_max = 1, .nice = OFFLOAD_LOW_NICE, .work = PTHREAD_COND_INITIALIZER };
static size_t busy; /* jobs not yet given back; the loop's thread only */
static int event_fd = -1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct job *done_first, *done_last;
static bool quit;

static void *thread_main(void *arg) {
    struct lane *l = arg;
    if (l->nice) /* of this thread alone, on Linux; where it is refused the work is done all the same */
        setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + l->nice);
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!l->todo_first && !quit) {
            l->idle_count++;
            pthread_cond_wait(&l->work, &lock);
            l->idle_count--;
        }
        struct job *job = l->todo_first;
        if (!job)
            break;
        l->todo_first = job->next;
        l->todo_count--;
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
        job->finished = true;
        if (job->left) {
            job->drop(job->arg);
            free(job);
        } else if (job->coro->waiting) { /* not when its time came in this very round */
            loop_wake(job->coro, NULL);
        }
        job = next;
    }
}

/* With the lock held. False: no thread at all. */
static bool thread_start(struct lane *l) {
    if (l->thread_count == l->threads_max)
        return true;
    if (!l->threads)
        l->threads = calloc(OFFLOAD_THREADS_MAX, sizeof *l->threads);
    if (!l->threads)
        die_no_memory(OFFLOAD_THREADS_MAX * sizeof *l->threads);
    /* signals are the loop's business */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, OFFLOAD_THREAD_STACK);
    if (pthread_create(&l->threads[l->thread_count], &attr, thread_main, l) == 0)
        l->thread_count++;
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return l->thread_count > 0;
}

void offload_set_threads(unsigned n) {
    ordinary.threads_max = n < 1 ? 1 : n > OFFLOAD_THREADS_MAX ? OFFLOAD_THREADS_MAX : n;
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

/* Give the job to a thread and wait. False: it cannot be given to one and nothing was done. */
static bool hand_over(struct lane *l, struct job *job, int64_t deadline) {
    struct coro *c = job->coro = coro_self();
    if (!c || !offload_begin())
        return false;
    pthread_mutex_lock(&lock);
    if (l->todo_count >= l->idle_count && !thread_start(l)) {
        pthread_mutex_unlock(&lock);
        return false;
    }
    if (l->todo_first)
        l->todo_last->next = job;
    else
        l->todo_first = job;
    l->todo_last = job;
    l->todo_count++;
    pthread_mutex_unlock(&lock); /* which the thread, once awake, wants */
    pthread_cond_signal(&l->work);
    busy++;
    int shield = coro_shield(1); /* cancellation does not end this wait */
    loop_wait(c, deadline, NULL);
    coro_shield(shield);
    return true;
}

static void offload_to(struct lane *l, void (*fn)(void *arg), void *arg) {
    struct job job = { .fn = fn, .arg = arg };
    if (!hand_over(l, &job, DEADLINE_NEVER))
        fn(arg); /* no thread to be had: everybody waits, but the work is done */
}

bool offload_until(void (*fn)(void *arg), void *arg, void (*drop)(void *arg), int64_t deadline) {
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        die_no_memory(sizeof *job);
    *job = (struct job){ .fn = fn, .arg = arg, .drop = drop };
    if (!hand_over(&ordinary, job, deadline))
        fn(arg);
    else if (!job->finished) {
        job->left = true;
        return false;
    }
    free(job);
    return true;
}

void offload(void (*fn)(void *arg), void *arg) {
    offload_to(&ordinary, fn, arg);
}

void offload_low(void (*fn)(void *arg), void *arg) {
    offload_to(&low, fn, arg);
}

static void lane_free(struct lane *l) {
    for (unsigned i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
    free(l->threads);
    l->threads = NULL;
    l->thread_count = 0;
    l->todo_first = NULL;
    l->todo_count = 0;
}

void offload_free(void) {
    pthread_mutex_lock(&lock);
    quit = true;
    pthread_cond_broadcast(&ordinary.work);
    pthread_cond_broadcast(&low.work);
    pthread_mutex_unlock(&lock);
    lane_free(&ordinary);
    lane_free(&low);
    quit = false;
    done_first = NULL;
    busy = 0;
    if (event_fd >= 0) {
        loop_unwatch(event_fd);
        close(event_fd);
        event_fd = -1;
    }
}
