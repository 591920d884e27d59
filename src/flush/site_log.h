/* site_log.h - the logs below flush/: a file a site, named after it, with the queue ids of mail that was deferred, one
 * a line. An id may stand there several times, and messages may have gone since.
 *
 * Nothing here is synced: what a power failure takes from a log is tried at its own time all the same. What a crash
 * leaves is one of
 *
 *   SITE          ids added since the last send; empty after one
 *   +SITE         a log that was taken to be sent, perhaps in part: the next send or refresh begins with it
 *
 * and a last line that is cut. Sites are in the form of flush_site_normal() (proto/flush.h): no name begins with '+',
 * '.' or has a '/'. The time of the last send is the file's time of last access, which is that of its creation: nobody
 * here reads SITE itself. */
#ifndef ANGARIUM_FLUSH_SITE_LOG_H
#define ANGARIUM_FLUSH_SITE_LOG_H

#include "base/err.h"
#include "queue/queue_id.h"
#include <dirent.h>

struct site_logs {
    int fd; /* flush/ */
};
/* In the current directory; made when it is missing. */
error site_logs_open(struct site_logs *l, struct arena *err_arena);
void site_logs_close(struct site_logs *l);

/* `lines`: queue ids, each with a newline. ERR_SYS EINVAL: something that is no file has the log's name. */
error site_log_add(const struct site_logs *l, struct str site, struct str lines);

/* From now on ids go to a new log; `*ret_fd` reads the old one from its front and is the caller's. `*ret_again`: that
 * one was left behind by an earlier send: when it is done, there may be another to take. ERR_SYS ENOENT: there is
 * none, or an empty one.
 */
error site_log_take(const struct site_logs *l, struct str site, int *ret_fd, bool *ret_again);
/* What was taken has been sent. An empty log stays, to tell when that was. */
error site_log_sent(const struct site_logs *l, struct str site);

/* A walk over what there is, of any age. Entries may come and go meanwhile. */
struct site_entry {
    const char *name;        /* of the file, until the next call */
    struct str site;         /* empty: not a log */
    bool taken;              /* +SITE */
    int64_t size;            /* bytes */
    int64_t read_s, write_s; /* wall clock: the last send, the last id */
};
DIR *site_logs_walk(const struct site_logs *l); /* NULL with errno; closedir() ends it */
bool site_logs_next(const struct site_logs *l, DIR *d, struct arena *a, struct site_entry *ret);
error site_log_remove(const struct site_logs *l, struct str site);

/* --- the lines, as a push parser: `{0}` starts it --- */
enum { ID_LINE_SHOWN = 64 /* bytes of a line that are kept; none that is longer is an id */ };
struct id_lines {
    struct str rest;
    char line[ID_LINE_SHOWN];
    size_t n;
    bool too_long, ended;
};
enum id_line {
    ID_LINE_ID,   /* `*ret` is one */
    ID_LINE_BAD,  /* `line` and `n` have its front, until the next call */
    ID_LINE_MORE, /* feed more; at the end of the file, a newline */
};
void id_lines_feed(struct id_lines *p, struct str bytes);
enum id_line id_lines_next(struct id_lines *p, struct queue_id *ret);
#endif
