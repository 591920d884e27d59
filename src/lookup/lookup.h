/* lookup.h - the look-up types whose clients can block: mysql, pgsql, sqlite, ldap, memcache, tcp, socketmap.
 * Linked into the look-up process (proxymap) only.
 *
 * Everything here runs in a thread of its own (run/coro.h, offload()), one thread at a time for one table: no coroutine
 * calls, no logging of values or passwords, no process-wide state that is not guarded. A table owns its connections.
 *
 * Deadlines. Every call into a client library is bounded: connect, read and write timeouts are set at connect time so
 * that one host costs LOOKUP_HOST_SECONDS at most. A host that failed is not tried again for retry_interval; while all
 * hosts rest, the answer is TABLE_ERROR at once. A connection unused for idle_interval is closed at the next chance. */
#ifndef ANGARIUM_LOOKUP_LOOKUP_H
#define ANGARIUM_LOOKUP_LOOKUP_H

#include "table/table_impl.h"

enum {
    LOOKUP_HOST_SECONDS = 10,       /* connect, and each query, to one host */
    LOOKUP_REST_SECONDS = 2,        /* of a tcp: or socketmap: server that failed */
    LOOKUP_HOSTS_MAX = 64,          /* in one `hosts` list */
    LOOKUP_RESULT_MAX = 512 * 1024, /* bytes of one answer: more is an error */
};

/* The types this build has. Types whose client library was left out at build time are not among them: their names are
 * unknown to `postconf -m`, too (table_types() knows the same list through build_config.h: HAVE_MYSQL ...). */
size_t lookup_types(const struct table_type *const **ret);

extern const struct table_type table_type_mysql, table_type_pgsql, table_type_sqlite, table_type_ldap,
    table_type_memcache, table_type_tcp, table_type_socketmap;
#endif
