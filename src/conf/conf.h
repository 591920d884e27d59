/* conf.h - main.cf as Postfix reads it (postconf(5)), and the value of each parameter.
 *
 * There is one row per parameter in conf/params.def; each makes an enum value PARAM_<name>. A `struct conf` is
 * immutable after conf_load(); a reload makes a new one. All values are expanded ($name and friends), range-checked
 * and converted when the file is loaded, so reading one cannot fail. Strings live as long as the conf.
 *
 * Errors are ERR_CONFIG with the text Postfix would log after "fatal: ". Warnings (unknown parameter with the
 * nearest known name, deprecated name, "#comment" after a value) are collected, not logged: see conf_warnings(). */
#ifndef ANGARIUM_CONF_CONF_H
#define ANGARIUM_CONF_CONF_H

#include "base/arena.h"
#include "base/err.h"

/* clang-format off */
enum param { /* PARAM_2bounce_notice_recipient ... one per row of params.def */
#define PARAM(name, type, default_value, min, max, status, note) PARAM_##name,
#include "conf/params.def"
#undef PARAM
    PARAM_COUNT
};
/* clang-format on */

struct conf;

/* One `-o name=value` of master.cf or of a command line. */
struct conf_override {
    struct str name, value;
};

struct conf_source {
    struct str config_directory; /* holds main.cf; empty: the built-in default, or $MAIL_CONFIG */
    const struct conf_override *overrides;
    size_t override_count;
    struct str process_name; /* $process_name: "smtpd" */
    struct str service_name; /* $service_name: "smtp", "submission"; empty for commands */
    bool missing_is_empty;   /* no main.cf: all defaults instead of an error */
};

error conf_load(const struct conf_source *source, struct arena *err_arena, struct conf **ret);
void conf_free(struct conf *c);

/* The right one for the row's type; the wrong one is a programming error and ends the process. */
bool conf_bool(const struct conf *c, enum param p);
int64_t conf_int(const struct conf *c, enum param p);    /* INT, LONG rows */
int64_t conf_time(const struct conf *c, enum param p);   /* seconds */
struct str conf_str(const struct conf *c, enum param p); /* STRING; RAW rows come unexpanded; NUL-terminated */

/* <service>_<rest> as qmgr, pipe and spawn use them: conf_service_int(c, STR("smtp"),
 * STR("_destination_concurrency_limit")) gives main.cf's smtp_destination_concurrency_limit, or the value of the
 * default_destination_concurrency_limit row when the service has none of its own. */
int64_t conf_service_int(const struct conf *c, struct str service, struct str rest);
int64_t conf_service_time(const struct conf *c, struct str service, struct str rest);
struct str conf_service_str(const struct conf *c, struct str service, struct str rest);

/* Expand $name, ${name}, ${name?text}, ${name:text}, ${name?{a}:{b}}, ${{a} == {b} ? {x} : {y}} in `text`.
 * Never call it on text a peer had a hand in. */
error conf_expand(const struct conf *c, struct str text, struct arena *a, struct str *ret);

/* Any name at all: a known parameter, a service-derived or a user-defined one; expanded, but for RAW rows. False: not
 * defined, or (a user-defined one) it cannot be expanded. */
bool conf_lookup(const struct conf *c, struct str name, struct arena *a, struct str *ret_value);

struct str conf_directory(const struct conf *c); /* the one that was read */
size_t conf_warnings(const struct conf *c, const struct str **ret);

/* compatibility_level as Postfix compares it: "3.6" < "3.12". Missing parts are 0. False: malformed. */
bool conf_level_at_least(const struct conf *c, struct str level);
#endif
