/* table_impl.h - what the files of this room share: the two sides of a table, and watching the files under it.
 *
 * A table is a `struct table` (table.c) and the type behind it. Everything a type keeps while it is open hangs on
 * `gen`, an arena that is thrown away when the file changes and the table is opened again; what needs an explicit end
 * (a memory map, a compiled pattern) is ended by the type's close. */
#ifndef ANGARIUM_TABLE_TABLE_IMPL_H
#define ANGARIUM_TABLE_TABLE_IMPL_H

#include "base/buf.h"
#include "table/table.h"
#include <sys/types.h>
#include <time.h>

enum {
    TABLE_FILE_MAX = 512 * 1024 * 1024, /* bytes of a text file read into memory */
    TABLE_KEY_MAX = 64 * 1024,          /* a longer key is in no table; body lines given to body_checks come close */
    TABLE_FILES_MAX = 2,                /* an index and its source */
    TABLE_NESTING_MAX = 8,              /* proxy:, unionmap:, pipemap: inside each other */
};

struct table_type {
    struct str name;
    bool pattern;  /* the keys are patterns */
    bool fixed;    /* TABLE_FOLD folds its keys */
    bool listable; /* `next` works without TABLE_WRITE */
    bool kept; /* root has read its file for later (lookup/source.h): `open` says when the new one is out of reach */
    /* Sets t->state, or returns why not (in t->gen); what it has set by then is closed too. */
    error (*open)(struct table *t);
    enum table_result (*get)(struct table *t, struct str key, struct arena *a, struct str *ret_value);
    void (*close)(struct table *t);
    bool (*is_pattern)(const struct table *t); /* NULL: `pattern` */
    /* Of tables opened with TABLE_WRITE; NULL: the type cannot. See table_put(), table_delete(), table_next(). */
    enum table_result (*put)(struct table *t, struct str key, struct str value);
    enum table_result (*del)(struct table *t, struct str key);
    enum table_result (*next)(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                              struct str *ret_value);
    void (*expect)(struct table *t, const struct str *keys, size_t n); /* NULL: it would not help */
};

struct file_id { /* all zero: no such file */
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime;
};

struct table_file { /* under a table */
    const char *path;
    struct file_id id;
    bool content; /* a change of size and time matters; else only that it is another file */
    int fd;       /* O_PATH, of processes that see no paths any more; or -1 */
};

struct table {
    struct table *next, **back; /* all of the process */
    const struct table_type *type;
    const struct conf *conf;
    struct str spec, name; /* "hash:/etc/aliases", and what is behind the colon */
    unsigned flags;
    unsigned nesting;
    struct arena *arena; /* as long as the table */
    struct arena *gen;   /* as long as it is open */
    struct arena *error_arena;
    error error;
    bool open, stale;
    bool broken; /* what was opened is no good any more: opened again at once */
    void *state;
    unsigned busy;     /* look-ups that have not ended: types that ask elsewhere wait in them (remote.h) */
    struct buf spare;  /* for folding keys */
    struct buf folded; /* the same, for types that do it themselves and never wait */
    size_t file_count;
    struct table_file files[TABLE_FILES_MAX];
    struct timespec checked;
};

/* Types, each in a file of its own kind. */
extern const struct table_type table_type_lmdb, table_type_hash, table_type_btree, table_type_cdb, table_type_texthash,
    table_type_internal;
extern const struct table_type table_type_regexp, table_type_pcre, table_type_cidr;
extern const struct table_type table_type_static, table_type_inline, table_type_environ, table_type_unix,
    table_type_fail;
extern const struct table_type table_type_randmap;
extern const struct table_type table_type_debug, table_type_proxy, table_type_proxy_here, table_type_unionmap,
    table_type_pipemap;

/* remote.c. The type of a name that is registered, or asked of the look-up process; NULL: neither. */
const struct table_type *table_type_elsewhere(struct str type);
/* The names of the types that talk to servers, sorted; at most `room`. */
size_t table_server_types(struct str *ret, size_t room);

/* table_open() for a table inside another. */
struct table *table_open_nested(const struct conf *c, struct str spec, unsigned flags, unsigned nesting);
/* Remember the file as it is now, so that a change is seen. `path` is kept. `*ret_id` (may be NULL): all zero when
 * there is none. What is returned may be changed; it is never NULL. */
struct table_file *table_watch(struct table *t, const char *path, struct file_id *ret_id);
/* Note why a look-up fails; returns TABLE_ERROR. */
enum table_result table_fail(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "{ text }": the inside without blanks at its ends. A static message with the fault, or NULL. */
const char *braces_open(struct str s, struct str *ret_inside);
#endif
