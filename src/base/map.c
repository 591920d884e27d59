#include "base/map.h"

#include "base/die.h"
#include <stdlib.h>
#include <sys/random.h>

static const char gone[1];

/* One seed for all maps of the process: who cannot see it cannot choose collisions in any of them. */
static uint64_t seed(void) {
    static _Atomic uint64_t seed;
    uint64_t s = seed;
    while (s == 0) { /* threads that come at once may each choose: a map keeps what it began with */
        if (getrandom(&s, sizeof s, 0) != (ssize_t)sizeof s)
            die("getrandom failed");
        seed = s;
    }
    return s;
}

static uint64_t hash(const struct map *m, struct str key) {
    uint64_t h = str_hash(key) ^ m->seed; /* a keyed finish: splitmix64 over FNV started from the seed */
    for (size_t i = 0; i < key.n; i++)
        h = (h ^ (unsigned char)key.p[i]) * 0x9e3779b97f4a7c15u + m->seed;
    h ^= h >> 30, h *= 0xbf58476d1ce4e5b9u;
    h ^= h >> 27, h *= 0x94d049bb133111ebu;
    return h ^ (h >> 31);
}

static struct map_entry *find(const struct map *m, struct str key) {
    if (m->room == 0)
        return NULL;
    for (size_t i = hash(m, key) & (m->room - 1);; i = (i + 1) & (m->room - 1)) {
        struct map_entry *e = &m->slots[i];
        if (!e->key.p)
            return NULL;
        if (e->key.p != gone && str_eq(e->key, key))
            return e;
    }
}

static void insert_new(struct map *m, struct str key, void *value) {
    size_t i = hash(m, key) & (m->room - 1);
    while (m->slots[i].key.p)
        i = (i + 1) & (m->room - 1);
    m->slots[i] = (struct map_entry){ key, value };
    m->n++, m->used++;
}

static void rehash(struct map *m) {
    struct map_entry *old = m->slots;
    size_t old_room = m->room, room = 16;
    while (room < m->n * 2 + 2)
        room *= 2;
    if (old_room == 0)
        m->seed = seed();
    m->slots = calloc(room, sizeof *m->slots);
    if (!m->slots)
        die_no_memory(room * sizeof *m->slots);
    m->room = room;
    m->n = m->used = 0;
    for (size_t i = 0; i < old_room; i++)
        if (old[i].key.p && old[i].key.p != gone)
            insert_new(m, old[i].key, old[i].value);
    free(old);
}

void map_free(struct map *m) {
    free(m->slots);
    *m = (struct map){ 0 };
}

void *map_get(const struct map *m, struct str key) {
    struct map_entry *e = find(m, key);
    return e ? e->value : NULL;
}

void *map_put(struct map *m, struct str key, void *value) {
    struct map_entry *e = find(m, key);
    if (e) {
        void *old = e->value;
        e->value = value;
        return old;
    }
    if ((m->used + 1) * 4 > m->room * 3)
        rehash(m);
    insert_new(m, key, value);
    return NULL;
}

void *map_remove(struct map *m, struct str key) {
    struct map_entry *e = find(m, key);
    if (!e)
        return NULL;
    void *old = e->value;
    *e = (struct map_entry){ { gone, 0 }, NULL };
    m->n--;
    return old;
}

bool map_next(const struct map *m, size_t *at, struct map_entry **ret) {
    for (; *at < m->room; (*at)++) {
        struct map_entry *e = &m->slots[*at];
        if (e->key.p && e->key.p != gone) {
            *ret = e;
            (*at)++;
            return true;
        }
    }
    return false;
}
