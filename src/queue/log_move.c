/* Messages of the log become files: at once, or, of those that are deferred, many at a time in a thread of low
 * priority, so that a next server that rejects all does not slow down what is accepted meanwhile. */
#include "queue/log.h"

#include "base/die.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum {
    BATCH = 64,
    RETRY_S = 60,
    YIELD = 16, /* messages moved before others get their turn */
};

static error write_file(struct spool *s, struct log_message *m, enum spool_state to, struct str bytes) {
    int fd = spool_openat(s, to, &m->record.id, O_WRONLY | O_CREAT | O_EXCL, SPOOL_MODE_WRITING);
    if (fd < 0)
        return err_errno(errno);
    error e = spool_pwrite_all(fd, bytes, 0);
    struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
                                 { .tv_sec = m->next_try_us / US_PER_S, .tv_nsec = m->next_try_us % US_PER_S * 1000 } };
    char path[SPOOL_PATH_MAX];
    spool_path(s, to, &m->record.id, path);
    if (!e && m->next_try_us && sys->utimensat(s->fd, path, times, AT_SYMLINK_NOFOLLOW) < 0)
        e = err_errno(errno);
    if (!e && sys->fchmod(fd, SPOOL_MODE_READY) < 0)
        e = err_errno(errno);
    sys->close(fd);
    if (e)
        sys->unlinkat(s->fd, path, 0);
    return e;
}

/* Its file is there. */
static void moved(struct log_reader *r, struct log_message *m) {
    buf_free(&m->reasons);
    if (m->has_logs) /* now they are in the file */
        spool_unlink(r->spool, SPOOL_DIR_DEFER, &m->record.id);
    /* over all of a fresh one's, as when it was taken up: marks of neighbours in one piece */
    log_mark(r, m->segment, m->record.mark, m->fresh ? m->record.rcpt_count + 1 : 1, SEGMENT_MARK_MOVED);
    if (r->handed_over)
        log_flush_marks(m->segment);
    m->state = LOG_MOVED;
    m->moved = ++r->moves;
    if (r->unsettled++ == 0) {
        r->settle_at = deadline_in(LOG_SETTLE_S);
        cond_signal(&r->work);
    }
}

error log_move(struct spool *s, struct log_message *m, enum spool_state to) {
    struct buf bytes = { 0 };
    error e = log_move_bytes(m, to, &bytes);
    if (!e)
        e = write_file(s, m, to, buf_str(&bytes));
    buf_free(&bytes);
    if (!e)
        moved(s->log_reader, m);
    return e;
}

/* --- in the background --- */

static void waits(struct log_reader *r, struct log_message *m) {
    m->state = LOG_MOVING;
    m->moving_next = NULL;
    m->moving_prev = r->moving_last;
    if (r->moving_last)
        r->moving_last->moving_next = m;
    else
        r->moving_first = m;
    r->moving_last = m;
    r->moving_count++;
    r->moving_bytes += segment_record_size(&m->record);
}

static void waits_no_more(struct log_reader *r, struct log_message *m) {
    if (m->moving_prev)
        m->moving_prev->moving_next = m->moving_next;
    else
        r->moving_first = m->moving_next;
    if (m->moving_next)
        m->moving_next->moving_prev = m->moving_prev;
    else
        r->moving_last = m->moving_prev;
    m->moving_prev = m->moving_next = NULL;
    r->moving_count--;
    r->moving_bytes -= segment_record_size(&m->record);
}

struct batch {
    struct spool *spool;
    size_t n;
    struct log_message *messages[BATCH];
    struct buf bytes[BATCH];
    error failed[BATCH];
};

static void write_files(void *arg) {
    struct batch *b = arg;
    for (size_t i = 0; i < b->n; i++)
        if (!b->failed[i])
            b->failed[i] = write_file(b->spool, b->messages[i], SPOOL_DEFERRED, buf_str(&b->bytes[i]));
}

/* What did not work: true, it is tried again. */
static bool again(struct log_reader *r, struct log_message *m, error e) {
    log_warn("%s: move to deferred: %.*s", m->record.id.text, STR_ARG(e->text));
    if (e->sys == ENOENT ||
        e->sys == EEXIST) { /* a stranger's file is there: the message stays active for a later scan */
        m->state = LOG_ACTIVE;
        return false;
    }
    waits(r, m);
    return true;
}

/* False: some were not moved. */
static bool move_batch(struct log_reader *r, struct batch *b) {
    b->spool = r->spool;
    for (b->n = 0; b->n < BATCH && r->moving_first; b->n++) {
        b->messages[b->n] = r->moving_first;
        r->moving_first->in_hands = true;
        waits_no_more(r, r->moving_first);
    }
    log_sort(b->messages, b->n);
    for (size_t i = 0; i < b->n; i++) {
        b->bytes[i] = (struct buf){ 0 };
        b->failed[i] = log_move_bytes(b->messages[i], SPOOL_DEFERRED, &b->bytes[i]);
    }
    r->moving_in_hands = b->n;
    offload_low(write_files, b);
    r->moving_in_hands = 0;
    bool good = true;
    for (size_t i = 0; i < b->n; i++) {
        struct log_message *m = b->messages[i];
        m->in_hands = false;
        if (!b->failed[i])
            moved(r, m);
        else if (again(r, m, b->failed[i]))
            good = false;
        buf_free(&b->bytes[i]);
    }
    cond_broadcast(&r->moving_done);
    return good;
}

static void mover(void *arg) {
    struct log_reader *r = arg;
    struct batch b;
    while (r->moving_first && !coro_cancelled())
        if (!move_batch(r, &b))
            cond_wait(&r->moving_again, deadline_in(RETRY_S));
    r->mover = false;
}

error log_move_later(struct spool *s, struct log_message *m) {
    struct log_reader *r = s->log_reader;
    bool full = r->moving_count >= r->moving_max || r->moving_bytes >= r->moving_bytes_max;
    if (!r->mover && coro_self() && !r->handed_over && !full)
        r->mover = coro_spawn(mover, r, "move") != NULL;
    if (!r->mover || r->handed_over || full)
        return log_move(s, m, SPOOL_DEFERRED);
    waits(r, m);
    return NULL;
}

static bool move_first(struct log_reader *r, struct log_message *m) {
    waits_no_more(r, m);
    error e = log_move(r->spool, m, SPOOL_DEFERRED);
    return !e || !again(r, m, e);
}

struct log_message *log_move_now(struct spool *s, const struct queue_id *id) {
    struct log_reader *r = s->log_reader;
    struct log_message *m;
    int shield = coro_self() ? coro_shield(1) : 0; /* the thread does not take long */
    while ((m = map_get(&r->messages, queue_id_str(id))) && m->state == LOG_MOVING) {
        if (!m->in_hands) {
            move_first(r, m);
            break;
        }
        if (!coro_self())
            break;
        cond_wait(&r->moving_done, DEADLINE_NEVER);
    }
    if (coro_self())
        coro_shield(shield);
    return m;
}

void log_move_all(struct spool *s) {
    struct log_reader *r = s->log_reader;
    size_t left = r->moving_count; /* not those that come meanwhile */
    for (size_t n = 1; left > 0 && r->moving_first && move_first(r, r->moving_first); n++, left--)
        if (n % YIELD == 0 && coro_self() && !r->handed_over)
            coro_yield();
    if (!r->moving_first)
        cond_signal(&r->moving_again);
    int shield = coro_self() ? coro_shield(1) : 0; /* as above */
    if (r->moving_in_hands && coro_self() && !r->handed_over)
        cond_wait(&r->moving_done, DEADLINE_NEVER);
    if (coro_self())
        coro_shield(shield);
}
