/* memcache_reply.h - what a memcached answers in its text protocol (protocol.txt of memcached). A cursor over the bytes
 * that have come so far; nothing is kept between calls. Lengths in bytes, lines without their CR LF. */
#ifndef ANGARIUM_LOOKUP_MEMCACHE_REPLY_H
#define ANGARIUM_LOOKUP_MEMCACHE_REPLY_H

#include "base/str.h"

enum memcache_reply {
    MEMCACHE_MORE,  /* not all has come yet */
    MEMCACHE_VALUE, /* `*ret` is the value (get), or the line (others) */
    MEMCACHE_NONE,  /* get: there is none */
    MEMCACHE_BAD,   /* `*ret` is the first line, for the log, or empty: it is not of the protocol or over a limit */
};

/* The answer to `get key`: one value of exactly that key, or none, and nothing behind it. */
enum memcache_reply memcache_reply_get(struct str received, struct str key, size_t line_limit, size_t data_limit,
                                       struct str *ret);
/* The one line that answers the other commands, and nothing behind it. */
enum memcache_reply memcache_reply_line(struct str received, size_t line_limit, struct str *ret);
#endif
