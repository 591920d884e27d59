/* lines.h - logical lines, as main.cf, master.cf and postconf(5) define them: blank lines and lines whose first
 * non-blank byte is '#' are nothing at all, also in the middle of a logical line; a line that begins with white
 * space continues the one before. The newline goes, white space stays. */
#ifndef ANGARIUM_CONF_LINES_H
#define ANGARIUM_CONF_LINES_H

#include "base/arena.h"
#include "base/err.h"

enum {
    CONF_FILE_MAX = 16 << 20, /* bytes of a configuration file */
    CONF_LINE_MAX = 1 << 20,  /* bytes of a logical line */
    CONF_EXCERPT_MAX = 200,   /* bytes of the input that an error or a warning shows */
};

struct lines {
    struct str rest, path; /* what is unread; the file's name for errors */
    size_t line;           /* physical lines read so far */
    struct arena *arena;   /* joined lines and errors */
};

struct logical_line {
    struct str text; /* without white space at the end; into the file's text, or into the arena when joined */
    size_t line;     /* where it begins, from 1 */
};

/* The next logical line; `ret->line` 0 at the end. ERR_CONFIG: a NUL byte, or longer than CONF_LINE_MAX. */
error lines_next(struct lines *l, struct logical_line *ret);

/* The beginning of `text`, printable, for an error or a warning. Lives in `a`. */
struct str conf_excerpt(struct str text, struct arena *a);

/* Read the whole file into the arena, as it was at one moment. ERR_CONFIG: "open PATH: No such file or directory"
 * (`sys` is the errno), not a file, too large, or written to all the time. Never waits. */
error conf_read_file(struct str path, struct arena *a, struct str *ret);
#endif
