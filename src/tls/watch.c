#include "tls/internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files are renewed by writing them, by rename(2) over them, or by another target of a symbolic link: a descriptor of
 * each link and of the file (O_PATH) sees all three. What was not there when it was read is seen by its directory. */
enum { WATCHED_MAX = 512, LINKS_MAX = 16, SETTLE_US = 1500000 };

static struct watched {
    char *path;
    int fd;
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime;
} watched[WATCHED_MAX];
static size_t watched_count;
static int64_t changed_since; /* monotonic us; 0: nothing has changed */
static struct timespec changed_mtime;

static void add(const char *name, const char *shown, int flags) {
    for (size_t i = 0; i < watched_count; i++)
        if (strcmp(watched[i].path, shown) == 0 && !(flags & O_NOFOLLOW))
            return;
    if (watched_count == WATCHED_MAX)
        return;
    struct stat st;
    int fd = open(name, O_PATH | O_CLOEXEC | flags);
    if (fd < 0 || fstat(fd, &st) < 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    watched[watched_count++] = (struct watched){ strdup(shown), fd, st.st_dev, st.st_ino, st.st_size, st.st_mtim };
}

/* The links on the way, from the left; `path` is changed. */
static void add_links(const char *shown, const char *from) {
    char path[PATH_MAX], target[PATH_MAX], next[2 * PATH_MAX];
    if (strlen(from) >= sizeof path)
        return;
    memcpy(path, from, strlen(from) + 1);
    for (int links = 0, again = 1; again && links < LINKS_MAX; links++) {
        again = 0;
        for (char *end = path + 1; *end && !again; end++) {
            end = strchr(end, '/') ? strchr(end, '/') : end + strlen(end);
            char kept = *end;
            *end = 0;
            ssize_t n = readlink(path, target, sizeof target - 1);
            if (n > 0) {
                target[n] = 0;
                add(path, shown, O_NOFOLLOW);
                const char *slash = strrchr(path, '/');
                int head = target[0] == '/' || !slash ? 0 : (int)(slash - path) + 1;
                int length =
                    snprintf(next, sizeof next, "%.*s%s%s%s", head, path, target, kept ? "/" : "", kept ? end + 1 : "");
                if (length < 0 || (size_t)length >= sizeof path)
                    return;
                memcpy(path, next, (size_t)length + 1);
                again = 1;
                break;
            }
            *end = kept;
            if (!kept)
                break;
        }
    }
}

void watch_file(const char *path) {
    struct stat st;
    if (!*path)
        return;
    add_links(path, path);
    if (stat(path, &st) == 0) {
        add(path, path, 0);
        return;
    }
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash || (size_t)(slash - path) >= sizeof parent)
        return;
    size_t n = slash == path ? 1 : (size_t)(slash - path);
    memcpy(parent, path, n);
    parent[n] = 0;
    add(parent, path, 0);
}

const char *tls_files_changed(void) {
    for (size_t i = 0; i < watched_count; i++) {
        const struct watched *w = &watched[i];
        struct stat st;
        bool gone = fstat(w->fd, &st) < 0 || st.st_nlink == 0;
        if (!gone && st.st_size == w->size && st.st_mtim.tv_sec == w->mtime.tv_sec &&
            st.st_mtim.tv_nsec == w->mtime.tv_nsec)
            continue;
        /* key and certificate are two files as a rule: wait until whoever writes them is done */
        int64_t now = sys->mono_us();
        struct timespec m = gone ? (struct timespec){ 0 } : st.st_mtim;
        if (!changed_since || m.tv_sec != changed_mtime.tv_sec || m.tv_nsec != changed_mtime.tv_nsec) {
            changed_since = now ? now : 1;
            changed_mtime = m;
        }
        return now - changed_since >= SETTLE_US ? w->path : NULL;
    }
    changed_since = 0;
    return NULL;
}
