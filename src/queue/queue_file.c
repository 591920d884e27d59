#include "queue/queue_file.h"

#include "queue/crc32c.h"
#include "queue/log.h"
#include "queue/maildrop.h"
#include "queue/spool_private.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK = 64 * 1024, PEEK = 12 };

static const char magic[8] = "ANGMAIL\n"; /* of all versions */

static error damaged(struct arena *a, const char *how) {
    return err_make(a, ERR_SYNTAX, "%s", how);
}

static error file_size(int fd, uint64_t *ret) {
    struct stat st;
    if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0)
        return err_errno(errno);
    if (!S_ISREG(st.st_mode))
        return err_errno(EINVAL);
    *ret = (uint64_t)st.st_size;
    return NULL;
}

error queue_file_kind(int fd, enum queue_file_kind *ret) {
    uint64_t size = 0;
    char bytes[PEEK] = { 0 };
    error e = file_size(fd, &size);
    if (e)
        return e;
    size_t n = size < PEEK ? (size_t)size : PEEK;
    if (!spool_pread_all(fd, bytes, n, 0))
        return err_errno(errno);
    static const char zeros[PEEK];
    *ret = QUEUE_FILE_OTHER;
    if (n >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0)
        *ret = QUEUE_FILE_MESSAGE;
    else if (n == 0 || (n == PEEK && memcmp(bytes, zeros, PEEK) == 0))
        *ret = QUEUE_FILE_UNFINISHED; /* the head is written last */
    else if (n >= 5 && bytes[0] == MAILDROP_SENDER && bytes[3] == 0 && bytes[4] == 0)
        *ret = QUEUE_FILE_SUBMISSION;
    return NULL;
}

error queue_file_read(int fd, struct arena *a, struct queue_file *ret) {
    uint64_t size = 0;
    char bytes[SPOOL_HEAD_SIZE];
    struct queue_file f = { .content_at = SPOOL_HEAD_SIZE };
    error e = file_size(fd, &size);
    if (e)
        return e;
    if (size < sizeof bytes)
        return damaged(a, "cut: shorter than its head");
    if (!spool_pread_all(fd, bytes, sizeof bytes, 0))
        return err_errno(errno);
    if (!spool_head_unpack(str_n(bytes, sizeof bytes), size, &f.head)) {
        struct unpack u = unpack_from(str_n(bytes + sizeof magic, 4));
        uint32_t version = unpack_u32(&u);
        if (memcmp(bytes, magic, sizeof magic) != 0)
            return damaged(a, "not a queue file");
        if (version != SPOOL_VERSION)
            return err_make(a, ERR_SYNTAX, "queue file version %u, this program knows %u", version,
                            (unsigned)SPOOL_VERSION);
        return damaged(a, "damaged head, or cut");
    }
    size_t n = (size_t)(f.head.envelope_size + spool_mark_count(&f.head));
    char *envelope = arena_alloc(a, n);
    if (!spool_pread_all(fd, envelope, n, f.head.envelope_at))
        return err_errno(errno);
    f.packed = str_n(envelope, n);
    if (!spool_envelope_unpack(f.packed, &f.head, a, &f.env))
        return damaged(a, "damaged envelope");
    *ret = f;
    return NULL;
}

static int open_at(const struct spool *s, const char *path) {
    return sys->openat(s->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
}

static error find_in_log(struct spool *s, const struct queue_id *id, struct arena *a, struct str *ret_path,
                         struct str *ret_form) {
    struct log_walk *w = log_walk_new(s);
    struct log_walk_entry found;
    struct str whole = STR("");
    struct buf form = { 0 };
    error e = log_walk_find(w, id, &found) ? log_walk_bytes(w, &whole) : err_errno(ENOENT);
    if (!e) {
        log_file_form(&form, whole, &found.record, found.marks, false, STR(""));
        *ret_form = arena_str(a, buf_str(&form));
        *ret_path = arena_printf(a, "%.*s/%s", STR_ARG(spool_state_name(found.state)), id->text);
    }
    buf_free(&form);
    log_walk_free(w);
    return e;
}

error queue_file_find(struct spool *s, const struct queue_id *id, struct arena *a, struct str *ret_path, int *ret_fd,
                      struct str *ret_form) {
    char path[SPOOL_PATH_MAX];
    snprintf(path, sizeof path, "maildrop/%s", id->text);
    int fd = open_at(s, path);
    for (enum spool_state state = 0; state < SPOOL_STATES && fd < 0; state++) {
        if (errno != ENOENT && errno != ENOTDIR)
            return err_errno(errno);
        spool_path(s, state, id, path);
        fd = open_at(s, path);
    }
    *ret_fd = fd;
    if (fd < 0)
        return errno == ENOENT ? find_in_log(s, id, a, ret_path, ret_form) : err_errno(errno);
    *ret_path = arena_str(a, str_c(path));
    return NULL;
}

error queue_file_check_content(int fd, const struct queue_file *f) {
    static const struct err wrong = { .kind = ERR_SYNTAX, .text = STR_INIT("damaged content: wrong check sum") };
    char *chunk = malloc(CHUNK);
    uint64_t left = f->head.content_size, at = f->content_at;
    uint32_t crc = 0;
    error e = chunk ? NULL : err_errno(ENOMEM);
    while (left > 0 && !e) {
        size_t n = left < CHUNK ? (size_t)left : CHUNK;
        if (!spool_pread_all(fd, chunk, n, at))
            e = err_errno(errno);
        else
            crc = crc32c(crc, str_n(chunk, n));
        left -= n;
        at += n;
    }
    free(chunk);
    if (!e && crc != f->head.content_crc)
        e = &wrong;
    return e;
}
