/* The reader of the log: which segments there are, and their records one after the other. */
#include "queue/log.h"

#include "base/die.h"
#include "base/log.h"
#include "queue/spool_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>

enum {
    READ_CHUNK = 256 * 1024,
    RESYNC_CHUNK = 1024 * 1024,
    STEPS_MAX = 200, /* records passed over before others get their turn */
};

struct log_reader *log_reader_new(struct spool *s) {
    struct log_reader *r = calloc(1, sizeof *r);
    if (!r)
        die_no_memory(sizeof *r);
    r->spool = s;
    r->moving_max = LOG_MOVING_MAX;
    r->moving_bytes_max = LOG_MOVING_BYTES_MAX;
    r->refused_arena = arena_new();
    return r;
}

void log_segment_free(struct log_reader *r, struct log_segment *seg) {
    struct log_segment **at = &r->segments;
    while (*at && *at != seg)
        at = &(*at)->next;
    if (*at)
        *at = seg->next;
    sys->close(seg->fd);
    arena_free(seg->marks_arena);
    free(seg->chunk);
    free(seg);
}

void log_reader_free(struct log_reader *r) {
    if (!r)
        return;
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&r->messages, &at, &e)) {
        struct log_message *m = e->value;
        map_remove(&r->messages, e->key);
        log_message_free(m);
    }
    map_free(&r->messages);
    log_held_free(&r->held);
    while (r->segments)
        log_segment_free(r, r->segments);
    free(r->left);
    arena_free(r->refused_arena);
    free(r);
}

/* --- opening --- */

enum segment_front log_read_front(int fd, struct segment_head *ret) {
    char bytes[SEGMENT_FRONT_SIZE];
    struct stat st;
    if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0)
        return SEGMENT_UNREADABLE;
    if (!S_ISREG(st.st_mode) || st.st_size < SEGMENT_FRONT_SIZE)
        return SEGMENT_BAD;
    if (!spool_pread_all(fd, bytes, sizeof bytes, 0))
        return SEGMENT_UNREADABLE;
    return segment_front_unpack(str_n(bytes, sizeof bytes), (uint64_t)st.st_size, ret);
}

error log_open_head(struct spool *s, uint64_t number, int *ret_fd, struct segment_head *ret_head, bool *ret_repaired) {
    char name[LOG_NAME_MAX];
    log_name("", number, name);
    int flags = (s->access == SPOOL_READER ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    int fd = sys->openat(s->fd, name, flags, 0);
    if (fd < 0)
        return err_errno(errno);
    error e = NULL;
    static const struct err damaged = { .kind = ERR_SYNTAX, .text = STR_INIT("not a segment, or damaged") };
    static const struct err other = { .kind = ERR_PERM, .text = STR_INIT("a segment of another version") };
    enum segment_front front = log_read_front(fd, ret_head);
    if (front == SEGMENT_UNREADABLE)
        e = err_errno(errno);
    else if (front == SEGMENT_OF_ANOTHER_VERSION)
        e = &other;
    else if (front == SEGMENT_BAD)
        e = &damaged;
    *ret_repaired = front == SEGMENT_OURS_REPAIRED;
    if (e)
        sys->close(fd);
    else
        *ret_fd = fd;
    return e;
}

/* False: it was said before. What passes with time (no descriptors) is said each time. */
static bool say_refused(struct log_reader *r, uint64_t number, error e) {
    bool passes = e->kind == ERR_SYS && (e->sys == EMFILE || e->sys == ENFILE || e->sys == ENOMEM || e->sys == EIO);
    for (size_t i = 0; i < r->refused.n; i++)
        if (r->refused.at[i] == number)
            return false;
    if (!passes)
        *vec_add(r->refused_arena, &r->refused) = number;
    return true;
}

/* What cannot be read is said once and kept for the administrator; other mail goes on. */
static void refuse_segment(struct log_reader *r, uint64_t number, error e) {
    char name[LOG_NAME_MAX], to[SPOOL_PATH_MAX];
    log_name("", number, name);
    if (e->kind != ERR_SYNTAX) {
        if (say_refused(r, number, e))
            log_warn("%s: %.*s -- left as it is", name, STR_ARG(e->text));
        return;
    }
    snprintf(to, sizeof to, "corrupt/log.%016llx", (unsigned long long)number);
    bool moved = sys->renameat(r->spool->fd, name, r->spool->fd, to) == 0;
    if (moved || say_refused(r, number, e))
        log_warn("%s: %.*s -- %s %s", name, STR_ARG(e->text), moved ? "saved as" : "cannot be moved to", to);
}

static struct log_segment *segment_open(struct log_reader *r, uint64_t number) {
    int fd = -1;
    struct segment_head head = { 0 };
    bool repaired = false;
    error e = log_open_head(r->spool, number, &fd, &head, &repaired);
    if (e) {
        if (e->kind != ERR_SYS || e->sys != ENOENT)
            refuse_segment(r, number, e);
        return NULL;
    }
    if (repaired)
        log_warn("log/%016llx: damaged head -- the second one is used", (unsigned long long)number);
    struct log_segment *seg = calloc(1, sizeof *seg);
    if (!seg)
        die_no_memory(sizeof *seg);
    seg->number = number;
    seg->fd = fd;
    seg->head = head;
    seg->at = seg->end = seg->held_at = segment_records_at(&head);
    seg->fresh_from = head.size; /* until it is known to be new: look at the marks */
    seg->marks_arena = arena_new();
    struct log_segment **at = &r->segments;
    while (*at && (*at)->number < number)
        at = &(*at)->next;
    seg->next = *at;
    *at = seg;
    return seg;
}

static struct log_segment *segment_get(struct log_reader *r, uint64_t number) {
    for (struct log_segment *seg = r->segments; seg; seg = seg->next)
        if (seg->number == number)
            return seg;
    return NULL;
}

static bool still_left(const struct log_reader *r, uint64_t number) {
    for (size_t i = r->left_at; i < r->left_count; i++)
        if (r->left[i] == number)
            return true;
    return false;
}

bool log_sealed(struct log_segment *seg) {
    if (seg->sealed_at)
        return true;
    if (sys->flock(seg->fd, LOCK_EX | LOCK_NB) < 0)
        return false;
    sys->flock(seg->fd, LOCK_UN);
    seg->sealed_at = sys->mono_us();
    seg->end = seg->head.size; /* its last words may not have reached us */
    return true;
}

void log_drop(const struct spool *s, const char *prefix, uint64_t number) {
    char name[LOG_NAME_MAX];
    struct stat open_one, named;
    log_name(prefix, number, name);
    int fd = sys->openat(s->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return;
    /* the name may have become another file's before we had the lock */
    if (sys->flock(fd, LOCK_EX | LOCK_NB) == 0 && sys->fstatat(fd, "", &open_one, AT_EMPTY_PATH) == 0 &&
        sys->fstatat(s->fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && open_one.st_ino == named.st_ino)
        sys->unlinkat(s->fd, name, 0);
    sys->close(fd);
}

/* What a writer was making ready when it died. */
static void reap_unready(struct spool *s) {
    size_t n;
    uint64_t *numbers = log_numbers(s, "new.", &n);
    for (size_t i = 0; i < n; i++)
        log_drop(s, "new.", numbers[i]);
    free(numbers);
}

void log_take_over(struct log_reader *r) {
    reap_unready(r->spool);
    free(r->left);
    r->left = log_numbers(r->spool, "", &r->left_count);
    r->left_at = 0;
    r->reconciled = false;
    cond_signal(&r->work);
}

/* --- reading forward --- */

struct str log_chunk(const struct log_segment *seg, uint64_t at, size_t n) {
    if (!seg->chunk || at < seg->chunk_at || at - seg->chunk_at > seg->chunk_n ||
        n > seg->chunk_n - (size_t)(at - seg->chunk_at))
        return STR("");
    return str_n(seg->chunk + (at - seg->chunk_at), n);
}

struct str log_bytes(struct log_segment *seg, uint64_t at, size_t n, uint64_t limit) {
    if (at > limit || n > limit - at)
        return STR("");
    struct str ahead = log_chunk(seg, at, n);
    if (ahead.n)
        return ahead;
    size_t want = limit - at < READ_CHUNK ? (size_t)(limit - at) : (size_t)READ_CHUNK;
    if (want < n)
        want = n;
    if (want > seg->chunk_room) {
        free(seg->chunk);
        seg->chunk_room = want;
        seg->chunk = malloc(want);
        if (!seg->chunk)
            die_no_memory(want);
    }
    seg->chunk_n = 0;
    if (!spool_pread_all(seg->fd, seg->chunk, want, at)) {
        want = n; /* what is bad may lie behind it */
        if (!spool_pread_all(seg->fd, seg->chunk, want, at)) {
            seg->unreadable = true;
            return STR("");
        }
    }
    seg->chunk_at = at;
    seg->chunk_n = want;
    return str_n(seg->chunk, n);
}

static void forget_chunk(struct log_segment *seg) {
    free(seg->chunk);
    seg->chunk = NULL;
    seg->chunk_n = seg->chunk_room = 0;
}

static bool record_at(struct log_segment *seg, uint64_t at, struct segment_record *ret) {
    struct str head = log_bytes(seg, at, SEGMENT_RECORD_HEAD, seg->end);
    return head.n && segment_record_unpack(head, &seg->head, at, ret);
}

/* Behind damage: the next place where a record of this generation begins. Only of sealed segments. */
static bool find_record(struct log_segment *seg, uint64_t from, uint64_t *ret) {
    struct segment_record rec;
    for (uint64_t at = from; at + SEGMENT_RECORD_HEAD <= seg->end && !seg->unreadable; at += SEGMENT_ALIGN) {
        if (at % RESYNC_CHUNK == 0 && coro_self())
            coro_yield();
        if (record_at(seg, at, &rec)) {
            *ret = at;
            return true;
        }
    }
    return false;
}

/* In a segment without a writer: is what stands here the torn end, which nobody has an answer for? */
static bool is_torn_end(struct log_segment *seg, const struct segment_record *rec) {
    struct str whole = log_bytes(seg, seg->at, (size_t)segment_record_size(rec), seg->end);
    uint64_t next;
    return whole.n && !segment_record_whole(whole, rec) && !find_record(seg, seg->at + segment_record_size(rec), &next);
}

static void end_reached(struct log_segment *seg) {
    forget_chunk(seg);
    seg->end = seg->at;
    if (seg->sealed_at)
        seg->read_all = true;
}

bool log_lock(const struct log_segment *seg, uint64_t at, int command, short *inout_type) {
    struct flock range = {
        .l_type = *inout_type, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = SEGMENT_RECORD_HEAD
    };
    bool done = sys->lock_range(seg->fd, command, &range) == 0;
    *inout_type = range.l_type;
    return done;
}

static bool locked_elsewhere(const struct log_segment *seg, uint64_t at) {
    short type = F_WRLCK;
    return log_lock(seg, at, F_OFD_GETLK, &type) && type != F_UNLCK;
}

/* Is there a file of that name, whole (of an unsettled move)? One that is not whole goes. */
static bool has_file(struct log_reader *r, const struct segment_record *rec) {
    const struct queue_id *id = &rec->id;
    static const enum spool_state places[] = { SPOOL_DEFERRED, SPOOL_HOLD };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char path[SPOOL_PATH_MAX];
        struct stat st;
        spool_path(r->spool, places[i], id, path);
        if (sys->fstatat(r->spool->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        struct spool_head h;
        error e = spool_check_file(r->spool, id, places[i], &h);
        if (!e && h.content_size == rec->content_size && h.content_crc == rec->content_crc &&
            h.envelope_crc == rec->envelope_crc)
            return true;
        if (e && (e->kind == ERR_SYNTAX || e->sys == EAGAIN)) /* torn, or not finished */
            sys->unlinkat(r->spool->fd, path, 0);
    }
    return false;
}

struct log_segment *log_segment_ahead(struct log_reader *r, const struct log_walk_entry *found) {
    struct log_segment *seg = segment_get(r, found->segment);
    if (!seg)
        seg = segment_open(r, found->segment);
    return seg && found->at >= seg->at && !locked_elsewhere(seg, found->at) ? seg : NULL;
}

void log_reconcile(struct log_reader *r) {
    r->reconciled = true;
    struct log_walk *w = log_walk_new(r->spool);
    struct log_walk_entry found;
    log_walk_with_moved(w);
    while (log_walk_next(w, &found)) {
        if (map_get(&r->messages, queue_id_str(&found.record.id)) || !has_file(r, &found.record))
            continue;
        struct log_segment *seg = log_segment_ahead(r, &found);
        if (!seg)
            continue;
        struct log_message *m = log_message_new(r, seg, found.at, &found.record, LOG_MOVED);
        m->fresh = false;
        m->ahead = true;
    }
    log_walk_free(w);
}

/* What became of the message of an older record before we came: `*ret` is where it stands. False: it is done. */
static bool look_up_state(struct log_reader *r, struct log_segment *seg, uint64_t at, const struct segment_record *rec,
                          enum log_state *ret) {
    char mark = 0;
    if (locked_elsewhere(seg, at)) {
        log_info("%s: skipped, still being delivered", rec->id.text);
        *ret = LOG_BUSY;
        return true;
    }
    if (spool_pread_all(seg->fd, &mark, 1, SEGMENT_MARKS_AT + rec->mark) && mark == SEGMENT_MARK_DONE)
        return false;
    if (has_file(r, rec))
        *ret = LOG_MOVED;
    else
        *ret = rec->state == SEGMENT_HOLD ? LOG_HELD : LOG_ACTIVE;
    return true;
}

struct log_message *log_message_new(struct log_reader *r, struct log_segment *seg, uint64_t at,
                                    const struct segment_record *rec, enum log_state state) {
    struct log_message *m = calloc(1, sizeof *m);
    if (!m)
        die_no_memory(sizeof *m);
    m->segment = seg;
    m->at = at;
    m->record = *rec;
    m->state = state;
    m->fresh = at >= seg->fresh_from;
    m->has_logs = !m->fresh;
    map_put(&r->messages, queue_id_str(&m->record.id), m);
    seg->live++;
    if (state == LOG_MOVED) {
        m->moved = ++r->moves;
        r->unsettled++;
        cond_signal(&r->work);
    } else if (state == LOG_BUSY) {
        r->busy++;
    }
    return m;
}

static bool take(struct log_reader *r, struct log_message *m, struct spool_entry *ret) {
    struct log_segment *seg = m->segment;
    /* over all of a fresh one's, so that messages taken up together have their marks in one piece */
    log_mark(r, seg, m->record.mark, m->fresh ? m->record.rcpt_count + 1 : 1, SEGMENT_MARK_ACTIVE);
    *ret = (struct spool_entry){ .id = m->record.id, .state = SPOOL_ACTIVE, .fresh = m->fresh };
    ret->size = (int64_t)segment_record_size(&m->record);
    return true;
}

/* An entry made before its turn has come (postsuper asked for it). True: the message is to be delivered. */
static bool pass_known(struct log_reader *r, struct log_message *m) {
    m->ahead = false;
    if (m->state == LOG_GONE) {
        map_remove(&r->messages, queue_id_str(&m->record.id));
        log_message_free(m);
        return false;
    }
    return m->state == LOG_ACTIVE;
}

/* The record at seg->at, read and passed. True: a message to be delivered, in `*ret`. */
static bool pass_record(struct log_reader *r, struct log_segment *seg, const struct segment_record *rec,
                        struct spool_entry *ret) {
    uint64_t at = seg->at;
    seg->at += segment_record_size(rec);
    struct log_message *m = map_get(&r->messages, queue_id_str(&rec->id));
    if (m && m->segment == seg && m->at == at)
        return pass_known(r, m) && take(r, m, ret);
    if (m)
        return false; /* two records of one name: the first one counts */
    enum log_state state = rec->state == SEGMENT_HOLD ? LOG_HELD : LOG_ACTIVE;
    if (at < seg->fresh_from && !look_up_state(r, seg, at, rec, &state))
        return false;
    if (state == LOG_HELD) {
        log_hold(r, seg, at, rec);
        return false;
    }
    m = log_message_new(r, seg, at, rec, state);
    return state == LOG_ACTIVE && take(r, m, ret);
}

/* The end, or as far as it can be read. */
static void end_here(struct log_segment *seg) {
    if (seg->unreadable)
        log_warn("log/%016llx: cannot be read from %llu on: what is there waits", (unsigned long long)seg->number,
                 (unsigned long long)seg->at);
    end_reached(seg);
}

enum step { STEP_MESSAGE, STEP_PASSED, STEP_END };

static enum step step(struct log_reader *r, struct log_segment *seg, struct spool_entry *ret) {
    struct segment_record rec;
    if (seg->read_all || seg->at >= seg->end) {
        if (seg->sealed_at)
            end_reached(seg);
        return STEP_END;
    }
    if (!record_at(seg, seg->at, &rec)) {
        uint64_t next;
        bool older = seg->sealed_at && seg->at < seg->fresh_from;
        if (!older || seg->unreadable || !find_record(seg, seg->at + SEGMENT_ALIGN, &next)) {
            end_here(seg);
            return STEP_END;
        }
        seg->damaged = true;
        log_warn("log/%016llx: damaged from %llu to %llu", (unsigned long long)seg->number, (unsigned long long)seg->at,
                 (unsigned long long)next);
        seg->at = next;
        return STEP_PASSED;
    }
    if (seg->sealed_at && seg->at < seg->fresh_from && is_torn_end(seg, &rec)) {
        end_here(seg);
        return STEP_END;
    }
    return pass_record(r, seg, &rec, ret) ? STEP_MESSAGE : STEP_PASSED;
}

/* How far is there something whole, in a segment whose writer may be writing just now? */
static void find_end(struct log_segment *seg, uint64_t from) {
    struct segment_record rec;
    uint64_t told = seg->end, at = from;
    seg->end = seg->head.size;
    seg->chunk_n = 0; /* it may have been read before there was something */
    while (record_at(seg, at, &rec)) {
        struct str whole = log_bytes(seg, at, (size_t)segment_record_size(&rec), seg->end);
        if (!whole.n || !segment_record_whole(whole, &rec))
            break;
        at += segment_record_size(&rec);
    }
    seg->end = told > at ? told : at;
    forget_chunk(seg);
}

/* Of the segments found at the start, the next to be read. One with a living writer is ready up to what is whole. */
static struct log_segment *open_left(struct log_reader *r) {
    while (r->left_at < r->left_count) {
        uint64_t number = r->left[r->left_at++];
        struct log_segment *seg = segment_get(r, number);
        if (!seg)
            seg = segment_open(r, number);
        if (!seg)
            continue;
        if (!log_sealed(seg)) {
            find_end(seg, segment_records_at(&seg->head));
            seg->fresh_from = seg->end;
        }
        return seg;
    }
    return NULL;
}

static bool unread(const struct log_segment *seg) {
    return !seg->read_all && seg->at < seg->end;
}

static struct log_segment *pick_old(struct log_reader *r) {
    for (struct log_segment *seg = r->segments; seg; seg = seg->next)
        if (unread(seg) && seg->at < seg->fresh_from)
            return seg;
    return open_left(r);
}

static struct log_segment *pick_fresh(struct log_reader *r) {
    for (struct log_segment *seg = r->segments; seg; seg = seg->next)
        if (unread(seg) && seg->at >= seg->fresh_from)
            return seg;
    return NULL;
}

/* A message of an older qmgr, which has let go of it. */
static bool next_released(struct log_reader *r, struct spool_entry *ret) {
    if (r->busy == 0 || sys->mono_us() < r->busy_at)
        return false;
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&r->messages, &at, &e)) {
        struct log_message *m = e->value;
        if (m->state != LOG_BUSY || locked_elsewhere(m->segment, m->at))
            continue;
        r->busy--;
        struct log_segment *seg = m->segment;
        struct segment_record rec = m->record;
        uint64_t where = m->at;
        map_remove(&r->messages, queue_id_str(&m->record.id));
        seg->live--;
        log_message_free(m);
        enum log_state state;
        if (!look_up_state(r, seg, where, &rec, &state))
            return false; /* the next call looks again */
        if (state == LOG_HELD) {
            log_hold(r, seg, where, &rec);
            return false;
        }
        m = log_message_new(r, seg, where, &rec, state);
        return state == LOG_ACTIVE && take(r, m, ret);
    }
    r->busy_at = deadline_in(LOG_SYNC_S);
    return false;
}

bool spool_log_next(struct spool *s, struct spool_entry *ret) {
    struct log_reader *r = s->log_reader;
    if (next_released(r, ret))
        return true;
    for (unsigned steps = 0;; steps++) {
        if (steps == STEPS_MAX && coro_self()) {
            coro_yield();
            steps = 0;
        }
        r->old_turn = !r->old_turn;
        struct log_segment *seg = r->old_turn ? pick_old(r) : pick_fresh(r);
        if (!seg)
            seg = r->old_turn ? pick_fresh(r) : pick_old(r);
        if (!seg)
            return false;
        if (step(r, seg, ret) == STEP_MESSAGE)
            return true;
    }
}

void spool_log_committed(struct spool *s, struct spool_position p) {
    struct log_reader *r = s->log_reader;
    struct log_segment *seg = segment_get(r, p.segment);
    r->heard_us = sys->mono_us();
    if (!seg && s->reader_fd >= 0 && !still_left(r, p.segment) && (seg = segment_open(r, p.segment)))
        seg->fresh_from = segment_records_at(&seg->head); /* it was not there when we came */
    if (seg && !seg->sealed_at && p.end > seg->end && p.end <= seg->head.size)
        seg->end = p.end;
    cond_signal(&r->work); /* a new segment mostly means that another one has been sealed */
}

/* Notices may be lost: what is on the disk counts. */
void spool_log_look(struct spool *s) {
    struct log_reader *r = s->log_reader;
    size_t n;
    uint64_t *numbers = log_numbers(s, "", &n);
    for (size_t i = 0; i < n; i++) {
        struct log_segment *seg = segment_get(r, numbers[i]);
        if (!seg && !still_left(r, numbers[i]))
            seg = segment_open(r, numbers[i]);
        if (seg && seg->unreadable && seg->sealed_at) {
            seg->read_all = false;
            seg->end = seg->head.size;
        }
        if (seg)
            seg->unreadable = false;
        if (!seg || log_sealed(seg))
            continue;
        find_end(seg, seg->at);
    }
    free(numbers);
}

void log_hand_over(struct log_reader *r) {
    r->handed_over = true;
    log_move_all(r->spool);
    free(r->left);
    r->left = NULL;
    r->left_count = r->left_at = 0;
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&r->messages, &at, &e)) {
        struct log_message *m = e->value;
        if ((m->state != LOG_ACTIVE && m->state != LOG_MOVING) || m->ahead)
            continue;
        short type = F_WRLCK;
        if (!log_lock(m->segment, m->at, F_OFD_SETLK, &type))
            log_warn("%s: lock for the next queue manager: %s", m->record.id.text, strerror(errno));
    }
    spool_log_flush(r->spool);
}
