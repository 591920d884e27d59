/* master_text.h - master.cf as it is written, for postconf: columns and arguments with nothing filled in and little
 * judged, so that it can be shown and changed also where master would refuse it. */
#ifndef ANGARIUM_CONF_MASTER_TEXT_H
#define ANGARIUM_CONF_MASTER_TEXT_H

#include "base/buf.h"
#include "conf/master_cf.h"

enum service_field {
    SERVICE_NAME,
    SERVICE_TYPE,
    SERVICE_PRIVATE,
    SERVICE_UNPRIVILEGED,
    SERVICE_CHROOT,
    SERVICE_WAKEUP,
    SERVICE_PROCESS_LIMIT,
    SERVICE_COMMAND, /* the program's name in `field`, what follows in `args` */
    SERVICE_FIELDS
};

enum { SERVICE_LINE_WIDTH = 80 };

struct service_arg {
    bool is_option;  /* before the first word that is none */
    bool is_setting; /* -o: `name` and `value`, or `text` where there is no "=" */
    struct str text, name, value;
};

struct service_text {
    struct str field[SERVICE_FIELDS];
    VEC(struct service_arg) args;
    size_t line;
};

struct master_text {
    VEC(struct service_text) services; /* in the order of the file; the same one may be there twice */
    VEC(struct str) warnings;          /* for after "warning: " */
};

/* "service", "type", "private" ... as postconf -F names them. */
struct str service_field_name(enum service_field field);
bool service_field_find(struct str name, enum service_field *ret);
/* NULL, or that `value` cannot stand in the field: 'invalid chroot field "q" in "LINE"'. */
error service_field_check(enum service_field field, struct str value, struct str line, struct arena *a);

/* One logical line. ERR_CONFIG: "bad field count", or a bad field. Warnings (unbalanced braces) are added to `into`. */
error service_text_parse(struct str line, struct arena *a, struct master_text *into, struct service_text *ret);
/* Program and arguments, into what is in `s` already. */
error service_command_parse(struct str command, struct arena *a, struct master_text *into, struct service_text *s);
/* The whole file. ERR_CONFIG: "file PATH: line N: bad field count" and its like. */
error master_text_parse(struct str text, struct str path, struct arena *a, struct master_text *ret);

/* One line, or, with `fold`, lines of less than SERVICE_LINE_WIDTH bytes where blanks allow it and one per -o. No
 * newline behind.
 */
void service_text_format(struct buf *b, const struct service_text *s, bool fold);
/* The same of the command alone; `column` is where it begins. */
void service_command_format(struct buf *b, const struct service_text *s, bool fold, size_t column);

/* name, type, command and -o settings (of one name the last) for conf_review(). */
void master_text_services(const struct master_text *m, struct arena *a, struct master_cf *ret);
#endif
