/* feedback.h - by how much a success or a failure changes a destination's concurrency: postconf(5),
 * default_destination_concurrency_positive_feedback and _negative_feedback. */
#ifndef ANGARIUM_QMGR_FEEDBACK_H
#define ANGARIUM_QMGR_FEEDBACK_H

#include "base/str.h"

struct feedback { /* "1", "1/5", "1/concurrency", "1/sqrt_concurrency" */
    double value;
    enum { FEEDBACK_CONSTANT, FEEDBACK_BY_CONCURRENCY, FEEDBACK_BY_SQRT } kind;
};
/* False: malformed, or outside 0..1. */
bool feedback_parse(struct str s, struct feedback *ret);
double feedback_amount(const struct feedback *f, unsigned concurrency);
#endif
