/* template.h - the words of delivery status notifications (bounce(5)): the built-in ones, those of
 * bounce_template_file, and their $names.
 *
 *     file     = *( blank / "#" text / name "=" "<<" MARKER LF *( line LF ) MARKER LF )
 *     template = *( label ":" text LF ) [ LF ] 1*( line LF )       ; the text; "$$" is one "$"
 *
 * A template that cannot be used is left out with a warning, and the built-in one stands in its place. */
#ifndef ANGARIUM_BOUNCE_TEMPLATE_H
#define ANGARIUM_BOUNCE_TEMPLATE_H

#include "conf/conf.h"

enum template_kind { TEMPLATE_FAILURE, TEMPLATE_DELAY, TEMPLATE_SUCCESS, TEMPLATE_VERIFY, TEMPLATE_COUNT };

struct bounce_template {
    struct str name; /* "failure" */
    struct str charset, from, subject;
    struct str postmaster_subject; /* of the postmaster's copy; empty: this kind has none */
    bool own_from;                 /* the file has a From: */
    struct str text;               /* whole lines, $names not yet expanded */
};

struct bounce_templates {
    struct str path; /* for messages; "built-in" */
    struct bounce_template at[TEMPLATE_COUNT];
    size_t line[TEMPLATE_COUNT]; /* where it begins in the file; 0: built-in */
    VEC(struct str) warnings;    /* for after "warning: " */
};

/* The built-in templates: static. */
void bounce_templates_builtin(struct bounce_templates *ret);
/* `path` empty: the built-in ones. ERR_CONFIG: the file cannot be read, or is no template file (with the line). */
error bounce_templates_load(struct str path, struct arena *a, struct bounce_templates *ret);
/* The same for text in memory; `t` lives in `a`, the text is copied. */
error bounce_templates_parse(struct str text, struct str path, struct arena *a, struct bounce_templates *ret);
/* The text with its $names expanded: parameters, <time>_seconds, _minutes, _hours, _days and _weeks of
 * delay_warning_time and maximal_queue_lifetime (rounded down), host and domain as UTF-8 with smtputf8_enable.
 * ERR_CONFIG: a name nobody defined, a bad unit, bad syntax. Adds to the warnings of `t`. */
error bounce_template_expand(struct bounce_templates *t, enum template_kind kind, const struct conf *c, struct arena *a,
                             struct str *ret);
#endif
