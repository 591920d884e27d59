#include "conf/lines.h"
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The next physical line that counts, without its newline; empty text and `*ret_more` false at the end. */
static bool take_physical(struct lines *l, struct str *ret) {
    while (l->rest.n) {
        ptrdiff_t end = str_index(l->rest, '\n');
        struct str line = str_sub(l->rest, 0, end < 0 ? l->rest.n : (size_t)end);
        l->rest = str_from(l->rest, end < 0 ? l->rest.n : (size_t)end + 1);
        l->line++;
        struct str trimmed = str_trim_left(line);
        if (trimmed.n && trimmed.p[0] != '#') {
            *ret = line;
            return true;
        }
    }
    return false;
}

error lines_next(struct lines *l, struct logical_line *ret) {
    *ret = (struct logical_line){ STR(""), 0 };
    struct str line;
    if (!take_physical(l, &line))
        return NULL;
    ret->line = l->line;
    struct buf joined = { 0 };
    struct str text = line;
    for (;;) {
        struct lines before = *l;
        struct str more;
        if (!take_physical(l, &more))
            break;
        if (!byte_is_space(more.p[0])) {
            *l = before;
            break;
        }
        if (!joined.n)
            buf_add(&joined, text);
        buf_add(&joined, more);
        text = buf_str(&joined);
        if (text.n > CONF_LINE_MAX)
            break;
    }
    error e = NULL;
    if (text.n > CONF_LINE_MAX)
        e = err_make(l->arena, ERR_CONFIG, "%.*s, line %zu: longer than %d bytes with its continuation lines",
                     STR_ARG(l->path), ret->line, CONF_LINE_MAX);
    else if (str_index(text, '\0') >= 0)
        e = err_make(l->arena, ERR_CONFIG, "%.*s, line %zu: NUL byte: this is not a text file", STR_ARG(l->path),
                     ret->line);
    else
        ret->text = str_trim_right(joined.n ? arena_str(l->arena, text) : text);
    buf_free(&joined);
    return e;
}

struct str conf_excerpt(struct str text, struct arena *a) {
    struct buf b = { 0 };
    buf_printable(&b, text, CONF_EXCERPT_MAX);
    if (text.n > CONF_EXCERPT_MAX)
        buf_add(&b, STR("..."));
    struct str shown = arena_str(a, buf_str(&b));
    buf_free(&b);
    return shown;
}

static error cannot_open(struct arena *a, const char *name, int sys, const char *why) {
    struct err *e = ARENA_NEW(a, struct err);
    *e = (struct err){ ERR_CONFIG, sys, 0, STR(""), arena_printf(a, "open %s: %s", name, why), STR("") };
    return e;
}

static bool same_state(const struct stat *x, const struct stat *y) {
    return x->st_size == y->st_size && x->st_mtim.tv_sec == y->st_mtim.tv_sec &&
           x->st_mtim.tv_nsec == y->st_mtim.tv_nsec;
}

/* Once. `*ret_whole`: nobody wrote to it meanwhile. */
static error read_once(const char *name, struct arena *a, struct buf *b, bool *ret_whole) {
    /* a FIFO must not make us wait for somebody who writes to it */
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return cannot_open(a, name, errno, strerror(errno));
    struct stat before, after;
    error e = NULL;
    errno = 0;
    if (fstat(fd, &before) != 0)
        e = cannot_open(a, name, errno, strerror(errno));
    else if (!S_ISREG(before.st_mode) && !S_ISDIR(before.st_mode) && !S_ISCHR(before.st_mode)) /* /dev/null is one */
        e = cannot_open(a, name, EINVAL, "not a regular file");
    else if (!buf_read_fd(b, fd, CONF_FILE_MAX))
        e = errno == EFBIG ? err_make(a, ERR_CONFIG, "%s: larger than %d bytes", name, CONF_FILE_MAX)
                           : cannot_open(a, name, errno, strerror(errno));
    else
        *ret_whole = fstat(fd, &after) == 0 && same_state(&before, &after);
    close(fd);
    return e;
}

error conf_read_file(struct str path, struct arena *a, struct str *ret) {
    enum { ATTEMPTS = 5 };
    char *name = arena_cstr(a, path);
    struct buf b = { 0 };
    bool whole = false;
    error e = NULL;
    for (int i = 0; i < ATTEMPTS && !e && !whole; i++) {
        buf_truncate(&b, 0);
        e = read_once(name, a, &b, &whole);
    }
    if (!e && !whole)
        e = err_make(a, ERR_CONFIG, "%s: somebody keeps writing to it while it is read; try again", name);
    if (!e)
        *ret = arena_str(a, buf_str(&b));
    buf_free(&b);
    return e;
}
