/* Why recipients wait, at the end of the message's file (spool_file.h): written when an attempt has ended, or goes on
 * for long; read for lists, a message at a time with as few calls as that takes. */
#include "queue/log.h"

#include "base/die.h"
#include "queue/spool_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum {
    PEEK = 8 * 1024,         /* bytes read first: all of most messages, the head of large ones */
    PEEK_KEPT = 1024 * 1024, /* of the buffer, from one message to the next */
};

static const struct err err_damaged = { .kind = ERR_SYNTAX, .text = STR_INIT("damaged queue file") };

/* --- writing --- */

/* Its file, and where the reasons are: behind their number, `*ret_n` bytes of records. */
static error open_reasons(struct spool *s, const struct queue_id *id, enum spool_state state, int flags, int *ret_fd,
                          uint64_t *ret_at, uint32_t *ret_n) {
    int fd = spool_openat(s, state, id, flags, 0);
    if (fd < 0)
        return err_errno(errno);
    struct spool_head h = { 0 };
    char number[SPOOL_REASONS_HEAD];
    error e = spool_read_head(fd, &h);
    if (!e && !spool_pread_all(fd, number, sizeof number, spool_reasons_at(&h)))
        e = err_errno(errno);
    if (e) {
        sys->close(fd);
        return e;
    }
    struct unpack u = unpack_from(str_n(number, sizeof number));
    *ret_n = unpack_u32(&u);
    *ret_at = spool_reasons_at(&h) + SPOOL_REASONS_HEAD;
    *ret_fd = fd;
    return NULL;
}

static error write_number(int fd, uint64_t records_at, uint64_t n) {
    struct buf b = { 0 };
    pack_u32(&b, (uint32_t)n);
    error e = spool_pwrite_all(fd, buf_str(&b), records_at - SPOOL_REASONS_HEAD);
    buf_free(&b);
    return e;
}

/* The records first: a number without them would be passed over as damage, but not without work. */
static error append(struct spool *s, const struct queue_id *id, enum spool_state state, struct str records) {
    int fd = -1;
    uint64_t at = 0;
    uint32_t n = 0;
    error e = open_reasons(s, id, state, O_RDWR, &fd, &at, &n);
    if (e)
        return e;
    if (records.n > SPOOL_LOG_MAX || n > SPOOL_LOG_MAX - records.n)
        e = err_errno(EFBIG);
    if (!e)
        e = spool_pwrite_all(fd, records, at + n);
    if (!e)
        e = write_number(fd, at, n + records.n);
    sys->close(fd);
    return e;
}

error spool_reasons_add(struct spool *s, const struct queue_id *id, enum spool_state state, struct str records,
                        bool goes_on) {
    if (records.n == 0)
        return NULL;
    struct log_message *m = log_find(s, id, state);
    if (!m)
        return append(s, id, state, records);
    buf_add(&m->reasons, records);
    return goes_on ? spool_log_append(s, id, SPOOL_LOG_DEFER, records) : NULL;
}

error spool_reasons_clear(struct spool *s, const struct queue_id *id, enum spool_state state) {
    struct log_message *m = log_find(s, id, state);
    if (m) {
        buf_clear(&m->reasons);
        return spool_log_clear(s, id, SPOOL_LOG_DEFER);
    }
    int fd = -1;
    uint64_t at = 0;
    uint32_t n = 0;
    error e = open_reasons(s, id, state, O_RDWR, &fd, &at, &n);
    if (e)
        return e;
    if (n > 0)
        e = write_number(fd, at, 0);
    sys->close(fd);
    return e;
}

/* --- reading --- */

error spool_reasons_read(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                         struct spool_failure **ret, size_t *ret_count) {
    *ret = NULL;
    *ret_count = 0;
    const struct log_message *m = log_find(s, id, state);
    if (m && m->reasons.n == 0) /* what an earlier life of ours has left */
        return spool_log_read(s, id, SPOOL_LOG_DEFER, a, ret, ret_count);
    if (m) {
        spool_log_parse(arena_str(a, buf_str(&m->reasons)), a, ret, ret_count);
        return NULL;
    }
    int fd = -1;
    uint64_t at = 0;
    uint32_t n = 0;
    struct stat st;
    error e = open_reasons(s, id, state, O_RDONLY, &fd, &at, &n);
    if (e)
        return e;
    if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0) {
        e = err_errno(errno);
    } else {
        uint64_t there = (uint64_t)st.st_size > at ? (uint64_t)st.st_size - at : 0;
        size_t size = n < there ? n : (size_t)there;
        if (size > SPOOL_LOG_MAX)
            size = SPOOL_LOG_MAX;
        char *bytes = arena_alloc(a, size);
        if (spool_pread_all(fd, bytes, size, at))
            spool_log_parse(str_n(bytes, size), a, ret, ret_count);
        else
            e = err_errno(errno);
    }
    sys->close(fd);
    return e;
}

/* --- many messages --- */

struct spool_peek {
    struct spool *s;
    int dir_fd; /* of `dir`; -1: none */
    char dir[SPOOL_PATH_MAX];
    char *bytes;
    size_t room;
};

struct spool_peek *spool_peek_new(struct spool *s) {
    struct spool_peek *p = calloc(1, sizeof *p);
    if (!p)
        die_no_memory(sizeof *p);
    p->s = s;
    p->dir_fd = -1;
    return p;
}

void spool_peek_free(struct spool_peek *p) {
    if (!p)
        return;
    if (p->dir_fd >= 0)
        sys->close(p->dir_fd);
    free(p->bytes);
    free(p);
}

static void make_room(struct spool_peek *p, size_t n) {
    if (n <= p->room && p->room <= PEEK_KEPT)
        return;
    free(p->bytes);
    p->room = n < PEEK ? (size_t)PEEK : n;
    p->bytes = malloc(p->room);
    if (!p->bytes)
        die_no_memory(p->room);
}

/* Below its directory, which the one before was mostly in, too: looking up the path costs as much as reading. The time
 * of the last access is left alone where we may (the owner and root): otherwise a list makes work for the disk. */
static int open_file(struct spool_peek *p, const struct queue_id *id, enum spool_state state) {
    enum { FLAGS = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY };
    char path[SPOOL_PATH_MAX];
    spool_path(p->s, state, id, path);
    char *slash = strrchr(path, '/');
    *slash = 0;
    if (p->dir_fd < 0 || strcmp(path, p->dir) != 0) {
        if (p->dir_fd >= 0)
            sys->close(p->dir_fd);
        p->dir_fd = sys->openat(p->s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        if (p->dir_fd < 0)
            return -1;
        memcpy(p->dir, path, sizeof path);
    }
    int fd = sys->openat(p->dir_fd, slash + 1, FLAGS | O_NOATIME, 0);
    if (fd < 0 && errno == EPERM)
        fd = sys->openat(p->dir_fd, slash + 1, FLAGS, 0);
    return fd;
}

/* Up to `n` bytes; -1 with errno. Fewer are taken for the end without asking again: if it was not, the checks say so.
 */
static ssize_t read_some(int fd, char *p, size_t n, uint64_t at) {
    ssize_t got;
    do
        got = sys->pread(fd, p, n, (off_t)at);
    while (got < 0 && errno == EINTR);
    return got;
}

/* Envelope, marks and reasons, wherever they are: `*ret_tail` begins with the envelope, and ends with what there is of
 * the reasons. `got` bytes from the file's start are in the buffer. */
static error read_tail(struct spool_peek *p, int fd, const struct spool_head *h, size_t got, struct str *ret_tail) {
    size_t fixed = (size_t)(spool_reasons_at(h) - h->envelope_at) + SPOOL_REASONS_HEAD;
    if (h->envelope_at + fixed <= got) {
        struct str tail = str_n(p->bytes + h->envelope_at, got - (size_t)h->envelope_at);
        struct unpack u = unpack_from(str_sub(tail, fixed - SPOOL_REASONS_HEAD, SPOOL_REASONS_HEAD));
        uint32_t reasons = unpack_u32(&u);
        if (got < PEEK || reasons <= tail.n - fixed) { /* all that the file has */
            *ret_tail = str_sub(tail, 0, fixed + reasons);
            return NULL;
        }
    }
    size_t want = fixed + PEEK;
    for (;;) {
        make_room(p, want);
        ssize_t n = read_some(fd, p->bytes, want, h->envelope_at);
        if (n < 0)
            return err_errno(errno);
        if ((size_t)n < fixed)
            return &err_damaged;
        struct unpack u = unpack_from(str_n(p->bytes + fixed - SPOOL_REASONS_HEAD, SPOOL_REASONS_HEAD));
        uint32_t reasons = unpack_u32(&u);
        *ret_tail = str_sub(str_n(p->bytes, (size_t)n), 0, fixed + reasons);
        if ((size_t)n < want || want >= fixed + SPOOL_LOG_MAX || reasons <= (size_t)n - fixed)
            return NULL;
        want = fixed + (reasons < SPOOL_LOG_MAX ? reasons : (size_t)SPOOL_LOG_MAX);
    }
}

static error peek_file(struct spool_peek *p, int fd, enum spool_state state, struct arena *a, struct envelope *ret_env,
                       struct spool_failure **ret, size_t *ret_count) {
    struct stat st;
    /* Among the deferred nobody has an unfinished file but the queue manager, and only for a moment. */
    if (state != SPOOL_DEFERRED) {
        if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0)
            return err_errno(errno);
        if (S_ISREG(st.st_mode) && !(st.st_mode & S_IXUSR))
            return err_errno(EAGAIN);
    }
    make_room(p, PEEK);
    ssize_t got = read_some(fd, p->bytes, PEEK, 0);
    if (got < 0)
        return errno == EISDIR || errno == ESPIPE ? &err_damaged : err_errno(errno);
    struct spool_head h;
    uint64_t size = got < PEEK ? (uint64_t)got : (uint64_t)INT64_MAX; /* the reads show whether all of it is there */
    if (!spool_head_unpack(str_n(p->bytes, (size_t)got), size, &h))
        return &err_damaged;
    struct str tail = STR("");
    error e = read_tail(p, fd, &h, (size_t)got, &tail);
    if (e)
        return e;
    size_t n = (size_t)(h.envelope_size + spool_mark_count(&h));
    if (!spool_envelope_unpack(str_sub(tail, 0, n), &h, a, ret_env))
        return &err_damaged;
    if (ret)
        spool_log_parse(str_from(tail, n + SPOOL_REASONS_HEAD), a, ret, ret_count);
    return NULL;
}

error spool_peek(struct spool_peek *p, const struct queue_id *id, enum spool_state state, struct arena *a,
                 struct envelope *ret_env, struct spool_failure **ret, size_t *ret_count) {
    if (ret) {
        *ret = NULL;
        *ret_count = 0;
    }
    int fd = open_file(p, id, state);
    if (fd >= 0) {
        error e = peek_file(p, fd, state, a, ret_env, ret, ret_count);
        sys->close(fd);
        return e;
    }
    if (errno != ENOENT)
        return err_errno(errno);
    error e = spool_load(p->s, id, state, a, ret_env, NULL);
    if (!e && ret) /* what cannot be read is missing */
        spool_log_read(p->s, id, SPOOL_LOG_DEFER, a, ret, ret_count);
    return e;
}
