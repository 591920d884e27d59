/* postconf(1): the parameters of main.cf, their values and their defaults. Shows also what is wrong with them: values
 * are not converted here. */
#include "base/buf.h"
#include "base/die.h"
#include "build_config.h"
#include "conf/lines.h"
#include "conf/review.h"
#include "conf/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LINE_WIDTH = 80 }; /* -f */

struct request {
    bool defaults, only_set, no_names, no_values, expand, fold, quiet, verbose;
    struct str directory; /* -c; empty: the usual one */
    VEC(struct conf_override) overrides;
    char **names; /* NULL-terminated */
};

/* One parameter to print. */
struct item {
    struct str name;
    const struct service_row *service; /* <service><suffix>: its row */
    struct str service_name;
};

struct listing {
    const struct request *request;
    struct arena *arena;
    struct conf *conf;
    struct master_cf services;
    const struct finding *findings;
    size_t finding_count;
    VEC(struct item) items;
};

static const char *program;

static void warn(struct str text) {
    fflush(stdout);
    fprintf(stderr, "%s: warning: %.*s\n", program, STR_ARG(text));
}

static _Noreturn void fail(struct str text) {
    fflush(stdout);
    fprintf(stderr, "%s: fatal: %.*s\n", program, STR_ARG(text));
    exit(1);
}

static void must(error e) {
    if (e)
        fail(e->text);
}

/* --- what there is --- */

static bool is_unused(const struct listing *l, struct str name) {
    for (size_t i = 0; i < l->finding_count; i++)
        if (l->findings[i].kind == FINDING_UNUSED && str_eq(l->findings[i].name, name))
            return true;
    return false;
}

/* A row that a service of master.cf has: "relay_destination_recipient_limit". */
static bool find_service_row(const struct listing *l, struct str name, struct item *ret) {
    struct str service;
    const struct service_row *row = service_name_find(name, &service);
    for (size_t i = 0; row && i < l->services.count; i++) {
        const struct master_entry *entry = &l->services.entries[i];
        if (!str_eq(entry->name, service) || !service_uses(entry->command, row->users))
            continue;
        *ret = (struct item){ name, row, service };
        return true;
    }
    return false;
}

/* Any name that may be asked for. */
static bool find_item(const struct listing *l, struct str name, struct item *ret) {
    enum param p;
    const struct legacy_row *legacy = legacy_find(name);
    *ret = (struct item){ .name = name };
    if (param_find(name, &p) || (legacy && legacy->kind == LEGACY_RENAMED))
        return true;
    if (find_service_row(l, name, ret))
        return true;
    return !l->request->defaults && conf_setting(l->conf, name) && !is_unused(l, name);
}

static int item_order(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    return str_cmp(x->name, y->name);
}

static void add_item(struct listing *l, struct item item) {
    *vec_add(l->arena, &l->items) = item;
}

static void collect_set(struct listing *l) {
    const struct setting **list;
    size_t n = conf_settings(l->conf, l->arena, &list);
    for (size_t i = 0; i < n; i++) {
        struct item item;
        if (find_item(l, list[i]->name, &item))
            add_item(l, item);
    }
}

static void collect_all(struct listing *l) {
    for (int p = 0; p < PARAM_COUNT; p++)
        add_item(l, (struct item){ .name = param_row((enum param)p)->name });
    const struct service_row *rows;
    size_t count = service_rows(&rows);
    for (size_t i = 0; i < l->services.count; i++)
        for (size_t j = 0; j < count; j++)
            if (service_uses(l->services.entries[i].command, rows[j].users))
                add_item(l, (struct item){ arena_cat(l->arena, l->services.entries[i].name, rows[j].row.name), &rows[j],
                                           l->services.entries[i].name });
    if (!l->request->defaults)
        collect_set(l);
    qsort(l->items.at, l->items.n, sizeof l->items.at[0], item_order);
    size_t kept = 0; /* the set ones are there twice, and so are services of two types with one name */
    for (size_t i = 0; i < l->items.n; i++)
        if (!kept || !str_eq(l->items.at[kept - 1].name, l->items.at[i].name))
            l->items.at[kept++] = l->items.at[i];
    l->items.n = kept;
}

static void collect_named(struct listing *l) {
    for (char **name = l->request->names; *name; name++) {
        struct item item;
        if (!find_item(l, str_c(*name), &item))
            warn(arena_printf(l->arena, "%s: unknown parameter", *name));
        else if (!l->request->only_set || conf_setting(l->conf, item.name))
            add_item(l, item);
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

/* "name = value", white space in the value as single blanks; with -f broken before the word that would not fit. */
static void print_item(const struct listing *l, const struct item *item) {
    if (l->request->no_values) {
        printf("%.*s\n", STR_ARG(item->name));
        return;
    }
    struct str rest = shown_value(l, item), word;
    size_t column = 0;
    if (!l->request->no_names) {
        printf("%.*s =", STR_ARG(item->name));
        column = item->name.n + 2;
    }
    while (str_word(&rest, STR_SPACE, &word)) {
        if (column && l->request->fold && column + 1 + word.n > LINE_WIDTH) {
            printf("\n    %.*s", STR_ARG(word));
            column = 4 + word.n;
            continue;
        }
        printf("%s%.*s", column ? " " : "", STR_ARG(word));
        column += (column ? 1 : 0) + word.n;
    }
    putchar('\n');
}

/* --- reading --- */

static void warn_findings(const struct listing *l, enum finding_kind kind) {
    for (size_t i = 0; i < l->finding_count; i++)
        if (l->findings[i].kind == kind)
            warn(l->findings[i].text);
}

/* A setting that cannot be expanded ends the program, as in Postfix, even when nobody asked for it; an unused one
 * does no harm. */
static void check_settings(const struct listing *l) {
    const struct setting **list;
    size_t n = conf_settings(l->conf, l->arena, &list);
    for (size_t i = 0; i < n; i++) {
        struct str ignored;
        enum param p;
        if (param_find(list[i]->name, &p) && param_row(p)->type == TYPE_RAW)
            continue;
        error e = conf_expand(l->conf, list[i]->value, l->arena, &ignored);
        if (!e)
            continue;
        warn(e->text);
        if (!is_unused(l, list[i]->name))
            fail(STR("macro processing error"));
    }
}

static void read_services(struct listing *l, struct str directory) {
    struct str path = arena_printf(l->arena, "%.*s/master.cf", STR_ARG(directory)), text;
    if (l->request->verbose)
        fprintf(stderr, "%s: reading %.*s\n", program, STR_ARG(path));
    error e = conf_read_file(path, l->arena, &text);
    if (e) {
        warn(e->text);
        return;
    }
    /* the defaults of columns do not matter here */
    must(master_cf_parse(text, path, false, 0, l->arena, &l->services));
    for (size_t i = 0; i < l->services.warning_count; i++)
        warn(l->services.warnings[i]);
}

static void read_configuration(struct listing *l) {
    const struct request *r = l->request;
    struct conf_source source = { .config_directory = r->directory,
                                  .overrides = r->overrides.at,
                                  .override_count = r->overrides.n,
                                  .process_name = STR("postconf") };
    struct str directory = conf_source_directory(&source);
    if (r->verbose && !r->defaults)
        fprintf(stderr, "%s: reading %.*s/main.cf\n", program, STR_ARG(directory));
    if (r->defaults)
        l->conf = conf_open_defaults(&source);
    else
        must(conf_open(&source, l->arena, &l->conf));
    const struct str *warnings;
    size_t n = conf_warnings(l->conf, &warnings);
    for (size_t i = 0; i < n; i++)
        warn(warnings[i]);
    read_services(l, directory);
    if (!r->defaults)
        l->finding_count = conf_review(l->conf, &l->services, l->arena, &l->findings);
    warn_findings(l, FINDING_COMMENT);
    warn_findings(l, FINDING_UNDEFINED);
    if (!r->defaults)
        check_settings(l);
}

/* --- options --- */

/* Of the manual, and not here yet; "-e" also as name=value without an option. */
static const struct str later = STR_INIT("aAbCeFjlmMPtTX#");

static _Noreturn void usage(void) {
    fprintf(stderr,
            "%s: fatal: usage: %s [-c config_dir] [-d (parameter defaults)] [-f (fold lines)] [-h (no names)] "
            "[-H (no values)] [-n (non-default parameters)] [-o name=value (override parameter value)] "
            "[-p (main.cf, default)] [-q (no warnings for deprecated or unused parameters)] [-v (verbose)] "
            "[-x (expand parameter values)] [name...]\n",
            program, program);
    exit(1);
}

static void add_override(struct request *r, struct arena *a, const char *text) {
    struct str name, value;
    const char *wrong = assignment_split(str_c(text), &name, &value);
    if (wrong)
        fail(arena_printf(a, "invalid parameter override: %s: %s", text, wrong));
    *vec_add(a, &r->overrides) = (struct conf_override){ arena_str(a, name), arena_str(a, value) };
}

static void read_options(struct request *r, struct arena *a, int argc, char **argv) {
    for (int c; (c = getopt(argc, argv, "aAbc:C:deEfFhHjlmMno:pPqtT:vxX#")) != -1;) {
        switch (c) {
        case 'c':
            r->directory = str_c(optarg);
            break;
        case 'd':
            r->defaults = true;
            break;
        case 'f':
            r->fold = true;
            break;
        case 'h':
            r->no_names = true;
            break;
        case 'H':
            r->no_values = true;
            break;
        case 'n':
            r->only_set = true;
            break;
        case 'o':
            add_override(r, a, optarg);
            break;
        case 'p':
            break; /* what it does anyway */
        case 'q':
            r->quiet = true;
            break;
        case 'v':
            r->verbose = true;
            break;
        case 'x':
            r->expand = true;
            break;
        default:
            if (c != '?' && str_index(later, (char)c) >= 0)
                fail(arena_printf(a, "option -%c is not supported yet", c));
            usage();
        }
    }
    r->names = argv + optind;
    if (r->defaults && r->only_set)
        fail(STR("specify one of -d -n"));
    if (r->defaults && r->overrides.n)
        fail(STR("specify one of -d -o"));
    if (r->no_names && r->no_values)
        fail(STR("specify one of -h -H"));
    for (char **name = r->names; *name; name++)
        if (strchr(*name, '='))
            fail(arena_printf(a, "option -e is not supported yet: \"%s\"", *name));
}

int main(int argc, char **argv) {
    struct arena *a = arena_new();
    struct request r = { .directory = STR("") };
    program = argc ? argv[0] : "postconf";
    read_options(&r, a, argc, argv);
    struct listing l = { .request = &r, .arena = a };
    read_configuration(&l);
    if (*r.names)
        collect_named(&l);
    else if (r.only_set)
        collect_set(&l);
    else
        collect_all(&l);
    for (size_t i = 0; i < l.items.n; i++)
        print_item(&l, &l.items.at[i]);
    if (fflush(stdout) != 0)
        fail(arena_printf(a, "write: %s", strerror(errno)));
    if (!r.quiet) {
        warn_findings(&l, FINDING_DEPRECATED);
        warn_findings(&l, FINDING_UNUSED);
    }
    conf_free(l.conf);
    arena_free(a);
    return 0;
}
