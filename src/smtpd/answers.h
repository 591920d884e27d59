/* answers.h - what trivial-rewrite has said lately, so that it is not asked again for each message.
 *
 * An answer is believed for at most ANSWERS_LIFE_US: together with the time a table's change takes to be seen there, a
 * change is seen within a second. Only what is sure is kept, no temporary error. All answers are forgotten at once,
 * when the first of them is that old or there are ANSWERS_MAX. */
#ifndef ANGARIUM_SMTPD_ANSWERS_H
#define ANGARIUM_SMTPD_ANSWERS_H

#include "base/map.h"
#include "route/route.h"

enum { ANSWERS_MAX = 1000, ANSWERS_LIFE_US = 500000 };

struct answers { /* `{0}` is empty */
    struct arena *arena;
    struct map map;
    int64_t born; /* when the first one came */
};
/* False: not there. What it points to is copied to `a`. */
bool answers_get(struct answers *c, const struct route_question *q, struct arena *a, struct route_check *ret);
void answers_put(struct answers *c, const struct route_question *q, const struct route_check *answer);
void answers_free(struct answers *c);
#endif
