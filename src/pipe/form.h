/* form.h - a message as the command of a pipe(8) service wants it: line ends, and what goes in front of some lines. A
 * filter over the content in pieces of any size. */
#ifndef ANGARIUM_PIPE_FORM_H
#define ANGARIUM_PIPE_FORM_H

#include "base/buf.h"
#include "pipe/attributes.h"

struct pipe_form {
    struct str eol;
    bool dot, from, blank_line;
    unsigned matched; /* bytes of "From " at the start of this line, held back */
    bool inside;      /* of a line, behind its start */
};

struct pipe_form pipe_form_start(const struct pipe_attributes *attributes);
/* Nothing changes: the content may go as it is, but for pipe_form_end(). */
bool pipe_form_is_plain(const struct pipe_form *f);
/* Append `in` to `out`: each LF is the eol. */
void pipe_form_add(struct pipe_form *f, struct buf *out, struct str in);
/* What was held back, the end of a last line that has none, the empty line of flag B. */
void pipe_form_end(struct pipe_form *f, struct buf *out);
#endif
