/* netstring.h - "5:hello,": strings with their length in front, read from a stranger. A netstring may hold others. */
#ifndef ANGARIUM_QMQPD_NETSTRING_H
#define ANGARIUM_QMQPD_NETSTRING_H

#include "run/io.h"

struct netstrings {
    struct io *io;
    int64_t deadline; /* of the next read */
    uint64_t left;    /* bytes of the outer netstring that have not been read */
};

/* "N:" of the outer netstring, which may hold `limit` bytes. ERR_SYNTAX: malformed; ERR_LIMIT: longer. Others are those
 * of io. The same for the functions below. */
error netstring_open(struct netstrings *n, uint64_t limit);
/* The length of the next one inside. */
error netstring_next(struct netstrings *n, uint64_t limit, uint64_t *ret_length);
/* Bytes of it: at most `want`, at least one. Borrowed until the next call. */
error netstring_some(struct netstrings *n, uint64_t want, struct str *ret);
/* Its comma. */
error netstring_end(struct netstrings *n);
/* A whole short one. */
error netstring_whole(struct netstrings *n, struct arena *a, uint64_t limit, struct str *ret);
/* The comma of the outer one, of which nothing may be left. */
error netstring_close(struct netstrings *n);
#endif
