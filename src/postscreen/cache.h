/* cache.h - postscreen_cache_map: which tests a client has passed, and until when that counts. */
#ifndef ANGARIUM_POSTSCREEN_CACHE_H
#define ANGARIUM_POSTSCREEN_CACHE_H

#include "postscreen/settings.h"

struct passes {
    int64_t until[TESTS]; /* wall clock, seconds since the epoch; 0: never passed */
};

struct cache;
/* Never NULL; without a cache map nothing is remembered. In init(): the file is made or opened. */
struct cache *cache_open(const struct settings *s);
void cache_close(struct cache *c); /* NULL is allowed */
/* All zero when nothing, or nothing that can be read, is known. */
void cache_get(struct cache *c, struct str address, struct passes *ret);
void cache_put(struct cache *c, struct str address, const struct passes *p);
/* Forget who has had nothing that counts for postscreen_cache_retention_time; logs what it did. */
void cache_clean(struct cache *c, int64_t now);
#endif
