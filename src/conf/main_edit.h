/* main_edit.h - the changes of main.cf that postconf(1) is asked for (-e, -X, -#). */
#ifndef ANGARIUM_CONF_MAIN_EDIT_H
#define ANGARIUM_CONF_MAIN_EDIT_H

#include "conf/edit.h"

struct main_edit {
    struct str name, value; /* the value for EDIT_SET only */
};

struct main_edits {
    enum edit_kind kind;
    VEC(struct main_edit) list; /* each name once, in the order asked for */
    VEC(struct str) warnings;   /* for after "warning: " */
    struct str path;            /* for messages */
};

/* `args` is NULL-terminated: "name=value", or names for EDIT_REMOVE and EDIT_COMMENT. Of a name that is there twice the
 * last one counts, with a warning. ERR_CONFIG: what is wrong with an argument, in Postfix's words. */
error main_edits_parse(enum edit_kind kind, char *const *args, struct arena *a, struct main_edits *ret);

/* A file_editor; `ctx` is a struct main_edits. All entries of a name are changed, with a warning when there are
 * several; names that main.cf does not have yet are added at its end. */
error main_edits_apply(void *ctx, struct str text, struct arena *a, struct buf *ret_text);
#endif
