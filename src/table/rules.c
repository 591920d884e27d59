/* Tables that are lists of rules: regexp:, pcre:, cidr:. One parser, three kinds of pattern.
 *
 *     pattern result         !pattern result        if pattern ... endif       if !pattern ... endif
 *
 * A malformed rule is warned about and skipped, as Postfix does. What is not the administrator's mistake (no memory to
 * compile, a match that ran into a limit) is an error of the table: the mail waits. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/log.h"
#include "table/cidr.h"
#include "table/table_impl.h"
#include "table/text.h"
#include <errno.h>
#include <pcre2.h>
#include <regex.h>

enum {
    GROUPS_MAX = 100,               /* $1 to $99 */
    PCRE_MATCH_LIMIT = 1000 * 1000, /* steps of one match */
    PCRE_HEAP_LIMIT = 20 * 1024,    /* KiB */
    RESULT_MAX = 1024 * 1024,       /* bytes of a result after substitution */
    IF_NESTING_MAX = 1000,
};

/* The C library compiles a pattern by recursion, some 700 bytes of stack a level, and a table may be opened again on
 * the small stack of a coroutine. What is not nested needs 21 KiB there, also to match. */
enum { REGEXP_NESTING_MAX = 30 };

enum rule_kind { RULE_RESULT, RULE_IF, RULE_ENDIF };

struct piece { /* of a result: text, or the text of a group */
    struct str text;
    unsigned group; /* 0: text */
};

struct rule {
    enum rule_kind kind;
    bool negate;
    size_t line;
    size_t end; /* RULE_IF: index of its endif, or the number of rules */
    unsigned groups;
    struct piece *pieces;
    size_t piece_count;
    bool substitutes;
    regex_t regex;
    pcre2_code *pcre;
    struct cidr cidr;
};

struct group {
    size_t from, to; /* from > to: took no part */
};

struct rules;

struct engine {
    struct str name;
    bool delimited; /* /pattern/flags */
    /* Compile; false with a fault (skip the rule) or with *ret_error (give up the table). */
    bool (*compile)(struct rules *s, struct rule *r, struct str pattern, struct str flags, const char **ret_fault,
                    error *ret_error);
    /* 1 match, 0 none, -1 failed with s->fault. */
    int (*match)(struct rules *s, struct rule *r, struct str key, struct group *groups);
    void (*free)(struct rule *r);
};

struct rules {
    struct arena *arena;
    struct str map_name; /* "regexp map /etc/x" */
    const struct engine *engine;
    VEC(struct rule *) list;
    size_t open_ifs[IF_NESTING_MAX];
    size_t if_depth;
    pcre2_match_data *match_data;
    pcre2_match_context *match_context;
    struct cidr key_address; /* cidr: the key, read once per look-up */
    char fault[256];
};

/* --- regexp: --- */

static bool nested_too_deeply(struct str pattern) {
    size_t depth = 0;
    for (size_t i = 0; i < pattern.n; i++) {
        if (pattern.p[i] == '\\')
            i++;
        else if (pattern.p[i] == '(' && ++depth > REGEXP_NESTING_MAX)
            return true;
        else if (pattern.p[i] == ')' && depth > 0)
            depth--;
    }
    return false;
}

static bool regexp_compile(struct rules *s, struct rule *r, struct str pattern, struct str flags,
                           const char **ret_fault, error *ret_error) {
    int options = REG_ICASE | REG_EXTENDED;
    for (size_t i = 0; i < flags.n; i++) {
        int bit = flags.p[i] == 'i'   ? REG_ICASE
                  : flags.p[i] == 'm' ? REG_NEWLINE
                  : flags.p[i] == 'x' ? REG_EXTENDED
                                      : 0;
        if (!bit) {
            *ret_fault = arena_printf(s->arena, "unknown regexp option \"%c\": skipping this rule", flags.p[i]).p;
            return false;
        }
        options ^= bit;
    }
    if (nested_too_deeply(pattern)) {
        *ret_fault = "parentheses nested too deeply: skipping this rule";
        return false;
    }
    int rc = regcomp(&r->regex, arena_cstr(s->arena, pattern), options);
    if (rc) {
        char text[200];
        regerror(rc, &r->regex, text, sizeof text);
        *ret_fault = arena_str(s->arena, str_c(text)).p;
        if (rc == REG_ESPACE)
            *ret_error = err_make(s->arena, ERR_TEMP, "%.*s, line %zu: %s", STR_ARG(s->map_name), r->line, text);
        return false;
    }
    r->groups = r->regex.re_nsub < GROUPS_MAX ? (unsigned)r->regex.re_nsub : GROUPS_MAX - 1;
    return true;
}

static int regexp_match(struct rules *s, struct rule *r, struct str key, struct group *groups) {
    /* REG_STARTEND: the key's length counts, not a NUL in it */
    regmatch_t m[GROUPS_MAX];
    m[0] = (regmatch_t){ 0, (regoff_t)key.n };
    size_t count = groups ? r->groups + 1 : 1;
    int rc = regexec(&r->regex, key.p, groups ? count : 1, m, REG_STARTEND);
    if (rc == REG_NOMATCH)
        return 0;
    if (rc) {
        regerror(rc, &r->regex, s->fault, sizeof s->fault);
        return -1;
    }
    for (size_t i = 1; groups && i < count; i++)
        groups[i] = m[i].rm_so < 0 ? (struct group){ 1, 0 } : (struct group){ (size_t)m[i].rm_so, (size_t)m[i].rm_eo };
    return 1;
}

static void regexp_free(struct rule *r) {
    regfree(&r->regex);
}

static const struct engine regexp_engine = { STR_INIT("regexp"), true, regexp_compile, regexp_match, regexp_free };

/* --- pcre: --- */

static const struct {
    char letter;
    uint32_t bit;
} pcre_flags[] = {
    { 'i', PCRE2_CASELESS }, { 'm', PCRE2_MULTILINE },
    { 's', PCRE2_DOTALL },   { 'x', PCRE2_EXTENDED },
    { 'A', PCRE2_ANCHORED }, { 'E', PCRE2_DOLLAR_ENDONLY },
    { 'U', PCRE2_UNGREEDY }, { 'X', 0 /* always on in PCRE2 */ },
};

static bool pcre_compile(struct rules *s, struct rule *r, struct str pattern, struct str flags, const char **ret_fault,
                         error *ret_error) {
    uint32_t options = PCRE2_CASELESS | PCRE2_DOTALL;
    for (size_t i = 0; i < flags.n; i++) {
        size_t k = 0;
        while (k < sizeof pcre_flags / sizeof pcre_flags[0] && pcre_flags[k].letter != flags.p[i])
            k++;
        if (k == sizeof pcre_flags / sizeof pcre_flags[0]) {
            *ret_fault = arena_printf(s->arena, "unknown PCRE option \"%c\": skipping this rule", flags.p[i]).p;
            return false;
        }
        options ^= pcre_flags[k].bit;
    }
    int code;
    PCRE2_SIZE offset;
    r->pcre = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, options, &code, &offset, NULL);
    if (!r->pcre) {
        unsigned char text[200] = "";
        pcre2_get_error_message(code, text, sizeof text);
        *ret_fault = arena_printf(s->arena, "error in regex at offset %zu: %s", offset, (char *)text).p;
        if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
            *ret_error = err_make(s->arena, ERR_TEMP, "%.*s, line %zu: %s", STR_ARG(s->map_name), r->line, *ret_fault);
        return false;
    }
    uint32_t groups = 0;
    pcre2_pattern_info(r->pcre, PCRE2_INFO_CAPTURECOUNT, &groups);
    r->groups = groups < GROUPS_MAX ? groups : GROUPS_MAX - 1;
    return true;
}

/* A hostile subject must not cost more than the limits say; running into one is an error, not "no match". */
static bool pcre_prepare(struct rules *s) {
    if (s->match_data)
        return true;
    s->match_data = pcre2_match_data_create(GROUPS_MAX, NULL);
    s->match_context = pcre2_match_context_create(NULL);
    if (!s->match_data || !s->match_context)
        return false;
    pcre2_set_match_limit(s->match_context, PCRE_MATCH_LIMIT);
    pcre2_set_heap_limit(s->match_context, PCRE_HEAP_LIMIT);
    return true;
}

static int pcre_match(struct rules *s, struct rule *r, struct str key, struct group *groups) {
    int rc = PCRE2_ERROR_NOMEMORY;
    if (pcre_prepare(s))
        rc = pcre2_match(r->pcre, (PCRE2_SPTR)key.p, key.n, 0, 0, s->match_data, s->match_context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        pcre2_get_error_message(rc, (unsigned char *)s->fault, sizeof s->fault);
        return -1;
    }
    const PCRE2_SIZE *m = pcre2_get_ovector_pointer(s->match_data);
    for (unsigned i = 1; groups && i <= r->groups; i++)
        groups[i] =
            (int)i >= rc || m[2 * i] == PCRE2_UNSET ? (struct group){ 1, 0 } : (struct group){ m[2 * i], m[2 * i + 1] };
    return 1;
}

static void pcre_free(struct rule *r) {
    pcre2_code_free(r->pcre);
}

static const struct engine pcre_engine = { STR_INIT("pcre"), true, pcre_compile, pcre_match, pcre_free };

/* --- cidr: --- */

static bool cidr_compile(struct rules *s, struct rule *r, struct str pattern, struct str flags, const char **ret_fault,
                         error *ret_error) {
    (void)flags, (void)ret_error;
    const char *fault = cidr_parse(s->arena, pattern, &r->cidr);
    if (fault)
        *ret_fault = arena_printf(s->arena, "%s: skipping this rule", fault).p;
    return fault == NULL;
}

static int cidr_match(struct rules *s, struct rule *r, struct str key, struct group *groups) {
    (void)key, (void)groups;
    if (r->cidr.family != s->key_address.family) /* a rule for IPv4 says nothing about IPv6, with '!' neither */
        return r->negate;
    return cidr_contains(&r->cidr, &s->key_address);
}

static const struct engine cidr_engine = { STR_INIT("cidr"), false, cidr_compile, cidr_match, NULL };

/* --- the rule file --- */

static void warn_rule(struct rules *s, size_t line, const char *text) {
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
        str_word(in, STR_SPACE, &pattern);
        *in = str_trim(*in);
        if (pattern.n == 0)
            fault = "no address pattern: skipping this rule";
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
        if (!str_to_u32(name, UINT32_MAX, &group))
            fault =
                arena_printf(s->arena, "non-numeric replacement index \"%.*s\": skipping this rule", STR_ARG(name)).p;
        else if (r->negate)
            fault = "$number found in negative match replacement text: skipping this rule";
        else if (group < 1 || group > r->groups)
            fault = arena_printf(s->arena, "out of range replacement index \"%u\": skipping this rule", group).p;
        else
            *vec_add(s->arena, &pieces) = (struct piece){ STR(""), group };
        r->substitutes = true;
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
    if (rest.n)
        warn_rule(s, line, "ignoring extra text after ENDIF");
    if (s->if_depth == 0) {
        warn_rule(s, line, "ignoring ENDIF without matching IF");
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
    text = str_trim(text);
    if (take_keyword(&text, STR("endif")))
        return add_endif(s, text, line);
    struct rule *r = ARENA_NEW(s->arena, struct rule);
    r->line = line;
    r->kind = take_keyword(&text, STR("if")) ? RULE_IF : RULE_RESULT;
    if (r->kind == RULE_RESULT && s->engine->delimited && byte_is_alnum(text.p[0])) {
        warn_rule(s, line, "ignoring unrecognized request");
        return NULL;
    }
    error e = NULL;
    const char *fault = take_pattern(s, r, &text, &e);
    if (e)
        return e;
    if (fault) {
        warn_rule(s, line, fault);
        return NULL;
    }
    if (r->kind == RULE_IF) {
        if (text.n) { /* mostly the first rule inside, indented, so that it continues the IF line */
            log_warn("%.*s, line %zu: ignoring extra text after IF statement: \"%.*s\"", STR_ARG(s->map_name), line,
                     STR_ARG(text));
            warn_rule(s, line, "do not prepend whitespace to statements between IF and ENDIF");
        }
        if (s->if_depth == IF_NESTING_MAX) {
            free_rule(s, r);
            return err_make(s->arena, ERR_CONFIG, "%.*s, line %zu: IF nested too deeply", STR_ARG(s->map_name), line);
        }
        s->open_ifs[s->if_depth++] = s->list.n;
    } else {
        if (text.n == 0)
            warn_rule(s, line, "no replacement text: using empty string");
        fault = parse_result(s, r, text);
        if (fault) {
            warn_rule(s, line, fault);
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
        warn_rule(s, r->line, "IF has no matching ENDIF");
    }
    return e;
}

/* "{ {rule} {rule} }": each is a line of its own. */
static error inline_content(struct table *t, struct buf *ret) {
    struct str rest, item;
    const char *fault = braces_open(t->name, &rest);
    while (!fault && str_word_braced(&rest, STR_COMMA_SPACE, &item)) {
        fault = braces_open(item, &item);
        buf_add(ret, item);
        buf_byte(ret, '\n');
    }
    if (!fault && rest.n)
        fault = "missing '}'";
    if (fault)
        return err_make(t->gen, ERR_CONFIG, "bad syntax: %s in \"%.*s\"; need \"%.*s:{{rule}...}\"", fault,
                        STR_ARG(t->spec), STR_ARG(t->type->name));
    return NULL;
}

static error rules_open(struct table *t, const struct engine *engine) {
    struct rules *s = ARENA_NEW(t->gen, struct rules);
    t->state = s;
    s->arena = t->gen;
    s->engine = engine;
    s->map_name = arena_printf(t->gen, "%.*s map %.*s", STR_ARG(engine->name), STR_ARG(t->name));
    struct buf content = { 0 };
    error e = NULL;
    if (t->name.p[0] == '{') {
        e = inline_content(t, &content);
    } else {
        const char *path = arena_cstr(t->gen, t->name);
        table_watch(t, path, NULL);
        if (!buf_read_file(&content, path, TABLE_FILE_MAX))
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
    pcre2_match_data_free(s->match_data);
    pcre2_match_context_free(s->match_context);
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
        if (r->substitutes && (t->flags & TABLE_NO_REGSUB))
            return table_fail(t, "%.*s, line %zu: regular expression substitution is not allowed", STR_ARG(s->map_name),
                              r->line);
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
