/* table.h - look-up tables, "type:name" (DATABASE_README's interface). One file per type.
 *
 * A table is opened once and asked many times. table_get() may block only for what its type needs (a local file);
 * types that talk to servers live in the look-up process: see remote.h. A table that cannot be opened is still a table:
 * each look-up on it gives TABLE_ERROR, so that mail waits instead of being refused (4xx). */
#ifndef ANGARIUM_TABLE_TABLE_H
#define ANGARIUM_TABLE_TABLE_H

#include "base/arena.h"
#include "base/err.h"
#include "conf/conf.h"
#include "mail/address.h"

enum table_result { TABLE_FOUND, TABLE_NOT_FOUND, TABLE_ERROR };

enum table_flags {
    TABLE_FOLD = 1,      /* keys compared in lower case (what Postfix's daemons do) */
    TABLE_NO_REGSUB = 2, /* rules with $1 are skipped: for look-ups on untrusted keys with sensitive results */
    TABLE_ALIASES = 4,   /* the text source is in aliases(5) form */
    TABLE_FROZEN = 8,    /* never look at the file system again: sandboxed workers */
    TABLE_WRITE = 16,    /* a cache of ours: table_put() and the like are allowed, a missing file is made */
    TABLE_ASCII = 32,    /* TABLE_FOLD folds ASCII letters only; set by table_open() where smtputf8_enable = no */
    TABLE_FILES = 64,    /* values are names of files, look-ups give what is in them (postmap -F) */
};

struct table;

/* `c` may be NULL where there is no main.cf: the built-in defaults count then. It must outlive the table. A file that
 * alias_maps or alias_database names is in aliases(5) form also without TABLE_ALIASES.
 * Never NULL; a failed open is logged by the caller with table_error() and answers TABLE_ERROR from then on, but with
 * daemon_table_open_error_is_fatal = yes it ends a daemon.
 * `spec` is "type:name"; without a type, default_database_type. */
struct table *table_open(const struct conf *c, struct str spec, unsigned flags);
void table_close(struct table *t);
/* NULL, or why the table could not be opened or read last time. Lives until the next call on the table, which may be
 * another coroutine's: read it before anything that waits. */
error table_error(const struct table *t);
struct str table_name(const struct table *t); /* "hash:/etc/aliases" */
/* `*ret_value` is in `a`, NUL-terminated. */
enum table_result table_get(struct table *t, struct str key, struct arena *a, struct str *ret_value);
/* The keys that are asked next: of a big file, memory for several look-ups is then fetched at once. A hint, which
 * changes no answer; the first TABLE_EXPECT_MAX count. */
enum { TABLE_EXPECT_MAX = 32 };
void table_expect(struct table *t, const struct str *keys, size_t n);
/* Writing, to tables opened with TABLE_WRITE of a type that can (lmdb, hash and btree as caches, internal, memcache,
 * proxy: to such a one); TABLE_ERROR with table_error() where it cannot. PUT replaces. Changes of one process are seen
 * by others at once, but are not synced: caches may be lost, not broken, by a power failure. */
enum table_result table_put(struct table *t, struct str key, struct str value);
enum table_result table_delete(struct table *t, struct str key);
/* All entries, one a call, in an order of the type's own; without TABLE_WRITE only of types that postmap -s can list
 * (table_is_listable()). `after` empty: the first; else the one behind that key,
 * which need not exist any more. Entries that change meanwhile may be seen or not. NOT_FOUND at the end. */
enum table_result table_next(struct table *t, struct str after, struct arena *a, struct str *ret_key,
                             struct str *ret_value);
bool table_is_listable(const struct table *t);
/* Entries can be deleted, or only a server knows whether they can. */
bool table_can_delete(const struct table *t);
/* A table whose keys are patterns (regexp, pcre, cidr, ...): asked with the full string only, never with parts. */
bool table_is_pattern(const struct table *t);
/* True when the file under the table is another one than when it was opened; the next table_get() reopens it. */
bool table_changed(struct table *t);

/* --- processes that give up rights --- */
/* To be called when the tables are open and before the process gives up rights. `paths` false: from now on it cannot
 * use the names of files as before (chroot, no files at all). Tables keep working and see by descriptors that their
 * files have changed. Returns how many tables with files there are. */
size_t tables_confine(bool paths);
/* Asked about once a second after tables_confine(): NULL, or a table that has changed, or could not be opened, and that
 * only a new process can read. The old one serves on from what it has. */
const struct table *tables_outdated(void);

/* The list of supported types, for postconf -m. */
size_t table_types(const struct str **ret);

/* --- a parameter's list of tables: "hash:/a, inline:{a=b}" --- */
struct maps;
struct maps *maps_open(const struct conf *c, struct str list, unsigned flags);
void maps_close(struct maps *m);
bool maps_is_empty(const struct maps *m);
/* Why the first table in trouble is: for a warning after maps_open() or a TABLE_ERROR. */
error maps_error(const struct maps *m);
/* The first table that has it; an empty result is an error, as in Postfix. TABLE_ERROR stops the search. `ret_table`
 * (may be NULL): which one, or which failed. */
enum table_result maps_get(struct maps *m, struct str key, struct arena *a, struct str *ret_value,
                           struct str *ret_table);
/* The same, but tables of patterns are skipped (`partial` keys such as @domain). */
enum table_result maps_get_partial(struct maps *m, struct str key, struct arena *a, struct str *ret_value,
                                   struct str *ret_table);

/* Mail address look-up, in the order the manuals state: user+ext@dom, user@dom, user+ext, user, @dom.
 *
 *   canonical(5), virtual(5)                             BARE_LOCAL | AT_DOMAIN | EXTERNAL
 *   generic(5), relocated(5), local_recipient_maps,      BARE_LOCAL | AT_DOMAIN
 *   relay_recipient_maps, virtual_mailbox_maps, bcc maps,
 *   sender_dependent_*_maps, smtpd_sender_login_maps
 *   transport(5), then "*"                               DOMAIN
 *   access(5)                                            DOMAIN | LOCAL_AT, PARENT_NO_DOT where smtpd_access_maps
 * stands in parent_domain_matches_subdomains
 *
 * `extensions`: those of addr_extension_rules(), or none. */
enum addr_find_flags {
    ADDR_FIND_BARE_LOCAL = 1,    /* also plain user+ext, user when the domain is ours (`local_domain` true) */
    ADDR_FIND_AT_DOMAIN = 2,     /* also @domain */
    ADDR_FIND_DOMAIN = 4,        /* also domain, .parent, as transport(5) and access(5) do */
    ADDR_FIND_PARENT_NO_DOT = 8, /* with it: parent instead of .parent (parent_domain_matches_subdomains) */
    ADDR_FIND_LOCAL_AT = 16,     /* last of all user+ext@, user@, as access(5) does */
    ADDR_FIND_EXTERNAL = 32,     /* "a b"@dom only as it is quoted here; else also without quotes, a b@dom */
};
enum table_result addr_find(struct maps *m, struct str address, bool local_domain, unsigned flags,
                            struct extension_rules extensions, struct arena *a, struct str *ret_value,
                            struct str *ret_extension /* the +ext that was not matched, with its delimiter;
                                                         none when @domain was */);

/* recipient_delimiter and owner_request_special */
struct extension_rules addr_extension_rules(const struct conf *c);

/* A host name as access(5) asks: name, .parents (with ADDR_FIND_PARENT_NO_DOT: parents); the only flag that counts.
 * Also for smtp_tls_policy_maps. An address, [name] and name:port have no parents. Tables of patterns see the whole
 * name only.
 */
enum table_result name_find(struct maps *m, struct str name, unsigned flags, struct arena *a, struct str *ret_value);
/* An address as access(5) asks: 192.0.2.1, 192.0.2, 192.0, 192; 2001:db8::1, 2001:db8:, 2001:db8, 2001. */
enum table_result ip_find(struct maps *m, struct str address, struct arena *a, struct str *ret_value);
#endif
