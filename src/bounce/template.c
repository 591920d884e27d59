#include "bounce/template.h"

#include "base/buf.h"
#include "base/utf8.h"
#include "conf/expand.h"
#include "conf/lines.h"
#include "conf/main_cf.h"
#include "conf/params.h"

#include <idn2.h>

enum { TIME_RESULT_MAX = 1000 }; /* a larger number asks for a larger unit */

static const struct bounce_template builtin[TEMPLATE_COUNT] = {
#define TEMPLATE(kind, name, subject, postmaster_subject, text)                                                        \
    [kind] = { STR_INIT(name),    STR_INIT("us-ascii"),         STR_INIT("Mail Delivery System <MAILER-DAEMON>"),      \
               STR_INIT(subject), STR_INIT(postmaster_subject), false,                                                 \
               STR_INIT(text) },
#include "bounce/template.def"
#undef TEMPLATE
};

void bounce_templates_builtin(struct bounce_templates *ret) {
    *ret = (struct bounce_templates){ .path = STR("built-in") };
    memcpy(ret->at, builtin, sizeof builtin);
}

/* --- one template --- */

static bool take_line(struct str *rest, struct str *ret) {
    *ret = STR("");
    return rest->n && str_next(rest, STR("\n"), ret);
}

/* "Label: value" in front of the text. */
static bool header_split(struct str line, struct str *ret_label, struct str *ret_value) {
    ptrdiff_t colon = str_index(line, ':');
    if (colon <= 0 || byte_is_space(line.p[0]))
        return false;
    *ret_label = str_trim_right(str_sub(line, 0, (size_t)colon));
    for (size_t i = 0; i < ret_label->n; i++)
        if (!byte_is_print(ret_label->p[i]) || ret_label->p[i] == ' ')
            return false;
    *ret_value = str_trim_left(str_from(line, (size_t)colon + 1));
    return true;
}

static struct str *header_place(struct bounce_template *t, struct str label) {
    if (str_eq_icase(label, STR("Charset")))
        return &t->charset;
    if (str_eq_icase(label, STR("From")))
        return &t->from;
    if (str_eq_icase(label, STR("Subject")))
        return &t->subject;
    return str_eq_icase(label, STR("Postmaster-Subject")) ? &t->postmaster_subject : NULL;
}

struct reader {
    struct bounce_templates *templates;
    struct arena *arena;
    struct lines lines; /* what is unread, and the number of the line that was read last */
    size_t begin;       /* where the template begins */
};

static void reject(struct reader *r, const char *what, struct str label, const char *where, struct str name) {
    const char *quote = label.n ? "\"" : "", *blank = label.n ? " " : "";
    *vec_add(r->arena, &r->templates->warnings) = arena_printf(
        r->arena, "%.*s, line %zu: %s%s%s%.*s%s%s%s in %.*s template -- ignoring this template", STR_ARG(r->lines.path),
        r->begin, what, blank, quote, STR_ARG(label), quote, blank, where, STR_ARG(name));
}

/* NULL, or what is wrong with a header's value. */
static const char *header_problem(struct str value) {
    if (!value.n)
        return "empty";
    return str_is_ascii(value) && str_index(value, '\0') < 0 ? NULL : "non-ASCII";
}

static void add_template(struct reader *r, enum template_kind kind, struct str body) {
    struct bounce_template t = builtin[kind];
    struct str line = STR(""), label, value, text = body;
    while (take_line(&body, &line)) {
        if (!header_split(line, &label, &value)) {
            if (!str_trim(line).n)
                text = body;
            break;
        }
        struct str *place = header_place(&t, label);
        if (!place) {
            reject(r, "unknown", label, "header label", t.name);
            return;
        }
        if (place == &t.postmaster_subject && !builtin[kind].postmaster_subject.n) {
            reject(r, "inapplicable", label, "header label", t.name);
            return;
        }
        const char *problem = header_problem(value);
        if (problem) {
            reject(r, problem, label, "header value", t.name);
            return;
        }
        *place = arena_str(r->arena, value);
        t.own_from |= place == &t.from;
        text = body;
    }
    if (!str_trim(text).n) {
        reject(r, "missing message text", STR(""), "", t.name);
        return;
    }
    if (!str_is_ascii(text) && str_eq_icase(t.charset, STR("us-ascii"))) {
        reject(r, "8-bit message text with a charset of us-ascii", STR(""), "", t.name);
        return;
    }
    t.text = arena_str(r->arena, text);
    r->templates->at[kind] = t;
    r->templates->line[kind] = r->begin;
}

/* --- the file --- */

static error bad_line(struct reader *r, const char *what, struct str text) {
    return err_make(r->arena, ERR_CONFIG, "%.*s, line %zu: %s%.*s", STR_ARG(r->lines.path), r->lines.line, what,
                    STR_ARG(text));
}

/* The lines up to the one that is the marker and nothing else. */
static error take_document(struct reader *r, struct str marker, struct str *ret) {
    const struct str from = r->lines.rest;
    struct str line;
    while (take_line(&r->lines.rest, &line)) {
        r->lines.line++;
        if (!str_eq(line, marker))
            continue;
        size_t used = from.n - r->lines.rest.n;
        bool newline = from.p[used - 1] == '\n';
        *ret = str_sub(from, 0, used - line.n - newline);
        return NULL;
    }
    return bad_line(r, "missing end marker ", marker);
}

error bounce_templates_parse(struct str text, struct str path, struct arena *a, struct bounce_templates *ret) {
    struct reader r = { ret, a, { text, path, 0, a }, 0 };
    bounce_templates_builtin(ret);
    ret->path = arena_str(a, path);
    struct str line;
    while (take_line(&r.lines.rest, &line)) {
        struct str trimmed = str_trim(line), name, value, body = STR("");
        r.begin = ++r.lines.line;
        if (!trimmed.n || trimmed.p[0] == '#')
            continue;
        const char *wrong = assignment_split(line, &name, &value);
        if (wrong)
            return bad_line(&r, arena_printf(a, "%s: \"%.*s\"", wrong, STR_ARG(trimmed)).p, STR(""));
        if (str_starts(value, STR("<<"))) {
            struct str marker = str_trim(str_from(value, 2));
            error e =
                marker.n ? take_document(&r, marker, &body) : bad_line(&r, "missing end marker after <<", STR(""));
            if (e)
                return e;
        } else {
            body = value.n ? arena_cat(a, value, STR("\n")) : STR("");
        }
        int kind = 0;
        while (kind < TEMPLATE_COUNT && !str_eq(name, arena_cat(a, builtin[kind].name, STR("_template"))))
            kind++;
        if (kind < TEMPLATE_COUNT)
            add_template(&r, (enum template_kind)kind, body);
        else
            *vec_add(a, &ret->warnings) =
                arena_printf(a, "%.*s, line %zu: unknown template name: %.*s -- ignoring this template", STR_ARG(path),
                             r.lines.line, STR_ARG(name));
    }
    return NULL;
}

error bounce_templates_load(struct str path, struct arena *a, struct bounce_templates *ret) {
    struct str text;
    bounce_templates_builtin(ret);
    if (!path.n)
        return NULL;
    error e = conf_read_file(path, a, &text);
    return e ? e : bounce_templates_parse(text, path, a, ret);
}

/* --- $names --- */

struct expansion {
    struct bounce_templates *templates;
    const struct bounce_template *template;
    const struct conf *conf;
    struct arena *arena;
    error failure; /* the first one */
};

static struct str as_utf8(const struct expansion *x, struct str domain) {
    char *decoded = NULL;
    if (!conf_bool(x->conf, PARAM_smtputf8_enable) ||
        idn2_to_unicode_8z8z(arena_cstr(x->arena, domain), &decoded, 0) != IDN2_OK)
        return domain;
    struct str result = arena_str(x->arena, str_c(decoded));
    idn2_free(decoded);
    return result;
}

static void warn_unit(struct expansion *x, const char *what, struct str name, const char *change, struct str unit) {
    *vec_add(x->arena, &x->templates->warnings) = arena_printf(
        x->arena,
        "%.*s: %s in %.*s template conversion of parameter \"%.*s\": please %s time unit \"%.*s\" (see "
        "bounce(5))",
        STR_ARG(x->templates->path), what, STR_ARG(x->template->name), STR_ARG(name), change, STR_ARG(unit));
}

static struct str in_unit(struct expansion *x, struct str name, struct str unit, int64_t seconds) {
    static const struct {
        struct str name;
        int64_t seconds;
    } units[] = { { STR_INIT("seconds"), 1 },
                  { STR_INIT("minutes"), 60 },
                  { STR_INIT("hours"), 3600 },
                  { STR_INIT("days"), 86400 },
                  { STR_INIT("weeks"), 604800 } };
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (!str_eq(units[i].name, unit))
            continue;
        int64_t result = seconds / units[i].seconds;
        if (seconds && !result)
            warn_unit(x, "zero result", name, "reduce", unit);
        else if (result > TIME_RESULT_MAX)
            warn_unit(x, arena_printf(x->arena, "excessive result \"%lld\"", (long long)result).p, name, "increase",
                      unit);
        return arena_printf(x->arena, "%lld", (long long)result);
    }
    if (!x->failure)
        x->failure = err_make(x->arena, ERR_CONFIG, "%.*s: unrecognized suffix \"%.*s\" in parameter \"%.*s\"",
                              STR_ARG(x->templates->path), STR_ARG(unit), STR_ARG(name));
    return STR("");
}

static bool look_up(void *ctx, struct str name, struct expand_value *ret) {
    static const enum param times[] = { PARAM_delay_warning_time, PARAM_maximal_queue_lifetime };
    struct expansion *x = ctx;
    *ret = (struct expand_value){ STR(""), true }; /* values are expanded already */
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        struct str stem = param_row(times[i])->name;
        if (!str_starts(name, stem) || name.n < stem.n + 2 || name.p[stem.n] != '_')
            continue;
        ret->text = in_unit(x, name, str_from(name, stem.n + 1), conf_time(x->conf, times[i]));
        return true;
    }
    if (str_eq(name, STR("myhostname")) || str_eq(name, STR("mydomain"))) {
        ret->text = as_utf8(x, conf_str(x->conf, name.p[2] == 'h' ? PARAM_myhostname : PARAM_mydomain));
        return true;
    }
    if (conf_lookup(x->conf, name, x->arena, &ret->text))
        return true;
    if (!x->failure)
        x->failure = err_make(x->arena, ERR_CONFIG, "%.*s: undefined $name in %.*s template: %.*s",
                              STR_ARG(x->templates->path), STR_ARG(x->template->name), STR_ARG(name));
    return false;
}

error bounce_template_expand(struct bounce_templates *t, enum template_kind kind, const struct conf *c, struct arena *a,
                             struct str *ret) {
    struct expansion x = { t, &t->at[kind], c, a, NULL };
    error e = expand(t->at[kind].text, look_up, &x, a, ret);
    if (e)
        return err_make(a, ERR_CONFIG, "%.*s: bad $name syntax in %.*s template: %.*s", STR_ARG(t->path),
                        STR_ARG(t->at[kind].name), STR_ARG(e->text));
    return x.failure;
}
