#include "flush/site_log.h"

#include "proto/flush.h"
#include "run/sys.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum {
    FILE_NAME_MAX = FLUSH_SITE_MAX + 2, /* bytes: '+' and NUL */
    ADD_ROUNDS = 3,                     /* a log is not taken that often while we write to it */
};
#define OPEN_FLAGS (O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)

error site_logs_open(struct site_logs *l, struct arena *err_arena) {
    if (sys->mkdirat(AT_FDCWD, "flush", 0700) < 0 && errno != EEXIST)
        return err_make(err_arena, ERR_SYS, "make directory flush: %s", strerror(errno));
    l->fd = sys->openat(AT_FDCWD, "flush", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    return l->fd < 0 ? err_make(err_arena, ERR_SYS, "open directory flush: %s", strerror(errno)) : NULL;
}

void site_logs_close(struct site_logs *l) {
    if (l->fd >= 0)
        sys->close(l->fd);
    l->fd = -1;
}

static void file_name(struct str site, bool taken, char ret[FILE_NAME_MAX]) {
    snprintf(ret, FILE_NAME_MAX, "%s%.*s", taken ? "+" : "", STR_ARG(site));
}

static const struct err not_a_file = { .kind = ERR_SYS, .sys = EINVAL, .text = STR_INIT("not a file") };

static error why_not(int errnum) {
    return errnum == EINVAL ? &not_a_file : err_errno(errnum);
}

/* -1 with errno; EINVAL: not a file. */
static int open_log(const struct site_logs *l, const char *name, int flags, struct stat *ret) {
    int fd = sys->openat(l->fd, name, flags | OPEN_FLAGS, 0600);
    if (fd < 0) {
        if (errno == ELOOP || errno == EISDIR || errno == ENXIO) /* a link; a directory; a pipe, a socket */
            errno = EINVAL;
        return -1;
    }
    if (sys->fstatat(fd, "", ret, AT_EMPTY_PATH) == 0 && S_ISREG(ret->st_mode))
        return fd;
    sys->close(fd);
    errno = EINVAL;
    return -1;
}

/* --- adding --- */
static error append(int fd, struct str lines) {
    while (lines.n) {
        struct iovec piece = { (void *)(uintptr_t)lines.p, lines.n };
        ssize_t n = sys->writev(fd, &piece, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(n < 0 ? errno : ENOSPC);
        lines = str_from(lines, (size_t)n);
    }
    return NULL;
}

error site_log_add(const struct site_logs *l, struct str site, struct str lines) {
    char name[FILE_NAME_MAX];
    file_name(site, false, name);
    for (int round = 0; round < ADD_ROUNDS; round++) {
        struct stat st, now;
        int fd = open_log(l, name, O_WRONLY | O_APPEND | O_CREAT, &st);
        if (fd < 0)
            return why_not(errno);
        error e = append(fd, lines);
        /* Another process (at a reload there are two) may have taken the log behind our back, and not seen this. */
        bool same = sys->fstatat(l->fd, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_ino == st.st_ino;
        sys->close(fd);
        if (e || same)
            return e;
    }
    return NULL;
}

/* --- taking --- */
error site_log_take(const struct site_logs *l, struct str site, int *ret_fd, bool *ret_again) {
    char name[FILE_NAME_MAX], taken[FILE_NAME_MAX];
    file_name(site, false, name);
    file_name(site, true, taken);
    struct stat st;
    int fd = open_log(l, taken, O_RDONLY, &st);
    *ret_again = fd >= 0;
    if (fd < 0 && errno == ENOENT) {
        fd = open_log(l, name, O_RDONLY, &st);
        if (fd >= 0 && (st.st_size == 0 || sys->renameat(l->fd, name, l->fd, taken) < 0)) {
            int why = st.st_size ? errno : ENOENT;
            sys->close(fd);
            return err_errno(why);
        }
    }
    if (fd < 0)
        return why_not(errno);
    *ret_fd = fd;
    return NULL;
}

error site_log_sent(const struct site_logs *l, struct str site) {
    char name[FILE_NAME_MAX];
    struct stat st;
    file_name(site, true, name);
    if (sys->unlinkat(l->fd, name, 0) < 0 && errno != ENOENT)
        return err_errno(errno);
    file_name(site, false, name);
    int fd = open_log(l, name, O_WRONLY | O_CREAT, &st);
    if (fd < 0)
        return why_not(errno);
    sys->close(fd);
    return NULL;
}

/* --- all of them --- */
DIR *site_logs_walk(const struct site_logs *l) {
    int fd = sys->openat(l->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0)
        sys->close(fd);
    return d;
}

bool site_logs_next(const struct site_logs *l, DIR *d, struct arena *a, struct site_entry *ret) {
    const struct dirent *e;
    struct stat st;
    do {
        if (!(e = readdir(d)))
            return false;
    } while (e->d_name[0] == '.' || sys->fstatat(l->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0);
    *ret = (struct site_entry){ .name = e->d_name,
                                .site = STR(""),
                                .taken = e->d_name[0] == '+',
                                .size = st.st_size,
                                .read_s = st.st_atim.tv_sec,
                                .write_s = st.st_mtim.tv_sec };
    struct str site = str_c(e->d_name + ret->taken), normal;
    if (S_ISREG(st.st_mode) && flush_site_normal(site, a, &normal) && str_eq(site, normal))
        ret->site = normal;
    return true;
}

error site_log_remove(const struct site_logs *l, struct str site) {
    char name[FILE_NAME_MAX];
    file_name(site, false, name);
    return sys->unlinkat(l->fd, name, 0) < 0 && errno != ENOENT ? err_errno(errno) : NULL;
}

/* --- lines --- */
void id_lines_feed(struct id_lines *p, struct str bytes) {
    p->rest = bytes;
}

enum id_line id_lines_next(struct id_lines *p, struct queue_id *ret) {
    if (p->ended) { /* the last call's line */
        p->ended = p->too_long = false;
        p->n = 0;
    }
    while (p->rest.n) {
        char c = p->rest.p[0];
        p->rest = str_from(p->rest, 1);
        if (c != '\n') {
            if (p->n < sizeof p->line)
                p->line[p->n++] = c;
            else
                p->too_long = true;
            continue;
        }
        if (p->n == 0)
            continue;
        p->ended = true;
        return !p->too_long && queue_id_from(str_n(p->line, p->n), ret) ? ID_LINE_ID : ID_LINE_BAD;
    }
    return ID_LINE_MORE;
}
