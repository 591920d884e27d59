#include "conf/master_text.h"
#include "conf/lines.h"
#include "conf/main_cf.h"

#include <limits.h>

static const struct str field_names[SERVICE_FIELDS] = { STR_INIT("service"),       STR_INIT("type"),
                                                        STR_INIT("private"),       STR_INIT("unprivileged"),
                                                        STR_INIT("chroot"),        STR_INIT("wakeup"),
                                                        STR_INIT("process_limit"), STR_INIT("command") };

struct str service_field_name(enum service_field field) {
    return field_names[field];
}

bool service_field_find(struct str name, enum service_field *ret) {
    for (int i = 0; i < SERVICE_FIELDS; i++) {
        if (!str_eq(field_names[i], name))
            continue;
        *ret = (enum service_field)i;
        return true;
    }
    return false;
}

static bool is_type(struct str value) {
    for (int type = SERVICE_INET; type <= SERVICE_PASS; type++)
        if (str_eq(service_type_name((enum service_type)type), value))
            return true;
    return false;
}

error service_field_check(enum service_field field, struct str value, struct str line, struct arena *a) {
    bool fits = value.n > 0, none = str_eq(value, STR("-"));
    uint32_t number;
    struct str digits = value;
    switch (field) {
    case SERVICE_TYPE:
        fits = is_type(value);
        break;
    case SERVICE_PRIVATE:
    case SERVICE_UNPRIVILEGED:
    case SERVICE_CHROOT:
        fits = none || str_eq(value, STR("y")) || str_eq(value, STR("n"));
        break;
    case SERVICE_WAKEUP:
        if (str_ends(digits, STR("?")))
            digits = str_sub(digits, 0, digits.n - 1);
        fits = none || str_to_u32(digits, INT_MAX, &number);
        break;
    case SERVICE_PROCESS_LIMIT:
        fits = none || str_to_u32(value, INT_MAX, &number);
        break;
    case SERVICE_NAME:
    case SERVICE_COMMAND:
    case SERVICE_FIELDS:
        break;
    }
    return fits ? NULL
                : err_make(a, ERR_CONFIG, "invalid %s field \"%.*s\" in \"%.*s\"", field_names[field].p,
                           STR_ARG(conf_excerpt(value, a)), STR_ARG(conf_excerpt(line, a)));
}

/* word = 1*( non-blank / "{" text "}" ), blanks inside braces included; as written. */
static bool take_word(struct str *s, struct str *ret) {
    *s = str_trim_left(*s);
    size_t n = 0, depth = 0;
    while (n < s->n && (depth || !byte_is_space(s->p[n]))) {
        depth += s->p[n] == '{';
        depth -= s->p[n] == '}' && depth;
        n++;
    }
    *ret = str_sub(*s, 0, n);
    *s = str_from(*s, n);
    return n > 0;
}

/* "{ text }" without braces and the blanks inside them; other words as they are. */
static struct str inner_text(struct str word, struct arena *a, struct master_text *into) {
    if (!word.n || word.p[0] != '{')
        return word;
    size_t end = 0, depth = 0;
    do {
        depth += word.p[end] == '{';
        depth -= word.p[end] == '}';
        end++;
    } while (depth && end < word.n);
    const char *wrong = depth ? "missing '}'" : end < word.n ? "syntax error after '}'" : NULL;
    if (wrong)
        *vec_add(a, &into->warnings) =
            arena_printf(a, "master.cf: %s in \"%.*s\"", wrong, STR_ARG(conf_excerpt(word, a)));
    return str_trim(str_sub(word, 1, end - 1 - (depth == 0)));
}

static void add_setting(struct service_text *s, struct str text, struct arena *a) {
    struct service_arg arg = { .is_option = true, .is_setting = true, .text = arena_str(a, text) };
    if (assignment_split(arg.text, &arg.name, &arg.value))
        arg.name = arg.value = STR("");
    *vec_add(a, &s->args) = arg;
}

error service_command_parse(struct str command, struct arena *a, struct master_text *into, struct service_text *s) {
    struct str rest = command, word;
    s->args.n = s->args.room = 0; /* storage of its own: a copy may share what is there */
    s->args.at = NULL;
    if (!take_word(&rest, &word))
        return service_field_check(SERVICE_COMMAND, STR(""), command, a);
    s->field[SERVICE_COMMAND] = arena_str(a, word);
    bool options = true;
    while (take_word(&rest, &word)) {
        if (s->args.n == MASTER_CF_WORDS_MAX)
            return err_make(a, ERR_CONFIG, "too many arguments for \"%.*s\"", STR_ARG(s->field[SERVICE_COMMAND]));
        struct str text = inner_text(word, a, into);
        options = options && word.p[0] == '-' && !str_eq(word, STR("--"));
        if (options && str_eq(word, STR("-o")) && take_word(&rest, &word))
            add_setting(s, inner_text(word, a, into), a);
        else if (options && word.n > 2 && str_starts(word, STR("-o")))
            add_setting(s, str_from(word, 2), a);
        else
            *vec_add(a, &s->args) = (struct service_arg){ .is_option = options, .text = arena_str(a, text) };
    }
    return NULL;
}

error service_text_parse(struct str line, struct arena *a, struct master_text *into, struct service_text *ret) {
    struct str rest = line;
    *ret = (struct service_text){ 0 };
    for (int i = 0; i < SERVICE_COMMAND; i++) {
        if (!take_word(&rest, &ret->field[i]))
            return err_make(a, ERR_CONFIG, "bad field count");
        ret->field[i] = arena_str(a, ret->field[i]);
    }
    if (!str_trim(rest).n)
        return err_make(a, ERR_CONFIG, "bad field count");
    for (int i = 0; i < SERVICE_COMMAND; i++) {
        error e = service_field_check((enum service_field)i, ret->field[i], line, a);
        if (e)
            return e;
    }
    return service_command_parse(rest, a, into, ret);
}

error master_text_parse(struct str text, struct str path, struct arena *a, struct master_text *ret) {
    *ret = (struct master_text){ 0 };
    struct lines lines = { text, path, 0, a };
    for (;;) {
        struct logical_line line;
        struct service_text service;
        error e = lines_next(&lines, &line);
        if (e || !line.line)
            return e;
        if (byte_is_space(line.text.p[0])) {
            *vec_add(a, &ret->warnings) = arena_printf(a, "%.*s: logical line must not start with whitespace: \"%.*s\"",
                                                       STR_ARG(path), STR_ARG(conf_excerpt(line.text, a)));
            continue;
        }
        if ((e = service_text_parse(line.text, a, ret, &service))) {
            if (str_starts(e->text, STR("bad field count")))
                return err_make(a, ERR_CONFIG, "file %.*s: line %zu: %.*s", STR_ARG(path), line.line, STR_ARG(e->text));
            return err_make(a, ERR_CONFIG, "%.*s (%.*s, line %zu)", STR_ARG(e->text), STR_ARG(path), line.line);
        }
        if (ret->services.n == MASTER_CF_ENTRIES_MAX)
            return err_make(a, ERR_CONFIG, "file %.*s: line %zu: more than %d services", STR_ARG(path), line.line,
                            MASTER_CF_ENTRIES_MAX);
        service.line = line.line;
        *vec_add(a, &ret->services) = service;
    }
}

/* --- writing --- */

/* What would be read as something else without braces. */
static void add_word(struct buf *b, struct str text) {
    bool braces = !text.n || text.p[0] == '{' || str_index_any(text, STR(" \t\r\n\v\f")) >= 0;
    buf_printf(b, braces ? "{%.*s}" : "%.*s", STR_ARG(text));
}

static void add_argument(struct buf *b, const struct service_arg *arg) {
    if (!arg->is_setting) {
        add_word(b, arg->text);
        return;
    }
    buf_add(b, STR("-o "));
    if (!arg->name.n) {
        add_word(b, arg->text);
        return;
    }
    bool braces = arg->name.p[0] == '{' || str_index_any(arg->value, STR(" \t\r\n\v\f")) >= 0;
    buf_printf(b, braces ? "{%.*s=%.*s}" : "%.*s=%.*s", STR_ARG(arg->name), STR_ARG(arg->value));
}

void service_command_format(struct buf *b, const struct service_text *s, bool fold, size_t column) {
    bool after_setting = false;
    buf_add(b, s->field[SERVICE_COMMAND]);
    column += s->field[SERVICE_COMMAND].n;
    for (size_t i = 0; i < s->args.n; i++) {
        const struct service_arg *arg = &s->args.at[i];
        struct buf word = { 0 };
        add_argument(&word, arg);
        if (fold && (after_setting || arg->is_setting || column + 1 + word.n >= SERVICE_LINE_WIDTH)) {
            buf_add(b, STR("\n    "));
            column = 4;
        } else {
            buf_byte(b, ' ');
            column++;
        }
        buf_add(b, buf_str(&word));
        column += word.n;
        after_setting = arg->is_setting;
        buf_free(&word);
    }
}

void service_text_format(struct buf *b, const struct service_text *s, bool fold) {
    static const size_t stops[SERVICE_COMMAND] = { 11, 17, 25, 33, 41, 49, 57 }; /* where the next column begins */
    size_t column = 0;
    for (int i = 0; i < SERVICE_COMMAND; i++) {
        buf_add(b, s->field[i]);
        column += s->field[i].n;
        do {
            buf_byte(b, ' ');
        } while (++column < stops[i]);
    }
    service_command_format(b, s, fold, column);
}

void master_text_services(const struct master_text *m, struct arena *a, struct master_cf *ret) {
    struct master_entry *entries = arena_array(a, m->services.n, sizeof *entries);
    for (size_t i = 0; i < m->services.n; i++) {
        const struct service_text *s = &m->services.at[i];
        VEC(struct conf_override) settings = { 0 };
        for (size_t j = 0; j < s->args.n; j++) {
            if (!s->args.at[j].name.n)
                continue;
            size_t at = 0;
            while (at < settings.n && !str_eq(settings.at[at].name, s->args.at[j].name))
                at++;
            if (at == settings.n)
                *vec_add(a, &settings) = (struct conf_override){ STR(""), STR("") };
            settings.at[at] =
                (struct conf_override){ arena_str(a, s->args.at[j].name), arena_str(a, s->args.at[j].value) };
        }
        entries[i] = (struct master_entry){ .name = s->field[SERVICE_NAME],
                                            .command = s->field[SERVICE_COMMAND],
                                            .overrides = settings.at,
                                            .override_count = settings.n,
                                            .line = s->line };
        for (int type = SERVICE_INET; type <= SERVICE_PASS; type++)
            if (str_eq(service_type_name((enum service_type)type), s->field[SERVICE_TYPE]))
                entries[i].type = (enum service_type)type;
    }
    *ret = (struct master_cf){ entries, m->services.n, NULL, 0 };
}
