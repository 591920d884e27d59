#include "test/fake_sys.h"

#include "base/die.h"
#include "run/loop.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { FAULTS_MAX = 64, GIVE_UP_MS = 20 * 1000, OFFLOAD_POLL_MS = 1000 };

#define CALLS(X)                                                                                                       \
    X(socket)                                                                                                          \
    X(connect)                                                                                                         \
    X(accept4)                                                                                                         \
    X(recvmsg)                                                                                                         \
    X(sendmsg)                                                                                                         \
    X(read)                                                                                                            \
    X(writev)                                                                                                          \
    X(close)                                                                                                           \
    X(openat)                                                                                                          \
    X(pread)                                                                                                           \
    X(pwrite)                                                                                                          \
    X(fsync)                                                                                                           \
    X(fdatasync)                                                                                                       \
    X(fchmod)                                                                                                          \
    X(fstatat)                                                                                                         \
    X(renameat)                                                                                                        \
    X(unlinkat)                                                                                                        \
    X(mkdirat)                                                                                                         \
    X(utimensat)                                                                                                       \
    X(fstatvfs)                                                                                                        \
    X(flock)                                                                                                           \
    X(syncfs)                                                                                                          \
    X(sync_file_range)                                                                                                 \
    X(lock_range)

enum call {
#define CALL_ENUM(name) CALL_##name,
    CALLS(CALL_ENUM) CALL_COUNT
};

static const char *const call_names[] = {
#define CALL_NAME(name) #name,
    CALLS(CALL_NAME)
};

struct fault {
    enum call call;
    unsigned at; /* the call's number since install */
    bool and_after, happened;
    int errnum;
};

/* Calls also come from offload threads. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int64_t mono, wall;
    int real_wait_ms, give_up_ms;
    unsigned counts[CALL_COUNT];
    struct fault faults[FAULTS_MAX];
    size_t fault_count;
    size_t read_max, write_max, disk_room;
    void (*watch)(void *arg, const struct fake_call *call);
    void *watch_arg;
} fake;

static enum call call_find(const char *name) {
    for (int i = 0; i < CALL_COUNT; i++)
        if (strcmp(call_names[i], name) == 0)
            return (enum call)i;
    die("fake_sys: no call is named %s", name);
}

/* Counts the call. False: it fails, errno is set. */
static bool enter(enum call call, struct fake_call what) {
    int errnum = 0;
    pthread_mutex_lock(&lock);
    unsigned number = ++fake.counts[call];
    for (size_t i = 0; i < fake.fault_count && !errnum; i++) {
        struct fault *f = &fake.faults[i];
        if (f->call == call && (f->at == number || (f->and_after && number > f->at))) {
            f->happened = true;
            errnum = f->errnum;
        }
    }
    if (!errnum && fake.watch) {
        what.name = call_names[call];
        fake.watch(fake.watch_arg, &what);
    }
    pthread_mutex_unlock(&lock);
    if (errnum)
        errno = errnum;
    return errnum == 0;
}
#define ENTER(name, ...) enter(CALL_##name, (struct fake_call){ __VA_ARGS__ })

/* --- the clock --- */

static int64_t fake_mono_us(void) {
    pthread_mutex_lock(&lock);
    int64_t t = fake.mono;
    pthread_mutex_unlock(&lock);
    return t;
}

static int64_t fake_wall_us(void) {
    pthread_mutex_lock(&lock);
    int64_t t = fake.wall;
    pthread_mutex_unlock(&lock);
    return t;
}

void fake_sys_advance(int64_t us) {
    pthread_mutex_lock(&lock);
    fake.mono += us;
    fake.wall += us;
    pthread_mutex_unlock(&lock);
}

void fake_sys_step_wall(int64_t us) {
    pthread_mutex_lock(&lock);
    fake.wall += us;
    pthread_mutex_unlock(&lock);
}

static int fake_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms) {
    int n = epoll_wait(epfd, events, max, 0);
    if (n != 0 || timeout_ms == 0)
        return n;
    if (timeout_ms < 0) {
        n = epoll_wait(epfd, events, max, fake.give_up_ms);
        if (n == 0)
            die("fake_sys: nobody is ready, nobody waits for a time, and nothing has come for %d ms", fake.give_up_ms);
        return n;
    }
    while (n == 0 && offload_busy() > 0)
        n = epoll_wait(epfd, events, max, OFFLOAD_POLL_MS);
    if (n == 0 && fake.real_wait_ms > 0)
        n = epoll_wait(epfd, events, max, fake.real_wait_ms);
    if (n != 0)
        return n;
    /* epoll counts in milliseconds; the timer that comes next is more exact */
    int64_t jump = (int64_t)timeout_ms * 1000;
    if (loop.timer_count > 0 && loop.timers[0]->deadline - fake.mono < jump)
        jump = loop.timers[0]->deadline - fake.mono;
    fake_sys_advance(jump);
    return 0;
}

/* --- the calls --- */

static int fake_socket(int domain, int type, int protocol) {
    return ENTER(socket, .fd = -1) ? sys_real.socket(domain, type, protocol) : -1;
}

static int fake_connect(int fd, const struct sockaddr *addr, socklen_t len) {
    return ENTER(connect, .fd = fd) ? sys_real.connect(fd, addr, len) : -1;
}

static int fake_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags) {
    return ENTER(accept4, .fd = fd) ? sys_real.accept4(fd, addr, len, flags) : -1;
}

/* The first pieces of `iov`, `max` bytes together at most. One piece is all that our code uses for reading and at most
 * two for writing. */
enum { PIECES_MAX = 4 };
static int cut_iov(const struct iovec *iov, size_t count, size_t max, struct iovec out[PIECES_MAX]) {
    size_t n = 0;
    for (; n < count && n < PIECES_MAX && (max > 0 || n == 0); n++) {
        out[n] = iov[n];
        if (out[n].iov_len > max)
            out[n].iov_len = max;
        max -= out[n].iov_len;
    }
    return (int)n;
}

static ssize_t fake_recvmsg(int fd, struct msghdr *msg, int flags) {
    if (!ENTER(recvmsg, .fd = fd))
        return -1;
    if (!fake.read_max)
        return sys_real.recvmsg(fd, msg, flags);
    struct iovec iov[PIECES_MAX], *whole = msg->msg_iov;
    size_t whole_count = msg->msg_iovlen;
    msg->msg_iovlen = (size_t)cut_iov(whole, whole_count, fake.read_max, iov);
    msg->msg_iov = iov;
    ssize_t n = sys_real.recvmsg(fd, msg, flags);
    msg->msg_iov = whole;
    msg->msg_iovlen = whole_count;
    return n;
}

static ssize_t fake_sendmsg(int fd, const struct msghdr *msg, int flags) {
    if (!ENTER(sendmsg, .fd = fd))
        return -1;
    if (!fake.write_max)
        return sys_real.sendmsg(fd, msg, flags);
    struct iovec iov[PIECES_MAX];
    struct msghdr part = *msg;
    part.msg_iovlen = (size_t)cut_iov(msg->msg_iov, msg->msg_iovlen, fake.write_max, iov);
    part.msg_iov = iov;
    return sys_real.sendmsg(fd, &part, flags);
}

static ssize_t fake_read(int fd, void *p, size_t n) {
    if (!ENTER(read, .fd = fd))
        return -1;
    return sys_real.read(fd, p, fake.read_max && n > fake.read_max ? fake.read_max : n);
}

static ssize_t fake_writev(int fd, const struct iovec *iov, int count) {
    if (!ENTER(writev, .fd = fd, .data = count > 0 ? iov[0].iov_base : NULL, .n = count > 0 ? iov[0].iov_len : 0))
        return -1;
    if (!fake.write_max)
        return sys_real.writev(fd, iov, count);
    struct iovec part[PIECES_MAX];
    int pieces = cut_iov(iov, (size_t)count, fake.write_max, part);
    return sys_real.writev(fd, part, pieces);
}

static int fake_close(int fd) {
    /* a close that fails has closed all the same (close(2)) */
    bool fine = ENTER(close, .fd = fd);
    int errnum = errno;
    int result = sys_real.close(fd);
    if (fine)
        return result;
    errno = errnum;
    return -1;
}

static int fake_openat(int dirfd, const char *path, int flags, mode_t mode) {
    return ENTER(openat, .fd = dirfd, .path = path) ? sys_real.openat(dirfd, path, flags, mode) : -1;
}

static ssize_t fake_pread(int fd, void *p, size_t n, off_t at) {
    return ENTER(pread, .fd = fd, .at = at) ? sys_real.pread(fd, p, n, at) : -1;
}

static ssize_t fake_pwrite(int fd, const void *p, size_t n, off_t at) {
    if (!ENTER(pwrite, .fd = fd, .data = p, .n = n, .at = at))
        return -1;
    pthread_mutex_lock(&lock);
    size_t room = fake.disk_room;
    size_t part = n < room ? n : room;
    if (room != SIZE_MAX)
        fake.disk_room -= part;
    pthread_mutex_unlock(&lock);
    if (n > 0 && part == 0) {
        errno = ENOSPC;
        return -1;
    }
    return sys_real.pwrite(fd, p, part, at);
}

static int fake_fsync(int fd) {
    return ENTER(fsync, .fd = fd) ? sys_real.fsync(fd) : -1;
}

static int fake_fdatasync(int fd) {
    return ENTER(fdatasync, .fd = fd) ? sys_real.fdatasync(fd) : -1;
}

static int fake_fchmod(int fd, mode_t mode) {
    return ENTER(fchmod, .fd = fd) ? sys_real.fchmod(fd, mode) : -1;
}

static int fake_fstatat(int dirfd, const char *path, struct stat *st, int flags) {
    return ENTER(fstatat, .fd = dirfd, .path = path) ? sys_real.fstatat(dirfd, path, st, flags) : -1;
}

static int fake_renameat(int from_dirfd, const char *from, int to_dirfd, const char *to) {
    return ENTER(renameat, .fd = from_dirfd, .path = from, .to = to) ? sys_real.renameat(from_dirfd, from, to_dirfd, to)
                                                                     : -1;
}

static int fake_unlinkat(int dirfd, const char *path, int flags) {
    return ENTER(unlinkat, .fd = dirfd, .path = path) ? sys_real.unlinkat(dirfd, path, flags) : -1;
}

static int fake_mkdirat(int dirfd, const char *path, mode_t mode) {
    return ENTER(mkdirat, .fd = dirfd, .path = path) ? sys_real.mkdirat(dirfd, path, mode) : -1;
}

static int fake_utimensat(int dirfd, const char *path, const struct timespec times[2], int flags) {
    return ENTER(utimensat, .fd = dirfd, .path = path) ? sys_real.utimensat(dirfd, path, times, flags) : -1;
}

static int fake_fstatvfs(int fd, struct statvfs *st) {
    return ENTER(fstatvfs, .fd = fd) ? sys_real.fstatvfs(fd, st) : -1;
}

static int fake_flock(int fd, int operation) {
    return ENTER(flock, .fd = fd) ? sys_real.flock(fd, operation) : -1;
}

static int fake_syncfs(int fd) {
    return ENTER(syncfs, .fd = fd) ? sys_real.syncfs(fd) : -1;
}

static int fake_sync_file_range(int fd, off_t at, off_t n, unsigned flags) {
    return ENTER(sync_file_range, .fd = fd, .at = at, .n = (size_t)n) ? sys_real.sync_file_range(fd, at, n, flags) : -1;
}

static int fake_lock_range(int fd, int command, struct flock *range) {
    return ENTER(lock_range, .fd = fd) ? sys_real.lock_range(fd, command, range) : -1;
}

static const struct sys sys_fake = { .mono_us = fake_mono_us,
                                     .wall_us = fake_wall_us,
                                     .epoll_wait = fake_epoll_wait,
#define CALL_MEMBER(name) .name = fake_##name,
                                     CALLS(CALL_MEMBER) };

/* --- control --- */

void fake_sys_install(void) {
    memset(&fake, 0, sizeof fake);
    fake.mono = FAKE_MONO_START;
    fake.wall = FAKE_WALL_START;
    fake.give_up_ms = GIVE_UP_MS;
    fake.disk_room = SIZE_MAX;
    sys = &sys_fake;
}

void fake_sys_remove(void) {
    sys = &sys_real;
}

void fake_sys_real_wait(int ms) {
    fake.real_wait_ms = ms;
}

void fake_sys_give_up(int ms) {
    fake.give_up_ms = ms;
}

static void fault_add(const char *name, unsigned n, int errnum, bool and_after) {
    enum call call = call_find(name);
    pthread_mutex_lock(&lock);
    if (fake.fault_count == FAULTS_MAX)
        die("fake_sys: more than %d faults", FAULTS_MAX);
    fake.faults[fake.fault_count++] =
        (struct fault){ .call = call, .at = fake.counts[call] + n, .and_after = and_after, .errnum = errnum };
    pthread_mutex_unlock(&lock);
}

void fake_sys_fail(const char *call, unsigned n, int errnum) {
    fault_add(call, n, errnum, false);
}

void fake_sys_fail_from(const char *call, unsigned n, int errnum) {
    fault_add(call, n, errnum, true);
}

unsigned fake_sys_clear_faults(void) {
    unsigned left = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < fake.fault_count; i++)
        left += !fake.faults[i].happened && !fake.faults[i].and_after;
    fake.fault_count = 0;
    pthread_mutex_unlock(&lock);
    return left;
}

unsigned fake_sys_calls(const char *call) {
    enum call c = call_find(call);
    pthread_mutex_lock(&lock);
    unsigned n = fake.counts[c];
    pthread_mutex_unlock(&lock);
    return n;
}

void fake_sys_read_max(size_t n) {
    fake.read_max = n;
}

void fake_sys_write_max(size_t n) {
    fake.write_max = n;
}

void fake_sys_disk_room(size_t n) {
    fake.disk_room = n;
}

void fake_sys_watch(void (*fn)(void *arg, const struct fake_call *call), void *arg) {
    fake.watch = fn;
    fake.watch_arg = arg;
}
