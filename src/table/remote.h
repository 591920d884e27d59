/* remote.h - tables that this process does not open itself: the types that can block (mysql:, pgsql:, sqlite:, ldap:,
 * memcache:, tcp:, socketmap:, unix:) and whatever is named through proxy:.
 *
 * Their clients are linked into one program only, proxymap, the look-up process. Everybody else asks it: a daemon
 * through the connection that master makes (service/lookup_client.h), a command by starting the program for itself
 * (cmd/lookup_child.h). This header is the seam between the two: table_get() on such a table calls `ask` below. The
 * caller may wait in it, so two coroutines may be inside one table at a time.
 *
 * In the look-up process no remote is set: there the types are registered with table_register() and opened in place,
 * and proxy: means the table itself. In a process with neither, the types of servers answer TABLE_ERROR and say why,
 * and proxy: and unix: are opened in place. */
#ifndef ANGARIUM_TABLE_REMOTE_H
#define ANGARIUM_TABLE_REMOTE_H

#include "table/table.h"

enum table_ask { TABLE_ASK_GET = 1, TABLE_ASK_PUT, TABLE_ASK_DELETE, TABLE_ASK_FIRST, TABLE_ASK_NEXT };

/* What of a table's flags the look-up process is told; it takes no others. TABLE_FILES is not among them: who asks must
 * not have files read. */
enum { TABLE_ASKED_FLAGS = TABLE_FOLD | TABLE_ASCII | TABLE_NO_REGSUB | TABLE_ALIASES | TABLE_WRITE };

struct table_question {
    enum table_ask what;
    struct str spec;  /* "mysql:/etc/postfix/users.cf", without "proxy:" */
    bool proxied;     /* it was named as proxy:spec: proxy_read_maps (proxy_write_maps with TABLE_WRITE) must list it */
    unsigned flags;   /* of TABLE_ASKED_FLAGS */
    struct str key;   /* not for FIRST; for NEXT the key that was returned last */
    struct str value; /* PUT */
};

struct table_remote {
    /* May wait, but not longer than its own hard deadline. `*ret_key` (FIRST, NEXT) and `*ret_value` are in `a`.
     * TABLE_ERROR: `*ret_why` says what happened, for the log. */
    enum table_result (*ask)(void *ctx, const struct table_question *q, struct arena *a, struct str *ret_key,
                             struct str *ret_value, struct str *ret_why);
    void *ctx;
    bool users; /* unix: is asked there, too: a daemon may not wait for the name service of the C library */
};

/* For the whole process; set before the first table is asked. `r` is kept. NULL: none. */
void table_set_remote(const struct table_remote *r);

/* mysql:, tcp: ...: types that no worker opens itself, as this build has them. */
bool table_type_is_server(struct str type);

struct table_type; /* table_impl.h */
/* Types that are opened in this process from now on, under the names they bear. `types` is kept. */
void table_register(const struct table_type *const *types, size_t n);
#endif
