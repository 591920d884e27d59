/* sys.h - the seam: every clock, socket and file call that session and queue code makes goes through this table, so
 * that a test can put in a fake clock, a scripted peer or a fault ("the third fsync fails with EIO").
 *
 * Each call has the meaning, result and errno of the system call it is named after. `sys` is never NULL. A test sets
 * it before it starts the loop and puts sys_real back after. */
#ifndef ANGARIUM_RUN_SYS_H
#define ANGARIUM_RUN_SYS_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>

struct sys {
    /* clocks, in microseconds */
    int64_t (*mono_us)(void); /* only differences mean something; deadlines are points on it */
    int64_t (*wall_us)(void); /* since the epoch */
    /* waiting: as epoll_wait; a fake clock jumps to the timeout instead of sleeping */
    int (*epoll_wait)(int epfd, struct epoll_event *events, int max, int timeout_ms);
    /* sockets */
    int (*socket)(int domain, int type, int protocol);
    int (*connect)(int fd, const struct sockaddr *addr, socklen_t len);
    int (*accept4)(int fd, struct sockaddr *addr, socklen_t *len, int flags);
    ssize_t (*recvmsg)(int fd, struct msghdr *msg, int flags);
    ssize_t (*sendmsg)(int fd, const struct msghdr *msg, int flags);
    ssize_t (*read)(int fd, void *p, size_t n);
    ssize_t (*writev)(int fd, const struct iovec *iov, int count);
    int (*close)(int fd);
    /* files */
    int (*openat)(int dirfd, const char *path, int flags, mode_t mode);
    ssize_t (*pread)(int fd, void *p, size_t n, off_t at);
    ssize_t (*pwrite)(int fd, const void *p, size_t n, off_t at);
    int (*fsync)(int fd);
    int (*fdatasync)(int fd);
    int (*fchmod)(int fd, mode_t mode);
    int (*fstatat)(int dirfd, const char *path, struct stat *st, int flags);
    int (*renameat)(int from_dirfd, const char *from, int to_dirfd, const char *to);
    int (*unlinkat)(int dirfd, const char *path, int flags);
    int (*mkdirat)(int dirfd, const char *path, mode_t mode);
    int (*utimensat)(int dirfd, const char *path, const struct timespec times[2], int flags);
    int (*fstatvfs)(int fd, struct statvfs *st);
    int (*flock)(int fd, int operation);
    int (*syncfs)(int fd);
    int (*sync_file_range)(int fd, off_t at, off_t n, unsigned flags);
    int (*lock_range)(int fd, int command, struct flock *range); /* fcntl with F_OFD_SETLK or F_OFD_GETLK */
};

extern const struct sys sys_real;
extern const struct sys *sys;

#define US_PER_S INT64_C(1000000)
#define DEADLINE_NEVER INT64_MAX
/* The point in time `seconds` from now; in a coroutine, from when it was given its turn. */
int64_t deadline_in(int64_t seconds);
int64_t deadline_in_us(int64_t us);
#endif
