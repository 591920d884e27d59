/* review.h - what is questionable in main.cf and in the -o settings of master.cf, for `postfix check`, postconf and
 * the warnings of conf_load(). */
#ifndef ANGARIUM_CONF_REVIEW_H
#define ANGARIUM_CONF_REVIEW_H

#include "conf/master_cf.h"

enum finding_kind {
    FINDING_COMMENT = 1, /* "#text" behind a value: it is part of the value */
    FINDING_UNDEFINED,   /* a value refers to a name that nothing defines */
    FINDING_DEPRECATED,  /* works, but should be written otherwise */
    FINDING_UNUSED,      /* no such parameter, and nobody refers to it */
    FINDING_INERT,       /* accepted, but this architecture has no use for it; the text says why */
    FINDING_PENDING,     /* a known parameter that is not supported yet */
};

struct finding {
    enum finding_kind kind;
    struct str name; /* the parameter */
    struct str text; /* the whole line, ready for after "warning: ": "/etc/postfix/main.cf: unused parameter: a=b" */
};

/* `services` may be NULL: names of the form <service>_destination_concurrency_limit are then taken to be of a service
 * that exists. In the order of kinds, names sorted; lives in `a`. `c` may be from conf_open(). */
size_t conf_review(const struct conf *c, const struct master_cf *services, struct arena *a, const struct finding **ret);
#endif
