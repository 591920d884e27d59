/* query.h - what the database types have in common: the key put into a query, the rows put into a result, the domain
 * list, the limit, the hosts (the sections "query", "result_format", "domain", "expansion_limit", "hosts" of
 * mysql_table(5)).
 *
 * Expansion: %s %u %d of the key (in a result_format: of the value); %S %U %D %1..%9 of the key; %% a percent sign.
 * The user and the domain of an address are parted at its last '@'; %1 is the last label of the domain. */
#ifndef ANGARIUM_LOOKUP_QUERY_H
#define ANGARIUM_LOOKUP_QUERY_H

#include "lookup/source.h"
#include "table/match.h"

enum { QUERY_MAX = 1024 * 1024 }; /* bytes of a query with the key in it */

enum query_result {
    QUERY_OK,
    QUERY_SUPPRESSED, /* the template asks for a part the key does not have (%d without a domain, %3 of two labels):
                         the answer is "not found", without asking */
    QUERY_TOO_LONG,   /* over QUERY_MAX, or not quotable: the answer is an error */
};
/* Adds `text` to `b` made safe for the query language; false: it cannot be. */
typedef bool query_quote(void *ctx, struct buf *b, struct str text);

/* Checked when the table is opened: an unknown %x is ERR_CONFIG with the parameter's place. */
error query_check(struct source *s, const char *name, struct str format, bool is_result_format);
/* The query for `key`. `quote` NULL: none. The percent signs in what is put in have no meaning. `b` is added to. */
enum query_result query_expand(struct str format, struct str key, query_quote *quote, void *ctx, struct buf *b);

/* --- result_format, domain and expansion_limit, as all these types read them --- */
struct query_common {
    struct str result_format; /* default "%s" */
    int64_t expansion_limit;  /* 0: none */
    struct match *domain;     /* NULL: all keys are allowed */
};
/* `result_format_old`: a second name of result_format that counts when the first is not set (LDAP's result_filter), or
 * NULL. Whatever the outcome, query_common_close() ends it. */
error query_common_open(struct table *t, struct source *s, const char *result_format_old, struct query_common *ret);
void query_common_close(struct query_common *q);
/* Whether the key may be asked for at all: QUERY_SUPPRESSED when `domain` does not have its domain or result_format
 * needs what it does not have. `*ret_failed` when the domain list could not be read: TABLE_ERROR, table_fail() called
 * for. */
enum query_result query_common_allows(const struct query_common *q, struct table *t, struct str key, bool *ret_failed);

/* Rows become one comma-separated result. `{ .common, .key }` is an empty one; buf_free(&r.all) in the end. */
struct query_rows {
    const struct query_common *common;
    struct str key;
    struct buf all;
    int64_t count; /* values in `all` */
};
enum query_rows_result {
    QUERY_ROWS_OK,
    QUERY_ROWS_LIMIT /* expansion_limit */,
    QUERY_ROWS_TOO_LONG /* of the answer */
};
/* Empty values, and those that lack what result_format needs, add nothing. */
enum query_rows_result query_rows_add(struct query_rows *r, struct str value);
/* The end of a look-up: FOUND with a copy in `a`; NOT_FOUND when nothing was added. */
enum table_result query_rows_done(const struct query_rows *r, struct arena *a, struct str *ret_value);

/* The SQL of the older parameters (table, select_field, where_field, additional_conditions) when `query` is not set;
 * with `with_function` also select_function. In t->gen; checked. */
error query_sql_open(struct source *s, struct table *t, bool with_function, struct str *ret);

/* --- hosts, in random order, with rest after failure ---
 * One table's: its look-ups come one at a time. Times are of CLOCK_MONOTONIC, in seconds. */
struct query_hosts;
struct query_host {
    struct str text;    /* as written */
    struct str address; /* NUL-terminated: host name or address, or socket path, or the URI */
    bool is_unix, is_uri;
    uint16_t port;     /* 0: the client's default */
    void *connection;  /* of the type; NULL: none */
    int64_t last_used; /* set by query_hosts_next() */
    int64_t rest_until;
    unsigned long round; /* of the look-up that tried it last */
};
/* `list` as in `hosts`: host, host:port, [addr]:port, unix:/path, inet:host:port, with `postgres` also
 * postgresql://..., postgres://..., /path and unix:/path:port; separated by comma or space. The parameters
 * idle_interval and retry_interval are read from `s`. Nothing needs freeing but the connections. */
error query_hosts_open(struct table *t, struct source *s, struct str list, bool postgres, struct query_hosts **ret);
/* Begin a look-up. */
void query_hosts_begin(struct query_hosts *h);
/* The next host to try for this look-up, each one once: those with a connection first, then unix sockets, then others,
 * each group in random order; never one that rests. NULL: none left. */
struct query_host *query_hosts_next(struct query_hosts *h);
/* It rests for retry_interval; its connection is the caller's to end. */
void query_host_failed(struct query_hosts *h, struct query_host *host);
/* A connection that has not been used for idle_interval, for the caller to end before a look-up; NULL: none. */
struct query_host *query_hosts_idle(struct query_hosts *h);
/* Every host, for closing. NULL behind the last; `h` may be NULL. */
struct query_host *query_hosts_at(struct query_hosts *h, size_t i);
#endif
