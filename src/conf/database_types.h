/* database_types.h - the table types that have settings of their own, one row each: in the file of `type:/path`, or in
 * main.cf as <name>_<setting> for `type:name`. For postconf's warnings and src/lookup; the clients are not needed. A
 * setting that src/lookup asks for has its name here, and the other way round (tests/conf/test_postconf_databases.py).
 */
#ifndef ANGARIUM_CONF_DATABASE_TYPES_H
#define ANGARIUM_CONF_DATABASE_TYPES_H

#include "base/str.h"

/* What ends a "type:name" in a value: also the braces of unionmap:{...} or { check_client_access ... }. */
#define STR_DATABASE_BREAKS STR(", \t\r\n{}")

struct database_type {
    struct str prefix;   /* "mysql:"; empty: the end of the list */
    struct str settings; /* names, a blank between each two */
};

/* Ends with an empty prefix. */
const struct database_type *database_types(void);
/* The type of "mysql:users", "proxy:mysql:/etc/users.cf", and in `*ret_name` what is behind the colon, never empty;
 * NULL for all else. */
const struct database_type *database_split(struct str word, struct str *ret_name);
bool database_has_setting(const struct database_type *type, struct str name);
#endif
