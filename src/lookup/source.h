/* source.h - the configuration of a database table: a file of `name = value` lines as in main.cf, or, when the name
 * behind the type does not begin with "/" or ".", parameters of main.cf: mysql:users reads users_hosts, users_query ...
 * (DATABASE_README, mysql_table(5) ...).
 *
 * The file may hold a password and may be readable by root only: the look-up process reads what main.cf and master.cf
 * name before it gives up root (source_preload()). Such a file that has changed since and cannot be read again is an
 * error of the table, never the old text: source_needs_restart() then tells the process to end, so that master starts
 * it anew. (Where not even the folder may be searched, a change is seen at the next start only.) */
#ifndef ANGARIUM_LOOKUP_SOURCE_H
#define ANGARIUM_LOOKUP_SOURCE_H

#include "lookup/lookup.h"

enum {
    SOURCE_FILE_MAX = 1024 * 1024, /* bytes of a file */
    SOURCE_VALUE_MAX = 64 * 1024,  /* bytes of a value */
    SOURCE_SETTINGS_MAX = 200,     /* in one file */
    SOURCE_PRELOAD_MAX = 1000,     /* files kept by source_preload() */
};

struct source;

/* For `t->name`; a file is watched (table_watch()), so that a change reopens the table. ERR_CONFIG with file and line
 * for what is malformed; ERR_TEMP when it cannot be read now. `*ret` is set only on success. */
error source_open(struct table *t, struct source **ret);
/* The memory that held the text and the values is overwritten. NULL is allowed. */
void source_close(struct source *s);
struct arena *source_arena(struct source *s); /* `t->gen`, for error texts */

/* Values: unset ones give `fallback`. From a file they are taken as written, main.cf's are expanded as usual.
 * NUL-terminated, until source_close(). Errors are ERR_CONFIG, in `t->gen`, with file and line; they show the value
 * of numbers and booleans only. */
struct str source_str(struct source *s, const char *name, struct str fallback);
/* Unset or empty is an error. */
error source_required(struct source *s, const char *name, struct str *ret);
error source_int(struct source *s, const char *name, int64_t fallback, int64_t min, int64_t max, int64_t *ret);
error source_bool(struct source *s, const char *name, bool fallback, bool *ret);
bool source_has(struct source *s, const char *name);
/* "/etc/postfix/users.cf, line 3", "main.cf: users_query"; without the line when it is not set. For error texts. */
struct str source_where(struct source *s, const char *name);
/* Warns about names in the file that nobody has asked for with the functions above: most are typing errors. Call it
 * when everything has been asked for. */
void source_warn_unused(struct source *s);

/* While still root: read and keep the files of all tables of these types that main.cf and master.cf name.
 * `services` may be NULL. Files that cannot be read are left to source_open(). */
struct master_cf;
void source_preload(const struct conf *c, const struct master_cf *services);
/* Add the files that `text`, a list of tables, names. For source_preload() and tests. */
void source_preload_text(struct str text);
/* From any thread. */
bool source_needs_restart(void);
/* Overwrite and forget what was preloaded; no source may be opened meanwhile. */
void source_preload_clear(void);
#endif
