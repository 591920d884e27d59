/* footer.h - what stands below a refusal (smtpd_reject_footer, postscreen_reject_footer), and the values in it.
 *
 * Values come from clients: they are never expanded again, and bytes that the expansion filter does not have become
 * "_". */
#ifndef ANGARIUM_PROTO_FOOTER_H
#define ANGARIUM_PROTO_FOOTER_H

#include "base/buf.h"
#include "conf/expand.h"
#include "table/table.h"

/* The bytes of smtpd_expansion_filter, which is written with escapes as C has them (\t, \40, \\). */
struct str expansion_filter(struct arena *a, struct str text);
/* `value` with the bytes that the filter does not have made "_". */
struct str filtered_text(struct arena *a, struct str filter, struct str value);
/* $localtime. */
struct str footer_time(struct arena *a);

struct footer {
    const char *parameter; /* "smtpd_reject_footer": for warnings; that with _maps is the tables' */
    struct str template;
    struct maps *maps; /* by reply; NULL: none */
};

/* Add the footer that belongs to the reply in `b`: "550 5.1.1 text" becomes lines with LF between them, none at the
 * end. Other replies than 4xx and 5xx, and those that are several lines, stay as they are. A name that `lookup` does
 * not know is logged, and there is no footer. */
void footer_add(const struct footer *f, expand_lookup *lookup, void *ctx, struct buf *b);
#endif
