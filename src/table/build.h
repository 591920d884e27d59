/* build.h - making and changing index files: what postmap and postalias do, and caches.
 *
 * A whole index is written beside its name and renamed. Single entries of an LMDB file are changed in place, in one
 * transaction: index.h's readers see all of it or nothing. cdb files are never changed. */
#ifndef ANGARIUM_TABLE_BUILD_H
#define ANGARIUM_TABLE_BUILD_H

#include "table/index.h"
#include "table/text.h"
#include <sys/types.h>
#include <time.h>

struct index_entry {
    struct str key, value; /* each with a NUL byte behind it */
    uint32_t line;         /* of the text */
    bool dropped;          /* of equal keys, one that does not count */
};
struct index_entries {
    struct index_entry *at;
    size_t n;
};

struct index_options {
    enum index_kind kind;
    int64_t map_size;      /* lmdb_map_size: doubled as often as the data needs */
    bool no_nul, nul;      /* postmap -n, -N; neither: what is usual for the kind */
    mode_t mode;           /* of the new file */
    struct timespec mtime; /* of the new file; zero: now */
    struct arena *arena;   /* for errors */
};

/* The entries in the order of their keys, as numbers, n of them in `ret_order`; each but the first of equal keys is
 * marked dropped. `replace`: the first gets the value of the last. */
void index_settle(struct index_entries e, bool replace, uint32_t *ret_order);
/* `order` is what index_settle() gave. A failure leaves the old index as it was. */
error index_write(struct str path, struct index_entries e, const uint32_t *order, const struct index_options *o);

/* --- an LMDB file that is changed in place --- */
struct lmdb_writer;
/* `durable`: each change is on the disk when the call returns; else a power failure may cost the file (which is found
 * out and mended here, by an empty one). A file that is not there is made with `o->mode`; one that is not sound is an
 * error when `durable`. Several processes may have it open; they wait for each other. */
error lmdb_writer_open(const char *path, const struct index_options *o, bool durable, struct lmdb_writer **ret);
/* NULL is allowed. */
void lmdb_writer_close(struct lmdb_writer *w);
/* The entries, in their order. An existing key keeps its value, and the entry is marked dropped; `replace`: its value
 * is replaced. One transaction. */
error lmdb_writer_put(struct lmdb_writer *w, struct index_entries e, bool replace, struct arena *err_arena);
/* `*ret_found`: how many of the keys (values do not count) were there. One transaction. */
error lmdb_writer_delete(struct lmdb_writer *w, struct index_entries e, size_t *ret_found, struct arena *err_arena);
int lmdb_writer_fd(const struct lmdb_writer *w);
#endif
