#include "run/loop.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_us(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * US_PER_S + t.tv_nsec / 1000;
}

static int64_t real_mono_us(void) {
    return clock_us(CLOCK_MONOTONIC);
}

static int64_t real_wall_us(void) {
    return clock_us(CLOCK_REALTIME);
}

/* open(2) is variadic, so it needs a wrapper; fstatat and others may be macros of the C library. */
static int real_openat(int dirfd, const char *path, int flags, mode_t mode) {
    return openat(dirfd, path, flags, mode);
}

static int real_fstatat(int dirfd, const char *path, struct stat *st, int flags) {
    return fstatat(dirfd, path, st, flags);
}

/* glibc declares these with a transparent union for the address. */
static int real_connect(int fd, const struct sockaddr *addr, socklen_t len) {
    return connect(fd, addr, len);
}

static int real_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags) {
    return accept4(fd, addr, len, flags);
}

static int real_lock_range(int fd, int command, struct flock *range) {
    return fcntl(fd, command, range);
}

const struct sys sys_real = {
    .mono_us = real_mono_us,
    .wall_us = real_wall_us,
    .epoll_wait = epoll_wait,
    .socket = socket,
    .connect = real_connect,
    .accept4 = real_accept4,
    .recvmsg = recvmsg,
    .sendmsg = sendmsg,
    .read = read,
    .writev = writev,
    .close = close,
    .openat = real_openat,
    .pread = pread,
    .pwrite = pwrite,
    .fsync = fsync,
    .fdatasync = fdatasync,
    .fchmod = fchmod,
    .fstatat = real_fstatat,
    .renameat = renameat,
    .unlinkat = unlinkat,
    .mkdirat = mkdirat,
    .utimensat = utimensat,
    .fstatvfs = fstatvfs,
    .flock = flock,
    .syncfs = syncfs,
    .sync_file_range = sync_file_range,
    .lock_range = real_lock_range,
};

const struct sys *sys = &sys_real;

/* Sessions set deadlines at every turn: one look at the clock each time a coroutine runs is exact enough. A test's
 * clock is always asked, for the test may have moved it. */
static int64_t now_us(void) {
    if (!loop.current || sys != &sys_real)
        return sys->mono_us();
    if (loop.now == 0)
        loop.now = sys->mono_us();
    return loop.now;
}

int64_t deadline_in_us(int64_t us) {
    int64_t at;
    if (us == DEADLINE_NEVER || __builtin_add_overflow(now_us(), us, &at))
        return DEADLINE_NEVER;
    return at;
}

int64_t deadline_in(int64_t seconds) {
    int64_t us;
    if (__builtin_mul_overflow(seconds, US_PER_S, &us))
        return seconds < 0 ? INT64_MIN : DEADLINE_NEVER;
    return deadline_in_us(us);
}
