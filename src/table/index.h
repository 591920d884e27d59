/* index.h - reading index files: what postmap made of a text (build.h makes them).
 *
 *   lmdb  /etc/aliases.lmdb   for lmdb:, hash: and btree:
 *   cdb   /etc/aliases.cdb    for cdb:
 *
 * Postfix's files are read as well. Keys and values may end in a NUL byte that belongs to the format: as postmap -N
 * writes them, by default in lmdb files and not in cdb files. LMDB takes keys of up to 511 bytes; the longer ones of
 * one hash value share an entry of ours, whose key begins with a NUL byte, so that it is no key of a text, and whose
 * value is a row of (key length, value length, key, value). Postfix, which refuses such a text, does not see them. */
#ifndef ANGARIUM_TABLE_INDEX_H
#define ANGARIUM_TABLE_INDEX_H

#include "base/buf.h"
#include "base/err.h"
#include "table/table.h"

enum index_kind { INDEX_NONE, INDEX_LMDB, INDEX_CDB };
enum {
    INDEX_KEY_MAX = 510, /* bytes of a key that LMDB takes as it is, without its NUL */
    LONG_KEY_SIZE = 16,  /* of the key that stands for longer ones */
};

/* The kind of index that tables of this type have; INDEX_NONE: none that this build knows. */
enum index_kind index_kind_of(struct str type);
/* ("/etc/aliases", INDEX_LMDB) -> "/etc/aliases.lmdb" */
struct str index_path(struct arena *a, enum index_kind kind, struct str name);

struct index_reader;
/* A regular file only; nothing is believed of what is in it. `*ret` is NULL after an error. */
error index_open(enum index_kind kind, const char *path, struct arena *err_arena, struct index_reader **ret);
/* NULL is allowed. */
void index_close(struct index_reader *r);
int index_fd(const struct index_reader *r);
/* `*ret_value` is in `a`. TABLE_ERROR: index_fault() says why. */
enum table_result index_get(struct index_reader *r, struct str key, struct arena *a, struct str *ret_value);
/* Look-ups of these keys are to come: a hint. The first INDEX_EXPECT_MAX count. */
enum { INDEX_EXPECT_MAX = 32 };
void index_expect(struct index_reader *r, const struct str *keys, size_t n);
/* The entries one after the other, in the order of the file: LMDB's is that of the keys. `{ 0 }` starts. */
struct index_cursor {
    struct buf key; /* LMDB: the stored key; free with index_cursor_free() */
    bool started;
    size_t item; /* next one of an entry of long keys; 0: the entry is used up */
    unsigned at; /* cdb */
};
enum table_result index_next(struct index_reader *r, struct index_cursor *c, struct arena *a, struct str *ret_key,
                             struct str *ret_value);
void index_cursor_free(struct index_cursor *c);
/* The entry behind that of the key `after` (empty: the first), which need not be there any more; LMDB only. */
enum table_result index_next_after(struct index_reader *r, struct str after, struct arena *a, struct str *ret_key,
                                   struct str *ret_value);
const char *index_fault(const struct index_reader *r);

/* --- entries of long keys, for those who write --- */
/* 16 bytes into `ret`. */
void long_key(struct str key, char *ret);
bool is_long_key(struct str stored);
/* The entry `*at` bytes into `row`; `*at` moves behind it. False at the end, and for what is malformed. */
bool long_next(struct str row, size_t *at, struct str *ret_key, struct str *ret_value);
void long_add(struct buf *row, struct str key, struct str value);
/* `s` without the NUL byte at its end. */
struct str without_nul(struct str s);
#endif
