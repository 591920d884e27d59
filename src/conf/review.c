#include "conf/review.h"
#include "conf/database_types.h"
#include "conf/lines.h"
#include "conf/private.h"
#include "conf/settings.h"
#include "conf/suggest.h"

#include <stdlib.h>

/* A `type:name` that some value mentions. */
struct database {
    struct str name;
    const struct database_type *type;
};

/* One setting with the file it is in. */
struct subject {
    const struct setting *setting;
    struct str path;
};

struct review {
    const struct conf *conf;
    const struct master_cf *services;
    struct arena *arena;
    VEC(struct subject) subjects;
    VEC(struct database) databases;
    struct map defined;  /* names that main.cf or a -o of master.cf sets */
    struct map referred; /* names that some value refers to, or that are restriction classes */
    struct map classes;  /* restriction classes */
    struct map reported; /* undefined names, with the file: once is enough */
    VEC(struct finding) found;
};

static void add_finding(struct review *r, enum finding_kind kind, struct str name, struct str text) {
    *vec_add(r->arena, &r->found) = (struct finding){ kind, name, text };
}

/* --- what there is --- */

/* The next $name, ${name or $(name in `*text`, also within conditionals. */
static bool next_reference(struct str *text, struct str *ret) {
    for (size_t i = 0; i + 1 < text->n; i++) {
        if (text->p[i] != '$')
            continue;
        if (text->p[i + 1] == '$') {
            i++;
            continue;
        }
        size_t from = i + 1;
        if (text->p[from] == '{' || text->p[from] == '(') {
            from++;
            while (from < text->n && byte_is_space(text->p[from]))
                from++;
        }
        size_t end = from;
        while (end < text->n && (byte_is_alnum(text->p[end]) || text->p[end] == '_'))
            end++;
        if (end == from)
            continue;
        *ret = str_sub(*text, from, end - from);
        *text = str_from(*text, end);
        return true;
    }
    return false;
}

static void collect_references(struct review *r, struct str text) {
    struct str name;
    while (next_reference(&text, &name))
        map_put(&r->referred, name, r);
}

/* "ldap:accounts" in a value makes accounts_server_host and its like belong to somebody. */
static void collect_databases(struct review *r, struct str text) {
    struct str word;
    while (str_word(&text, STR_DATABASE_BREAKS, &word)) {
        struct str name;
        const struct database_type *type = database_split(word, &name);
        if (type && str_index(name, '/') < 0)
            *vec_add(r->arena, &r->databases) = (struct database){ name, type };
    }
}

static void collect_subjects(struct review *r) {
    const struct setting **list;
    size_t n = conf_settings(r->conf, r->arena, &list);
    for (size_t i = 0; i < n; i++)
        *vec_add(r->arena, &r->subjects) = (struct subject){ list[i], r->conf->path };
    struct str path = arena_printf(r->arena, "%.*s/master.cf", STR_ARG(r->conf->directory));
    for (size_t i = 0; r->services && i < r->services->count; i++) {
        const struct master_entry *entry = &r->services->entries[i];
        for (size_t j = 0; j < entry->override_count; j++) {
            struct setting *s = ARENA_NEW(r->arena, struct setting);
            *s = (struct setting){ entry->overrides[j].name, entry->overrides[j].value, entry->line };
            *vec_add(r->arena, &r->subjects) = (struct subject){ s, path };
        }
    }
}

/* --- whose a name is --- */

static bool belongs_to_database(const struct review *r, struct str name) {
    for (size_t i = 0; i < r->databases.n; i++) {
        const struct database *d = &r->databases.at[i];
        if (!str_starts(name, d->name) || name.n < d->name.n + 2 || name.p[d->name.n] != '_')
            continue;
        if (database_has_setting(d->type, str_from(name, d->name.n + 1)))
            return true;
    }
    return false;
}

static bool belongs_to_service(const struct review *r, struct str name) {
    struct str service;
    const struct service_row *row = service_name_find(name, &service);
    if (!row)
        return false;
    for (size_t i = 0; r->services && i < r->services->count; i++) {
        const struct master_entry *entry = &r->services->entries[i];
        if (str_eq(entry->name, service) && service_uses(entry->command, row->users))
            return true;
    }
    return r->services == NULL;
}

/* A parameter, under its name of today or an older one. */
static bool is_known(struct str name) {
    enum param p;
    const struct legacy_row *row = legacy_find(name);
    return param_find(name, &p) || (row && row->kind != LEGACY_ABSENT);
}

static bool is_raw(struct str name) {
    enum param p;
    return param_find(name, &p) && param_row(p)->type == TYPE_RAW;
}

/* --- what there is to say --- */

static void review_comment(struct review *r, const struct subject *s) {
    struct str rest = s->setting->value, word;
    bool first = true;
    while (str_word(&rest, STR_SPACE, &word)) {
        if (word.p[0] == '#' && !first) {
            enum { SHOWN = 20 };
            struct str after = str_trim_left(rest);
            add_finding(r, FINDING_COMMENT, s->setting->name,
                        arena_printf(r->arena, "%.*s: #comment after other text is not allowed: %.*s %.*s...",
                                     STR_ARG(s->path), STR_ARG(word), STR_ARG(str_sub(after, 0, SHOWN))));
            return;
        }
        first = false;
    }
}

/* One finding per name and file. */
static void check_defined(struct review *r, struct str path, struct str name) {
    struct str key = arena_printf(r->arena, "%.*s %.*s", STR_ARG(path), STR_ARG(name));
    if (is_known(name) || map_get(&r->defined, name) || belongs_to_service(r, name) || is_expand_function(name) ||
        map_put(&r->reported, key, r))
        return;
    add_finding(r, FINDING_UNDEFINED, name,
                arena_printf(r->arena, "%.*s: undefined parameter: %.*s", STR_ARG(path), STR_ARG(name)));
}

/* What a RAW value refers to is defined elsewhere. */
static void review_undefined(struct review *r, const struct subject *s) {
    struct str text = s->setting->value, name;
    while (!is_raw(s->setting->name) && next_reference(&text, &name))
        check_defined(r, s->path, name);
}

/* What to write instead. */
static struct str advice(struct review *r, const struct legacy_row *row) {
    if (!row->instead.n)
        return STR("do not specify");
    return str_starts(row->instead, STR("do not")) ? row->instead
                                                   : arena_printf(r->arena, "specify \"%.*s\"", STR_ARG(row->instead));
}

static void review_legacy(struct review *r, const struct subject *s) {
    const struct legacy_row *row = legacy_find(s->setting->name);
    if (!row || row->kind == LEGACY_ABSENT) /* nobody knows an absent one any more: it is unused */
        return;
    add_finding(r, FINDING_DEPRECATED, row->name,
                arena_printf(r->arena, "%.*s: support for parameter \"%.*s\" will be removed; instead, %.*s",
                             STR_ARG(s->path), STR_ARG(row->name), STR_ARG(advice(r, row))));
}

/* "check_client_access cidr:/x, reject_maps_rbl", also of a restriction class. */
static void review_restrictions(struct review *r, const struct subject *s) {
    struct str rest = s->setting->value, word;
    if (!str_ends(s->setting->name, STR("_restrictions")) && !map_get(&r->classes, s->setting->name))
        return;
    while (str_word(&rest, STR_COMMA_SPACE, &word)) {
        const struct legacy_row *row = legacy_restriction_find(word);
        if (row)
            add_finding(r, FINDING_DEPRECATED, s->setting->name,
                        arena_printf(r->arena, "%.*s: %.*s: support for restriction \"%.*s\" %s removed; instead, %.*s",
                                     STR_ARG(s->path), STR_ARG(s->setting->name), STR_ARG(word),
                                     row->kind == LEGACY_REMOVED ? "has been" : "will be", STR_ARG(advice(r, row))));
    }
}

static void review_unused(struct review *r, const struct subject *s) {
    struct str name = s->setting->name;
    if (is_known(name) || map_get(&r->referred, name) || belongs_to_service(r, name) || belongs_to_database(r, name))
        return;
    const struct legacy_row *legacy = legacy_find(name);
    struct str meant = legacy ? STR("") : suggest_param(name, r->arena), hint = STR("");
    if (legacy)
        hint = arena_printf(r->arena, "; instead, %.*s", STR_ARG(advice(r, legacy)));
    else if (meant.n && !str_eq(meant, name)) /* else: right but for the service, which there is not */
        hint = arena_printf(r->arena, " (did you mean %.*s?)", STR_ARG(meant));
    add_finding(r, FINDING_UNUSED, name,
                arena_printf(r->arena, "%.*s: unused parameter: %.*s=%.*s%.*s", STR_ARG(s->path), STR_ARG(name),
                             STR_ARG(conf_excerpt(s->setting->value, r->arena)), STR_ARG(hint)));
}

static void review_status(struct review *r, const struct subject *s) {
    enum param p;
    struct str service, name = s->setting->name;
    const struct param_row *row = NULL;
    const struct service_row *of_service;
    if (param_find(name, &p))
        row = param_row(p);
    else if ((of_service = service_name_find(name, &service)))
        row = &of_service->row;
    if (!row)
        return;
    if (row->status == STATUS_INERT)
        add_finding(r, FINDING_INERT, name,
                    arena_printf(r->arena, "%.*s: parameter %.*s has no effect: %.*s", STR_ARG(s->path), STR_ARG(name),
                                 STR_ARG(row->note)));
    if (row->status == STATUS_PENDING)
        add_finding(
            r, FINDING_PENDING, name,
            arena_printf(r->arena, "%.*s: parameter %.*s is not supported yet", STR_ARG(s->path), STR_ARG(name)));
}

static int finding_order(const void *a, const void *b) {
    const struct finding *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    int c = str_cmp(x->name, y->name);
    return c ? c : str_cmp(x->text, y->text);
}

size_t conf_review(const struct conf *c, const struct master_cf *services, struct arena *a,
                   const struct finding **ret) {
    struct review r = { .conf = c, .services = services, .arena = a };
    collect_subjects(&r);
    for (int p = 0; p < PARAM_COUNT; p++) /* parameters that exist only as somebody's default, such as virtual_maps */
        collect_references(&r, param_row((enum param)p)->fallback);
    for (size_t i = 0; i < r.subjects.n; i++) {
        map_put(&r.defined, r.subjects.at[i].setting->name, &r);
        collect_references(&r, r.subjects.at[i].setting->value);
        collect_databases(&r, r.subjects.at[i].setting->value);
    }
    struct str classes = STR(""), word;
    if (conf_lookup(c, STR("smtpd_restriction_classes"), a, &classes)) {
        while (str_word(&classes, STR_COMMA_SPACE, &word)) {
            map_put(&r.referred, word, &r);
            map_put(&r.classes, word, &r);
            check_defined(&r, c->path, word);
        }
    }
    for (size_t i = 0; i < r.subjects.n; i++) {
        review_comment(&r, &r.subjects.at[i]);
        review_undefined(&r, &r.subjects.at[i]);
        review_legacy(&r, &r.subjects.at[i]);
        review_restrictions(&r, &r.subjects.at[i]);
        review_unused(&r, &r.subjects.at[i]);
        review_status(&r, &r.subjects.at[i]);
    }
    map_free(&r.defined);
    map_free(&r.referred);
    map_free(&r.classes);
    map_free(&r.reported);
    if (r.found.n)
        qsort(r.found.at, r.found.n, sizeof r.found.at[0], finding_order);
    *ret = r.found.at;
    return r.found.n;
}
