#include "conf/edit.h"
#include "conf/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

bool physical_line(struct str *rest, struct str *ret_line, enum line_kind *ret_kind) {
    if (!rest->n)
        return false;
    ptrdiff_t end = str_index(*rest, '\n');
    *ret_line = str_sub(*rest, 0, end < 0 ? rest->n : (size_t)end + 1);
    *rest = str_from(*rest, ret_line->n);
    struct str text = str_trim_left(*ret_line);
    if (!text.n || text.p[0] == '#')
        *ret_kind = LINE_NOTHING;
    else
        *ret_kind = byte_is_space(ret_line->p[0]) ? LINE_CONTINUES : LINE_BEGINS;
    return true;
}

void edit_end_line(struct buf *b) {
    if (b->n && b->p[b->n - 1] != '\n')
        buf_byte(b, '\n');
}

static error failed(struct arena *a, const char *what, const char *path, const char *how) {
    return err_make(a, ERR_CONFIG, "%s %s%s: %s", what, path, how, strerror(errno));
}

/* The locked temporary file, empty. Whoever waited may hold one that was renamed or removed meanwhile: once more. */
static error open_locked(const char *path, struct arena *a, int *ret_fd) {
    for (;;) {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return failed(a, "open", path, "");
        struct stat held, there;
        if (flock(fd, LOCK_EX) != 0 || fstat(fd, &held) != 0) {
            error e = failed(a, "lock", path, "");
            close(fd);
            return e;
        }
        if (stat(path, &there) == 0 && there.st_dev == held.st_dev && there.st_ino == held.st_ino) {
            *ret_fd = fd;
            return ftruncate(fd, 0) == 0 ? NULL : failed(a, "truncate", path, "");
        }
        close(fd);
    }
}

static error write_all(int fd, const char *path, struct str text, struct arena *a) {
    while (text.n) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(a, "write", path, "");
        text = str_from(text, (size_t)n);
    }
    return NULL;
}

static void sync_directory(struct arena *a, struct str path) {
    ptrdiff_t slash = str_rindex(path, '/');
    const char *name = slash < 0 ? "." : arena_cstr(a, str_sub(path, 0, slash ? (size_t)slash : 1));
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd); /* the rename has happened in any case: a failure here can only be the disk's */
    close(fd);
}

static error replace(int fd, const char *tmp, struct str path, const struct stat *old, struct str text,
                     struct arena *a) {
    error e = write_all(fd, tmp, text, a);
    if (e)
        return e;
    /* the owner first, for that takes away set-id bits; who may not give files away keeps what he makes */
    if (fchown(fd, old->st_uid, old->st_gid) != 0 && errno != EPERM)
        return failed(a, "change owner of", tmp, "");
    if (fchmod(fd, old->st_mode & 07777) != 0)
        return failed(a, "fchmod", tmp, "");
    if (fsync(fd) != 0)
        return failed(a, "fsync", tmp, "");
    if (rename(tmp, arena_cstr(a, path)) != 0)
        return failed(a, "rename", tmp, "");
    sync_directory(a, path);
    return NULL;
}

error conf_file_edit(struct str path, file_editor *edit, void *ctx, struct arena *a) {
    char *name = arena_cstr(a, path), *tmp = arena_cstr(a, arena_printf(a, "%s.tmp", name));
    struct buf text = { 0 };
    struct stat old;
    struct str old_text = STR("");
    int fd = -1;
    error e = open_locked(tmp, a, &fd);
    if (e)
        return e;
    if (stat(name, &old) != 0)
        e = failed(a, "open", name, " for reading");
    else
        e = conf_read_file(path, a, &old_text);
    if (!e && str_index(old_text, '\0') >= 0)
        e = err_make(a, ERR_CONFIG, "%s: NUL byte: this is not a text file", name);
    if (!e)
        e = edit(ctx, old_text, a, &text);
    if (!e)
        e = replace(fd, tmp, path, &old, buf_str(&text), a);
    if (e)
        unlink(tmp);
    close(fd);
    buf_free(&text);
    return e;
}
