#include "lookup/ldap_guard.h"

#include "run/sys.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct ldap_guard *armed;
    bool running;
} watch = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void unlink_guard(struct ldap_guard *g) {
    for (struct ldap_guard **at = &watch.armed; *at; at = &(*at)->next)
        if (*at == g) {
            *at = g->next;
            break;
        }
    g->armed = false;
}

/* Shut down what is over its time; the next point in time to look, or 0. */
static int64_t end_overdue(void) {
    int64_t next = 0, now = sys->mono_us();
    for (struct ldap_guard *g = watch.armed, *following; g; g = following) {
        following = g->next;
        if (g->deadline > now) {
            next = next == 0 || g->deadline < next ? g->deadline : next;
            continue;
        }
        for (int i = 0; i < g->count; i++)
            shutdown(g->sockets[i].copy, SHUT_RDWR);
        unlink_guard(g);
    }
    return next;
}

static void *watch_main(void *arg) {
    (void)arg;
    pthread_mutex_lock(&watch.lock);
    for (;;) {
        int64_t next = end_overdue();
        struct timespec at = { .tv_sec = next / 1000000, .tv_nsec = next % 1000000 * 1000 };
        if (next)
            pthread_cond_clockwait(&watch.changed, &watch.lock, CLOCK_MONOTONIC, &at);
        else
            pthread_cond_wait(&watch.changed, &watch.lock);
    }
    return NULL;
}

static bool start_watching(void) {
    if (watch.running)
        return true;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    watch.running = pthread_create(&thread, &attr, watch_main, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return watch.running;
}

bool ldap_guard_add(struct ldap_guard *g, int fd) {
    pthread_mutex_lock(&watch.lock);
    int copy = g->count < LDAP_GUARD_SOCKETS ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (copy >= 0) {
        g->sockets[g->count].fd = fd;
        g->sockets[g->count++].copy = copy;
    }
    pthread_mutex_unlock(&watch.lock);
    return copy >= 0;
}

void ldap_guard_remove(struct ldap_guard *g, int fd) {
    pthread_mutex_lock(&watch.lock);
    for (int i = 0; i < g->count; i++)
        if (g->sockets[i].fd == fd) {
            close(g->sockets[i].copy);
            g->sockets[i] = g->sockets[--g->count];
            break;
        }
    pthread_mutex_unlock(&watch.lock);
}

bool ldap_guard_arm(struct ldap_guard *g, int64_t deadline) {
    pthread_mutex_lock(&watch.lock);
    bool ok = start_watching();
    if (ok && !g->armed) {
        g->armed = true;
        g->next = watch.armed;
        watch.armed = g;
    }
    g->deadline = deadline;
    pthread_cond_signal(&watch.changed);
    pthread_mutex_unlock(&watch.lock);
    return ok;
}

void ldap_guard_disarm(struct ldap_guard *g) {
    pthread_mutex_lock(&watch.lock);
    if (g->armed)
        unlink_guard(g);
    pthread_mutex_unlock(&watch.lock);
}

void ldap_guard_clear(struct ldap_guard *g) {
    pthread_mutex_lock(&watch.lock);
    if (g->armed)
        unlink_guard(g);
    while (g->count)
        close(g->sockets[--g->count].copy);
    pthread_mutex_unlock(&watch.lock);
}
