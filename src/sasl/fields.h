/* fields.h - the lines of Dovecot's authentication protocol, as both ends write and read them: fields with tabs between
 * them, values escaped. */
#ifndef ANGARIUM_SASL_FIELDS_H
#define ANGARIUM_SASL_FIELDS_H

#include "base/buf.h"
#include "run/io.h"

/* Cut the next field off; it is still escaped. False: none is left. */
bool field_next(struct str *rest, struct str *ret);
/* A value as it was: \001 stands in front of what 0, 1, t, r, n stand for. */
struct str field_unescape(struct arena *a, struct str s);
/* Tab, name=, the value escaped; nothing for an empty value. */
void field_add(struct buf *b, const char *name, struct str value);

/* The next line without its end. */
error line_read(struct io *io, size_t limit, int64_t deadline, struct str *ret);

/* Lines of several coroutines on one connection: each goes out whole. `{0}` with `io` set is ready for use. */
struct line_writer {
    struct io *io;
    bool writing;
    struct cond turn;
};
/* The line is overwritten and freed. A failure is the connection's: whoever reads sees it, too. */
void line_write(struct line_writer *w, struct buf *line, int64_t deadline);
#endif
