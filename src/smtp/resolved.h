/* resolved.h - destinations that were resolved a moment ago, so that a busy one is not asked for again for each
 * message. Kept for as long as the shortest TTL of the records says, and never over RESOLVED_MAX_S: a change of the
 * records is seen soon. One slot a hash: a newer destination takes the place of an older one. */
#ifndef ANGARIUM_SMTP_RESOLVED_H
#define ANGARIUM_SMTP_RESOLVED_H

#include "smtp/destination.h"

enum { RESOLVED_SLOTS = 256, RESOLVED_MAX_S = 60 };

struct resolved_slot {
    struct arena *arena; /* NULL: empty */
    struct destination destination;
    struct target_list targets;
    int64_t until; /* mono_us */
};
struct resolved {
    struct resolved_slot slots[RESOLVED_SLOTS];
};
/* Copies of the targets in `a`, in the order they were put. */
bool resolved_get(struct resolved *r, const struct destination *d, struct arena *a, struct target_list *ret);
void resolved_put(struct resolved *r, const struct destination *d, const struct target_list *targets, uint32_t ttl);
void resolved_free(struct resolved *r);
#endif
