/* The loop: runs what is ready, then asks epoll, then the timers.
 *
 * A descriptor's registration is changed as seldom as possible. One that an io owns (wait_keep) stays registered for
 * what was last waited for; only when an event arrives that nobody waits for is it taken back, so the level-triggered
 * event cannot come again and again. A session that answers each line costs one epoll_wait() and no epoll_ctl(). */
#include "run/loop.h"

#include "base/die.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,
    /* Rounds of ready coroutines between two looks at epoll: they may wake each other for long. */
    ROUNDS_MAX = 8,
    WATCH_MAX = 4,
    TIMEOUT_MAX_MS = 3600 * 1000, /* sleep at most this long at a time: far from every overflow */
    FD_LIMIT = 1 << 24,
};

struct loop loop = { .epoll_fd = -1 };

static struct {
    int fd;
    void (*fn)(void);
} watches[WATCH_MAX];
static size_t watch_count;

static struct {
    int64_t (*fn)(void *arg);
    void *arg;
} on_sleep;

/* --- timers: a binary heap --- */

static bool timer_before(const struct coro *a, const struct coro *b) {
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->timer_seq < b->timer_seq;
}

static void timer_place(size_t at, struct coro *c) {
    loop.timers[at] = c;
    c->timer_at = at + 1;
}

static void timer_sift_up(size_t at, struct coro *c) {
    while (at > 0) {
        size_t up = (at - 1) / 2;
        if (!timer_before(c, loop.timers[up]))
            break;
        timer_place(at, loop.timers[up]);
        at = up;
    }
    timer_place(at, c);
}

static void timer_sift_down(size_t at, struct coro *c) {
    for (;;) {
        size_t down = 2 * at + 1;
        if (down >= loop.timer_count)
            break;
        if (down + 1 < loop.timer_count && timer_before(loop.timers[down + 1], loop.timers[down]))
            down++;
        if (!timer_before(loop.timers[down], c))
            break;
        timer_place(at, loop.timers[down]);
        at = down;
    }
    timer_place(at, c);
}

void timer_add(struct coro *c, int64_t deadline) {
    if (loop.timer_count == loop.timer_room) {
        size_t room = loop.timer_room ? loop.timer_room * 2 : 64;
        struct coro **timers = realloc(loop.timers, room * sizeof(struct coro *));
        if (!timers)
            die_no_memory(room * sizeof(struct coro *));
        loop.timers = timers;
        loop.timer_room = room;
    }
    c->deadline = deadline;
    c->timer_seq = loop.timer_seq++;
    timer_sift_up(loop.timer_count++, c);
}

void timer_remove(struct coro *c) {
    size_t at = c->timer_at - 1;
    struct coro *last = loop.timers[--loop.timer_count];
    c->timer_at = 0;
    if (last == c)
        return;
    if (at > 0 && timer_before(last, loop.timers[(at - 1) / 2]))
        timer_sift_up(at, last);
    else
        timer_sift_down(at, last);
}

static void timers_fire(void) {
    if (loop.timer_count == 0)
        return;
    int64_t now = sys->mono_us();
    while (loop.timer_count > 0 && loop.timers[0]->deadline <= now)
        loop_wake(loop.timers[0], loop.timers[0]->on_time);
}

static int timeout_until(int64_t deadline) {
    if (deadline == DEADLINE_NEVER)
        return -1;
    int64_t now = sys->mono_us();
    if (deadline <= now)
        return 0;
    int64_t us;
    if (__builtin_sub_overflow(deadline, now, &us) || us > (int64_t)TIMEOUT_MAX_MS * 1000)
        return TIMEOUT_MAX_MS;
    return (int)((us + 999) / 1000); /* never early: a timer a little short of its time would spin */
}

/* --- descriptors --- */

static struct fd_slot *fd_slot(int fd) {
    if (fd < 0 || fd >= FD_LIMIT)
        return NULL;
    size_t need = (size_t)fd + 1;
    if (need > loop.fd_room) {
        size_t room = loop.fd_room ? loop.fd_room : 64;
        while (room < need)
            room *= 2;
        struct fd_slot *fds = realloc(loop.fds, room * sizeof *fds);
        if (!fds)
            die_no_memory(room * sizeof *fds);
        memset(fds + loop.fd_room, 0, (room - loop.fd_room) * sizeof *fds);
        loop.fds = fds;
        loop.fd_room = room;
    }
    return &loop.fds[fd];
}

/* Tell epoll. 0, or -1 with errno. */
static int fd_register(int fd, struct fd_slot *slot, uint32_t events) {
    if (events == slot->registered)
        return 0;
    struct epoll_event ev = { .events = events, .data.fd = fd };
    int op = !events ? EPOLL_CTL_DEL : slot->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int result = epoll_ctl(loop.epoll_fd, op, fd, &ev);
    if (result && op == EPOLL_CTL_MOD && errno == ENOENT) /* closed and opened again behind our back */
        result = epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    else if (result && op == EPOLL_CTL_ADD && errno == EEXIST)
        result = epoll_ctl(loop.epoll_fd, EPOLL_CTL_MOD, fd, &ev);
    else if (result && op == EPOLL_CTL_DEL)
        result = 0; /* already gone */
    slot->registered = result ? 0 : events;
    return result;
}

static uint32_t fd_wanted(const struct fd_slot *slot) {
    uint32_t events = 0;
    for (const struct coro *c = slot->first; c; c = c->fd_next)
        events |= c->events;
    return events;
}

void fd_leave(struct coro *c) {
    struct fd_slot *slot = &loop.fds[c->fd];
    if (c->fd_prev)
        c->fd_prev->fd_next = c->fd_next;
    else
        slot->first = c->fd_next;
    if (c->fd_next)
        c->fd_next->fd_prev = c->fd_prev;
    else
        slot->last = c->fd_prev;
    int fd = c->fd;
    c->fd_prev = c->fd_next = NULL;
    c->fd = -1;
    loop.fds_waiting--;
    if (!slot->keep)
        fd_register(fd, slot, fd_wanted(slot));
}

void wait_keep(int fd) {
    struct fd_slot *slot = loop.ready_for_use ? fd_slot(fd) : NULL;
    if (slot)
        slot->keep = true;
}

void wait_forget(int fd) {
    if (fd < 0 || (size_t)fd >= loop.fd_room)
        return;
    struct fd_slot *slot = &loop.fds[fd];
    if (slot->first)
        die("wait_forget: coroutine %s still waits for descriptor %d", slot->first->name, fd);
    fd_register(fd, slot, 0);
    slot->keep = slot->unread = false;
}

/* Outside a coroutine there is nobody else to run: commands may use io and ipc without a loop. */
static error poll_fd(int fd, uint32_t events, int64_t deadline) {
    for (;;) {
        struct pollfd p = { .fd = fd,
                            .events = (short)((events & EPOLLIN ? POLLIN : 0) | (events & EPOLLOUT ? POLLOUT : 0)) };
        int timeout = timeout_until(deadline);
        int n = poll(&p, fd < 0 ? 0 : 1, timeout);
        if (n > 0)
            return p.revents & POLLNVAL ? err_errno(EBADF) : NULL;
        if (n < 0 && errno != EINTR)
            return err_errno(errno);
        if (n == 0 && sys->mono_us() >= deadline)
            return fd < 0 ? NULL : &err_timeout;
    }
}

error loop_wait_fd(int fd, uint32_t events, int64_t deadline) {
    struct coro *c = loop.current;
    if (!c)
        return poll_fd(fd, events, deadline);
    error e = loop_may_wait();
    if (e)
        return e;
    struct fd_slot *slot = fd_slot(fd);
    if (!slot)
        return err_errno(EBADF);
    uint32_t wanted = fd_wanted(slot) | events;
    if (slot->keep)
        wanted |= slot->registered & EPOLLIN; /* "writable" is nearly always true: never left in */
    if (fd_register(fd, slot, wanted)) {
        if (errno != EPERM)
            return err_errno(errno);
        coro_yield(); /* a regular file: always ready */
        return NULL;
    }
    c->fd = fd;
    c->events = events;
    c->fd_next = NULL;
    c->fd_prev = slot->last;
    if (slot->last)
        slot->last->fd_next = c;
    else
        slot->first = c;
    slot->last = c;
    loop.fds_waiting++;
    return loop_wait(c, deadline, &err_timeout);
}

error wait_readable(int fd, int64_t deadline) {
    return loop_wait_fd(fd, EPOLLIN, deadline);
}

error wait_listener(int fd, int64_t deadline) {
    return loop_wait_fd(fd, EPOLLIN | EPOLLEXCLUSIVE, deadline);
}

error wait_writable(int fd, int64_t deadline) {
    return loop_wait_fd(fd, EPOLLOUT, deadline);
}

bool loop_fd_quiet(int fd) {
    if (!loop.current || fd < 0 || (size_t)fd >= loop.fd_room)
        return false;
    /* level-triggered: had there been something, it would have been reported, and taken back for want of a waiter */
    const struct fd_slot *slot = &loop.fds[fd];
    return slot->keep && slot->registered & EPOLLIN && !slot->first && !slot->unread;
}

void loop_fd_emptied(int fd) {
    if (fd >= 0 && (size_t)fd < loop.fd_room)
        loop.fds[fd].unread = false;
}

static void fd_event(int fd, uint32_t events) {
    for (size_t i = 0; i < watch_count; i++) {
        if (watches[i].fd == fd) {
            watches[i].fn();
            return;
        }
    }
    struct fd_slot *slot = &loop.fds[fd];
    uint32_t ready = events & (EPOLLIN | EPOLLOUT);
    bool broken = events & (EPOLLERR | EPOLLHUP);
    if (broken)
        ready |= EPOLLIN | EPOLLOUT;
    uint32_t served = 0;
    for (struct coro *c = slot->first, *next; c; c = next) {
        next = c->fd_next; /* waking runs nobody, so `next` stays */
        if (c->events & ready) {
            served |= c->events;
            loop_wake(c, NULL);
        }
    }
    if (served & EPOLLIN)
        slot->unread = true;
    if (!slot->registered)
        return;
    /* what nobody waited for would be reported for ever; hang-up is reported whatever is asked for */
    if (broken && !served)
        fd_register(fd, slot, 0);
    else if (!broken && slot->registered & ready & ~served)
        fd_register(fd, slot, slot->registered & ~(ready & ~served));
}

error loop_watch(int fd, void (*fn)(void)) {
    if (watch_count == WATCH_MAX)
        die("loop_watch: more than %d", WATCH_MAX);
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };
    if (epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD, fd, &ev))
        return err_errno(errno);
    watches[watch_count].fd = fd;
    watches[watch_count++].fn = fn;
    return NULL;
}

void loop_unwatch(int fd) {
    for (size_t i = 0; i < watch_count; i++) {
        if (watches[i].fd == fd) {
            watches[i] = watches[--watch_count];
            epoll_ctl(loop.epoll_fd, EPOLL_CTL_DEL, fd, NULL);
            return;
        }
    }
}

/* --- the loop itself --- */

error loop_init(void) {
    if (loop.ready_for_use)
        die("loop_init: called twice");
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        return err_errno(errno);
    /* a peer that has gone is an error of the write, not the end of the process */
    signal(SIGPIPE, SIG_IGN);
    loop = (struct loop){ .epoll_fd = fd, .ready_for_use = true };
    return NULL;
}

static void run_round(void) {
    struct coro *c = loop.ready.first;
    loop.ready = (struct coro_list){ 0 };
    while (c) {
        struct coro *next = c->ready_next;
        loop_resume(c); /* those that become ready now are for the next round */
        c = next;
    }
}

static error look_at_epoll(int timeout) {
    static struct epoll_event events[EVENTS_MAX];
    int n = sys->epoll_wait(loop.epoll_fd, events, EVENTS_MAX, timeout);
    if (n < 0 && errno != EINTR)
        return err_errno(errno);
    for (int i = 0; i < n; i++)
        fd_event(events[i].data.fd, events[i].events);
    timers_fire(); /* after the events: data that came in time count, however late we are */
    return NULL;
}

void loop_on_sleep(int64_t (*fn)(void *arg), void *arg) {
    on_sleep.fn = fn;
    on_sleep.arg = arg;
}

/* Until when the loop may sleep. */
static int64_t next_wake(void) {
    int64_t next = loop.timer_count ? loop.timers[0]->deadline : DEADLINE_NEVER;
    int64_t most = on_sleep.fn ? on_sleep.fn(on_sleep.arg) : DEADLINE_NEVER;
    if (most == DEADLINE_NEVER)
        return next;
    int64_t at = deadline_in_us(most);
    return at < next ? at : next;
}

error loop_run(void) {
    if (!loop.ready_for_use || loop.running)
        die("loop_run: %s", loop.running ? "already running" : "before loop_init");
    loop.running = true;
    loop.stop = false;
    error e = NULL;
    while (!e && !loop.stop && loop.count > 0) {
        for (unsigned i = 0; i < ROUNDS_MAX && loop.ready.first && !loop.stop; i++)
            run_round();
        if (loop.stop || loop.count == 0)
            break;
        int64_t next = next_wake();
        e = look_at_epoll(loop.ready.first ? 0 : timeout_until(next));
    }
    loop.running = false;
    return e;
}

void loop_stop(void) {
    loop.stop = true;
}

void loop_free(void) {
    if (!loop.ready_for_use)
        return;
    offload_free();
    signal_free();
    while (loop.all) {
        struct coro *c = loop.all;
        loop.all = c->all_next;
        stack_put(c->stack);
        free(c);
    }
    stack_free_pool();
    free(loop.timers);
    free(loop.fds);
    close(loop.epoll_fd);
    loop = (struct loop){ .epoll_fd = -1 };
}
