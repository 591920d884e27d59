/* fold.h - look-up keys in one case, so that "Joe@Example.COM" finds joe@example.com.
 *
 * ASCII letters always. With `utf8`, a key that is valid UTF-8 gets Unicode's full case folding (Unicode 3.13, C + F):
 * it can change length, "STRASSE" equals "straße". A key that is not UTF-8 is folded as ASCII. */
#ifndef ANGARIUM_TABLE_FOLD_H
#define ANGARIUM_TABLE_FOLD_H

#include "base/arena.h"
#include "base/buf.h"

/* Replaces what `ret` holds. */
void fold_key(struct buf *ret, struct str key, bool utf8);
struct str arena_fold(struct arena *a, struct str key, bool utf8);
#endif
