/* source.h - the configuration of a database table: a file of `name = value` lines as in main.cf, or, when the name
 * behind the type is not a path, parameters of main.cf: mysql:users reads users_hosts, users_query, ...
 * (DATABASE_README, mysql_table(5) ...).
 *
 * The file may hold a password and may be readable by root only: the look-up process reads what main.cf and master.cf
 * name before it gives up root (lookup_preload()). A file that changes later and cannot be read again is an error of
 * the table, never the old text: source_needs_restart() then tells the process to end, so that master starts it anew.
 */
#ifndef ANGARIUM_LOOKUP_SOURCE_H
#define ANGARIUM_LOOKUP_SOURCE_H

#include "lookup/lookup.h"

enum { SOURCE_FILE_MAX = 1024 * 1024, SOURCE_VALUE_MAX = 64 * 1024 };

struct source;

/* For `t->spec`, in `t->gen`; the file is watched (table_watch()), so that a change reopens the table. ERR_CONFIG with
 * file and line for what is malformed; ERR_TEMP when it cannot be read now. */
error source_open(struct table *t, struct source **ret);
/* The memory that held the text is cleared. */
void source_close(struct source *s);

/* Values: unset ones give `fallback`. Values are not $-expanded from main.cf when they come from a file (Postfix does
 * not). NUL-terminated, in `t->gen`. Number and bool errors are ERR_CONFIG with file and line. */
struct str source_str(const struct source *s, const char *name, struct str fallback);
error source_int(const struct source *s, const char *name, int64_t fallback, int64_t min, int64_t max, int64_t *ret);
error source_bool(const struct source *s, const char *name, bool fallback, bool *ret);
bool source_has(const struct source *s, const char *name);
/* Warns about names in the file that nobody has asked for with the functions above: most are typing errors. */
void source_warn_unused(const struct source *s);

/* While still root: read and keep the files of all tables of these types that main.cf and master.cf name. */
struct master_cf;
void source_preload(const struct conf *c, const struct master_cf *services);
bool source_needs_restart(void);
#endif
