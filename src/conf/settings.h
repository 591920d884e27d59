/* settings.h - main.cf before any value is converted: for postconf, which must show also what is wrong. */
#ifndef ANGARIUM_CONF_SETTINGS_H
#define ANGARIUM_CONF_SETTINGS_H

#include "conf/main_cf.h"
#include "conf/params.h"

/* As conf_load(), but values are neither expanded nor checked. conf_bool() and its like may not be called;
 * conf_lookup(), conf_expand(), conf_directory() and conf_warnings() may. */
error conf_open(const struct conf_source *source, struct arena *err_arena, struct conf **ret);

/* Everything that conf_load() would end at, not only the first: for `postfix check`. The texts are in `a`. */
size_t conf_problems(const struct conf_source *source, struct arena *a, const struct str **ret);

/* The same without any main.cf: the defaults of this machine. */
struct conf *conf_open_defaults(const struct conf_source *source);

/* Where main.cf and master.cf are looked for. */
struct str conf_source_directory(const struct conf_source *source);

/* The value as main.cf or an override has it; NULL: not set there. A read-only name is never set. */
const struct setting *conf_setting(const struct conf *c, struct str name);
/* `e`, with the file and the line of the setting it is about behind its text; lives as long as the conf. */
error conf_at_setting(const struct conf *c, struct str name, error e);
/* All settings that count, sorted by name; read-only names are not among them. Lives as long as `a`. */
size_t conf_settings(const struct conf *c, struct arena *a, const struct setting ***ret);

/* The value of any name, unexpanded, with defaults. False: not defined. */
bool conf_raw(const struct conf *c, struct str name, struct arena *a, struct str *ret);
/* The default of a row, unexpanded. */
error conf_raw_default(const struct conf *c, enum param p, struct arena *a, struct str *ret);
#endif
