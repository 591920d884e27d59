/* The files of mysql:/path and its like that main.cf and master.cf name: what is in them, and what is not. */
#include "base/map.h"
#include "cmd/postconf.h"
#include "conf/database_types.h"
#include "conf/lines.h"
#include "conf/main_cf.h"

struct scan {
    const struct listing *listing;
    struct map seen; /* "mysql:/path" */
};

static void check_settings(const struct listing *l, const struct database_type *type, struct str path,
                           const struct main_cf *file) {
    struct map last = { 0 }; /* of several for one name the last one counts */
    for (size_t i = 0; i < file->settings.n; i++) {
        struct setting *s = &file->settings.at[i];
        struct setting *earlier = map_put(&last, s->name, s);
        if (!earlier)
            continue;
        warn(arena_printf(l->arena, "%.*s, line %zu: overriding earlier entry: %.*s", STR_ARG(path), s->line,
                          STR_ARG(s->name)));
    }
    for (size_t i = 0; i < file->settings.n && !l->request->quiet; i++) {
        const struct setting *s = &file->settings.at[i];
        if (map_get(&last, s->name) == s && !database_has_setting(type, s->name))
            warn(arena_printf(l->arena, "%.*s%.*s: unused parameter: %.*s=%.*s", STR_ARG(type->prefix), STR_ARG(path),
                              STR_ARG(s->name), STR_ARG(conf_excerpt(s->value, l->arena))));
    }
    map_free(&last);
}

static void check_file(const struct listing *l, const struct database_type *type, struct str path) {
    struct arena *a = arena_new();
    struct str text;
    struct main_cf file;
    error e = conf_read_file(path, a, &text);
    if (e) {
        struct str name = str_sub(type->prefix, 0, type->prefix.n - 1);
        struct str open = arena_printf(a, "open %.*s: ", STR_ARG(path));
        struct str why = str_starts(e->text, open) ? str_from(e->text, open.n) : e->text;
        warn(arena_printf(l->arena, "open \"%.*s\" configuration \"%.*s\": %.*s", STR_ARG(name), STR_ARG(path),
                          STR_ARG(why)));
    } else {
        must(main_cf_parse(text, path, a, &file));
        for (size_t i = 0; i < file.warnings.n; i++)
            warn(file.warnings.at[i]);
        check_settings(l, type, path, &file);
    }
    arena_free(a);
}

static void check_value(struct scan *scan, struct str value) {
    struct str word, path;
    while (str_word(&value, STR_DATABASE_BREAKS, &word)) {
        const struct database_type *type = database_split(word, &path);
        if (!type || path.p[0] != '/')
            continue;
        struct str key = arena_cat(scan->listing->arena, type->prefix, path);
        if (!map_put(&scan->seen, key, scan))
            check_file(scan->listing, type, path);
    }
}

void postconf_check_databases(const struct listing *l) {
    struct scan scan = { .listing = l };
    const struct setting **list;
    struct str value;
    size_t n = conf_settings(l->conf, l->arena, &list);
    for (size_t i = 0; i < n; i++)
        if (!postconf_is_unused(l, list[i]->name) && !conf_expand(l->conf, list[i]->value, l->arena, &value))
            check_value(&scan, value);
    for (size_t i = 0; i < l->text.services.n; i++) {
        const struct service_text *s = &l->text.services.at[i];
        for (size_t j = 0; j < s->args.n; j++)
            if (s->args.at[j].is_setting && !postconf_expand_arg(l, s, &s->args.at[j], &value))
                check_value(&scan, value);
    }
    map_free(&scan.seen);
}
