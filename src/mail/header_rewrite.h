/* header_rewrite.h - complete the addresses inside one header field and leave every other byte alone: display names,
 * comments, folding. */
#ifndef ANGARIUM_MAIL_HEADER_REWRITE_H
#define ANGARIUM_MAIL_HEADER_REWRITE_H

#include "base/arena.h"

/* `field`: "Name: value" with its LFs. `address` gives the new form of one address, or the old one; both in internal
 * form; HEADER_ONE_WORD is added to the flags where it holds. A source route goes away. Comments inside of an address
 * come behind its new form. Only the first `max_tokens` words and specials of the field are looked at; where something
 * changes, what stands behind them goes away, from the address on that they cut (header_address_token_limit). Returns
 * `field` itself when nothing changed, else a copy in `a`. */
struct str header_rewrite(struct arena *a, struct str field, unsigned header_flags, size_t max_tokens,
                          struct str (*address)(void *ctx, struct arena *a, struct str address, unsigned header_flags),
                          void *ctx);
#endif
