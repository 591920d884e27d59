/* master_edit.h - the changes of master.cf that postconf(1) is asked for: -M, -F and -P with -e, -X, -#; and the
 * patterns its arguments are made of. */
#ifndef ANGARIUM_CONF_MASTER_EDIT_H
#define ANGARIUM_CONF_MASTER_EDIT_H

#include "conf/edit.h"
#include "conf/master_text.h"

enum master_scope { MASTER_SERVICES = 1, MASTER_FIELDS, MASTER_PARAMETERS }; /* -M, -F, -P */

/* pattern = name ["/" type ["/" part]]     ; each may be "*"; the third is a field (-F) or a parameter (-P) */
struct service_pattern {
    struct str name, type, part; /* what was left out is "*" */
    size_t parts;                /* how many were written: 1 to 3 */
};

/* False: empty, too many parts for the scope, or "*" beside other text. */
bool service_pattern_parse(enum master_scope scope, struct str text, struct service_pattern *ret);
bool service_pattern_matches(const struct service_pattern *p, const struct service_text *s);
bool pattern_part_matches(struct str pattern, struct str text);

struct master_edit {
    struct str text;                /* the argument */
    struct service_pattern pattern; /* all its parts are there; a field or parameter is no wildcard */
    struct str value;               /* EDIT_SET */
    enum service_field field;       /* MASTER_FIELDS */
    struct service_text service;    /* MASTER_SERVICES with EDIT_SET: the new entry */
    bool matched;
};

struct master_edits {
    enum master_scope scope;
    enum edit_kind kind;
    VEC(struct master_edit) list;
    struct master_text notes; /* its warnings, for after "warning: ": braces, requests that nothing matches */
    struct str path;          /* for messages */
};

/* `args` is NULL-terminated: "service/type=entry", "service/type/field=value", "service/type/parameter=value", or
 * without the value for EDIT_REMOVE and EDIT_COMMENT. ERR_CONFIG: what is wrong with an argument, in Postfix's words.
 */
error master_edits_parse(enum master_scope scope, enum edit_kind kind, char *const *args, struct arena *a,
                         struct master_edits *ret);

/* A file_editor; `ctx` is a struct master_edits. An entry that is changed is written anew where it began, in the layout
 * of service_text_format(); comments inside it follow. Entries that nothing matches stay byte for byte. */
error master_edits_apply(void *ctx, struct str text, struct arena *a, struct buf *ret_text);
#endif
