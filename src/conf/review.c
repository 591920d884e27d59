#include "conf/review.h"
#include "conf/private.h"
#include "conf/settings.h"
#include "conf/suggest.h"

#include <stdlib.h>

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
    struct map referred; /* names that some value refers to, or that are restriction classes */
    VEC(struct finding) found;
};

static void add_finding(struct review *r, enum finding_kind kind, struct str name, struct str text) {
    *vec_add(r->arena, &r->found) = (struct finding){ kind, name, text };
}

/* Every $name, ${name and $(name in `text`, also within conditionals. */
static void collect_references(struct review *r, struct str text) {
    for (size_t i = 0; i + 1 < text.n; i++) {
        if (text.p[i] != '$')
            continue;
        if (text.p[i + 1] == '$') {
            i++;
            continue;
        }
        size_t from = i + 1;
        if (text.p[from] == '{' || text.p[from] == '(')
            from++;
        while (from < text.n && byte_is_space(text.p[from]))
            from++;
        size_t end = from;
        while (end < text.n && (byte_is_alnum(text.p[end]) || text.p[end] == '_'))
            end++;
        if (end > from)
            map_put(&r->referred, arena_str(r->arena, str_sub(text, from, end - from)), r);
    }
}

/* Table types whose old form `type:name` takes its settings from main.cf as <name>_<setting>. */
static const struct str database_types[] = { STR_INIT("ldap:"),   STR_INIT("mysql:"),    STR_INIT("pgsql:"),
                                             STR_INIT("sqlite:"), STR_INIT("memcache:"), STR_INIT("mongodb:") };

/* "ldap:accounts" in a value makes accounts_server_host and its like belong to somebody. */
static void collect_databases(struct review *r, struct str text, struct map *databases) {
    struct str word;
    while (str_word(&text, STR(", \t\r\n{}"), &word)) {
        if (str_starts(word, STR("proxy:")))
            word = str_from(word, 6);
        for (size_t i = 0; i < sizeof database_types / sizeof database_types[0]; i++) {
            if (!str_starts(word, database_types[i]))
                continue;
            struct str name = str_from(word, database_types[i].n);
            if (name.n && str_index(name, '/') < 0)
                map_put(databases, arena_str(r->arena, name), r);
        }
    }
}

static bool belongs_to_database(const struct map *databases, struct str name) {
    for (size_t i = 1; i + 1 < name.n; i++)
        if (name.p[i] == '_' && map_get(databases, str_sub(name, 0, i)))
            return true;
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

static void review_legacy(struct review *r, const struct subject *s) {
    const struct legacy_row *row = legacy_find(s->setting->name);
    if (!row)
        return;
    struct str instead =
        row->instead.n ? arena_printf(r->arena, "specify \"%.*s\"", STR_ARG(row->instead)) : STR("do not specify");
    if (row->kind == LEGACY_ABSENT)
        add_finding(r, FINDING_DEPRECATED, row->name,
                    arena_printf(r->arena, "%.*s: parameter \"%.*s\" has no effect; instead, %.*s", STR_ARG(s->path),
                                 STR_ARG(row->name), STR_ARG(instead)));
    else
        add_finding(r, FINDING_DEPRECATED, row->name,
                    arena_printf(r->arena, "%.*s: support for parameter \"%.*s\" will be removed; instead, %.*s",
                                 STR_ARG(s->path), STR_ARG(row->name), STR_ARG(instead)));
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
    if (row && row->status == STATUS_INERT)
        add_finding(r, FINDING_INERT, name,
                    arena_printf(r->arena, "%.*s: parameter %.*s has no effect: %.*s", STR_ARG(s->path), STR_ARG(name),
                                 STR_ARG(row->note)));
    if (row && row->status == STATUS_PENDING)
        add_finding(
            r, FINDING_PENDING, name,
            arena_printf(r->arena, "%.*s: parameter %.*s is not supported yet", STR_ARG(s->path), STR_ARG(name)));
}

static void review_unused(struct review *r, const struct subject *s, const struct map *databases) {
    enum param p;
    struct str name = s->setting->name;
    if (param_find(name, &p) || legacy_find(name) || map_get(&r->referred, name) || belongs_to_service(r, name) ||
        belongs_to_database(databases, name))
        return;
    struct str meant = suggest_param(name, r->arena);
    add_finding(r, FINDING_UNUSED, name,
                arena_printf(r->arena, "%.*s: unused parameter: %.*s=%.*s%s%.*s%s", STR_ARG(s->path), STR_ARG(name),
                             STR_ARG(s->setting->value), meant.n ? " (did you mean " : "", STR_ARG(meant),
                             meant.n ? "?)" : ""));
}

static int finding_order(const void *a, const void *b) {
    const struct finding *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    int c = str_cmp(x->name, y->name);
    return c ? c : str_cmp(x->text, y->text);
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

size_t conf_review(const struct conf *c, const struct master_cf *services, struct arena *a,
                   const struct finding **ret) {
    struct review r = { .conf = c, .services = services, .arena = a };
    struct map databases = { 0 };
    collect_subjects(&r);
    for (int p = 0; p < PARAM_COUNT; p++) /* parameters that exist only as somebody's default, such as virtual_maps */
        collect_references(&r, param_row((enum param)p)->fallback);
    for (size_t i = 0; i < r.subjects.n; i++) {
        collect_references(&r, r.subjects.at[i].setting->value);
        collect_databases(&r, r.subjects.at[i].setting->value, &databases);
    }
    struct str classes = STR(""), word;
    if (conf_lookup(c, STR("smtpd_restriction_classes"), a, &classes))
        while (str_word(&classes, STR_COMMA_SPACE, &word))
            map_put(&r.referred, word, &r);
    for (size_t i = 0; i < r.subjects.n; i++) {
        review_comment(&r, &r.subjects.at[i]);
        review_legacy(&r, &r.subjects.at[i]);
        review_status(&r, &r.subjects.at[i]);
        review_unused(&r, &r.subjects.at[i], &databases);
    }
    map_free(&r.referred);
    map_free(&databases);
    if (r.found.n)
        qsort(r.found.at, r.found.n, sizeof r.found.at[0], finding_order);
    *ret = r.found.at;
    return r.found.n;
}
