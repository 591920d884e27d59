/* The writer of the log: one segment at a time, one write and one sync for all messages that wait.
 *
 * A session appends its record to the open batch. When nobody is writing, one of the batch's sessions leads: it closes
 * the batch when all who are ready have had their turn, and a moment later when more are on their way than are in it
 * (gather()); it has the batch written and synced in a thread, and wakes the others. Whoever comes meanwhile gathers
 * the next one. So who is alone waits for nobody, and under load the batches grow by themselves. */
#include "queue/log.h"

#include "base/die.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    BATCH_MAX = 2 * 1024 * 1024, /* bytes in one batch: one is being written, one gathered; others wait for room */
    BATCH_SHARE = 2,             /* at most half of a segment, so that a batch always fits into an empty one */
    RECORD_SHARE = 4,            /* of a small segment; larger messages get files of their own */
    SPARE_SEGMENTS = 2,          /* a new one is made where there is room for this many */
    FILL_CHUNK = 1024 * 1024,
    FREE_TRIES = 16, /* other writers may take a free segment first */
    MAKE_TRIES = 16,
    BATCH_ENOUGH = 16, /* messages: such a batch waits for no more of them */
    GATHER_US = 1000,  /* a batch waits at most this long, */
    YOUNG_US = 5000,   /* and only for messages that were begun not longer ago, */
    CROWD = 32,        /* unless there are so many that batches grow by themselves */
    SKIP_MAX = 63,
};

struct out_segment {
    int fd; /* locked */
    uint64_t number;
    struct segment_head head;
    uint64_t at;        /* the end of what is committed */
    uint32_t marks;     /* in use */
    bool next_is_early; /* making the next one has been tried */
};

/* One message of a batch; on the stack of the session that waits. */
struct log_entry {
    struct log_entry *next;
    struct segment_record *record;
    size_t at; /* in the batch */
};

struct log_batch {
    struct buf bytes; /* records, zeros where their heads will be */
    struct log_entry *first, **last;
    uint32_t marks;
    bool done;
    error e;
    unsigned refs; /* sessions that wait */
    struct cond wake;
};

struct log_writer {
    struct spool *spool;
    uint64_t size;
    uint64_t batch_max, record_max;
    uint32_t batch_marks;
    struct out_segment *now, *next;
    bool making;      /* the next one */
    error made_error; /* of the last time */
    struct cond made;
    struct log_batch *open; /* NULL: empty */
    bool writing;
    struct cond room;            /* in the open batch */
    struct log_coming *newest;   /* messages that will come */
    struct log_batch *gathering; /* its leader waits for them; NULL: none does */
    struct cond enough;
    unsigned skip, skip_next; /* batches that do not wait: the next ones; after the next wait in vain */
    struct buf spare;         /* memory for the next batch */
    struct log_ids ids;
};

static void *must(void *p, size_t n) {
    if (!p)
        die_no_memory(n);
    return p;
}

/* --- making a segment: in a thread --- */

struct make {
    int dir; /* queue_directory */
    uint64_t size;
    struct log_ids ids; /* opened as well, if they are not */
    struct out_segment *ret;
    error e;
};

struct names {
    uint64_t highest;
    uint64_t free[FREE_TRIES]; /* highest first: the youngest, which memory may still hold */
    size_t free_count;
};

static void add_free(struct names *n, uint64_t number) {
    if (n->free_count == FREE_TRIES && number < n->free[FREE_TRIES - 1])
        return;
    size_t at = n->free_count < FREE_TRIES ? n->free_count++ : FREE_TRIES - 1;
    while (at > 0 && n->free[at - 1] < number) {
        n->free[at] = n->free[at - 1];
        at--;
    }
    n->free[at] = number;
}

static error read_names(int dir, struct names *ret) {
    *ret = (struct names){ 0 };
    struct log_names n;
    error e = log_names_open(dir, &n);
    while (log_names_next(&n)) {
        if (n.number > ret->highest)
            ret->highest = n.number;
        if (strcmp(n.prefix, "free.") == 0)
            add_free(ret, n.number);
    }
    log_names_close(&n);
    return e;
}

static bool is_free(int dir, const char *prefix, uint64_t number) {
    char name[LOG_NAME_MAX];
    struct stat st;
    log_name(prefix, number, name);
    return sys->fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

/* A number that nobody has: made ours by the name new.N, whose file is locked before the reader may take it for left
 * behind. -1 with errno; EAGAIN: somebody was quicker, look again. */
static int claim(const struct make *m, uint64_t number) {
    char name[LOG_NAME_MAX];
    log_name("new.", number, name);
    int fd = sys->openat(m->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        if (errno == EEXIST)
            errno = EAGAIN;
        return -1;
    }
    struct stat st;
    bool ours = sys->flock(fd, LOCK_EX | LOCK_NB) == 0 && sys->fstatat(fd, "", &st, AT_EMPTY_PATH) == 0;
    /* The number may have gone through its whole life between the look and the claim. */
    if (ours && st.st_nlink > 0 && is_free(m->dir, "", number) && is_free(m->dir, "free.", number))
        return fd;
    int why = ours ? EAGAIN : errno;
    if (ours && st.st_nlink > 0)
        sys->unlinkat(m->dir, name, 0);
    sys->close(fd);
    errno = why == EWOULDBLOCK ? EAGAIN : why;
    return -1;
}

/* One of the free segments takes the place of the claim. -1: there is none. */
static int take_free(const struct make *m, const struct names *names, uint64_t number, struct segment_head *ret_head) {
    char to[LOG_NAME_MAX], from[LOG_NAME_MAX];
    log_name("new.", number, to);
    for (size_t i = 0; i < names->free_count; i++) {
        log_name("free.", names->free[i], from);
        int fd = sys->openat(m->dir, from, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
        if (fd < 0)
            continue;
        if (sys->flock(fd, LOCK_EX | LOCK_NB) == 0) {
            bool good = log_read_front(fd, ret_head) <= SEGMENT_OURS_REPAIRED;
            if (good && ret_head->size == m->size && sys->renameat(m->dir, from, m->dir, to) == 0)
                return fd;
            if (good && ret_head->size != m->size) /* the parameter has been changed since */
                sys->unlinkat(m->dir, from, 0);
        }
        sys->close(fd);
    }
    return -1;
}

static error names_sync(int dir) {
    int fd = sys->openat(dir, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    error e = fd < 0 || sys->fsync(fd) < 0 ? err_errno(errno) : NULL;
    if (fd >= 0)
        sys->close(fd);
    return e;
}

/* Head and zeros: over the marks, and over everything when the blocks are new, so that later writes change no metadata
 * and a full disk is met here. */
static error fill(const struct out_segment *g, bool is_new) {
    struct statvfs st;
    if (is_new && sys->fstatvfs(g->fd, &st) == 0 &&
        st.f_bavail < SPARE_SEGMENTS * g->head.size / (st.f_frsize ? st.f_frsize : 1))
        return err_errno(ENOSPC); /* a small or full disk keeps its room for mail: that goes into files of its own */
    struct buf b = { 0 };
    uint64_t end = is_new ? g->head.size : segment_records_at(&g->head);
    size_t room = end < FILL_CHUNK ? (size_t)end : FILL_CHUNK;
    memset(buf_reserve(&b, room), 0, room);
    segment_front_pack(&b, &g->head);
    error e = NULL;
    for (uint64_t at = 0; at < end && !e; at += room) {
        size_t n = end - at < room ? (size_t)(end - at) : room;
        e = spool_pwrite_all(g->fd, str_n(b.p, n), at);
        if (at == 0)
            memset(b.p, 0, SEGMENT_FRONT_SIZE);
        if (is_new && !e) /* piece by piece, so that the syncs of batches do not stand behind all of it */
            sys->sync_file_range(g->fd, (off_t)at, (off_t)n, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    }
    if (!e && (is_new ? sys->fsync(g->fd) : sys->fdatasync(g->fd)) < 0)
        e = err_errno(errno);
    buf_free(&b);
    return e;
}

/* From the claim to the live name. EAGAIN: the name went away. */
static error finish(const struct make *m, struct out_segment *g, bool is_new) {
    char name[LOG_NAME_MAX], live[LOG_NAME_MAX];
    log_name("new.", g->number, name);
    log_name("", g->number, live);
    /* A segment that has been used must have its new name before its marks are overwritten: under the old one all of
     * its messages would be there again. */
    error e = is_new ? NULL : names_sync(m->dir);
    if (!e)
        e = fill(g, is_new);
    if (!e && sys->renameat(m->dir, name, m->dir, live) < 0)
        e = err_errno(errno == ENOENT ? EAGAIN : errno);
    if (e) {
        sys->unlinkat(m->dir, name, 0);
        return e;
    }
    e = names_sync(m->dir);
    if (e)
        sys->unlinkat(m->dir, live, 0); /* empty, and not known to anybody */
    return e;
}

static error make_once(struct make *m) {
    struct names names;
    error e = read_names(m->dir, &names);
    if (e && e->sys == ENOENT) {
        if (sys->mkdirat(m->dir, "log", 0700) < 0 && errno != EEXIST)
            return err_errno(errno);
        if (sys->fsync(m->dir) < 0)
            return err_errno(errno);
        e = read_names(m->dir, &names);
    }
    if (!e && !log_ids_are_open(&m->ids))
        e = log_ids_open(&m->ids, m->dir);
    if (e)
        return e;
    int64_t now = sys->wall_us();
    uint64_t number = names.highest + 1;
    if (now > 0 && (uint64_t)now > number)
        number = (uint64_t)now;
    int fd = claim(m, number);
    if (fd < 0)
        return err_errno(errno);
    struct segment_head old = { 0 };
    int taken = take_free(m, &names, number, &old);
    bool is_new = taken < 0;
    if (!is_new) {
        sys->close(fd);
        fd = taken;
    }
    struct out_segment *g = must(calloc(1, sizeof *g), sizeof *g);
    uint64_t generation = !is_new && old.generation >= number ? old.generation + 1 : number;
    *g = (struct out_segment){ .fd = fd, .number = number };
    g->head = segment_head_for(m->size, generation);
    g->at = segment_records_at(&g->head);
    if ((e = finish(m, g, is_new))) {
        sys->close(g->fd);
        free(g);
        return e;
    }
    m->ret = g;
    return NULL;
}

static void make_run(void *arg) {
    struct make *m = arg;
    for (int i = 0; i < MAKE_TRIES; i++) {
        m->e = make_once(m);
        if (!m->e || m->e->sys != EAGAIN)
            break;
    }
}

/* A segment to go to, made ready by us or by who began before; with NULL it may have been taken into use already. */
static error prepare(struct log_writer *w) {
    if (w->making) {
        cond_wait(&w->made, DEADLINE_NEVER);
        return w->made_error; /* one try for all who wait: a full disk is not filled once for each */
    }
    struct make m = { .dir = w->spool->fd, .size = w->size, .ids = w->ids };
    w->making = true;
    spool_offload(make_run, &m);
    w->making = false;
    if (!log_ids_are_open(&w->ids))
        w->ids = m.ids;
    w->next = m.ret;
    w->made_error = m.e;
    cond_broadcast(&w->made);
    return m.e;
}

static void prepare_early(void *arg) {
    prepare(arg); /* what is wrong is tried again, and told, when the segment is needed */
}

/* --- leaving a segment --- */

static void seal(struct out_segment *g) {
    sys->close(g->fd); /* and with it the lock */
    free(g);
}

/* --- ids --- */

bool log_next_id_is_free(const struct log_writer *w) {
    return w->now && log_ids_are_open(&w->ids);
}

error log_next_id(struct log_writer *w, struct queue_id *ret) {
    while (!log_next_id_is_free(w)) {
        int shield = coro_self() ? coro_shield(1) : 0;
        error e = w->next && log_ids_are_open(&w->ids) ? NULL : prepare(w);
        if (coro_self())
            coro_shield(shield);
        if (e)
            return e;
        if (!w->now) {
            w->now = w->next;
            w->next = NULL;
        }
    }
    log_ids_next(&w->ids, w->spool->long_queue_ids, ret);
    return NULL;
}

/* --- batches --- */

bool log_takes(const struct log_writer *w, const struct segment_record *r) {
    return r->content_size <= SEGMENT_CONTENT_MAX && r->rcpt_count <= SEGMENT_RCPTS_MAX &&
           segment_record_size(r) <= w->record_max;
}

_Static_assert(SEGMENT_RCPTS_MAX + 1 <= SEGMENT_SIZE_MIN / SEGMENT_MARK_SHARE / BATCH_SHARE, "each fits into a batch");

static bool has_room(const struct out_segment *g, const struct log_batch *b) {
    return b->bytes.n <= g->head.size - g->at && b->marks <= g->head.mark_size - g->marks;
}

/* w->now has room for the batch when this returns NULL. */
static error place(struct log_writer *w, const struct log_batch *b) {
    while (!w->now || !has_room(w->now, b)) {
        if (!w->next) {
            error e = prepare(w);
            if (e)
                return e;
            continue;
        }
        struct out_segment *old = w->now;
        w->now = w->next;
        w->next = NULL;
        if (old)
            seal(old);
    }
    return NULL;
}

struct flush {
    const struct out_segment *segment; /* NULL: only the ids */
    struct buf *bytes;
    int lane;
    int64_t bound; /* of ids, to be kept in the lane; 0: what is kept is enough */
    bool ids_failed;
    error e;
};

static void flush_run(void *arg) {
    struct flush *f = arg;
    const struct out_segment *g = f->segment;
    if (f->bound && (f->e = log_ids_keep(f->lane, f->bound)))
        f->ids_failed = true;
    if (f->e || !g)
        return;
    f->e = spool_pwrite_all(g->fd, buf_str(f->bytes), g->at);
    if (!f->e && sys->fdatasync(g->fd) < 0)
        f->e = err_errno(errno);
    if (!f->e)
        return;
    /* Nobody gets a 250 for these: away with them, so that they are not found when the segment is read to its end. */
    memset(f->bytes->p, 0, f->bytes->n);
    if (!spool_pwrite_all(g->fd, buf_str(f->bytes), g->at))
        sys->fdatasync(g->fd);
}

static void pack_heads(struct log_batch *b, const struct out_segment *g) {
    struct buf head = { 0 };
    uint32_t mark = g->marks;
    for (struct log_entry *i = b->first; i; i = i->next) {
        i->record->mark = mark;
        mark += 1 + i->record->rcpt_count;
        buf_clear(&head);
        segment_record_pack(&head, &g->head, i->record);
        memcpy(b->bytes.p + i->at, head.p, head.n);
    }
    buf_free(&head);
}

static error flush_batch(struct log_writer *w, struct log_batch *b) {
    bool records = b->bytes.n > 0;
    error e = records ? place(w, b) : NULL;
    if (e)
        return e;
    struct out_segment *g = w->now;
    struct flush f = { .segment = records ? g : NULL, .bytes = &b->bytes, .lane = w->ids.fd };
    f.bound = log_ids_to_keep(&w->ids);
    if (!f.bound && !records)
        return NULL;
    if (records)
        pack_heads(b, g);
    spool_offload(flush_run, &f);
    if (f.ids_failed)
        log_ids_give_up(&w->ids);
    else if (f.bound)
        w->ids.kept_us = f.bound;
    if (f.e) {
        if (!f.ids_failed) { /* who knows what is in the segment now: it takes no more */
            w->now = NULL;
            seal(g);
        }
        return f.e;
    }
    if (!records)
        return NULL;
    g->at += b->bytes.n;
    g->marks += b->marks;
    if (w->spool->news) {
        struct spool_news news = { .position = { .segment = g->number, .end = g->at } };
        w->spool->news(w->spool->news_ctx, &news);
    }
    uint64_t used = g->at - segment_records_at(&g->head), all = g->head.size - segment_records_at(&g->head);
    if (!g->next_is_early && !w->next && coro_self() && (used > all / 4 * 3 || g->marks > g->head.mark_size / 4 * 3)) {
        g->next_is_early = true;
        coro_spawn(prepare_early, w, "next segment");
    }
    return NULL;
}

static struct log_batch *open_batch(struct log_writer *w) {
    if (!w->open) {
        struct log_batch *b = must(calloc(1, sizeof *b), sizeof *b);
        b->last = &b->first;
        b->bytes = w->spare;
        w->spare = (struct buf){ 0 };
        w->open = b;
    }
    return w->open;
}

/* --- who else comes --- */

/* Is there no need to wait for more? With half of those under way in each batch, one half is written while the other
 * gathers. */
static bool enough(const struct log_writer *w, const struct log_batch *b, int64_t now) {
    size_t young = 0;
    if (b->refs >= BATCH_ENOUGH)
        return true;
    for (const struct log_coming *c = w->newest; c && c->since_us > now - YOUNG_US && young < CROWD; c = c->older)
        young++;
    return young <= b->refs || young == CROWD;
}

static void tell_leader(struct log_writer *w) {
    if (w->gathering && enough(w, w->gathering, sys->mono_us()))
        cond_signal(&w->enough);
}

void log_comes(struct log_writer *w, struct log_coming *c) {
    *c = (struct log_coming){ .older = w->newest, .since_us = sys->mono_us(), .listed = true };
    if (c->older)
        c->older->newer = c;
    w->newest = c;
}

static void take_off(struct log_writer *w, struct log_coming *c) {
    if (!c->listed)
        return;
    c->listed = false;
    if (c->older)
        c->older->newer = c->newer;
    if (c->newer)
        c->newer->older = c->older;
    else
        w->newest = c->older;
}

void log_comes_not(struct log_writer *w, struct log_coming *c) {
    take_off(w, c);
    tell_leader(w);
}

/* The leader of the open batch waits for others: for who is ready, and a moment for messages that were begun just now
 * and will be here soon, if they are more than the batch has. Where that was in vain (a client is slow) the next ones
 * do not wait, each time twice as many. */
static void gather(struct log_writer *w, struct log_batch *b) {
    coro_yield(); /* others whose messages came together with ours are ready, too */
    if (w->skip > 0) {
        w->skip--;
        return;
    }
    int64_t now = sys->mono_us();
    if (enough(w, b, now))
        return;
    w->gathering = b;
    error e = cond_wait(&w->enough, now + GATHER_US);
    w->gathering = NULL;
    w->skip_next = !e ? 0 : w->skip_next < SKIP_MAX ? w->skip_next * 2 + 1 : SKIP_MAX;
    w->skip = w->skip_next;
}

/* Until the batch is done; one of its sessions does it. */
static error wait_for(struct log_writer *w, struct log_batch *b) {
    b->refs++;
    tell_leader(w);
    while (!b->done) {
        if (w->writing) {
            cond_wait(&b->wake, DEADLINE_NEVER);
            continue;
        }
        w->writing = true;
        if (coro_self())
            gather(w, b);
        w->open = NULL;
        cond_broadcast(&w->room);
        b->e = flush_batch(w, b);
        b->done = true;
        w->writing = false;
        cond_broadcast(&b->wake);
        if (w->open)
            cond_signal(&w->open->wake); /* the next leader */
    }
    error e = b->e;
    if (--b->refs == 0) {
        buf_free(&w->spare);
        w->spare = b->bytes;
        buf_clear(&w->spare);
        free(b);
    }
    return e;
}

static error commit(struct log_writer *w, struct log_coming *c, struct segment_record *r, struct str content,
                    struct str envelope) {
    size_t n = (size_t)segment_record_size(r);
    while (w->open && w->open->bytes.n > 0 &&
           (w->open->bytes.n + n > w->batch_max || w->open->marks + r->rcpt_count + 1 > w->batch_marks))
        cond_wait(&w->room, DEADLINE_NEVER);
    struct log_batch *b = open_batch(w);
    struct log_entry entry = { .record = r, .at = b->bytes.n };
    *b->last = &entry;
    b->last = &entry.next;
    b->marks += 1 + r->rcpt_count;
    char *p = buf_reserve(&b->bytes, n);
    memset(p, 0, SEGMENT_RECORD_HEAD);
    memcpy(p + SEGMENT_RECORD_HEAD, content.p, content.n);
    memcpy(p + SEGMENT_RECORD_HEAD + content.n, envelope.p, envelope.n);
    size_t used = SEGMENT_RECORD_HEAD + content.n + envelope.n;
    memset(p + used, 0, n - used);
    b->bytes.n += n;
    take_off(w, c);
    return wait_for(w, b);
}

error log_commit(struct log_writer *w, struct log_coming *c, struct segment_record *r, struct str content,
                 struct str envelope) {
    if (!coro_self())
        return commit(w, c, r, content, envelope);
    int shield = coro_shield(1);
    error e = commit(w, c, r, content, envelope);
    coro_shield(shield);
    return e;
}

error log_commit_id(struct log_writer *w) {
    if (!log_ids_to_keep(&w->ids))
        return NULL;
    int shield = coro_self() ? coro_shield(1) : 0;
    error e = wait_for(w, open_batch(w));
    if (coro_self())
        coro_shield(shield);
    return e;
}

/* --- opening and closing --- */

struct log_writer *log_writer_new(struct spool *s, uint64_t segment_size) {
    struct log_writer *w = must(calloc(1, sizeof *w), sizeof *w);
    if (segment_size == 0)
        segment_size = SEGMENT_SIZE;
    if (segment_size < SEGMENT_SIZE_MIN)
        segment_size = SEGMENT_SIZE_MIN;
    if (segment_size > SEGMENT_SIZE_MAX)
        segment_size = SEGMENT_SIZE_MAX;
    w->spool = s;
    w->size = segment_size / SEGMENT_MARKS_AT * SEGMENT_MARKS_AT;
    w->ids = log_ids_none;
    struct segment_head h = segment_head_for(w->size, 1);
    uint64_t records = h.size - segment_records_at(&h);
    w->batch_max = records / BATCH_SHARE < BATCH_MAX ? records / BATCH_SHARE : BATCH_MAX;
    w->batch_marks = h.mark_size / BATCH_SHARE;
    w->record_max = records / RECORD_SHARE < SEGMENT_RECORD_MAX ? records / RECORD_SHARE : SEGMENT_RECORD_MAX;
    return w;
}

void log_writer_free(struct log_writer *w) {
    if (!w)
        return;
    if (coro_self()) {
        int shield = coro_shield(1);
        while (w->making)
            cond_wait(&w->made, DEADLINE_NEVER);
        coro_shield(shield);
    }
    struct out_segment *left[] = { w->now, w->next };
    w->now = w->next = NULL;
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++)
        if (left[i])
            seal(left[i]);
    log_ids_close(&w->ids);
    buf_free(&w->spare);
    free(w);
}
