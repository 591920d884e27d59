/* text.h - the text files tables are made from: "key value" (postmap(1)) and "name: value" (aliases(5)).
 *
 * A logical line starts with text; lines that start with white space continue it; empty lines and lines whose first
 * non-blank byte is '#' are left out, also in the middle. Malformed lines are warned about with file and line, and
 * skipped. Results live in the arena given. */
#ifndef ANGARIUM_TABLE_TEXT_H
#define ANGARIUM_TABLE_TEXT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/map.h"

/* Logical lines of any table file. `{ .rest = content }` starts. */
struct text_lines {
    struct str rest;
    size_t line; /* physical lines read so far */
};
/* `*ret_line` has no line end; `*ret_number` is where it begins, from 1. `line` is overwritten. */
bool text_next_line(struct text_lines *t, struct buf *line, size_t *ret_number);

struct text_entry {
    struct str key, value; /* NUL-terminated */
    size_t line;
};

enum text_flags {
    TEXT_ALIASES = 1,   /* aliases(5) form */
    TEXT_FOLD = 2,      /* keys in one case (fold.h) */
    TEXT_ANY_BYTES = 4, /* lines that are not UTF-8 are taken too (postmap -u) */
    TEXT_ASCII = 8,     /* TEXT_FOLD folds ASCII letters only */
};

struct text_reader {
    struct str file; /* for warnings */
    struct text_lines lines;
    unsigned flags;
    const char *ignoring; /* end of some warnings: "" or " -- ignoring this line" */
};
/* The next well-formed entry; false at the end. */
bool text_next_entry(struct text_reader *r, struct arena *a, struct buf *scratch, struct text_entry *ret);

/* All entries in memory, by key; of equal keys the first counts. */
struct dictionary {
    struct text_entry *at; /* in file order, without the duplicates */
    size_t n;
    struct map map; /* key -> struct text_entry; free with dictionary_free() */
};
/* Duplicates are warned about. Entries live in `a`. */
void dictionary_read(struct dictionary *d, struct text_reader *r, struct arena *a);
void dictionary_free(struct dictionary *d);
#endif
