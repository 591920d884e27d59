/* Bounce templates: -t as they are, -b with their $names expanded. */
#include "bounce/template.h"
#include "cmd/postconf.h"

#include <stdio.h>

/* A word that ends the text and is no line of it. */
static struct str end_marker(struct str text, struct arena *a) {
    struct str marker = STR("EOF");
    struct str lines = arena_printf(a, "\n%.*s", STR_ARG(text));
    for (int i = 1; str_contains(lines, arena_printf(a, "\n%.*s\n", STR_ARG(marker))); i++)
        marker = arena_printf(a, "EOF%d", i);
    return marker;
}

static void print_template(const struct bounce_template *t, struct arena *a) {
    struct str marker = end_marker(t->text, a);
    printf("%.*s_template = <<%.*s\nCharset: %.*s\nFrom: %.*s\nSubject: %.*s\n", STR_ARG(t->name), STR_ARG(marker),
           STR_ARG(t->charset), STR_ARG(t->from), STR_ARG(t->subject));
    if (t->postmaster_subject.n)
        printf("Postmaster-Subject: %.*s\n", STR_ARG(t->postmaster_subject));
    printf("\n%.*s%.*s\n", STR_ARG(t->text), STR_ARG(marker));
}

static void print_expanded(struct bounce_templates *t, enum template_kind kind, const struct conf *c, struct arena *a) {
    struct str text;
    must(bounce_template_expand(t, kind, c, a, &text));
    struct str marker = end_marker(text, a);
    printf("expanded_%.*s_text = <<%.*s\n%.*s%.*s\n", STR_ARG(t->at[kind].name), STR_ARG(marker), STR_ARG(text),
           STR_ARG(marker));
}

void postconf_templates(const struct request *r) {
    struct conf_source source;
    struct conf *c;
    struct bounce_templates t;
    if (r->args[0] && r->args[1])
        fail(STR("options -b and -t require at most one template file"));
    postconf_directory_source(r, &source);
    must(conf_load(&source, r->arena, &c));
    struct str path = r->args[0] ? str_c(r->args[0]) : conf_str(c, PARAM_bounce_template_file);
    must(bounce_templates_load(path, r->arena, &t));
    size_t warned = 0;
    for (int kind = 0; kind < TEMPLATE_COUNT; kind++) {
        if (kind)
            putchar('\n');
        if (r->mode == 'b')
            print_expanded(&t, (enum template_kind)kind, c, r->arena);
        else
            print_template(&t.at[kind], r->arena);
        for (; warned < t.warnings.n; warned++)
            warn(t.warnings.at[warned]);
    }
    conf_free(c);
}
