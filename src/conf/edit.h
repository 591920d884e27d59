/* edit.h - changing main.cf and master.cf in place, for postconf: what is not asked for stays byte for byte.
 *
 * One editor at a time: PATH.tmp beside the file is the lock (flock), as it is for Postfix's postconf, and then the new
 * file: synced, with the mode and owner of the old one, renamed into place. A reader sees the old text or the new one.
 * A symbolic link at PATH becomes a file of its own. After an error the file is as it was. */
#ifndef ANGARIUM_CONF_EDIT_H
#define ANGARIUM_CONF_EDIT_H

#include "base/buf.h"
#include "base/err.h"

enum edit_kind { EDIT_SET = 1, EDIT_REMOVE, EDIT_COMMENT };

/* Make the new text of a file from the old one. An error leaves the file alone. */
typedef error file_editor(void *ctx, struct str text, struct arena *a, struct buf *ret_text);

/* ERR_CONFIG: "open PATH for reading: No such file or directory" and its like; or the editor's. In `a`. */
error conf_file_edit(struct str path, file_editor *edit, void *ctx, struct arena *a);

enum line_kind {
    LINE_NOTHING = 1, /* blank, or a comment: belongs to no logical line, wherever it stands */
    LINE_BEGINS,      /* a logical line */
    LINE_CONTINUES,   /* begins with white space */
};
/* The next physical line with its newline, if it has one. False at the end. */
bool physical_line(struct str *rest, struct str *ret_line, enum line_kind *ret_kind);

/* Add a newline when `b` ends within a line. */
void edit_end_line(struct buf *b);
#endif
