/* postconf.h - what the files of postconf(1) share: the request, and how they say that something is wrong.
 *
 *     postconf.c            options, and which of them go together
 *     postconf_main.c       main.cf shown
 *     postconf_services.c   master.cf shown
 *     postconf_databases.c  the files of database tables that both name, checked
 *     postconf_edit.c       both changed
 *     postconf_lists.c      what this build supports
 *     postconf_templates.c  bounce templates
 *     postconf_out.c        lines, JSON, warnings */
#ifndef ANGARIUM_CMD_POSTCONF_H
#define ANGARIUM_CMD_POSTCONF_H

#include "base/buf.h"
#include "conf/edit.h"
#include "conf/master_edit.h"
#include "conf/review.h"
#include "conf/settings.h"

enum param_class { CLASS_BUILTIN = 1, CLASS_SERVICE = 2, CLASS_USER = 4, CLASS_ALL = 7 }; /* -C */

struct request {
    struct arena *arena;
    struct str directory;     /* where main.cf and master.cf are */
    char mode;                /* p M F P, or one of a A b l m t T */
    enum edit_kind edit;      /* 0: show */
    unsigned classes;         /* -C */
    const char *tls_question; /* -T */
    bool defaults, only_set, no_names, no_values, expand, fold, quiet, verbose, json;
    VEC(struct conf_override) overrides;
    char **args; /* NULL-terminated */
};

/* What is read for showing. */
struct listing {
    const struct request *request;
    struct arena *arena;
    struct conf *conf;
    struct master_text text;
    struct master_cf services; /* the same for conf_review() */
    const struct finding *findings;
    size_t finding_count;
};

/* Each runs to the end of the request; the caller flushes standard output. */
void postconf_show_parameters(struct listing *l);
void postconf_show_services(struct listing *l);
/* Warns about files that cannot be opened and names in them that their type does not know; a line that is no setting
 * ends the program. */
void postconf_check_databases(const struct listing *l);
/* The value of a setting (-o) of `s`, its $names expanded where they are not its reader's. */
error postconf_expand_arg(const struct listing *l, const struct service_text *s, const struct service_arg *arg,
                          struct str *ret);
void postconf_edit(const struct request *r);
void postconf_list(const struct request *r);
void postconf_templates(const struct request *r);

/* Standard error: "PROGRAM: TEXT", "PROGRAM: warning: TEXT"; fail() ends the program with status 1. */
void postconf_set_program(const char *name);
void note(struct str text);
void warn(struct str text);
_Noreturn void fail(struct str text);
void must(error e);
void warn_findings(const struct listing *l, enum finding_kind kind, bool master_cf_only);
bool postconf_is_unused(const struct listing *l, struct str name);
void postconf_directory_source(const struct request *r, struct conf_source *ret);

/* "name = value" as -h, -H and -f want it: white space in the value as single blanks, with -f broken before the word
 * that would not fit. */
void print_value(const struct request *r, struct str name, struct str value);
/* {"NAME": "VALUE", ...} with a newline; the members are NAME, VALUE in turn. */
void print_json(const struct str *members, size_t count);
#endif
