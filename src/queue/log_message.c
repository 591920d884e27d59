/* Messages of the log in the hands of the reader: their marks, their way into files, and the end of a segment. */
#include "queue/log.h"

#include "base/die.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MARKS_MAX = 1024,        /* runs of marks that wait to be written */
    SETTLE_RETRY_S = 30,     /* after a sync that failed */
    HELD_S = 10,             /* held mail stays in the log for this long after its segment was sealed, */
    HELD_SHARE = 2,          /* and for ever when it fills a half of it, */
    HELD_SEGMENTS_MAX = 512, /* in this many segments: the rest goes into files */
    HELD_QUIET_S = 2,        /* that waits until no mail has come for so long, */
    HELD_SPARSE_MAX = 64,    /* or so many segments wait for it */
    HELD_AT_ONCE = 50,       /* held messages moved before others get their turn */
    HELD_TAKEN_MAX = 1000,   /* taken out of the table before they are looked through */
};

/* --- marks --- */

void log_flush_marks(struct log_segment *seg) {
    for (size_t i = 0; i < seg->marks.n; i++) {
        const struct log_mark *mark = &seg->marks.at[i];
        char bytes[256];
        memset(bytes, mark->value, sizeof bytes);
        for (uint32_t done = 0; done < mark->n;) {
            uint32_t n = mark->n - done < sizeof bytes ? mark->n - done : (uint32_t)sizeof bytes;
            error e = spool_pwrite_all(seg->fd, str_n(bytes, n), (uint64_t)SEGMENT_MARKS_AT + mark->at + done);
            if (e) { /* may mean a duplicate after a crash */
                log_warn("log/%016llx: write marks: %.*s", (unsigned long long)seg->number, STR_ARG(e->text));
                seg->marks_lost = true;
            }
            done += n;
        }
        seg->unsynced = true;
    }
    seg->marks.n = 0;
}

void log_mark(struct log_reader *r, struct log_segment *seg, uint32_t at, uint32_t n, uint8_t value) {
    if (seg->marks.n > 0) {
        struct log_mark *last = &seg->marks.at[seg->marks.n - 1];
        bool covers = at <= last->at && at + n >= last->at + last->n;
        if (covers) {
            *last = (struct log_mark){ at, n, value };
            return;
        }
        if (last->value == value && last->at + last->n == at) {
            last->n += n;
            return;
        }
    } else {
        cond_signal(&r->work);
    }
    if (seg->marks.n == MARKS_MAX)
        log_flush_marks(seg);
    *vec_add(seg->marks_arena, &seg->marks) = (struct log_mark){ at, n, value };
}

void spool_log_flush(struct spool *s) {
    for (struct log_segment *seg = s->log_reader->segments; seg; seg = seg->next)
        log_flush_marks(seg);
}

/* Its marks say that it is done. */
static void leave(struct log_reader *r, struct log_message *m) {
    struct log_segment *seg = m->segment;
    seg->live--;
    if (r->handed_over) { /* the next one waits for this */
        log_flush_marks(seg);
        short type = F_UNLCK;
        log_lock(seg, m->at, F_OFD_SETLK, &type);
    }
    if (m->ahead) {
        m->state = LOG_GONE;
        return;
    }
    map_remove(&r->messages, queue_id_str(&m->record.id));
    log_message_free(m);
}

void log_message_done(struct log_reader *r, struct log_message *m) {
    log_mark(r, m->segment, m->record.mark, m->record.rcpt_count + 1, SEGMENT_MARK_DONE);
    leave(r, m);
}

void log_message_free(struct log_message *m) {
    buf_free(&m->reasons);
    free(m);
}

/* --- reading one message --- */

/* The whole record: in what was read ahead, or read into `*ret_own`, which is the caller's. */
static error whole_record(struct log_message *m, struct str *ret, char **ret_own) {
    struct log_segment *seg = m->segment;
    size_t n = (size_t)segment_record_size(&m->record);
    *ret_own = NULL;
    *ret = log_chunk(seg, m->at, n);
    if (!ret->n) {
        char *own = malloc(n);
        if (!own)
            die_no_memory(n);
        if (!spool_pread_all(seg->fd, own, n, m->at)) {
            int why = errno;
            free(own);
            return err_errno(why);
        }
        *ret_own = own;
        *ret = str_n(own, n);
    }
    if (segment_record_whole(*ret, &m->record))
        return NULL;
    free(*ret_own);
    *ret_own = NULL;
    return &log_damaged;
}

/* Its marks as they stand; empty when nothing is done. Own memory. */
static error read_marks(struct log_message *m, struct buf *ret) {
    if (m->fresh)
        return NULL;
    size_t n = (size_t)m->record.rcpt_count + 1;
    log_flush_marks(m->segment);
    if (!spool_pread_all(m->segment->fd, buf_reserve(ret, n), n, (uint64_t)SEGMENT_MARKS_AT + m->record.mark))
        return err_errno(errno);
    ret->n += n;
    return NULL;
}

error log_load(struct log_message *m, struct arena *a, struct envelope *ret, struct spool_content *ret_content) {
    struct str whole = STR("");
    char *own;
    struct buf marks = { 0 };
    error e = whole_record(m, &whole, &own);
    if (e)
        return e;
    e = read_marks(m, &marks);
    if (!e)
        e = log_unpack(whole, &m->record, buf_str(&marks), m->warned, a, ret, ret_content);
    buf_free(&marks);
    free(own);
    return e;
}

error log_content(struct log_message *m, struct spool_content *ret) {
    struct str whole = STR("");
    char *own;
    error e = whole_record(m, &whole, &own);
    if (e)
        return e;
    log_copy_content(whole, &m->record, ret);
    free(own);
    return NULL;
}

error log_move_bytes(struct log_message *m, enum spool_state to, struct buf *ret) {
    struct str whole = STR("");
    char *own;
    error e = whole_record(m, &whole, &own);
    if (e == &log_damaged && to == SPOOL_CORRUPT) {
        size_t n = (size_t)segment_record_size(&m->record);
        if (!spool_pread_all(m->segment->fd, buf_reserve(ret, n), n, m->at))
            return err_errno(errno);
        ret->n += n;
        return NULL;
    }
    if (e)
        return e;
    struct buf marks = { 0 };
    e = read_marks(m, &marks);
    if (!e)
        log_file_form(ret, whole, &m->record, buf_str(&marks), m->warned, buf_str(&m->reasons));
    buf_free(&marks);
    free(own);
    return e;
}

/* --- finding --- */

void log_adopt(struct log_reader *r, const struct log_walk_entry *found) {
    if (map_get(&r->messages, queue_id_str(&found->record.id)))
        return;
    struct log_segment *seg = log_segment_ahead(r, found);
    if (!seg)
        return;
    enum log_state state = found->record.state == SEGMENT_HOLD ? LOG_HELD : LOG_ACTIVE;
    struct log_message *m = log_message_new(r, seg, found->at, &found->record, state);
    m->fresh = false;
    m->ahead = true;
}

bool log_is_busy(const struct spool *s, const struct queue_id *id) {
    const struct log_message *m = s->log_reader ? map_get(&s->log_reader->messages, queue_id_str(id)) : NULL;
    return m && m->state == LOG_BUSY;
}

struct log_message *log_find(struct spool *s, const struct queue_id *id, enum spool_state state) {
    struct log_reader *r = s->log_reader;
    if (!r)
        return NULL;
    bool touches_file = s->reader_fd >= 0 && (state == SPOOL_DEFERRED || state == SPOOL_HOLD);
    if (touches_file && !r->reconciled)
        log_reconcile(r);
    struct log_message *m = map_get(&r->messages, queue_id_str(id));
    if (!m && state == SPOOL_HOLD)
        m = log_held_take(r, id);
    if (m && m->state == LOG_MOVING) {
        if (state != SPOOL_DEFERRED)
            return NULL;
        m = log_move_now(s, id);
    }
    if (m && m->state == LOG_MOVED) {
        log_settle(s); /* failed: a power failure may now make duplicates; the file is whole all the same */
        return NULL;
    }
    if (!m || m->state == LOG_BUSY || m->state == LOG_GONE || m->state == LOG_MOVING)
        return NULL;
    enum spool_state is = m->state == LOG_HELD ? SPOOL_HOLD : m->ahead ? SPOOL_INCOMING : SPOOL_ACTIVE;
    return is == state ? m : NULL;
}

/* --- changing --- */

error log_mark_done(struct spool *s, struct log_message *m, size_t index) {
    if (index >= m->record.rcpt_count)
        return err_errno(EINVAL);
    m->fresh = false; /* from now on its marks say something */
    log_mark(s->log_reader, m->segment, m->record.mark + 1 + (uint32_t)index, 1, SEGMENT_MARK_DONE);
    return NULL;
}

error log_remove(struct spool *s, struct log_message *m) {
    error e;
    if (m->has_logs && ((e = spool_unlink(s, SPOOL_DIR_DEFER, &m->record.id)) ||
                        (e = spool_unlink(s, SPOOL_DIR_BOUNCE, &m->record.id)) ||
                        (e = spool_unlink(s, SPOOL_DIR_TRACE, &m->record.id))))
        return e;
    log_message_done(s->log_reader, m);
    return NULL;
}

static error sync_marks(struct log_segment *seg) {
    log_flush_marks(seg);
    if (seg->marks_lost) { /* what relies on them has to set them again */
        seg->marks_lost = false;
        return err_errno(EIO);
    }
    seg->unsynced = false; /* what is written from now on is not in this one */
    seg->syncing++;
    error e = spool_sync(seg->fd, sys->fdatasync);
    seg->syncing--;
    if (e)
        seg->unsynced = true;
    return e;
}

static int by_place(const void *a, const void *b) {
    const struct log_message *const *x = a, *const *y = b;
    if ((*x)->segment != (*y)->segment)
        return (*x)->segment->number < (*y)->segment->number ? -1 : 1;
    return ((*x)->at > (*y)->at) - ((*x)->at < (*y)->at);
}

void log_sort(struct log_message **list, size_t n) {
    qsort(list, n, sizeof *list, by_place);
}

/* All that have moved up to then, in the order of their places, so that their marks are in few pieces. */
static struct log_message **all_moved(struct log_reader *r, uint64_t last, size_t *ret_count) {
    size_t n = 0, at = 0;
    struct log_message **list = malloc((r->unsettled + 1) * sizeof(struct log_message *));
    if (!list)
        die_no_memory((r->unsettled + 1) * sizeof(struct log_message *));
    struct map_entry *entry;
    while (map_next(&r->messages, &at, &entry)) {
        struct log_message *m = entry->value;
        if (m->state == LOG_MOVED && m->moved <= last && n < r->unsettled)
            list[n++] = m;
    }
    log_sort(list, n);
    *ret_count = n;
    return list;
}

/* The files are on stable storage: so are, next, the marks that say so; then the files may be touched. */
static error settle_segments(struct log_reader *r, struct log_message *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        log_mark(r, list[i]->segment, list[i]->record.mark, list[i]->record.rcpt_count + 1, SEGMENT_MARK_DONE);
    error e = NULL;
    for (struct log_segment *seg = r->segments; seg && !e;) {
        uint64_t number = seg->number;
        if (seg->marks.n || seg->unsynced)
            e = sync_marks(seg);
        /* the list may have changed meanwhile */
        for (seg = r->segments; seg && seg->number <= number;)
            seg = seg->next;
    }
    return e;
}

error log_settle(struct spool *s) {
    struct log_reader *r = s->log_reader;
    uint64_t last = r->moves;
    while (r->settling) /* one that began before may not cover the caller's */
        if (!coro_self() || cond_wait(&r->settled, DEADLINE_NEVER))
            return &err_cancelled;
    if (r->unsettled == 0)
        return NULL;
    r->settling = true;
    int shield = coro_self() ? coro_shield(1) : 0;
    error e = spool_sync(s->fd, sys->syncfs);
    if (!e) { /* meanwhile nobody touches them */
        size_t n = 0;
        struct log_message **list = all_moved(r, last, &n);
        e = settle_segments(r, list, n);
        for (size_t i = 0; i < n && !e; i++) {
            r->unsettled--;
            leave(r, list[i]);
        }
        free(list);
    }
    if (coro_self())
        coro_shield(shield);
    r->settling = false;
    cond_broadcast(&r->settled);
    r->settle_at = r->unsettled ? deadline_in(e ? SETTLE_RETRY_S : LOG_SETTLE_S) : 0;
    if (e)
        log_warn("queue file system: sync: %.*s", STR_ARG(e->text));
    return e;
}

/* --- the end of a segment --- */

/* Too many are kept: the one with the lowest number goes. */
static void drop_free(struct spool *s) {
    size_t n;
    uint64_t *numbers = log_numbers(s, "free.", &n);
    if (n > LOG_FREE_MAX)
        log_drop(s, "free.", numbers[0]);
    free(numbers);
}

/* All its messages are done. False: not now. */
static bool recycle(struct log_reader *r, struct log_segment *seg) {
    struct spool *s = r->spool;
    if (seg->unreadable)
        return false;
    error e = seg->marks.n || seg->unsynced ? sync_marks(seg) : NULL;
    if (e) {
        log_warn("log/%016llx: sync: %.*s", (unsigned long long)seg->number, STR_ARG(e->text));
        return false;
    }
    if (seg->live > 0 || seg->held > 0 || seg->marks.n || seg->syncing) /* while we waited */
        return false;
    char name[LOG_NAME_MAX], to[SPOOL_PATH_MAX];
    log_name("", seg->number, name);
    if (seg->damaged) {
        snprintf(to, sizeof to, "corrupt/log.%016llx", (unsigned long long)seg->number);
        bool moved = sys->renameat(s->fd, name, s->fd, to) == 0;
        log_warn("%s: damaged in part -- %s %s", name, moved ? "saved as" : "cannot be moved to", to);
        log_segment_free(r, seg);
        return true;
    }
    log_name("free.", seg->number, to);
    if (sys->renameat(s->fd, name, s->fd, to) < 0 && errno != ENOENT)
        log_warn("%s: rename to %s: %s", name, to, strerror(errno));
    log_segment_free(r, seg);
    drop_free(s);
    return true;
}

/* Some held messages of a segment that has been sealed for a while into files. */
static void move_held(struct log_reader *r, struct log_segment *seg) {
    for (unsigned n = 0; n < HELD_AT_ONCE && seg->held_at < seg->at; n++) {
        struct segment_record rec;
        struct str head = log_bytes(seg, seg->held_at, SEGMENT_RECORD_HEAD, seg->at);
        if (!head.n || !segment_record_unpack(head, &seg->head, seg->held_at, &rec)) {
            seg->held_at += SEGMENT_ALIGN;
            continue;
        }
        struct log_message *m = map_get(&r->messages, queue_id_str(&rec.id));
        if (!m && rec.state == SEGMENT_HOLD)
            m = log_held_take(r, &rec.id);
        if (m && m->segment == seg && m->at == seg->held_at && m->state == LOG_HELD) {
            error e = log_move(r->spool, m, SPOOL_HOLD);
            if (e) {
                log_warn("%s: move to hold: %.*s", rec.id.text, STR_ARG(e->text));
                seg->sealed_at = sys->mono_us(); /* later */
                return;
            }
        }
        seg->held_at += segment_record_size(&rec);
    }
}

static bool is_sparse(const struct log_segment *seg) {
    return seg->held > 0 && seg->held_bytes < (seg->at - segment_records_at(&seg->head)) / HELD_SHARE;
}

/* Of the segments with held messages: how many there are, and how many of them are worth it no more. */
struct held_count {
    size_t all, sparse;
};

static struct held_count count_held(const struct log_reader *r) {
    struct held_count n = { 0 };
    for (const struct log_segment *seg = r->segments; seg; seg = seg->next)
        if (seg->read_all && seg->held > 0) {
            n.all++;
            n.sparse += is_sparse(seg);
        }
    return n;
}

/* Is it time to move them? `inout_count`: of the segments from this one on. */
static bool held_must_go(const struct log_reader *r, const struct log_segment *seg, int64_t now,
                         struct held_count *inout_count) {
    if (seg->held == 0 || now < seg->sealed_at + HELD_S * US_PER_S)
        return false;
    bool quiet = now >= r->heard_us + HELD_QUIET_S * US_PER_S, go = false;
    if (seg->held_at > segment_records_at(&seg->head)) /* begun */
        go = quiet || inout_count->all > HELD_SEGMENTS_MAX || inout_count->sparse > HELD_SPARSE_MAX;
    else if (is_sparse(seg))
        go = quiet || inout_count->sparse > HELD_SPARSE_MAX;
    else
        go = inout_count->all > HELD_SEGMENTS_MAX;
    inout_count->all--;
    inout_count->sparse -= is_sparse(seg);
    return go;
}

/* What is to be done now for one segment. False: it is gone, the list has changed. */
static bool tend_segment(struct log_reader *r, struct log_segment *seg, int64_t now, struct held_count *inout_count,
                         bool *ret_more) {
    bool empty = seg->live == 0 && seg->held == 0;
    if (!seg->sealed_at && seg->at >= seg->end && (empty || r->sync_at <= now))
        log_sealed(seg); /* then spool_log_next() finds the end */
    if (!seg->read_all || r->handed_over)
        return true;
    if (empty)
        return !recycle(r, seg);
    if (seg->held_at < seg->at && held_must_go(r, seg, now, inout_count)) {
        move_held(r, seg);
        *ret_more = true;
    }
    return true;
}

static void tend(struct log_reader *r, bool *ret_more) {
    int64_t now = sys->mono_us();
    bool sync = now >= r->sync_at;
    struct held_count held = count_held(r);
    if (r->held_taken >= HELD_TAKEN_MAX) {
        r->held_taken = 0;
        log_held_put_back(r);
    }
    for (struct log_segment *seg = r->segments; seg;) {
        uint64_t number = seg->number;
        if (sync && seg->unsynced && seg->sealed_at) { /* a living writer's syncs take the marks along */
            error e = sync_marks(seg);
            if (e)
                log_warn("log/%016llx: sync: %.*s", (unsigned long long)number, STR_ARG(e->text));
            break; /* the list may have changed: the rest at the next turn */
        }
        if (!tend_segment(r, seg, now, &held, ret_more))
            break;
        seg = seg->next;
    }
    if (sync)
        r->sync_at = now + LOG_SYNC_S * US_PER_S;
    if (r->unsettled && !r->settling && now >= r->settle_at)
        log_settle(r->spool);
}

void spool_log_run(struct spool *s) {
    struct log_reader *r = s->log_reader;
    while (!coro_cancelled()) {
        bool more = false;
        spool_log_flush(s);
        tend(r, &more);
        if (more) {
            coro_yield();
            continue;
        }
        bool any = r->segments != NULL;
        error e = cond_wait(&r->work, any ? deadline_in(LOG_SYNC_S) : DEADLINE_NEVER);
        if (e == &err_cancelled)
            return;
    }
}

error spool_settle(struct spool *s) {
    if (!s->log_reader)
        return NULL;
    log_move_all(s);
    spool_log_flush(s);
    return log_settle(s);
}
