/* lmdb_file.h - reading LMDB files (format version 1, of LMDB 0.9) that others may write, cut short or break.
 *
 * liblmdb believes its files: one that is not what it should be crashes the process, and so does one that is cut short
 * under the map. This reader checks each page, offset and length, and takes no lock: LMDB never overwrites what the
 * last committed state consists of, so a look-up during which no new state has appeared has read that state, and
 * another one is made again. Keys and values are raw bytes here. */
#ifndef ANGARIUM_TABLE_LMDB_FILE_H
#define ANGARIUM_TABLE_LMDB_FILE_H

#include "base/buf.h"
#include "table/filemap.h"

struct lmdb_file {
    int fd;
    struct filemap map;
    const char *fault; /* of the last call that failed */
};

/* NULL, or what is wrong (static text, or strerror's). `fd` is taken over, also on failure. */
const char *lmdb_file_open(struct lmdb_file *f, int fd);
void lmdb_file_close(struct lmdb_file *f);

enum lmdb_file_result { LMDB_FILE_FOUND, LMDB_FILE_NOT_FOUND, LMDB_FILE_FAULT };
/* `*ret_value` is in `a`, with a NUL byte behind it that is not counted. */
enum lmdb_file_result lmdb_file_get(struct lmdb_file *f, struct str key, struct arena *a, struct str *ret_value);
/* Look-ups of these keys (the first LMDB_FILE_EXPECT_MAX) are to come: what they read is brought near. No more than a
 * hint. */
enum { LMDB_FILE_EXPECT_MAX = 32 };
void lmdb_file_expect(struct lmdb_file *f, const struct str *keys, size_t n);
/* The first entry behind `after`, or the first of all when `from_start`. */
enum lmdb_file_result lmdb_file_next(struct lmdb_file *f, bool from_start, struct str after, struct arena *a,
                                     struct str *ret_key, struct str *ret_value);
/* Every page reachable is one that liblmdb can read: to be asked before liblmdb writes to a file of doubtful origin. */
bool lmdb_file_sound(struct lmdb_file *f);
#endif
