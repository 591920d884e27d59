#include "lookup/lookup.h"

#include "build_config.h"

static const struct table_type *const types[] = {
#ifdef HAVE_LDAP
    &table_type_ldap,
#endif
#ifdef HAVE_MEMCACHE
    &table_type_memcache,
#endif
#ifdef HAVE_MYSQL
    &table_type_mysql,
#endif
#ifdef HAVE_PGSQL
    &table_type_pgsql,
#endif
#ifdef HAVE_SQLITE
    &table_type_sqlite,
#endif
    &table_type_socketmap, &table_type_tcp,
};

size_t lookup_types(const struct table_type *const **ret) {
    *ret = types;
    return sizeof types / sizeof types[0];
}
