/* The writer's side of the spool: one message from creation to its 250. */
#include "queue/spool_private.h"

#include "base/die.h"
#include "queue/crc32c.h"
#include "queue/spool_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    WRITE_CHUNK = 64 * 1024, /* content is gathered up to this much; a message below it is one write */
    NAME_TRIES = 16,
};

struct spool_new {
    struct spool *spool;
    struct queue_id id;
    int fd;
    struct buf gathered; /* begins with the room for the head while nothing has been written */
    uint64_t written;    /* bytes of the file that have been */
    uint64_t size;       /* content so far */
    uint32_t crc;
    error failed; /* the first failure; static values only */
};

static error room_left(struct spool *s) {
    if (s->min_free == 0)
        return NULL;
    struct statvfs st;
    if (sys->fstatvfs(s->fd, &st) < 0)
        return err_errno(errno);
    uint64_t unit = st.f_frsize ? st.f_frsize : st.f_bsize;
    return unit && st.f_bavail < s->min_free / unit ? err_errno(ENOSPC) : NULL;
}

/* From the temporary name to the one made of time and inode. */
static error give_name(struct spool *s, int fd, const char *temporary, struct queue_id *ret) {
    struct stat st;
    if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0)
        return err_errno(errno);
    int64_t now = sys->wall_us();
    for (int i = 0; i < NAME_TRIES; i++) {
        char path[SPOOL_PATH_MAX];
        struct stat other;
        queue_id_make(ret, now + i, st.st_ino, s->long_queue_ids);
        spool_path(s, SPOOL_INCOMING, ret, path);
        /* A stranger of that name (a queue restored from elsewhere, whose names are of other inodes) is not run over.
         */
        if (sys->fstatat(s->fd, path, &other, AT_SYMLINK_NOFOLLOW) == 0)
            continue;
        if (sys->renameat(s->fd, temporary, s->fd, path) == 0)
            return NULL;
        if (errno != ENOENT || !s->hashed[SPOOL_INCOMING])
            return err_errno(errno);
        error e = spool_make_parents(s, path);
        if (e)
            return e;
        return sys->renameat(s->fd, temporary, s->fd, path) < 0 ? err_errno(errno) : NULL;
    }
    return err_errno(EEXIST);
}

error spool_create(struct spool *s, struct spool_new **ret) {
    error e = room_left(s);
    if (e)
        return e;
    char temporary[SPOOL_PATH_MAX];
    int fd = -1;
    for (int i = 0; i < NAME_TRIES && fd < 0; i++) {
        snprintf(temporary, sizeof temporary, "incoming/tmp.%x.%x", (unsigned)getpid(), s->next_temporary++);
        fd = sys->openat(s->fd, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, SPOOL_MODE_WRITING);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0)
        return err_errno(errno);
    struct queue_id id;
    e = sys->flock(fd, LOCK_EX | LOCK_NB) < 0 ? err_errno(errno) : give_name(s, fd, temporary, &id);
    if (e) {
        sys->unlinkat(s->fd, temporary, 0);
        sys->close(fd);
        return e;
    }
    struct spool_new *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    m->spool = s;
    m->id = id;
    m->fd = fd;
    *ret = m;
    return NULL;
}

const struct queue_id *spool_new_id(const struct spool_new *m) {
    return &m->id;
}

uint64_t spool_new_size(const struct spool_new *m) {
    return m->size;
}

static void leave_room_for_head(struct spool_new *m) {
    if (m->written > 0 || m->gathered.n > 0)
        return;
    memset(buf_reserve(&m->gathered, SPOOL_HEAD_SIZE), 0, SPOOL_HEAD_SIZE);
    m->gathered.n = SPOOL_HEAD_SIZE;
}

static void write_gathered(struct spool_new *m) {
    if (!m->failed)
        m->failed = spool_pwrite_all(m->fd, buf_str(&m->gathered), m->written);
    m->written += m->gathered.n;
    buf_clear(&m->gathered);
}

void spool_write(struct spool_new *m, struct str bytes) {
    if (m->failed || bytes.n == 0)
        return;
    leave_room_for_head(m);
    m->crc = crc32c(m->crc, bytes);
    m->size += bytes.n;
    while (bytes.n > 0) {
        size_t n = bytes.n < WRITE_CHUNK ? bytes.n : WRITE_CHUNK;
        buf_add(&m->gathered, str_sub(bytes, 0, n));
        bytes = str_from(bytes, n);
        if (m->gathered.n >= WRITE_CHUNK)
            write_gathered(m);
    }
}

static void forget(struct spool_new *m) {
    sys->close(m->fd);
    buf_free(&m->gathered);
    free(m);
}

/* The message must not be found again: first it is made to look unfinished, in case the name cannot be removed. */
static void discard(struct spool_new *m, enum spool_state state) {
    sys->fchmod(m->fd, SPOOL_MODE_WRITING);
    spool_unlink(m->spool, state, &m->id);
    forget(m);
}

void spool_abort(struct spool_new *m) {
    discard(m, SPOOL_INCOMING);
}

struct commit {
    struct spool_new *m;
    struct str head;               /* empty when it stands in front of `gathered` */
    enum spool_state state, where; /* wanted; reached */
    error e;
};

/* Everything up to the sync of the file, in one visit to a thread. */
static void commit_run(void *arg) {
    struct commit *c = arg;
    struct spool_new *m = c->m;
    write_gathered(m);
    c->e = m->failed;
    if (!c->e && c->head.n)
        c->e = spool_pwrite_all(m->fd, c->head, 0);
    if (!c->e && c->state != SPOOL_INCOMING) {
        c->e = spool_move(m->spool, &m->id, SPOOL_INCOMING, c->state);
        if (!c->e)
            c->where = c->state;
    }
    /* The mode before the sync, so that the sync covers it; a reader that takes the message up before the sync is done
     * has a complete one. */
    if (!c->e && sys->fchmod(m->fd, SPOOL_MODE_READY) < 0)
        c->e = err_errno(errno);
    if (!c->e && sys->fsync(m->fd) < 0)
        c->e = err_errno(errno);
}

error spool_commit(struct spool_new *m, const struct envelope *e, enum spool_state state) {
    struct spool_head h = { .content_size = m->size, .content_crc = m->crc };
    leave_room_for_head(m);
    if (!m->failed && !spool_envelope_pack(&m->gathered, &h, e))
        m->failed = err_errno(EFBIG);
    struct buf head = { 0 };
    spool_head_pack(&head, &h);
    struct commit c = { .m = m, .state = state, .where = SPOOL_INCOMING };
    if (m->written == 0) {
        memcpy(m->gathered.p, head.p, head.n);
    } else {
        c.head = buf_str(&head);
    }
    spool_offload(commit_run, &c);
    buf_free(&head);
    if (!c.e)
        c.e = spool_dir_sync(m->spool, c.where, &m->id);
    if (c.e) {
        discard(m, c.where);
        return c.e;
    }
    forget(m);
    return NULL;
}
