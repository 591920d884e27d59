/* Held messages of the log. They may be many and stay for long, and nothing is done with them meanwhile: of each, where
 * it is, in a table of 16 bytes a slot. One that is asked for becomes a struct log_message. */
#include "queue/log.h"

#include "base/die.h"
#include "base/log.h"
#include <errno.h>
#include <stdlib.h>

struct log_held {
    struct log_segment *segment; /* NULL: a free slot; one that was taken out has SEGMENT_NONE */
    uint32_t hash;               /* of the id */
    uint32_t at;                 /* of the record, in units of SEGMENT_ALIGN */
};

enum { ROOM_FIRST = 64 };
_Static_assert(SEGMENT_SIZE_MAX / SEGMENT_ALIGN <= UINT32_MAX, "any record can be named");

static struct log_segment none_;
#define SEGMENT_NONE (&none_)

static uint32_t hash_of(const struct queue_id *id) {
    uint64_t h = str_hash(queue_id_str(id));
    return (uint32_t)(h ^ h >> 32);
}

static void put(struct log_held_table *t, struct log_held held) {
    size_t i = held.hash & (t->room - 1);
    while (t->slots[i].segment)
        i = (i + 1) & (t->room - 1);
    t->slots[i] = held;
    t->n++;
    t->used++;
}

static void grow(struct log_held_table *t) {
    struct log_held_table old = *t;
    *t = (struct log_held_table){ .room = ROOM_FIRST };
    while (t->room < old.n * 2 + 2)
        t->room *= 2;
    t->slots = calloc(t->room, sizeof *t->slots);
    if (!t->slots)
        die_no_memory(t->room * sizeof *t->slots);
    for (size_t i = 0; i < old.room; i++)
        if (old.slots[i].segment && old.slots[i].segment != SEGMENT_NONE)
            put(t, old.slots[i]);
    free(old.slots);
}

void log_hold(struct log_reader *r, struct log_segment *seg, uint64_t at, const struct segment_record *rec) {
    struct log_held_table *t = &r->held;
    if ((t->used + 1) * 4 > t->room * 3)
        grow(t);
    put(t, (struct log_held){ seg, hash_of(&rec->id), (uint32_t)(at / SEGMENT_ALIGN) });
    seg->held++;
    seg->held_bytes += segment_record_size(rec);
}

/* Is it the record of that id? */
static bool is_it(const struct log_held *held, const struct queue_id *id, struct segment_record *ret) {
    char head[SEGMENT_RECORD_HEAD];
    const struct log_segment *seg = held->segment;
    uint64_t at = (uint64_t)held->at * SEGMENT_ALIGN;
    if (!spool_pread_all(seg->fd, head, sizeof head, at)) {
        log_warn("log/%016llx: read: %s", (unsigned long long)seg->number, strerror(errno));
        return false;
    }
    return segment_record_unpack(str_n(head, sizeof head), &seg->head, at, ret) &&
           str_eq(queue_id_str(&ret->id), queue_id_str(id));
}

struct log_message *log_held_take(struct log_reader *r, const struct queue_id *id) {
    struct log_held_table *t = &r->held;
    uint32_t hash = hash_of(id);
    struct segment_record rec;
    if (t->n == 0)
        return NULL;
    for (size_t i = hash & (t->room - 1); t->slots[i].segment; i = (i + 1) & (t->room - 1)) {
        struct log_held *held = &t->slots[i];
        if (held->segment == SEGMENT_NONE || held->hash != hash || !is_it(held, id, &rec))
            continue;
        struct log_segment *seg = held->segment;
        uint64_t at = (uint64_t)held->at * SEGMENT_ALIGN;
        held->segment = SEGMENT_NONE;
        t->n--;
        seg->held--;
        seg->held_bytes -= segment_record_size(&rec);
        r->held_taken++;
        return log_message_new(r, seg, at, &rec, LOG_HELD);
    }
    return NULL;
}

/* Those that were asked for, and are held all the same. */
void log_held_put_back(struct log_reader *r) {
    size_t at = 0;
    struct map_entry *e;
    while (map_next(&r->messages, &at, &e)) {
        struct log_message *m = e->value;
        bool fresh = m->at >= m->segment->fresh_from;
        bool changed = m->warned || m->next_try_us || m->fresh != fresh || (m->fresh && m->has_logs);
        if (m->state != LOG_HELD || m->ahead || changed)
            continue;
        map_remove(&r->messages, e->key);
        m->segment->live--;
        log_hold(r, m->segment, m->at, &m->record);
        free(m);
    }
}

void log_held_free(struct log_held_table *t) {
    free(t->slots);
    *t = (struct log_held_table){ 0 };
}
