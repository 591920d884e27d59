#include "deliver/mbox_file.h"

#include "run/sys.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { PATH_ROOM = 4096 };

static const struct {
    struct str name;
    unsigned lock;
} lock_rows[] = {
    { STR_INIT("flock"), MAILBOX_FLOCK },
    { STR_INIT("fcntl"), MAILBOX_FCNTL },
    { STR_INIT("dotlock"), MAILBOX_DOTLOCK },
};

struct str mailbox_lock_name(size_t i) {
    return i < sizeof(lock_rows) / sizeof(*lock_rows) ? lock_rows[i].name : STR("");
}

bool mailbox_locks_parse(struct str list, unsigned *ret) {
    struct str word;
    *ret = 0;
    while (str_word(&list, STR_COMMA_SPACE, &word)) {
        unsigned lock = 0;
        for (size_t i = 0; i < sizeof(lock_rows) / sizeof(*lock_rows); i++)
            if (str_eq(word, lock_rows[i].name))
                lock = lock_rows[i].lock;
        if (!lock)
            return false;
        *ret |= lock;
    }
    return true;
}

/* --- open --- */
static bool link_is_roots(const char *path) {
    struct stat st;
    if (sys->fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISLNK(st.st_mode) || st.st_uid != 0)
        return false;
    char dir[PATH_ROOM];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    if (n == 0 || n >= sizeof(dir))
        return false;
    memcpy(dir, path, n);
    dir[n] = 0;
    return sys->fstatat(AT_FDCWD, dir, &st, 0) == 0 && st.st_uid == 0 && !(st.st_mode & (S_IWGRP | S_IWOTH));
}

int mbox_open(const char *path, bool *ret_new) {
    /* readable too, to look at the end; a mailbox that may only be written to will do */
    static const int modes[] = { O_RDWR, O_WRONLY };
    *ret_new = false;
    int fd = -1;
    for (size_t i = 0; i < 2 && fd < 0; i++) {
        int flags = modes[i] | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
        fd = sys->openat(AT_FDCWD, path, flags, 0);
        if (fd < 0 && errno == ELOOP && link_is_roots(path))
            fd = sys->openat(AT_FDCWD, path, flags & ~O_NOFOLLOW, 0);
        if (fd < 0 && errno != EACCES)
            break;
    }
    if (fd >= 0 || errno != ENOENT)
        return fd;
    fd = sys->openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    *ret_new = true;
    return fd;
}

/* --- locks --- */
static void wait_turn(const struct mbox_wait *wait) {
    struct timespec t = { .tv_sec = (time_t)wait->delay };
    nanosleep(&t, NULL);
}

int mbox_dotlock(const char *lock, const struct mbox_wait *wait) {
    int code = EEXIST;
    for (int i = 0; i < wait->attempts; i++) {
        if (i)
            wait_turn(wait);
        /* created whole or not at all, so nobody else can hold a lock of the same name */
        int fd = sys->openat(AT_FDCWD, lock, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd >= 0) {
            sys->close(fd);
            return 0;
        }
        code = errno;
        if (code != EEXIST)
            break;
        struct stat st;
        if (sys->fstatat(AT_FDCWD, lock, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_ctime + wait->stale < sys->wall_us() / US_PER_S)
            sys->unlinkat(AT_FDCWD, lock, 0);
    }
    return code;
}

static int lock_once(int fd, unsigned kind) {
    if (kind == MAILBOX_FLOCK)
        return sys->flock(fd, LOCK_EX | LOCK_NB);
    /* of this open file, for a lock of the process would not hold off its other threads */
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    return sys->lock_range(fd, F_OFD_SETLK, &l);
}

static int lock_kind(int fd, unsigned kind, const struct mbox_wait *wait) {
    int code = EAGAIN;
    for (int i = 0; i < wait->attempts; i++) {
        if (i)
            wait_turn(wait);
        if (lock_once(fd, kind) == 0)
            return 0;
        code = errno;
        if (code != EAGAIN && code != EACCES && code != EWOULDBLOCK)
            break;
    }
    return code == EACCES ? EAGAIN : code; /* POSIX allows EACCES for a lock that is held */
}

int mbox_lock(int fd, unsigned kinds, const struct mbox_wait *wait) {
    int code = 0;
    if (kinds & MAILBOX_FLOCK)
        code = lock_kind(fd, MAILBOX_FLOCK, wait);
    if (!code && (kinds & MAILBOX_FCNTL))
        code = lock_kind(fd, MAILBOX_FCNTL, wait);
    return code;
}
