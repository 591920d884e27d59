/* Tables that are lists of rules: regexp:, pcre:, cidr:. One parser, three kinds of pattern.
 *
 *     pattern result         !pattern result        if pattern ... endif       if !pattern ... endif
 *
 * A malformed rule is warned about and skipped, as Postfix does. What is not the administrator's mistake (no memory to
 * compile, a match that ran into a limit) is an error of the table: the mail waits. */
#include "base/log.h"
#include "table/rules_engine.h"
#include "table/text.h"
#include <errno.h>
#include <sys/stat.h>

enum { RESULT_MAX = 1024 * 1024 /* bytes of a result after substitution */ };

/* --- the rule file --- */

void rules_warn(const struct rules *s, size_t line, const char *text) {
    log_warn("%.*s, line %zu: %s", STR_ARG(s->map_name), line, text);
}

/* Cut "/pattern/flags" from the front. NULL, or the fault. */
static const char *take_delimited(struct rules *s, struct str *in, struct str *ret_pattern, struct str *ret_flags) {
    if (in->n == 0)
        return "no regexp: skipping this rule";
    char delimiter = in->p[0];
    size_t i = 1;
    for (; i < in->n && in->p[i] != delimiter; i++)
        if (in->p[i] == '\\' && i + 1 < in->n)
            i++;
    if (i >= in->n)
        return arena_printf(s->arena, "no closing regexp delimiter \"%c\": skipping this rule", delimiter).p;
    *ret_pattern = str_sub(*in, 1, i - 1);
    size_t flags = ++i;
    while (i < in->n && !byte_is_space(in->p[i]))
        i++;
    *ret_flags = str_sub(*in, flags, i - flags);
    *in = str_trim(str_from(*in, i));
    return NULL;
}

/* Cut any '!' and the pattern from the front and compile. */
static const char *take_pattern(struct rules *s, struct rule *r, struct str *in, error *ret_error) {
    while (in->n && in->p[0] == '!') {
        r->negate = !r->negate;
        *in = str_trim_left(str_from(*in, 1));
    }
    struct str pattern = STR(""), flags = STR("");
    const char *fault = NULL;
    if (s->engine->delimited) {
        fault = take_delimited(s, in, &pattern, &flags);
    } else {
        /* an IF of cidr has nothing behind its pattern that could be meant */
        if (r->kind == RULE_IF)
            pattern = *in;
        else
            str_word(in, STR_SPACE, &pattern);
        *in = r->kind == RULE_IF ? STR("") : str_trim(*in);
        if (pattern.n == 0)
            fault = "no address pattern: skipping this rule";
        else if (r->kind == RULE_RESULT && in->n == 0)
            fault = "no lookup result: skipping this rule";
    }
    if (!fault)
        s->engine->compile(s, r, pattern, flags, &fault, ret_error);
    return fault;
}

/* $1 ${1} $(1) $$ */
static const char *parse_result(struct rules *s, struct rule *r, struct str text) {
    VEC(struct piece) pieces = { 0 };
    const char *fault = NULL;
    while (text.n && !fault) {
        ptrdiff_t dollar = s->engine->delimited ? str_index(text, '$') : -1;
        struct str literal = dollar < 0 ? text : str_sub(text, 0, (size_t)dollar);
        text = str_from(text, literal.n);
        if (literal.n)
            *vec_add(s->arena, &pieces) = (struct piece){ arena_str(s->arena, literal), 0 };
        if (text.n == 0)
            break;
        text = str_from(text, 1);
        if (str_starts(text, STR("$"))) {
            *vec_add(s->arena, &pieces) = (struct piece){ STR("$"), 0 };
            text = str_from(text, 1);
            continue;
        }
        struct str name;
        char closing = text.n == 0 ? 0 : text.p[0] == '{' ? '}' : text.p[0] == '(' ? ')' : 0;
        if (closing) {
            ptrdiff_t end = str_index(text, closing);
            if (end < 0)
                return "bad replacement syntax: skipping this rule";
            name = str_sub(text, 1, (size_t)end - 1);
            text = str_from(text, (size_t)end + 1);
        } else {
            size_t n = 0;
            while (n < text.n && (byte_is_alnum(text.p[n]) || text.p[n] == '_'))
                n++;
            name = str_sub(text, 0, n);
            text = str_from(text, n);
        }
        uint32_t group;
        if (name.n == 0)
            fault = "no number after '$' in the replacement text: skipping this rule";
        else if (!str_to_u32(name, UINT32_MAX, &group))
            fault =
                arena_printf(s->arena, "non-numeric replacement index \"%.*s\": skipping this rule", STR_ARG(name)).p;
        else if (r->negate)
            fault = "$number found in negative match replacement text: skipping this rule";
        else if (group < 1 || group > r->groups)
            fault = arena_printf(s->arena, "out of range replacement index \"%u\": skipping this rule", group).p;
        else
            *vec_add(s->arena, &pieces) = (struct piece){ STR(""), group };
        r->substitutes = true;
        if (!fault && s->no_substitution)
            fault = "regular expression substitution is not allowed: skipping this rule";
    }
    r->pieces = pieces.at;
    r->piece_count = pieces.n;
    return fault;
}

static void free_rule(struct rules *s, struct rule *r) {
    if (s->engine->free && r->kind != RULE_ENDIF)
        s->engine->free(r);
}

static bool take_keyword(struct str *line, struct str word) {
    if (!str_starts_icase(*line, word))
        return false;
    if (line->n > word.n && byte_is_alnum(line->p[word.n]))
        return false;
    *line = str_trim_left(str_from(*line, word.n));
    return true;
}

static error add_endif(struct rules *s, struct str rest, size_t line) {
    if (rest.n && !s->engine->delimited) {
        rules_warn(s, line, "garbage after ENDIF: skipping this rule");
        return NULL;
    }
    if (rest.n)
        rules_warn(s, line, "ignoring extra text after ENDIF");
    if (s->if_depth == 0) {
        rules_warn(s, line,
                   s->engine->delimited ? "ignoring ENDIF without matching IF"
                                        : "ENDIF without IF: skipping this rule");
        return NULL;
    }
    struct rule *r = ARENA_NEW(s->arena, struct rule);
    r->kind = RULE_ENDIF;
    r->line = line;
    s->list.at[s->open_ifs[--s->if_depth]]->end = s->list.n;
    *vec_add(s->arena, &s->list) = r;
    return NULL;
}

static error add_rule(struct rules *s, struct str text, size_t line) {
    if (byte_is_space(text.p[0])) {
        log_warn("%.*s, line %zu: logical line must not start with whitespace: \"%.*s\"", STR_ARG(s->map_name), line,
                 STR_ARG(str_sub(text, 0, 30)));
        return NULL;
    }
    text = str_trim(text);
    if (take_keyword(&text, STR("endif")))
        return add_endif(s, text, line);
    struct rule *r = ARENA_NEW(s->arena, struct rule);
    r->line = line;
    r->kind = take_keyword(&text, STR("if")) ? RULE_IF : RULE_RESULT;
    if (r->kind == RULE_RESULT && s->engine->delimited && byte_is_alnum(text.p[0])) {
        rules_warn(s, line, "ignoring unrecognized request");
        return NULL;
    }
    error e = NULL;
    const char *fault = take_pattern(s, r, &text, &e);
    if (e)
        return e;
    if (fault) {
        rules_warn(s, line, fault);
        return NULL;
    }
    if (r->kind == RULE_IF) {
        if (text.n) { /* mostly the first rule inside, indented, so that it continues the IF line */
            log_warn("%.*s, line %zu: ignoring extra text after IF statement: \"%.*s\"", STR_ARG(s->map_name), line,
                     STR_ARG(text));
            rules_warn(s, line, "do not prepend whitespace to statements between IF and ENDIF");
        }
        if (s->if_depth == IF_NESTING_MAX) {
            free_rule(s, r);
            return err_make(s->arena, ERR_CONFIG, "%.*s, line %zu: IF nested too deeply", STR_ARG(s->map_name), line);
        }
        s->open_ifs[s->if_depth++] = s->list.n;
    } else {
        if (text.n == 0)
            rules_warn(s, line, "no replacement text: using empty string");
        fault = parse_result(s, r, text);
        if (fault) {
            rules_warn(s, line, fault);
            free_rule(s, r);
            return NULL;
        }
    }
    *vec_add(s->arena, &s->list) = r;
    return NULL;
}

static error add_rules(struct rules *s, struct str content) {
    struct text_lines lines = { .rest = content };
    struct buf line = { 0 };
    size_t number;
    error e = NULL;
    while (!e && text_next_line(&lines, &line, &number))
        e = add_rule(s, buf_str(&line), number);
    buf_free(&line);
    while (s->if_depth > 0) { /* an IF without end reaches to the end of the table */
        struct rule *r = s->list.at[s->open_ifs[--s->if_depth]];
        r->end = s->list.n;
        if (!e)
            rules_warn(s, r->line, "IF has no matching ENDIF");
    }
    return e;
}

/* "{ {rule} {rule} }": each is a line of its own. */
static error inline_content(struct table *t, struct buf *ret) {
    struct str rest, item = t->name;
    const char *fault = braces_open(t->name, &rest);
    while (!fault && str_word_braced(&rest, STR_COMMA_SPACE, &item)) {
        struct str rule = STR("");
        fault = item.p[0] == '{' ? braces_open(item, &rule) : "no '{' at start of text";
        buf_add(ret, rule);
        buf_byte(ret, '\n');
    }
    if (!fault && rest.n) {
        fault = "missing '}'";
        item = rest;
    }
    if (fault)
        return err_make(t->gen, ERR_CONFIG, "%.*s map: %s in \"%.*s\"", STR_ARG(t->type->name), fault, STR_ARG(item));
    return NULL;
}

/* To open one would wait for a writer. What the shell hands over as /dev/fd/N is another matter. */
static bool is_named_pipe(const char *path, const struct stat *st) {
    return (S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode)) && !str_starts(str_c(path), STR("/dev/"));
}

static error rules_open(struct table *t, const struct engine *engine) {
    struct rules *s = ARENA_NEW(t->gen, struct rules);
    t->state = s;
    s->arena = t->gen;
    s->engine = engine;
    s->no_substitution = (t->flags & TABLE_NO_REGSUB) != 0;
    s->map_name = arena_printf(t->gen, "%.*s map %.*s", STR_ARG(engine->name), STR_ARG(t->name));
    struct buf content = { 0 };
    error e = NULL;
    if (t->name.p[0] == '{') {
        e = inline_content(t, &content);
    } else {
        const char *path = arena_cstr(t->gen, t->name);
        struct stat st;
        table_watch(t, path, NULL);
        if (stat(path, &st) == 0 && is_named_pipe(path, &st))
            e = err_make(t->gen, ERR_SYS, "open %s: a pipe or a socket is no table", path);
        else if (!buf_read_file(&content, path, TABLE_FILE_MAX))
            e = err_make(t->gen, ERR_SYS, "open %s: %s", path, strerror(errno));
    }
    if (!e)
        e = add_rules(s, buf_str(&content));
    buf_free(&content);
    return e;
}

static void rules_close(struct table *t) {
    struct rules *s = t->state;
    if (!s)
        return;
    for (size_t i = 0; i < s->list.n; i++)
        free_rule(s, s->list.at[i]);
    rules_engine_end(s);
}

/* --- look-up --- */

static enum table_result make_result(struct table *t, const struct rule *r, struct str key, const struct group *groups,
                                     struct arena *a, struct str *ret_value) {
    struct buf b = { 0 };
    for (size_t i = 0; i < r->piece_count && b.n <= RESULT_MAX; i++) {
        const struct piece *p = &r->pieces[i];
        if (p->group == 0)
            buf_add(&b, p->text);
        else if (groups[p->group].from <= groups[p->group].to)
            buf_add(&b, str_sub(key, groups[p->group].from, groups[p->group].to - groups[p->group].from));
    }
    bool too_long = b.n > RESULT_MAX;
    if (!too_long)
        *ret_value = arena_str(a, buf_str(&b));
    buf_free(&b);
    if (too_long)
        return table_fail(t, "%.*s: line %zu: result longer than %d bytes", STR_ARG(t->spec), r->line, RESULT_MAX);
    return TABLE_FOUND;
}

static enum table_result rules_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    struct rules *s = t->state;
    struct group groups[GROUPS_MAX];
    /* regexec() is told the length, and yet checkers want its text to end in a NUL */
    buf_clear(&t->folded);
    buf_add(&t->folded, key);
    key = buf_str(&t->folded);
    if (s->engine == &cidr_engine && !cidr_parse_address(key, &s->key_address))
        return TABLE_NOT_FOUND;
    for (size_t i = 0; i < s->list.n; i++) {
        struct rule *r = s->list.at[i];
        if (r->kind == RULE_ENDIF)
            continue;
        int matched = s->engine->match(s, r, key, r->substitutes ? groups : NULL);
        if (matched < 0)
            return table_fail(t, "%.*s, line %zu: %s", STR_ARG(s->map_name), r->line, s->fault);
        if ((matched == 1) == r->negate) {
            if (r->kind == RULE_IF)
                i = r->end;
            continue;
        }
        if (r->kind == RULE_IF)
            continue;
        return make_result(t, r, key, groups, a, ret_value);
    }
    return TABLE_NOT_FOUND;
}

static error regexp_open(struct table *t) {
    return rules_open(t, &regexp_engine);
}
static error pcre_open(struct table *t) {
    return rules_open(t, &pcre_engine);
}
static error cidr_open(struct table *t) {
    return rules_open(t, &cidr_engine);
}

const struct table_type table_type_regexp = {
    .name = STR_INIT("regexp"), .pattern = true, .open = regexp_open, .get = rules_get, .close = rules_close
};
const struct table_type table_type_pcre = {
    .name = STR_INIT("pcre"), .pattern = true, .open = pcre_open, .get = rules_get, .close = rules_close
};
const struct table_type table_type_cidr = {
    .name = STR_INIT("cidr"), .pattern = true, .open = cidr_open, .get = rules_get, .close = rules_close
};
