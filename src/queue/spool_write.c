/* The writer's side of the spool: one message from creation to its 250. */
#include "queue/log.h"

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
    WRITE_CHUNK = 64 * 1024,               /* content is gathered up to this much; a message below it is one write */
    WRITE_CHUNK_LARGE = 256 * 1024 - 1024, /* the same for larger ones: fewer visits to a thread, */
    LARGE_GATHERED_MAX = 16 * 1024 * 1024, /* as long as all of them together have no more than this in memory */
    BEHIND = 1024 * 1024,                  /* bytes of a file that are given to the disk while more comes */
    PAGE = 4096,
    NAME_TRIES = 16,
    ROOM_LOOK_US = 1000000, /* free space is asked for once a second */
};

/* What spool_new_again() has put aside. */
struct old_content {
    int fd;
    struct buf gathered;
    uint64_t written, size;
};

struct spool_new {
    struct spool *spool;
    struct queue_id id;
    struct old_content *old; /* NULL: there is none */
    int fd;                  /* -1: in memory, for the log */
    struct log_coming coming;
    struct buf gathered; /* begins with the room for the head while nothing has been written */
    uint64_t written;    /* bytes of the file that have been */
    uint64_t begun;      /* of them, those that the disk has been told to take */
    size_t counted;      /* of `gathered`, in spool->gathered */
    uint64_t size;       /* content so far */
    uint32_t crc;
    error failed; /* the first failure; static values only */
};

enum { BLOCK = 512 /* the unit of st_blocks */ };

/* Segments of the log that wait for their next use are room as well: as many go as are needed, the ones first that the
 * writer would take last. */
static bool make_room(const struct spool *s, uint64_t have) {
    size_t n, used = 0;
    uint64_t *numbers = log_numbers(s, "free.", &n), all = have;
    char name[LOG_NAME_MAX];
    struct stat st;
    uint64_t *sizes = calloc(n + 1, sizeof *sizes);
    if (!sizes)
        die_no_memory(n * sizeof *sizes);
    for (size_t i = 0; i < n; i++) {
        log_name("free.", numbers[i], name);
        if (sys->fstatat(s->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            all += sizes[i] = (uint64_t)st.st_blocks * BLOCK;
    }
    bool enough = all >= s->min_free;
    for (; enough && have < s->min_free; have += sizes[used++])
        log_drop(s, "free.", numbers[used]);
    free(sizes);
    free(numbers);
    return enough;
}

static bool has_min_free(const struct spool *s, const struct statvfs *st) {
    uint64_t unit = st->f_frsize ? st->f_frsize : st->f_bsize;
    return !unit || st->f_bavail >= s->min_free / unit || make_room(s, st->f_bavail * unit);
}

static error room_left(struct spool *s) {
    if (s->min_free == 0)
        return NULL;
    int64_t now = sys->mono_us();
    if (s->room_looked_us == 0 || now - s->room_looked_us >= ROOM_LOOK_US) {
        struct statvfs st;
        if (sys->fstatvfs(s->fd, &st) < 0)
            return err_errno(errno);
        s->room_looked_us = now;
        s->room_short = !has_min_free(s, &st);
    }
    return s->room_short ? err_errno(ENOSPC) : NULL;
}

static error rename_into(struct spool *s, const char *from, const char *to) {
    if (sys->renameat(s->fd, from, s->fd, to) == 0)
        return NULL;
    if (errno != ENOENT || !s->hashed[SPOOL_INCOMING])
        return err_errno(errno);
    error e = spool_make_parents(s, to);
    if (e)
        return e;
    return sys->renameat(s->fd, from, s->fd, to) < 0 ? err_errno(errno) : NULL;
}

/* From the temporary name to that of the message. EEXIST: a stranger of that name (a queue restored from elsewhere,
 * whose names are of other inodes) is not run over. */
static error give_name(struct spool *s, const char *temporary, const struct queue_id *id) {
    char path[SPOOL_PATH_MAX];
    struct stat other;
    spool_path(s, SPOOL_INCOMING, id, path);
    if (sys->fstatat(s->fd, path, &other, AT_SYMLINK_NOFOLLOW) == 0)
        return err_errno(EEXIST);
    return rename_into(s, temporary, path);
}

/* The name made of time and inode. */
static error make_name(struct spool *s, int fd, const char *temporary, struct queue_id *ret) {
    struct stat st;
    if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0)
        return err_errno(errno);
    int64_t now = sys->wall_us();
    error e = NULL;
    for (int i = 0; i < NAME_TRIES; i++) {
        queue_id_make(ret, now + i, st.st_ino, s->long_queue_ids);
        e = give_name(s, temporary, ret);
        if (!e || e->sys != EEXIST)
            break;
    }
    return e;
}

/* A locked file below incoming/. `make`: it gives the message its id; otherwise it has one. */
static error open_file(struct spool *s, bool make, struct queue_id *id, int *ret_fd) {
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
    error e = sys->flock(fd, LOCK_EX | LOCK_NB) < 0 ? err_errno(errno) : NULL;
    if (!e)
        e = make ? make_name(s, fd, temporary, id) : give_name(s, temporary, id);
    if (e) {
        sys->unlinkat(s->fd, temporary, 0);
        sys->close(fd);
        return e;
    }
    *ret_fd = fd;
    return NULL;
}

error spool_create(struct spool *s, struct spool_new **ret) {
    struct queue_id id;
    int fd = -1;
    error e = room_left(s);
    if (e)
        return e;
    bool log = s->log_writer;
    if (log) {
        e = log_next_id(s->log_writer, &id);
        if (e && (e->sys == EUSERS || e->sys == ENOSPC)) /* very many writers, or no room for a segment: a file */
            log = false;
    }
    if (!log)
        e = open_file(s, true, &id, &fd);
    if (e)
        return e;
    struct spool_new *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    m->spool = s;
    m->id = id;
    m->fd = fd;
    if (fd < 0)
        log_comes(s->log_writer, &m->coming);
    *ret = m;
    return NULL;
}

bool spool_create_is_free(const struct spool *s) {
    return s->log_writer && log_next_id_is_free(s->log_writer);
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

/* In a thread: the disk may be busy. It begins with what is there while more comes; otherwise all of a large message
 * would wait for its end, where the client waits. */
static void write_run(void *arg) {
    struct spool_new *m = arg;
    write_gathered(m);
    uint64_t whole = m->written / PAGE * PAGE;
    if (m->failed || whole < m->begun + BEHIND)
        return;
    /* this only begins; what fails here fails again at the sync that counts */
    sys->sync_file_range(m->fd, (off_t)m->begun, (off_t)(whole - m->begun), SYNC_FILE_RANGE_WRITE);
    m->begun = whole;
}

/* What is in memory of it has become more, or less. */
static void count_gathered(struct spool_new *m) {
    size_t now = m->fd < 0 ? 0 : m->gathered.n;
    m->spool->gathered += now;
    m->spool->gathered -= m->counted;
    m->counted = now;
}

static size_t write_chunk(const struct spool_new *m) {
    return m->spool->gathered > LARGE_GATHERED_MAX ? WRITE_CHUNK : WRITE_CHUNK_LARGE;
}

/* It does not go into the log: from now on it has a file, with the id that it has. */
static void leave_log(struct spool_new *m) {
    log_comes_not(m->spool->log_writer, &m->coming);
    m->failed = open_file(m->spool, false, &m->id, &m->fd);
}

void spool_write(struct spool_new *m, struct str bytes) {
    if (m->failed || bytes.n == 0)
        return;
    leave_room_for_head(m);
    m->crc = crc32c(m->crc, bytes);
    m->size += bytes.n;
    if (m->fd < 0 && m->size > SEGMENT_CONTENT_MAX)
        leave_log(m);
    while (bytes.n > 0 && !m->failed) {
        size_t n = bytes.n < WRITE_CHUNK ? bytes.n : WRITE_CHUNK;
        if (m->fd >= 0 && m->gathered.n + n > write_chunk(m))
            spool_offload(write_run, m);
        buf_add(&m->gathered, str_sub(bytes, 0, n));
        bytes = str_from(bytes, n);
        count_gathered(m);
    }
}

/* --- looking at it, and beginning anew --- */

/* `fd` has the first `written` bytes, `gathered` the others. */
static error read_back(int fd, const struct buf *gathered, uint64_t written, uint64_t size, uint64_t at, void *p,
                       size_t n) {
    if (at > size || n > size - at)
        return err_errno(EINVAL);
    char *to = p;
    uint64_t from = SPOOL_HEAD_SIZE + at;
    if (from < written) {
        size_t here = written - from < n ? (size_t)(written - from) : n;
        if (!spool_pread_all(fd, to, here, from))
            return err_errno(errno);
        to += here;
        from += here;
        n -= here;
    }
    if (n > 0)
        memcpy(to, gathered->p + (from - written), n);
    return NULL;
}

error spool_new_read(struct spool_new *m, uint64_t at, void *p, size_t n) {
    return m->failed ? m->failed : read_back(m->fd, &m->gathered, m->written, m->size, at, p, n);
}

error spool_old_read(struct spool_new *m, uint64_t at, void *p, size_t n) {
    if (!m->old)
        return err_errno(EINVAL);
    return read_back(m->old->fd, &m->old->gathered, m->old->written, m->old->size, at, p, n);
}

static void forget_old(struct spool_new *m) {
    if (!m->old)
        return;
    if (m->old->fd >= 0)
        sys->close(m->old->fd);
    buf_free(&m->old->gathered);
    free(m->old);
    m->old = NULL;
}

error spool_new_again(struct spool_new *m) {
    if (m->fd >= 0 && !m->failed)
        spool_offload(write_run, m); /* what is put aside need not be in memory */
    if (m->failed)
        return m->failed;
    forget_old(m);
    m->old = calloc(1, sizeof *m->old);
    if (!m->old)
        die_no_memory(sizeof *m->old);
    *m->old = (struct old_content){ m->fd, m->gathered, m->written, m->size };
    m->gathered = (struct buf){ 0 };
    m->written = m->begun = m->size = 0;
    m->crc = 0;
    count_gathered(m);
    if (m->fd < 0)
        return NULL;
    /* what has a file stays one: its name may not be one of the log's */
    m->fd = -1;
    m->failed = spool_unlink(m->spool, SPOOL_INCOMING, &m->id);
    if (!m->failed)
        m->failed = open_file(m->spool, false, &m->id, &m->fd);
    return m->failed;
}

static void forget(struct spool_new *m) {
    forget_old(m);
    if (m->coming.listed)
        log_comes_not(m->spool->log_writer, &m->coming);
    m->spool->gathered -= m->counted;
    if (m->fd >= 0)
        sys->close(m->fd);
    buf_free(&m->gathered);
    free(m);
}

/* The message must not be found again: first it is made to look unfinished, in case the name cannot be removed. */
static void discard(struct spool_new *m, enum spool_state state) {
    if (m->fd >= 0) {
        sys->fchmod(m->fd, SPOOL_MODE_WRITING);
        spool_unlink(m->spool, state, &m->id);
    }
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

static error commit_file(struct spool_new *m, const struct spool_head *h, enum spool_state state) {
    struct buf head = { 0 };
    spool_head_pack(&head, h);
    struct commit c = { .m = m, .state = state, .where = SPOOL_INCOMING };
    if (m->written == 0) {
        memcpy(m->gathered.p, head.p, head.n);
    } else {
        c.head = buf_str(&head);
    }
    spool_offload(commit_run, &c);
    buf_free(&head);
    struct spool *s = m->spool;
    if (!c.e)
        c.e = spool_dir_sync(s, c.where, &m->id);
    if (!c.e && s->log_writer)
        c.e = log_commit_id(s->log_writer);
    if (c.e) {
        discard(m, c.where);
        return c.e;
    }
    struct spool_news news = { .id = m->id };
    forget(m);
    if (s->news && state == SPOOL_INCOMING)
        s->news(s->news_ctx, &news);
    return NULL;
}

static bool any_done(const struct envelope *e) {
    for (size_t i = 0; i < e->rcpt_count; i++)
        if (e->rcpts[i].state == RCPT_DONE)
            return true;
    return false;
}

_Static_assert((int)SPOOL_HEAD_SIZE == (int)SEGMENT_RECORD_HEAD, "what is gathered fits a file and the log");

error spool_commit(struct spool_new *m, const struct envelope *e, enum spool_state state) {
    struct spool_head h = { .content_size = m->size, .content_crc = m->crc };
    leave_room_for_head(m);
    if (!m->failed && !spool_envelope_pack(&m->gathered, &h, e))
        m->failed = err_errno(EFBIG);
    if (m->fd < 0 && !m->failed) {
        struct segment_record r = {
            .state = state == SPOOL_HOLD ? SEGMENT_HOLD : SEGMENT_INCOMING,
            .content_size = (uint32_t)m->size,
            .envelope_size = h.envelope_size,
            .rcpt_count = h.rcpt_count,
            .content_crc = h.content_crc,
            .envelope_crc = h.envelope_crc,
            .id = m->id,
        };
        if (log_takes(m->spool->log_writer, &r) && !any_done(e)) {
            struct str all = str_from(buf_str(&m->gathered), SPOOL_HEAD_SIZE);
            error failed = log_commit(m->spool->log_writer, &m->coming, &r, str_sub(all, 0, r.content_size),
                                      str_sub(all, r.content_size, r.envelope_size));
            if (!failed || failed->sys != ENOSPC) {
                forget(m);
                return failed;
            }
        }
        leave_log(m);
    }
    if (m->failed) {
        error failed = m->failed;
        discard(m, SPOOL_INCOMING);
        return failed;
    }
    return commit_file(m, &h, state);
}
