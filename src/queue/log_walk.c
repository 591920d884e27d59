/* All messages of the log as they are on the disk, for lists: postqueue, postcat, and finding one by its id. */
#include "queue/log.h"

#include "base/die.h"
#include <errno.h>
#include <stdlib.h>

enum { MARKS_FIRST = 64 };

struct log_walk {
    struct spool *spool;
    uint64_t *numbers;
    size_t count, next;
    struct log_segment *segment; /* only fd, head, at and chunk are used */
    struct log_walk_entry entry;
    bool with_moved;
    char *marks;
    size_t marks_room;
};

struct log_walk *log_walk_new(struct spool *s) {
    struct log_walk *w = calloc(1, sizeof *w);
    if (!w)
        die_no_memory(sizeof *w);
    w->spool = s;
    w->numbers = log_numbers(s, "", &w->count);
    return w;
}

static void close_segment(struct log_walk *w) {
    if (!w->segment)
        return;
    sys->close(w->segment->fd);
    free(w->segment->chunk);
    free(w->segment);
    w->segment = NULL;
}

void log_walk_free(struct log_walk *w) {
    if (!w)
        return;
    close_segment(w);
    free(w->numbers);
    free(w->marks);
    free(w);
}

/* One that cannot be read is the reader's to complain of. */
static void open_next(struct log_walk *w) {
    uint64_t number = w->numbers[w->next++];
    struct log_segment *seg = calloc(1, sizeof *seg);
    if (!seg)
        die_no_memory(sizeof *seg);
    seg->number = number;
    bool repaired;
    if (log_open_head(w->spool, number, &seg->fd, &seg->head, &repaired)) {
        free(seg);
        return;
    }
    seg->at = segment_records_at(&seg->head);
    w->segment = seg;
}

static bool read_marks(struct log_walk *w, const struct segment_record *rec) {
    size_t n = (size_t)rec->rcpt_count + 1;
    if (n > w->marks_room) {
        free(w->marks);
        w->marks_room = n < MARKS_FIRST ? (size_t)MARKS_FIRST : n;
        w->marks = malloc(w->marks_room);
        if (!w->marks)
            die_no_memory(w->marks_room);
    }
    return spool_pread_all(w->segment->fd, w->marks, n, (uint64_t)SEGMENT_MARKS_AT + rec->mark);
}

static enum spool_state state_of(const struct segment_record *rec, char mark) {
    if (rec->state == SEGMENT_HOLD)
        return SPOOL_HOLD;
    return mark == SEGMENT_MARK_ACTIVE ? SPOOL_ACTIVE : SPOOL_INCOMING;
}

void log_walk_with_moved(struct log_walk *w) {
    w->with_moved = true;
}

bool log_walk_next(struct log_walk *w, struct log_walk_entry *ret) {
    for (;;) {
        while (!w->segment) {
            if (w->next == w->count)
                return false;
            open_next(w);
        }
        struct log_segment *seg = w->segment;
        struct segment_record rec;
        struct str head = log_bytes(seg, seg->at, SEGMENT_RECORD_HEAD, seg->head.size);
        if (!head.n || !segment_record_unpack(head, &seg->head, seg->at, &rec)) {
            close_segment(w);
            continue;
        }
        uint64_t at = seg->at;
        seg->at += segment_record_size(&rec);
        if (!read_marks(w, &rec) || w->marks[0] == SEGMENT_MARK_DONE ||
            (w->marks[0] == SEGMENT_MARK_MOVED && !w->with_moved))
            continue;
        w->entry = (struct log_walk_entry){
            .segment = seg->number,
            .at = at,
            .record = rec,
            .marks = str_n(w->marks, (size_t)rec.rcpt_count + 1),
            .state = state_of(&rec, w->marks[0]),
        };
        *ret = w->entry;
        return true;
    }
}

error log_walk_bytes(struct log_walk *w, struct str *ret) {
    const struct segment_record *rec = &w->entry.record;
    *ret = log_bytes(w->segment, w->entry.at, (size_t)segment_record_size(rec), w->segment->head.size);
    if (!ret->n)
        return err_errno(EIO);
    return segment_record_whole(*ret, rec) ? NULL : &log_damaged;
}

bool log_walk_find(struct log_walk *w, const struct queue_id *id, struct log_walk_entry *ret) {
    while (log_walk_next(w, ret))
        if (str_eq(queue_id_str(&ret->record.id), queue_id_str(id)))
            return true;
    return false;
}

error log_list_load(struct spool *s, const struct queue_id *id, struct arena *a, struct envelope *ret,
                    struct spool_content *ret_content) {
    struct log_walk *w = s->log_walk, *own = NULL;
    struct log_walk_entry found;
    if (!w || !w->segment || !str_eq(queue_id_str(&w->entry.record.id), queue_id_str(id))) {
        w = own = log_walk_new(s);
        if (!log_walk_find(w, id, &found)) {
            log_walk_free(own);
            return err_errno(ENOENT);
        }
    }
    struct str whole;
    error e = log_walk_bytes(w, &whole);
    if (!e)
        e = log_unpack(whole, &w->entry.record, w->entry.marks, false, a, ret, ret_content);
    log_walk_free(own);
    return e;
}
