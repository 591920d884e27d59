/* postconf(1): main.cf and master.cf, shown and changed; what this build supports; bounce templates. Shows also what is
 * wrong with the files: values are not converted here. */
#include "cmd/postconf.h"
#include "conf/lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- which options go together --- */

/* What to do: one of these, p when none is given. Here and below in the order in which messages name options. */
static const struct str modes = STR_INIT("aAbFlmMpPtT");

/* How to do it: at most one of each group. */
static const struct str groups[] = {
    STR_INIT("denX#"), STR_INIT("efjX#"), STR_INIT("exX#"), STR_INIT("deoX#"), STR_INIT("ehHjX#"),
};

/* What each mode does not take. */
static const struct str refused[] = {
    STR_INIT("adefhHjnoxX#"), STR_INIT("AdefhHjnoxX#"), STR_INIT("bdefhHjnoxX#"), STR_INIT("ldefhHjnoxX#"),
    STR_INIT("mdefhHjnoxX#"), STR_INIT("tdefhHjnoxX#"), STR_INIT("TdefhHjnoxX#"), STR_INIT("MdhHn"),
    STR_INIT("FdnX#"),        STR_INIT("Pdn#"),
};

struct options {
    char seen[128]; /* by letter */
};

/* Those of `set` that were given: "-d -n". */
static size_t given(const struct options *o, struct str set, struct arena *a, struct str *ret) {
    size_t n = 0;
    *ret = STR("");
    for (size_t i = 0; i < set.n; i++) {
        if (!o->seen[(unsigned char)set.p[i]])
            continue;
        *ret = arena_printf(a, "%.*s -%c", STR_ARG(*ret), set.p[i]);
        n++;
    }
    return n;
}

static void check_conflicts(const struct options *o, char mode, struct arena *a) {
    struct str list;
    if (o->seen['b'] && o->seen['t'])
        fail(STR("specify one of -b and -t"));
    if (given(o, modes, a, &list) > 1)
        fail(arena_cat(a, STR("specify one of"), list));
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        if (given(o, groups[i], a, &list) > 1)
            fail(arena_cat(a, STR("specify one of"), list));
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (refused[i].p[0] == mode && given(o, str_from(refused[i], 1), a, &list))
            fail(arena_printf(a, "with option -%c, do not specify%.*s", mode, STR_ARG(list)));
}

/* --- reading options --- */

static _Noreturn void usage(void) {
    fail(STR("usage: postconf [-a (server SASL types)] [-A (client SASL types)] [-b (bounce templates, expanded)] "
             "[-c config_dir] [-C class,... (parameter classes)] [-d (parameter defaults)] [-e (edit)] "
             "[-f (fold lines)] [-F (master.cf fields)] [-h (no names)] [-H (no values)] [-j (JSON)] "
             "[-l (lock methods)] [-m (table types)] [-M (master.cf)] [-n (settings in main.cf)] "
             "[-o name=value (override parameter value)] [-p (main.cf, default)] [-P (master.cf parameters)] "
             "[-q (no warnings for deprecated or unused parameters)] [-t (bounce templates)] "
             "[-T compile-version|run-version|public-key-algorithms] [-v (verbose)] [-x (expand parameter values)] "
             "[-X (remove)] [-# (comment out)] [name...]"));
}

static void add_override(struct request *r, const char *text) {
    struct str name, value;
    const char *wrong = assignment_split(str_c(text), &name, &value);
    if (wrong)
        fail(arena_printf(r->arena, "invalid parameter override: %s: %s", text, wrong));
    *vec_add(r->arena, &r->overrides) = (struct conf_override){ arena_str(r->arena, name), arena_str(r->arena, value) };
}

static unsigned read_classes(const char *text, struct arena *a) {
    static const struct {
        struct str name;
        unsigned class;
    } rows[] = {
        { STR_INIT("builtin"), CLASS_BUILTIN },
        { STR_INIT("service"), CLASS_SERVICE },
        { STR_INIT("user"), CLASS_USER },
        { STR_INIT("all"), CLASS_ALL },
    };
    struct str rest = str_c(text), word;
    unsigned classes = 0;
    while (str_word(&rest, STR_COMMA_SPACE, &word)) {
        size_t i = 0;
        while (i < sizeof rows / sizeof rows[0] && !str_eq_icase(rows[i].name, word))
            i++;
        if (i == sizeof rows / sizeof rows[0])
            fail(arena_printf(a, "unknown -C option value \"%.*s\" in \"%s\"", STR_ARG(word), text));
        classes |= rows[i].class;
    }
    return classes;
}

static void read_options(struct request *r, int argc, char **argv) {
    struct options o = { { 0 } };
    struct str mode;
    for (int c; (c = getopt(argc, argv, "+aAbc:C:deEfFhHjlmMno:pPqtT:vxX#")) != -1;) {
        switch (c) {
        case 'c':
            r->directory = str_c(optarg);
            break;
        case 'C':
            r->classes = read_classes(optarg, r->arena);
            break;
        case 'o':
            add_override(r, optarg);
            break;
        case 'T':
            r->tls_question = optarg;
            break;
        case 'E': /* Postfix knows the letter, and nothing to do for it */
        case '?':
            usage();
        }
        o.seen[c] = 1;
    }
    r->args = argv + optind;
    r->mode = given(&o, modes, r->arena, &mode) ? mode.p[2] : 'p';
    if (str_index(STR("pMFP"), r->mode) >= 0 && *r->args && strchr(*r->args, '='))
        o.seen['e'] = 1;
    check_conflicts(&o, r->mode, r->arena);
    r->edit = o.seen['e'] ? EDIT_SET : o.seen['X'] ? EDIT_REMOVE : o.seen['#'] ? EDIT_COMMENT : (enum edit_kind)0;
    r->defaults = o.seen['d'];
    r->only_set = o.seen['n'];
    r->fold = o.seen['f'];
    r->no_names = o.seen['h'];
    r->no_values = o.seen['H'];
    r->json = o.seen['j'];
    r->quiet = o.seen['q'];
    r->verbose = o.seen['v'];
    r->expand = o.seen['x'];
}

/* --- reading the files --- */

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
        e = conf_at_setting(l->conf, list[i]->name, e);
        warn(e->text);
        if (!postconf_is_unused(l, list[i]->name))
            fail(STR("macro processing error"));
    }
}

static void read_services(struct listing *l) {
    const struct request *r = l->request;
    struct str path = arena_printf(l->arena, "%.*s/master.cf", STR_ARG(r->directory)), text;
    if (r->verbose)
        note(arena_cat(l->arena, STR("reading "), path));
    error e = conf_read_file(path, l->arena, &text);
    if (e && r->mode != 'p')
        fail(e->text);
    if (e) {
        warn(e->text);
        return;
    }
    e = master_text_parse(text, path, l->arena, &l->text);
    for (size_t i = 0; i < l->text.warnings.n; i++)
        warn(l->text.warnings.at[i]);
    must(e);
    master_text_services(&l->text, l->arena, &l->services);
}

static void read_configuration(struct listing *l) {
    const struct request *r = l->request;
    struct conf_source source;
    postconf_directory_source(r, &source);
    if (r->verbose && !r->defaults)
        note(arena_printf(l->arena, "reading %.*s/main.cf", STR_ARG(r->directory)));
    if (r->defaults)
        l->conf = conf_open_defaults(&source);
    else
        must(conf_open(&source, l->arena, &l->conf));
    const struct str *warnings;
    size_t n = conf_warnings(l->conf, &warnings);
    for (size_t i = 0; i < n; i++)
        warn(warnings[i]);
    read_services(l);
    if (!r->defaults)
        l->finding_count = conf_review(l->conf, &l->services, l->arena, &l->findings);
    warn_findings(l, FINDING_COMMENT, false);
    warn_findings(l, FINDING_UNDEFINED, false);
    if (!r->defaults) {
        check_settings(l);
        postconf_check_databases(l);
    }
}

static void show(const struct request *r) {
    struct listing l = { .request = r, .arena = r->arena };
    read_configuration(&l);
    if (r->mode == 'p')
        postconf_show_parameters(&l);
    else
        postconf_show_services(&l);
    fflush(stdout);
    if (!r->quiet) {
        warn_findings(&l, FINDING_DEPRECATED, r->mode != 'p');
        warn_findings(&l, FINDING_UNUSED, r->mode != 'p');
    }
    conf_free(l.conf);
}

int main(int argc, char **argv) {
    struct request r = { .arena = arena_new(), .directory = STR(""), .classes = CLASS_ALL };
    struct conf_source source;
    postconf_set_program(argc ? argv[0] : "postconf");
    read_options(&r, argc, argv);
    postconf_directory_source(&r, &source);
    r.directory = conf_source_directory(&source);
    if (r.mode == 'b' || r.mode == 't')
        postconf_templates(&r);
    else if (str_index(STR("aAlmT"), r.mode) >= 0)
        postconf_list(&r);
    else if (r.edit)
        postconf_edit(&r);
    else
        show(&r);
    if (ferror(stdout) || fflush(stdout) != 0)
        fail(arena_printf(r.arena, "write: %s", strerror(errno)));
    arena_free(r.arena);
    return 0;
}
