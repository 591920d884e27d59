/* map.h - string keys to pointers: open addressing, seeded at random so that a peer who chooses the keys
 * cannot choose the collisions. Keys are borrowed: they must outlive their entry. */
#ifndef ANGARIUM_BASE_MAP_H
#define ANGARIUM_BASE_MAP_H

#include "base/str.h"

struct map_entry {
    struct str key; /* key.p NULL: free; MAP_GONE: removed */
    void *value;
};

struct map {
    struct map_entry *slots;
    size_t n, used, room; /* entries, entries and removed ones, slots (a power of two) */
    uint64_t seed;
};

/* `{0}` is an empty map. */
void map_free(struct map *m);
/* NULL when absent (so a NULL value cannot be told from that: store none). */
void *map_get(const struct map *m, struct str key);
/* Replaces the value of an equal key (the first key stays); returns the old value, or NULL. */
void *map_put(struct map *m, struct str key, void *value);
/* Returns the value taken out, or NULL. */
void *map_remove(struct map *m, struct str key);
/* Walk in no particular order: `size_t at = 0; while (map_next(&m, &at, &e)) ...`. Removing the current entry is
 * allowed; adding is not. */
bool map_next(const struct map *m, size_t *at, struct map_entry **ret);
#endif
