/* master.cf shown: -M entries, -F fields, -P settings (-o). */
#include "cmd/postconf.h"
#include "conf/expand.h"

#include <stdio.h>
#include <stdlib.h>

struct asked {
    char *text;
    struct service_pattern pattern;
    bool matched;
};

struct view {
    const struct listing *listing;
    enum master_scope scope;
    struct asked *asked; /* one that matches all when no argument is given */
    size_t asked_count;
};

/* --- values: $name is the setting of the service, then its own two names, then main.cf --- */

struct scope {
    const struct listing *listing;
    const struct service_text *service;
};

static bool look_up(void *ctx, struct str name, struct expand_value *ret) {
    const struct scope *s = ctx;
    enum param p;
    *ret = (struct expand_value){ STR(""), param_find(name, &p) && param_row(p)->type == TYPE_RAW };
    for (size_t i = s->service->args.n; i-- > 0;) {
        if (!s->service->args.at[i].is_setting || !str_eq(s->service->args.at[i].name, name))
            continue;
        ret->text = s->service->args.at[i].value;
        return true;
    }
    if (str_eq(name, STR("service_name")) || str_eq(name, STR("process_name"))) {
        ret->text = s->service->field[name.p[0] == 's' ? SERVICE_NAME : SERVICE_COMMAND];
        return true;
    }
    return conf_raw(s->listing->conf, name, s->listing->arena, &ret->text);
}

error postconf_expand_arg(const struct listing *l, const struct service_text *s, const struct service_arg *arg,
                          struct str *ret) {
    enum param p;
    struct scope scope = { l, s };
    *ret = arg->value;
    if (param_find(arg->name, &p) && param_row(p)->type == TYPE_RAW)
        return NULL;
    return expand(arg->value, look_up, &scope, l->arena, ret);
}

static struct str value_of(const struct listing *l, const struct service_text *s, const struct service_arg *arg) {
    struct str text = arg->value;
    error e = l->request->expand ? postconf_expand_arg(l, s, arg, &text) : NULL;
    if (e) {
        warn(e->text);
        fail(STR("macro processing error"));
    }
    return text;
}

/* The entry as it is to be shown. */
static struct service_text shown_service(const struct listing *l, const struct service_text *s) {
    struct service_text copy = *s;
    copy.args.at = arena_array(l->arena, s->args.n, sizeof s->args.at[0]);
    copy.args.room = s->args.n;
    for (size_t i = 0; i < s->args.n; i++) {
        copy.args.at[i] = s->args.at[i];
        if (s->args.at[i].name.n)
            copy.args.at[i].value = value_of(l, s, &s->args.at[i]);
    }
    return copy;
}

static struct str command_text(const struct listing *l, const struct service_text *s, bool fold, size_t column) {
    struct buf b = { 0 };
    service_command_format(&b, s, fold, column);
    struct str text = arena_str(l->arena, buf_str(&b));
    buf_free(&b);
    return text;
}

/* --- one service --- */

static void show_service(const struct listing *l, const struct service_text *service) {
    struct service_text s = shown_service(l, service);
    if (l->request->json) {
        struct str members[2 * SERVICE_FIELDS];
        for (int i = 0; i < SERVICE_FIELDS; i++) {
            members[2 * i] = service_field_name((enum service_field)i);
            members[2 * i + 1] = i == SERVICE_COMMAND ? command_text(l, &s, false, 0) : s.field[i];
        }
        print_json(members, sizeof members / sizeof members[0]);
        return;
    }
    struct buf b = { 0 };
    service_text_format(&b, &s, l->request->fold);
    printf("%.*s\n", STR_ARG(buf_str(&b)));
    buf_free(&b);
}

static void show_part(const struct listing *l, const struct service_text *s, const char *what, struct str name,
                      struct str value) {
    const struct str members[] = { STR("service"), s->field[SERVICE_NAME],
                                   STR("type"),    s->field[SERVICE_TYPE],
                                   str_c(what),    name,
                                   STR("value"),   value };
    struct str label = arena_printf(l->arena, "%.*s/%.*s/%.*s", STR_ARG(s->field[SERVICE_NAME]),
                                    STR_ARG(s->field[SERVICE_TYPE]), STR_ARG(name));
    if (l->request->json)
        print_json(members, sizeof members / sizeof members[0]);
    else
        print_value(l->request, label, value);
}

static void show_field(const struct listing *l, const struct service_text *service, enum service_field field) {
    if (field != SERVICE_COMMAND) {
        show_part(l, service, "field", service_field_name(field), service->field[field]);
        return;
    }
    struct service_text s = shown_service(l, service);
    if (l->request->json || l->request->no_values) {
        show_part(l, service, "field", service_field_name(field), command_text(l, &s, false, 0));
        return;
    }
    struct str label = STR("");
    if (!l->request->no_names)
        label = arena_printf(l->arena, "%.*s/%.*s/command = ", STR_ARG(s.field[SERVICE_NAME]),
                             STR_ARG(s.field[SERVICE_TYPE]));
    struct str text = command_text(l, &s, l->request->fold, label.n);
    printf("%.*s%.*s\n", STR_ARG(label), STR_ARG(text));
}

static int arg_order(const void *a, const void *b) {
    const struct service_arg *const *x = a, *const *y = b;
    int c = str_cmp((*x)->name, (*y)->name);
    return c ? c : *x < *y ? -1 : *x > *y; /* the later one in the file last */
}

/* The settings by name, of several for one name the last. */
static size_t sorted_settings(const struct listing *l, const struct service_text *s, const struct service_arg ***ret) {
    const struct service_arg **list = arena_array(l->arena, s->args.n, sizeof(void *));
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < s->args.n; i++)
        if (s->args.at[i].name.n)
            list[n++] = &s->args.at[i];
    qsort(list, n, sizeof(void *), arg_order);
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || !str_eq(list[i]->name, list[i + 1]->name))
            list[kept++] = list[i];
    *ret = list;
    return kept;
}

/* --- what is asked for --- */

static void show(struct view *v, const struct service_text *s) {
    const struct listing *l = v->listing;
    const struct service_arg **settings = NULL;
    size_t parts = v->scope == MASTER_SERVICES ? 1 : SERVICE_FIELDS;
    if (v->scope == MASTER_PARAMETERS)
        parts = sorted_settings(l, s, &settings);
    for (size_t part = 0; part < parts; part++) {
        struct str name = STR("");
        if (v->scope != MASTER_SERVICES)
            name = settings ? settings[part]->name : service_field_name((enum service_field)part);
        for (size_t i = 0; i < v->asked_count; i++) {
            struct asked *asked = &v->asked[i];
            if (!service_pattern_matches(&asked->pattern, s) || !pattern_part_matches(asked->pattern.part, name))
                continue;
            asked->matched = true;
            if (v->scope == MASTER_SERVICES)
                show_service(l, s);
            else if (settings)
                show_part(l, s, "parameter", name, value_of(l, s, settings[part]));
            else
                show_field(l, s, (enum service_field)part);
        }
    }
}

static void read_arguments(struct view *v) {
    static const char *const usage[] = {
        [MASTER_SERVICES] = "-M option requires service_name[/type]",
        [MASTER_FIELDS] = "-F option requires service_name[/type[/field]]",
        [MASTER_PARAMETERS] = "-P option requires service_name[/type[/parameter]]",
    };
    char **args = v->listing->request->args;
    while (args[v->asked_count])
        v->asked_count++;
    v->asked = arena_array(v->listing->arena, v->asked_count + 1, sizeof *v->asked);
    for (size_t i = 0; i < v->asked_count; i++) {
        struct asked *asked = &v->asked[i];
        enum service_field field;
        asked->text = args[i];
        if (!service_pattern_parse(v->scope, str_c(args[i]), &asked->pattern))
            fail(str_c(usage[v->scope]));
        if (v->scope == MASTER_FIELDS && asked->pattern.parts == 3 && !str_eq(asked->pattern.part, STR("*")) &&
            !service_field_find(asked->pattern.part, &field))
            fail(arena_printf(v->listing->arena, "invalid service attribute name: \"%.*s\"",
                              STR_ARG(asked->pattern.part)));
    }
    if (!v->asked_count) {
        v->asked_count = 1;
        v->asked[0] = (struct asked){ .pattern = { STR("*"), STR("*"), STR("*"), 0 }, .matched = true };
    }
}

void postconf_show_services(struct listing *l) {
    char mode = l->request->mode;
    struct view v = { .listing = l,
                      .scope = mode == 'M'   ? MASTER_SERVICES
                               : mode == 'F' ? MASTER_FIELDS
                                             : MASTER_PARAMETERS };
    read_arguments(&v);
    for (size_t i = 0; i < l->text.services.n; i++)
        show(&v, &l->text.services.at[i]);
    for (size_t i = 0; i < v.asked_count; i++)
        if (!v.asked[i].matched)
            warn(arena_printf(l->arena, "unmatched request: \"%s\"", v.asked[i].text));
}
