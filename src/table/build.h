/* build.h - making indexed tables: what postmap and postalias do.
 *
 * An index is never changed in place. It is written beside its name and renamed, so a reader has the old table or the
 * new one, whole. Keys and values end in a NUL byte that belongs to the format (Postfix's lmdb files have it); files
 * without it are read as well. */
#ifndef ANGARIUM_TABLE_BUILD_H
#define ANGARIUM_TABLE_BUILD_H

#include "base/arena.h"
#include "base/err.h"
#include "table/text.h"
#include <sys/types.h>
#include <time.h>

enum { INDEX_KEY_MAX = 510 /* bytes; LMDB's limit without the NUL */ };

struct index_entry {
    struct str key, value;
    size_t order; /* set by index_write() */
};
struct index_entries {
    struct index_entry *at;
    size_t n;
};

struct index_options {
    int64_t map_size;      /* lmdb_map_size: doubled as often as the data needs */
    bool no_nul;           /* postmap -n */
    mode_t mode;           /* of the new file */
    struct timespec mtime; /* of the new file; zero: now */
    struct arena *arena;
};

/* True when `type` is one whose index this room can build: lmdb, and hash and btree, which mean the same here. */
bool index_type_known(struct str type);
/* "/etc/aliases" -> "/etc/aliases.lmdb" */
struct str index_path(struct arena *a, struct str name);
/* The index is there and not older than the text `source`: look-ups use it. */
bool index_is_current(struct str index, struct str source);
/* `entries` are sorted here; of equal keys the first is kept. A failure leaves the old index as it was. */
error index_write(struct str path, struct index_entries entries, const struct index_options *o);
/* All entries in key order. */
error index_read(struct str path, struct arena *a, struct index_entries *ret);
#endif
