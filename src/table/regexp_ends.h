/* regexp_ends.h - the plain text that all matches of an extended regular expression begin and end with. Comparing it
 * costs a tenth of a match, and most keys end there: "/^host1\.bad\.example$/", "/\.dyn\.example$/". */
#ifndef ANGARIUM_TABLE_REGEXP_ENDS_H
#define ANGARIUM_TABLE_REGEXP_ENDS_H

#include "base/arena.h"

struct regexp_ends {
    struct str head, tail; /* empty: none, or not seen */
};

/* `options` of regcomp(3), which has accepted the pattern. Only what is certain is taken: not from basic syntax, not
 * with REG_NEWLINE, not with an alternative anywhere. */
struct regexp_ends regexp_ends(struct str pattern, int options, struct arena *a);
/* False: the pattern does not match the key. Case is never looked at: what differs in case alone is for regexec(3). */
bool regexp_ends_fit(const struct regexp_ends *e, struct str key);
#endif
