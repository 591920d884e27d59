/* lmdb_write.h - what build.c asks of lmdb_write.c. */
#ifndef ANGARIUM_TABLE_LMDB_WRITE_H
#define ANGARIUM_TABLE_LMDB_WRITE_H

#include "table/build.h"

/* The entries of a big table lie all over the memory when taken in the order of their keys. */
static inline void index_prefetch(struct index_entries e, const uint32_t *order, size_t i) {
    enum { FAR = 32, NEAR = 16, CACHE_LINE = 64 };
    if (i + FAR < e.n)
        __builtin_prefetch(&e.at[order[i + FAR]]);
    if (i + NEAR < e.n) {
        const char *key = e.at[order[i + NEAR]].key.p;
        __builtin_prefetch(key);
        __builtin_prefetch(key + CACHE_LINE); /* the value */
    }
}

/* Fill the empty file `path`, which nobody else knows. */
error lmdb_build(const char *path, struct index_entries e, const uint32_t *order, const struct index_options *o);
#endif
