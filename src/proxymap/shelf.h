/* shelf.h - open tables, and asking them without being held up by them.
 *
 * A table that talks to a server is asked in a thread, by one question at a time; for several at a time there are
 * several of it, each with its own connection, up to SHELF_COPIES. So a server that hangs holds that many threads and
 * no more, and tables of files, which are asked in place, do not notice. A question that is not answered in time is
 * given up; the thread comes back when the client library's own limits let it. */
#ifndef ANGARIUM_PROXYMAP_SHELF_H
#define ANGARIUM_PROXYMAP_SHELF_H

#include "run/coro.h"
#include "table/remote.h"

enum {
    SHELF_COPIES = 4,     /* of one table that can block */
    SHELF_TABLES = 500,   /* different ones */
    SHELF_WAITING = 2000, /* questions waiting for a copy of one table: more are refused at once */
    SHELF_THREADS = 64,
    SHELF_SLOW_SECONDS = 3, /* an error that takes longer makes the table rest */
    SHELF_REST_SECONDS = 5,
};

struct shelf;
/* `c` must outlive it. Sets the number of threads. */
struct shelf *shelf_new(const struct conf *c);
/* No question may be under way. */
void shelf_free(struct shelf *s);
/* In a coroutine. The answer is in `a`. TABLE_ERROR: `*ret_why` says what happened, without key or value. */
enum table_result shelf_ask(struct shelf *s, const struct table_question *q, int64_t deadline, struct arena *a,
                            struct str *ret_key, struct str *ret_value, struct str *ret_why);
#endif
