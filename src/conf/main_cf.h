/* main_cf.h - the settings a main.cf holds (postconf(5)), not yet looked at: names need not be known, values are
 * as written. Knows no parameters. */
#ifndef ANGARIUM_CONF_MAIN_CF_H
#define ANGARIUM_CONF_MAIN_CF_H

#include "base/arena.h"
#include "base/err.h"

enum { MAIN_CF_SETTINGS_MAX = 20000 };

struct setting {
    struct str name, value; /* without white space around them; the value may be empty; both NUL-terminated */
    size_t line;            /* in main.cf; 0: an override (-o) */
};

struct main_cf {
    VEC(struct setting) settings; /* in the order of the file; a name may be there more than once: the last one wins */
    VEC(struct str) warnings;     /* lines that begin with white space and have nothing to continue */
};

/* `path` is for messages. Everything lives in `a`; `text` is not kept. ERR_CONFIG:
 * "PATH, line N: missing '=' after attribute name: "TEXT"" and its like. */
error main_cf_parse(struct str text, struct str path, struct arena *a, struct main_cf *ret);

/* "name = value" with white space allowed around each part: NULL, or what is wrong ("missing attribute name",
 * "missing '=' after attribute name"). The parts point into `text`. */
const char *assignment_split(struct str text, struct str *ret_name, struct str *ret_value);
#endif
