/* main.cf shown: which parameters, and what they are worth. */
#include "cmd/postconf.h"

#include <stdlib.h>

/* One parameter to print. */
struct item {
    struct str name;
    enum param_class class;
    const struct service_row *service; /* <service><suffix>: its row */
    struct str service_name;
};

struct choice {
    const struct listing *listing;
    VEC(struct item) items;
};

/* --- what there is --- */

/* A row that a service of master.cf has: "relay_destination_recipient_limit". */
static bool find_service_row(const struct listing *l, struct str name, struct item *ret) {
    struct str service;
    const struct service_row *row = service_name_find(name, &service);
    for (size_t i = 0; row && i < l->services.count; i++) {
        const struct master_entry *entry = &l->services.entries[i];
        if (!str_eq(entry->name, service) || !service_uses(entry->command, row->users))
            continue;
        *ret = (struct item){ name, CLASS_SERVICE, row, service };
        return true;
    }
    return false;
}

/* Any name that may be asked for. */
static bool find_item(const struct listing *l, struct str name, struct item *ret) {
    enum param p;
    const struct legacy_row *legacy = legacy_find(name);
    *ret = (struct item){ .name = name, .class = CLASS_BUILTIN };
    if (param_find(name, &p))
        return true;
    if (find_service_row(l, name, ret))
        return true;
    ret->class = CLASS_USER;
    if (legacy && legacy->kind == LEGACY_RENAMED)
        return true;
    return !l->request->defaults && conf_setting(l->conf, name) && !postconf_is_unused(l, name);
}

static int item_order(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    return str_cmp(x->name, y->name);
}

static void add_item(struct choice *c, struct item item) {
    *vec_add(c->listing->arena, &c->items) = item;
}

static void collect_set(struct choice *c) {
    const struct setting **list;
    size_t n = conf_settings(c->listing->conf, c->listing->arena, &list);
    for (size_t i = 0; i < n; i++) {
        struct item item;
        if (find_item(c->listing, list[i]->name, &item) && item.class & c->listing->request->classes)
            add_item(c, item);
    }
}

static void collect_services(struct choice *c) {
    const struct listing *l = c->listing;
    const struct service_row *rows;
    size_t count = service_rows(&rows);
    for (size_t i = 0; i < l->services.count; i++) {
        const struct master_entry *entry = &l->services.entries[i];
        for (size_t j = 0; j < count; j++)
            if (service_uses(entry->command, rows[j].users))
                add_item(c, (struct item){ arena_cat(l->arena, entry->name, rows[j].row.name), CLASS_SERVICE, &rows[j],
                                           entry->name });
    }
}

static void collect_all(struct choice *c) {
    if (c->listing->request->classes & CLASS_BUILTIN)
        for (int p = 0; p < PARAM_COUNT; p++)
            add_item(c, (struct item){ .name = param_row((enum param)p)->name, .class = CLASS_BUILTIN });
    if (c->listing->request->classes & CLASS_SERVICE)
        collect_services(c);
    if (!c->listing->request->defaults)
        collect_set(c);
    if (!c->items.n)
        return;
    qsort(c->items.at, c->items.n, sizeof c->items.at[0], item_order);
    size_t kept = 0; /* the set ones are there twice, and so are services of two types with one name */
    for (size_t i = 0; i < c->items.n; i++)
        if (!kept || !str_eq(c->items.at[kept - 1].name, c->items.at[i].name))
            c->items.at[kept++] = c->items.at[i];
    c->items.n = kept;
}

static void collect_named(struct choice *c) {
    const struct listing *l = c->listing;
    for (char **name = l->request->args; *name; name++) {
        struct item item;
        if (!find_item(l, str_c(*name), &item))
            warn(arena_printf(l->arena, "%s: unknown parameter", *name));
        else if (!l->request->only_set || conf_setting(l->conf, item.name))
            add_item(c, item);
    }
}

/* --- what it is worth --- */

static struct str raw_value(const struct listing *l, const struct item *item) {
    enum param p;
    struct str text = STR("");
    const struct setting *s = l->request->defaults ? NULL : conf_setting(l->conf, item->name);
    if (s)
        return s->value;
    if (param_find(item->name, &p))
        must(conf_raw_default(l->conf, p, l->arena, &text));
    else if (item->service)
        text = service_default(item->service_name, item->service);
    return text;
}

static struct str shown_value(const struct listing *l, const struct item *item) {
    enum param p;
    struct str text = raw_value(l, item);
    bool is_raw = param_find(item->name, &p) && param_row(p)->type == TYPE_RAW;
    if (l->request->expand && !is_raw) {
        error e = conf_expand(l->conf, text, l->arena, &text);
        if (e) {
            warn(e->text);
            fail(STR("macro processing error"));
        }
    }
    return text;
}

void postconf_show_parameters(struct listing *l) {
    struct choice c = { .listing = l };
    if (*l->request->args)
        collect_named(&c);
    else if (l->request->only_set)
        collect_set(&c);
    else
        collect_all(&c);
    for (size_t i = 0; i < c.items.n; i++) {
        struct str value = shown_value(l, &c.items.at[i]);
        const struct str members[] = { STR("name"), c.items.at[i].name, STR("value"), value };
        if (l->request->json)
            print_json(members, sizeof members / sizeof members[0]);
        else
            print_value(l->request, c.items.at[i].name, value);
    }
}
