/* query.h - what the database types have in common: the key put into a query, the rows put into a result, the domain
 * list, the limit (the section "query", "result_format", "domain", "expansion_limit" of mysql_table(5)).
 *
 * Expansion: %s %u %d %1..%9 of the key (and, in a result_format, of the value); %S %U %D %[1-9] of the key in a
 * result_format; %% a percent sign. */
#ifndef ANGARIUM_LOOKUP_QUERY_H
#define ANGARIUM_LOOKUP_QUERY_H

#include "lookup/source.h"
#include "table/match.h"

enum query_result {
    QUERY_OK,
    QUERY_SUPPRESSED, /* the template asks for a part the key does not have (%d without a domain, %3 of two labels):
                         the answer is "not found", without asking */
    QUERY_TOO_LONG,
};
/* Adds `text` to `b` made safe for the query language; false: it cannot be (the answer is then an error). */
typedef bool query_quote(void *ctx, struct buf *b, struct str text);

/* Checked when the table is opened: an unknown %x is ERR_CONFIG with the parameter's name. */
error query_check(const struct source *s, const char *name, struct str format, bool is_result_format);
/* The query for `key`. `quote` NULL: none. */
enum query_result query_expand(struct str format, struct str key, query_quote *quote, void *ctx, struct buf *b);

struct query_filter; /* `domain` */
error query_filter_open(struct table *t, const struct source *s, struct query_filter **ret);
void query_filter_close(struct query_filter *f);
/* False: the key has no domain of the list: not found without asking. TABLE_ERROR through `*ret_failed`. */
bool query_filter_allows(struct query_filter *f, struct str key, bool *ret_failed);

/* Rows become one comma-separated result. */
struct query_rows {
    struct str key, result_format;
    int64_t limit; /* expansion_limit; 0: none */
    struct buf all;
    int64_t count;
    bool any;
};
/* False: over a limit; the answer is an error (mysql_table(5), expansion_limit). Empty values add nothing. */
bool query_rows_add(struct query_rows *r, struct str value);

/* --- hosts, in random order, with rest after failure --- */
struct query_hosts;
/* `list` as in `hosts`: host, host:port, [addr]:port, unix:/path, inet:host:port; separated by comma or space. */
error query_hosts_open(struct table *t, struct str list, int64_t retry_interval, struct query_hosts **ret);
struct query_host {
    struct str text;    /* as written */
    struct str address; /* host name or address, or socket path */
    bool is_unix;
    uint16_t port;                 /* 0: the client's default */
    void *connection;              /* of the type; NULL: none */
    int64_t last_used, rest_until; /* ns, monotonic */
};
/* The next host to try for one look-up: those with a connection first, then others in random order, never one that
 * rests; NULL: none left. `*attempt` starts at 0. */
struct query_host *query_hosts_next(struct query_hosts *h, unsigned *attempt);
void query_host_failed(struct query_hosts *h,
                       struct query_host *host); /* rests; its connection is the caller's to end */
/* Every host, for closing. */
struct query_host *query_hosts_at(struct query_hosts *h, size_t i); /* NULL behind the last */
#endif
