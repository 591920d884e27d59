/* reply.h - what tcp: and socketmap: servers say. Pure: bytes in, meaning out. */
#ifndef ANGARIUM_LOOKUP_REPLY_H
#define ANGARIUM_LOOKUP_REPLY_H

#include "base/arena.h"
#include "base/buf.h"
#include "table/table.h"

enum { TCP_LINE_MAX = 4096 /* bytes of a request or a reply, newline included (tcp_table(5)) */ };

/* "get KEY\n", with all bytes that need it as %XX. False: longer than TCP_LINE_MAX. */
bool tcp_request(struct buf *b, struct str key);
/* One line without its newline. FOUND: `*ret` is the value, decoded, in `a`; else it says why: for NOT_FOUND too. A
 * reply that is none of 200, 400, 500 is TABLE_ERROR. */
enum table_result tcp_reply(struct str line, struct arena *a, struct str *ret);

enum netstring { NETSTRING_MORE, NETSTRING_WHOLE, NETSTRING_BAD };
void netstring_add(struct buf *b, struct str bytes);
/* At the front of `in`. WHOLE: `*ret` is its content, `*ret_used` how long it is with all around it. BAD also when the
 * content is longer than `most`. */
enum netstring netstring_take(struct str in, size_t most, struct str *ret, size_t *ret_used);
/* The content of a socketmap reply: OK value, NOTFOUND, TEMP why, TIMEOUT why, PERM why (socketmap_table(5)). */
enum table_result socketmap_reply(struct str reply, struct str *ret);
#endif
