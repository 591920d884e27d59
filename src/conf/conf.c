#include "conf/conf.h"
#include "base/die.h"
#include "build_config.h"
#include "conf/lines.h"
#include "conf/mynetworks.h"
#include "conf/private.h"
#include "conf/review.h"
#include "conf/settings.h"
#include "conf/values.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* --- looking up --- */

static const struct str new_exceptions = STR_INIT("smtpd_client_event_limit_exceptions");
static const struct str old_exceptions = STR_INIT("smtpd_client_connection_limit_exceptions");

bool conf_expand_lookup(void *ctx, struct str name, struct expand_value *ret) {
    const struct conf *c = ctx;
    enum param p;
    bool known = param_find(name, &p);
    const struct setting *s = map_get(&c->settings, name);
    *ret = (struct expand_value){ STR(""), known && param_row(p)->type == TYPE_RAW };
    if (s) {
        ret->text = s->value;
        return true;
    }
    if (str_eq(name, new_exceptions) && map_get(&c->settings, old_exceptions)) {
        /* its documented default, ${old:$mynetworks}, is empty once the old name is set */
        ret->text = STR("$smtpd_client_connection_limit_exceptions");
        return true;
    }
    if (known) {
        ret->text = conf_default(c, p);
        return true;
    }
    struct str service;
    const struct service_row *row = service_name_find(name, &service);
    if (row)
        ret->text = service_default(service, row);
    return row != NULL;
}

/* The callback takes a plain pointer; the conf is not changed through it. */
static void *lookup_context(const struct conf *c) {
    union {
        const struct conf *in;
        void *out;
    } u = { c };
    return u.out;
}

error conf_expand(const struct conf *c, struct str text, struct arena *a, struct str *ret) {
    return expand(text, conf_expand_lookup, lookup_context(c), a, ret);
}

bool conf_raw(const struct conf *c, struct str name, struct arena *a, struct str *ret) {
    struct expand_value value;
    if (!conf_expand_lookup(lookup_context(c), name, &value))
        return false;
    *ret = arena_str(a, value.text);
    return true;
}

error conf_raw_default(const struct conf *c, enum param p, struct arena *a, struct str *ret) {
    struct str text = conf_default(c, p);
    if (param_is_computed(p) && c->computed->state[p] == COMPUTED_FAILED)
        return c->computed->failure;
    *ret = arena_str(a, text);
    return NULL;
}

error conf_value_text(const struct conf *c, enum param p, struct arena *a, struct str *ret) {
    struct expand_value value;
    conf_expand_lookup(lookup_context(c), param_row(p)->name, &value);
    if (value.literal) {
        *ret = arena_str(a, value.text);
        return NULL;
    }
    return conf_expand(c, value.text, a, ret);
}

bool conf_lookup(const struct conf *c, struct str name, struct arena *a, struct str *ret_value) {
    struct expand_value value;
    enum param p;
    if (c->values && param_find(name, &p)) {
        *ret_value = arena_str(a, c->values[p].text);
        return true;
    }
    if (!conf_expand_lookup(lookup_context(c), name, &value))
        return false;
    if (!value.literal)
        return conf_expand(c, value.text, a, ret_value) == NULL;
    *ret_value = arena_str(a, value.text);
    return true;
}

/* --- reading --- */

static void add_setting(struct conf *c, const struct setting *s) {
    enum param p;
    if (param_find(s->name, &p) && param_is_read_only(p)) {
        *vec_add(c->arena, &c->warnings) = arena_printf(c->arena, "%.*s: read-only parameter assignment: %.*s=%.*s",
                                                        STR_ARG(c->path), STR_ARG(s->name), STR_ARG(s->value));
        return;
    }
    const struct setting *old = map_get(&c->settings, s->name);
    if (old && s->line)
        *vec_add(c->arena, &c->warnings) =
            arena_printf(c->arena, "%.*s, line %zu: overriding earlier entry: %.*s=%.*s", STR_ARG(c->path), s->line,
                         STR_ARG(old->name), STR_ARG(conf_excerpt(old->value, c->arena)));
    union { /* the map hands out plain pointers; nobody writes through them */
        const struct setting *in;
        void *out;
    } u = { s };
    map_put(&c->settings, s->name, u.out);
}

static error read_file(struct conf *c, bool missing_is_empty) {
    struct str text;
    error e = conf_read_file(c->path, c->arena, &text);
    if (e && e->sys == ENOENT && missing_is_empty)
        return NULL;
    if (e)
        return e;
    if ((e = main_cf_parse(text, c->path, c->arena, &c->file)))
        return e;
    for (size_t i = 0; i < c->file.warnings.n; i++)
        *vec_add(c->arena, &c->warnings) = c->file.warnings.at[i];
    for (size_t i = 0; i < c->file.settings.n; i++)
        add_setting(c, &c->file.settings.at[i]);
    return NULL;
}

struct str conf_source_directory(const struct conf_source *source) {
    const char *from_environment = getenv("MAIL_CONFIG");
    if (source->config_directory.n)
        return source->config_directory;
    return from_environment && *from_environment ? str_c(from_environment) : STR(BUILD_CONFIG_DIRECTORY);
}

static struct conf *new_conf(const struct conf_source *source) {
    struct arena *a = arena_new();
    struct conf *c = ARENA_NEW(a, struct conf);
    c->arena = a;
    c->directory = arena_str(a, conf_source_directory(source));
    c->path = arena_printf(a, "%.*s/main.cf", STR_ARG(c->directory));
    c->process_name = arena_str(a, source->process_name);
    c->service_name = arena_str(a, source->service_name);
    c->process_id = arena_printf(a, "%ld", (long)getpid());
    c->computed = ARENA_NEW(a, struct computed);
    return c;
}

static error read_settings(struct conf *c, const struct conf_source *source) {
    struct arena *a = c->arena;
    /* another directory than the built-in one counts as if main.cf had set it */
    if (!str_eq(c->directory, STR(BUILD_CONFIG_DIRECTORY))) {
        struct setting *s = ARENA_NEW(a, struct setting);
        *s = (struct setting){ param_row(PARAM_config_directory)->name, c->directory, 0 };
        add_setting(c, s);
    }
    error e = read_file(c, source->missing_is_empty);
    if (e)
        return e;
    struct setting *overrides = arena_array(a, source->override_count, sizeof *overrides);
    for (size_t i = 0; i < source->override_count; i++) {
        overrides[i] =
            (struct setting){ arena_str(a, source->overrides[i].name), arena_str(a, source->overrides[i].value), 0 };
        add_setting(c, &overrides[i]);
    }
    return NULL;
}

/* An error that outlives the conf. */
static error keep_error(error e, struct arena *a) {
    struct err *copy = ARENA_NEW(a, struct err);
    *copy = *e;
    copy->text = arena_str(a, e->text);
    copy->detail = arena_str(a, e->detail);
    return copy;
}

error conf_open(const struct conf_source *source, struct arena *err_arena, struct conf **ret) {
    struct conf *c = new_conf(source);
    error e = read_settings(c, source);
    if (e) {
        e = keep_error(e, err_arena);
        conf_free(c);
        return e;
    }
    *ret = c;
    return NULL;
}

struct conf *conf_open_defaults(const struct conf_source *source) {
    return new_conf(source);
}

void conf_free(struct conf *c) {
    if (!c)
        return;
    map_free(&c->settings);
    map_free(&c->service_values);
    map_free(&c->service_defaults);
    arena_free(c->arena);
}

/* --- converting --- */

error conf_at_setting(const struct conf *c, struct str name, error e) {
    const struct setting *s = map_get(&c->settings, name);
    if (!s)
        return e;
    if (!s->line)
        return err_make(c->arena, ERR_CONFIG, "%.*s (override of %.*s)", STR_ARG(e->text), STR_ARG(c->path));
    return err_make(c->arena, ERR_CONFIG, "%.*s (%.*s, line %zu)", STR_ARG(e->text), STR_ARG(c->path), s->line);
}

static error cannot_expand(const struct conf *c, struct str name, error e) {
    return err_make(c->arena, ERR_CONFIG, "parameter %.*s: %.*s", STR_ARG(name), STR_ARG(e->text));
}

/* Rules of single parameters that no type covers. */
static error check_special(const struct conf *c, enum param p, struct str text) {
    bool ipv4, ipv6;
    struct str wrong;
    int order;
    const char *problem;
    switch ((int)p) {
    case PARAM_myhostname:
    case PARAM_mydomain:
        problem = hostname_problem(text);
        return problem ? err_make(c->arena, ERR_CONFIG, "parameter %.*s: bad parameter value: %.*s: %s",
                                  STR_ARG(param_row(p)->name), STR_ARG(text), problem)
                       : NULL;
    case PARAM_inet_protocols:
        return inet_protocols_parse(text, c->arena, &ipv4, &ipv6);
    case PARAM_compatibility_level:
        return level_compare(text, STR("0"), &order, &wrong)
                   ? NULL
                   : err_make(c->arena, ERR_CONFIG, "malformed compatibility level syntax: \"%.*s\"", STR_ARG(text));
    }
    return NULL;
}

static error convert_text(struct conf *c, const struct param_row *row, struct str name, struct str raw,
                          struct value *ret) {
    error e = NULL;
    if (row->type == TYPE_RAW)
        ret->text = arena_str(c->arena, raw);
    else if ((e = conf_expand(c, raw, c->arena, &ret->text)))
        e = cannot_expand(c, name, e);
    return e ? e : value_convert(row, name, ret->text, c->arena, &ret->number);
}

static error convert_param(struct conf *c, enum param p) {
    const struct param_row *row = param_row(p);
    struct expand_value raw;
    conf_expand_lookup(c, row->name, &raw);
    if (c->computed->failure)
        return c->computed->failure;
    error e = convert_text(c, row, row->name, raw.text, &c->values[p]);
    if (!e)
        e = check_special(c, p, c->values[p].text);
    return e ? conf_at_setting(c, row->name, e) : NULL;
}

static error convert_params(struct conf *c) {
    /* first what others are computed from, so that an error names the setting that is wrong */
    static const enum param first[] = { PARAM_compatibility_level, PARAM_inet_protocols, PARAM_myhostname };
    error e = NULL;
    for (size_t i = 0; !e && i < sizeof first / sizeof first[0]; i++)
        e = convert_param(c, first[i]);
    for (int i = 0; !e && i < PARAM_COUNT; i++)
        e = convert_param(c, (enum param)i);
    /* A default that fails because of a setting it refers to: that one is at fault, and says where it stands. */
    error at = NULL;
    for (int i = 0; e && !at && i < PARAM_COUNT; i++)
        if (map_get(&c->settings, param_row((enum param)i)->name))
            at = convert_param(c, (enum param)i);
    return at ? at : e;
}

size_t conf_problems(const struct conf_source *source, struct arena *a, const struct str **ret) {
    VEC(struct str) found = { 0 };
    struct conf *c;
    error e = conf_open(source, a, &c);
    if (e) {
        *vec_add(a, &found) = e->text;
    } else {
        c->values = arena_array(c->arena, PARAM_COUNT, sizeof *c->values);
        for (int i = 0; i < PARAM_COUNT; i++)
            if (map_get(&c->settings, param_row((enum param)i)->name) && (e = convert_param(c, (enum param)i)))
                *vec_add(a, &found) = arena_str(a, e->text);
        conf_free(c);
    }
    *ret = found.at;
    return found.n;
}

static struct value *new_service_value(struct conf *c, struct map *m, struct str name) {
    struct value *v = ARENA_NEW(c->arena, struct value);
    map_put(m, name, v);
    return v;
}

static error convert_services(struct conf *c) {
    const struct service_row *rows;
    size_t count = service_rows(&rows);
    c->service_values_default = arena_array(c->arena, count, sizeof *c->service_values_default);
    error e;
    for (size_t i = 0; i < count; i++) {
        const struct param_row *row = &rows[i].row;
        if ((e = convert_text(c, row, row->name, row->fallback, &c->service_values_default[i])))
            return e;
    }
    struct service_fallback f;
    for (size_t i = 0; service_fallback_at(i, &f); i++) {
        const struct service_row *row = service_row_find(f.suffix);
        struct str name = arena_cat(c->arena, f.service, f.suffix);
        if ((e = convert_text(c, &row->row, name, f.fallback, new_service_value(c, &c->service_defaults, name))))
            return e;
    }
    size_t at = 0;
    struct map_entry *entry;
    while (map_next(&c->settings, &at, &entry)) {
        enum param p;
        struct str service;
        const struct service_row *row = service_name_find(entry->key, &service);
        const struct setting *s = entry->value;
        if (!row || param_find(entry->key, &p))
            continue;
        e = convert_text(c, &row->row, s->name, s->value, new_service_value(c, &c->service_values, s->name));
        if (e)
            return conf_at_setting(c, s->name, e);
    }
    return NULL;
}

error conf_load(const struct conf_source *source, struct arena *err_arena, struct conf **ret) {
    struct conf *c;
    error e = conf_open(source, err_arena, &c);
    if (e)
        return e;
    c->values = arena_array(c->arena, PARAM_COUNT, sizeof *c->values);
    if (!(e = convert_params(c)))
        e = convert_services(c);
    if (e) {
        e = keep_error(e, err_arena);
        conf_free(c);
        return e;
    }
    const struct finding *found;
    size_t n = conf_review(c, NULL, c->arena, &found);
    for (size_t i = 0; i < n; i++)
        if (found[i].kind == FINDING_COMMENT || found[i].kind == FINDING_DEPRECATED || found[i].kind == FINDING_UNUSED)
            *vec_add(c->arena, &c->warnings) = found[i].text;
    *ret = c;
    return NULL;
}

/* --- what programs ask --- */

static const struct value *value_of(const struct conf *c, enum param p, enum param_type type, enum param_type or) {
    const struct param_row *row = param_row(p);
    if (row->type != type && row->type != or)
        die("conf: parameter %s is not of the type it is read as", row->name.p);
    if (!c->values)
        die("conf: parameter %s read before main.cf was converted", row->name.p);
    return &c->values[p];
}

bool conf_bool(const struct conf *c, enum param p) {
    return value_of(c, p, TYPE_BOOL, TYPE_BOOL)->number != 0;
}

int64_t conf_int(const struct conf *c, enum param p) {
    return value_of(c, p, TYPE_INT, TYPE_LONG)->number;
}

int64_t conf_time(const struct conf *c, enum param p) {
    return value_of(c, p, TYPE_TIME, TYPE_TIME)->number;
}

struct str conf_str(const struct conf *c, enum param p) {
    return value_of(c, p, TYPE_STRING, TYPE_RAW)->text;
}

static const struct value *service_value(const struct conf *c, struct str service, struct str rest,
                                         enum param_type type) {
    const struct service_row *rows, *row = service_row_find(rest);
    if (!row || row->row.type != type || !c->values)
        die("conf: no parameter <service>%.*s of the type it is read as", STR_ARG(rest));
    service_rows(&rows);
    struct arena *scratch = arena_new();
    struct str name = arena_cat(scratch, service, rest);
    const struct value *v = map_get(&c->service_values, name);
    if (!v)
        v = map_get(&c->service_defaults, name);
    arena_free(scratch);
    return v ? v : &c->service_values_default[row - rows];
}

int64_t conf_service_int(const struct conf *c, struct str service, struct str rest) {
    return service_value(c, service, rest, TYPE_INT)->number;
}

int64_t conf_service_time(const struct conf *c, struct str service, struct str rest) {
    return service_value(c, service, rest, TYPE_TIME)->number;
}

struct str conf_service_str(const struct conf *c, struct str service, struct str rest) {
    return service_value(c, service, rest, TYPE_STRING)->text;
}

struct str conf_directory(const struct conf *c) {
    return c->directory;
}

size_t conf_warnings(const struct conf *c, const struct str **ret) {
    *ret = c->warnings.at;
    return c->warnings.n;
}

bool conf_level_at_least(const struct conf *c, struct str level) {
    int order;
    struct str wrong;
    return level_compare(conf_str(c, PARAM_compatibility_level), level, &order, &wrong) && order >= 0;
}

const struct setting *conf_setting(const struct conf *c, struct str name) {
    return map_get(&c->settings, name);
}

static int setting_order(const void *a, const void *b) {
    const struct setting *const *x = a, *const *y = b;
    return str_cmp((*x)->name, (*y)->name);
}

size_t conf_settings(const struct conf *c, struct arena *a, const struct setting ***ret) {
    const struct setting **list = arena_array(a, c->settings.n, sizeof(void *));
    size_t at = 0, n = 0;
    struct map_entry *entry;
    while (map_next(&c->settings, &at, &entry))
        list[n++] = entry->value;
    qsort(list, n, sizeof(void *), setting_order);
    *ret = list;
    return n;
}
