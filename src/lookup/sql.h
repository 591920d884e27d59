/* sql.h - what tables behind an SQL server have in common (mysql.c, pgsql.c): one look-up tries the hosts one after the
 * other until one has answered.
 *
 * A host that cannot be reached, drops the connection or takes too long is logged and rests. One that is well and
 * refuses the statement does not rest, but the others are asked, too: one of them may be in a better state. A
 * connection that was left from an earlier look-up may be dead by now (the server was restarted): it is made anew once
 * before the host counts as failed. */
#ifndef ANGARIUM_LOOKUP_SQL_H
#define ANGARIUM_LOOKUP_SQL_H

#include "lookup/query.h"

enum {
    SQL_LOOKUP_SECONDS = 25, /* one look-up on all its hosts: the rest of them is not tried any more */
    SQL_STATEMENT_MS = 9500, /* what the server is told: below LOOKUP_HOST_SECONDS, so that it stops first */
};

struct sql;

enum sql_outcome {
    SQL_ANSWERED,  /* the rows, if any, have been added */
    SQL_NO_RESULT, /* there was no result set */
    SQL_REFUSED,   /* an error of the statement; the connection is well */
    SQL_FAILED,    /* the connection is gone or not usable any more */
    SQL_TOO_MUCH,  /* this answer is an error whoever is asked; the connection is not usable any more */
};

/* `deadline` as sql_now_ms(). `why` is added to for SQL_REFUSED, SQL_FAILED and SQL_TOO_MUCH: one line, no password. */
struct sql_client {
    /* NULL: failed. */
    void *(*connect)(struct sql *s, const struct query_host *host, int64_t deadline, struct buf *why);
    void (*disconnect)(void *connection);
    query_quote *quote; /* ctx is the connection */
    enum sql_outcome (*ask)(void *connection, struct str query, int64_t deadline, struct query_rows *rows,
                            struct buf *why);
    /* Can this key be in a database with this connection's character set? */
    bool (*may_ask)(void *connection, struct str key);
};

struct sql {
    const struct sql_client *client;
    struct source *source;
    struct query_common common;
    struct query_hosts *hosts;
    struct str query;
    bool no_result_is_error;
    void *own; /* of the client */
};

/* Reads what is common to all; hosts of `hosts_default` when there are none. In `t->gen`, and t->state is set at once:
 * sql_close() ends it whatever the outcome. */
error sql_open(struct table *t, const struct sql_client *client, struct str hosts_default, bool postgres,
               struct sql **ret);
void sql_close(struct table *t);
enum table_result sql_get(struct table *t, struct str key, struct arena *a, struct str *ret_value);

/* Adds a value; what is over a limit is SQL_TOO_MUCH with its reason, else SQL_ANSWERED. */
enum sql_outcome sql_add_value(struct query_rows *rows, struct str value, struct buf *why);

int64_t sql_now_ms(void); /* monotonic */
/* Waits until `fd` has one of `events` (POLLIN, POLLOUT) or is broken. False at the deadline. */
bool sql_wait(int fd, short events, int64_t deadline);
/* One line: the first of `text`. */
void sql_first_line(struct buf *b, const char *text);
#endif
