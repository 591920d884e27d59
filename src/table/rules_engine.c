/* The pattern engines of rule tables.
 *
 * regexp: is the C library's POSIX matcher, which takes time that grows with the square of the key at worst, but for
 * two things (measured with glibc 2.36):
 * - back-references: the time grows with a power of the key that the pattern chooses (100 bytes: seconds). Such a
 *   pattern is given to PCRE2, which has limits. Whether it matches is the same; where alternatives of different
 * lengths match, $1 can hold another one than the leftmost-longest.
 * - states: the automaton built on the way is never forgotten, and a key can make it grow, by 9 KiB a byte. When
 *   the heap has grown much while a table was in use, its automata are built anew. Not at fixed intervals: rebuilt ones
 * lie scattered in memory, and are three times as slow. */
#include "table/rules_engine.h"

#include "base/log.h"
#include "table/regexp_ends.h"
#include <malloc.h>

enum {
    PCRE_MATCH_LIMIT = 1000 * 1000,       /* steps of one match */
    PCRE_DEPTH_LIMIT = 250 * 1000,        /* of them on the heap at a time */
    PCRE_HEAP_LIMIT = 20 * 1024,          /* KiB */
    PCRE_JIT_AFTER = 100,                 /* look-ups: to compile takes as long as a thousand matches */
    PCRE_JIT_STACK = 256 * 1024,          /* bytes; not the coroutine's small one */
    REGEXP_LOOK_EACH = 8 * 1024,          /* bytes of keys between two looks at the heap */
    REGEXP_GROWTH_MAX = 16 * 1024 * 1024, /* bytes of heap, and */
    REGEXP_GROWTH_RULE = 64 * 1024,       /* for each rule */
    /* Positions of the pattern with its repeats written out: 6 KiB each, at compile time, in glibc. */
    REGEXP_EXPANDED_MAX = 10 * 1000,
};

/* Patterns are compiled by recursion, 640 (PCRE2) and some 700 (glibc) bytes of stack a level, and a table may be
 * opened again on the small stack of a coroutine. What is not nested needs 21 KiB there, also to match. */
enum { PATTERN_NESTING_MAX = 30 };

static const char too_deep[] = "parentheses nested too deeply: skipping this rule";

static const char *unknown_option(struct rules *s, char option) {
    return arena_printf(s->arena, "unknown regexp option \"%c\": skipping this rule", option).p;
}

static error no_memory(struct rules *s, const struct rule *r, const char *text) {
    return err_make(s->arena, ERR_TEMP, "%.*s, line %zu: %s", STR_ARG(s->map_name), r->line, text);
}

/* --- PCRE2 --- */

/* Compile into r->pcre; see struct engine. */
static bool pcre_build(struct rules *s, struct rule *r, struct str pattern, uint32_t options, const char **ret_fault,
                       error *ret_error) {
    int code = PCRE2_ERROR_NOMEMORY;
    PCRE2_SIZE offset = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context) {
        pcre2_set_parens_nest_limit(context, PATTERN_NESTING_MAX);
        r->pcre = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, options, &code, &offset, context);
    }
    pcre2_compile_context_free(context);
    if (!r->pcre) {
        unsigned char text[200] = "";
        pcre2_get_error_message(code, text, sizeof text);
        *ret_fault = arena_printf(s->arena, "error in regex at offset %zu: %s", offset, (char *)text).p;
        if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
            *ret_error = no_memory(s, r, *ret_fault);
        return false;
    }
    uint32_t groups = 0;
    pcre2_pattern_info(r->pcre, PCRE2_INFO_CAPTURECOUNT, &groups);
    r->groups = groups < GROUPS_MAX ? groups : GROUPS_MAX - 1;
    return true;
}

/* The end of a class that begins at `i`, past its ']' (pcre2pattern(3)). */
static size_t skip_class(struct str p, size_t i) {
    i++;
    if (i < p.n && p.p[i] == '^')
        i++;
    if (i < p.n && p.p[i] == ']')
        i++;
    while (i < p.n && p.p[i] != ']') {
        char next = i + 1 < p.n ? p.p[i + 1] : 0;
        if (p.p[i] == '\\') {
            i += 2;
        } else if (p.p[i] == '[' && (next == ':' || next == '.' || next == '=')) {
            for (i += 2; i + 1 < p.n && !(p.p[i] == next && p.p[i + 1] == ']'); i++)
                ;
            i += 2;
        } else {
            i++;
        }
    }
    return i < p.n ? i + 1 : p.n;
}

/* A '|' outside all parentheses, or something that makes it hard to tell. */
static bool may_alternate(struct str p) {
    size_t depth = 0;
    for (size_t i = 0; i < p.n;) {
        char c = p.p[i], next = i + 1 < p.n ? p.p[i + 1] : 0;
        if ((c == '|' && depth == 0) || (c == '\\' && next == 'Q') || (c == '(' && (next == '*' || next == '?')))
            return true;
        if (c == '[') {
            i = skip_class(p, i);
            continue;
        }
        depth += c == '(';
        depth -= c == ')' && depth;
        i += c == '\\' ? 2 : 1;
    }
    return false;
}

/* Most rules name the header they are about, "^Subject: ...": the letters behind '^' say of most keys, in a few
 * nanoseconds, that they do not match. */
static void note_prefix(struct rule *r, struct str p, uint32_t options) {
    r->prefix_length = 0;
    if (!p.n || p.p[0] != '^' || options & (PCRE2_MULTILINE | PCRE2_EXTENDED) || may_alternate(p))
        return;
    size_t n = 0;
    while (n < sizeof r->prefix && n + 1 < p.n) {
        char c = p.p[n + 1];
        if (!byte_is_alnum(c) && c != '-' && c != ':' && c != ' ' && c != '_' && c != '@' && c != '/')
            break;
        r->prefix[n++] = byte_lower(c);
    }
    char after = n + 1 < p.n ? p.p[n + 1] : 0;
    if (n && (after == '?' || after == '*' || after == '{'))
        n--; /* of the last letter there may be none */
    r->prefix_length = (unsigned char)n;
}

static bool has_prefix(const struct rule *r, struct str key) {
    if (key.n < r->prefix_length)
        return false;
    for (size_t i = 0; i < r->prefix_length; i++)
        if (byte_lower(key.p[i]) != r->prefix[i])
            return false;
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
    pcre2_set_depth_limit(s->match_context, PCRE_DEPTH_LIMIT);
    pcre2_set_heap_limit(s->match_context, PCRE_HEAP_LIMIT);
    return true;
}

/* Machine code for a pattern that is asked often, three to ten times as fast. Where it cannot be had, nothing is lost.
 */
static void pcre_jit(struct rules *s, struct rule *r) {
    if (!s->jit_stack) {
        s->jit_stack = pcre2_jit_stack_create(8 * 1024, PCRE_JIT_STACK, NULL);
        if (!s->jit_stack)
            return;
        pcre2_jit_stack_assign(s->match_context, NULL, s->jit_stack);
    }
    r->machine = pcre2_jit_compile(r->pcre, PCRE2_JIT_COMPLETE) == 0;
}

static int pcre_match(struct rules *s, struct rule *r, struct str key, struct group *groups) {
    if (!has_prefix(r, key))
        return 0;
    int rc = PCRE2_ERROR_NOMEMORY;
    if (pcre_prepare(s)) {
        if (r->asked < PCRE_JIT_AFTER && ++r->asked == PCRE_JIT_AFTER)
            pcre_jit(s, r);
        rc = r->machine ? pcre2_jit_match(r->pcre, (PCRE2_SPTR)key.p, key.n, 0, 0, s->match_data, s->match_context)
                        : pcre2_match(r->pcre, (PCRE2_SPTR)key.p, key.n, 0, 0, s->match_data, s->match_context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter may use the heap */
            rc = pcre2_match(r->pcre, (PCRE2_SPTR)key.p, key.n, 0, PCRE2_NO_JIT, s->match_data, s->match_context);
    }
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

/* --- regexp: --- */

struct regexp {
    regex_t regex;
    const char *pattern;
    struct regexp_ends ends;
    int options;
    unsigned built; /* s->regexp_build of then */
};

/* Back-references, and how large the pattern gets: glibc writes a{3} out as aaa, and a+ as aa*. */
struct shape {
    size_t depth_max, expanded;
    bool back_reference;
};

/* The end of a bracket expression that begins at `i`: past its ']'. */
static size_t skip_bracket(struct str p, size_t i) {
    i++;
    if (i < p.n && p.p[i] == '^')
        i++;
    if (i < p.n && p.p[i] == ']')
        i++;
    for (; i < p.n && p.p[i] != ']'; i++)
        if (p.p[i] == '[' && i + 1 < p.n && (p.p[i + 1] == ':' || p.p[i + 1] == '.' || p.p[i + 1] == '=')) {
            char kind = p.p[i + 1];
            for (i += 2; i + 1 < p.n && !(p.p[i] == kind && p.p[i + 1] == ']'); i++)
                ;
            i++;
        }
    return i < p.n ? i + 1 : p.n;
}

/* What the byte at `i` is, escaped or not, in the syntax given: '(' ')' '{' '}' '|' '+' '?' as operators, '*', '[', 'b'
 * a back-reference, 0 anything else. `*ret_n`: bytes of it. */
static char token(struct str p, size_t i, bool extended, size_t *ret_n) {
    bool escaped = p.p[i] == '\\' && i + 1 < p.n;
    char c = escaped ? p.p[i + 1] : p.p[i];
    *ret_n = escaped ? 2 : 1;
    if (escaped && c >= '1' && c <= '9')
        return 'b';
    if (c && strchr("(){}|+?", c))
        return escaped != extended ? c : 0;
    return !escaped && (c == '*' || c == '[') ? c : 0;
}

/* "{m,n}" behind an opening brace at `i`: how often, and where it ends. */
static size_t read_repeat(struct str p, size_t i, bool extended, size_t *ret_end) {
    size_t most = 0, number = 0, n;
    for (; i < p.n && (byte_is_digit(p.p[i]) || p.p[i] == ','); i++) {
        number = p.p[i] == ',' ? 0 : number * 10 + (size_t)(p.p[i] - '0');
        number = number > RE_DUP_MAX ? RE_DUP_MAX : number;
        most = number > most ? number : most;
    }
    *ret_end = i < p.n && token(p, i, extended, &n) == '}' ? i + n : i;
    return most;
}

static struct shape shape_of(struct str p, bool extended) {
    struct shape s = { 0 };
    size_t open[PATTERN_NESTING_MAX + 1], depth = 0, before = 0, atom = 0, n;
    for (size_t i = 0; i < p.n && s.expanded <= REGEXP_EXPANDED_MAX; i += n) {
        char t = token(p, i, extended, &n);
        size_t times = 1;
        if (t == '[')
            n = skip_bracket(p, i) - i;
        s.back_reference = s.back_reference || t == 'b';
        if (t == '{' || t == '+') { /* of the last atom, which stands in `expanded` once */
            if (t == '{') {
                size_t end;
                times = read_repeat(p, i + n, extended, &end);
                n = end - i;
            } else {
                times = 2;
            }
            atom = times > 1 ? atom * times : atom;
            s.expanded = before + atom;
        } else if (t == '(') {
            if (++depth > PATTERN_NESTING_MAX) {
                s.depth_max = depth;
                return s;
            }
            open[depth] = s.expanded;
        } else if (t == ')') {
            before = depth ? open[depth--] : s.expanded;
            atom = s.expanded - before + 1;
            s.expanded = before + atom;
        } else if (t != '*' && t != '?') {
            before = s.expanded;
            atom = 1;
            s.expanded++;
        }
    }
    return s;
}

/* POSIX to PCRE2, for patterns with back-references only. False: it has something that PCRE2 reads in another way. */
static bool posix_to_pcre(struct str p, bool extended, struct buf *b) {
    bool after_repeat = true; /* a repeat has nothing before it: in basic syntax '*' is itself there */
    size_t n;
    for (size_t i = 0; i < p.n; i += n) {
        char t = token(p, i, extended, &n);
        bool repeat = t == '*' || t == '+' || t == '?' || t == '{';
        if (repeat && after_repeat && (extended || t != '*'))
            return false;
        if (t == '[') {
            n = skip_bracket(p, i) - i;
            for (size_t k = i; k < i + n; k++) {
                if (p.p[k] == '\\') /* no escape there in POSIX */
                    buf_byte(b, '\\');
                if (p.p[k] == '[' && k > i && k + 1 < p.n && (p.p[k + 1] == '.' || p.p[k + 1] == '='))
                    return false;
                buf_byte(b, p.p[k]);
            }
        } else if (t == '{') {
            size_t end;
            read_repeat(p, i + n, extended, &end);
            buf_byte(b, '{');
            if (p.p[i + n] == ',')
                buf_byte(b, '0');
            for (size_t k = i + n; k < end && p.p[k] != '\\' && p.p[k] != '}'; k++)
                buf_byte(b, p.p[k]);
            buf_byte(b, '}');
            n = end - i;
        } else if (t == 'b') {
            buf_printf(b, "(?:\\%c)", p.p[i + 1]); /* a digit behind it is no part of the number */
        } else if (t && (t != '*' || !after_repeat)) {
            buf_byte(b, t);
        } else if (n == 2 && (p.p[i + 1] == '<' || p.p[i + 1] == '>')) {
            buf_add(b, p.p[i + 1] == '<' ? STR("\\b(?=\\w)") : STR("\\b(?<=\\w)"));
        } else if (n == 2) { /* glibc has \w \W \s \S \b \B \` \'; the rest are themselves */
            if (byte_is_alnum(p.p[i + 1]) && !strchr("wWsSbB", p.p[i + 1]))
                buf_byte(b, p.p[i + 1]);
            else
                buf_add(b, p.p[i + 1] == '`' ? STR("\\A") : p.p[i + 1] == '\'' ? STR("\\z") : str_sub(p, i, 2));
        } else {
            if (p.p[i] && strchr("(){}|+?*", p.p[i]))
                buf_byte(b, '\\');
            buf_byte(b, p.p[i]);
        }
        after_repeat = repeat || t == '(' || t == '|' || (t == 0 && n == 1 && p.p[i] == '^');
    }
    return true;
}

static bool compile_back_references(struct rules *s, struct rule *r, struct str pattern, int posix,
                                    const char **ret_fault, error *ret_error) {
    struct buf b = { 0 };
    uint32_t options = PCRE2_DOLLAR_ENDONLY | (posix & REG_ICASE ? PCRE2_CASELESS : 0) |
                       (posix & REG_NEWLINE ? PCRE2_MULTILINE : PCRE2_DOTALL);
    bool ok = posix_to_pcre(pattern, (posix & REG_EXTENDED) != 0, &b);
    if (!ok)
        *ret_fault = "a repeat of a repeat together with a back-reference: skipping this rule";
    ok = ok && pcre_build(s, r, buf_str(&b), options, ret_fault, ret_error);
    buf_free(&b);
    return ok;
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
            *ret_fault = unknown_option(s, flags.p[i]);
            return false;
        }
        options ^= bit;
    }
    struct shape shape = shape_of(pattern, (options & REG_EXTENDED) != 0);
    if (shape.depth_max > PATTERN_NESTING_MAX) {
        *ret_fault = too_deep;
        return false;
    }
    if (shape.expanded > REGEXP_EXPANDED_MAX) {
        *ret_fault = "the repeats multiply to too large a pattern: skipping this rule";
        return false;
    }
    struct regexp *x = ARENA_NEW(s->arena, struct regexp);
    *x = (struct regexp){ .pattern = arena_cstr(s->arena, pattern), .options = options, .built = s->regexp_build };
    int rc = regcomp(&x->regex, x->pattern, options);
    if (rc) {
        char text[200];
        regerror(rc, &x->regex, text, sizeof text);
        *ret_fault = arena_str(s->arena, str_c(text)).p;
        if (rc == REG_ESPACE)
            *ret_error = no_memory(s, r, text);
        return false;
    }
    if (shape.back_reference) {
        regfree(&x->regex);
        return compile_back_references(s, r, pattern, options, ret_fault, ret_error);
    }
    x->ends = regexp_ends(pattern, options, s->arena);
    r->regexp = x;
    r->groups = x->regex.re_nsub < GROUPS_MAX ? (unsigned)x->regex.re_nsub : GROUPS_MAX - 1;
    return true;
}

static int regexp_fault(struct rules *s, struct rule *r, int rc) {
    regerror(rc, &r->regexp->regex, s->fault, sizeof s->fault);
    return -1;
}

static void watch_growth(struct rules *s, size_t fed) {
    s->regexp_fed += fed;
    if (s->regexp_fed < REGEXP_LOOK_EACH)
        return;
    s->regexp_fed = 0;
    struct mallinfo2 heap = mallinfo2();
    size_t now = heap.uordblks + heap.hblkhd;
    if (s->heap_least == 0 || now < s->heap_least)
        s->heap_least = now;
    if (now - s->heap_least > REGEXP_GROWTH_MAX + s->list.n * REGEXP_GROWTH_RULE) {
        s->heap_least = now;
        s->regexp_build++;
    }
}

static int regexp_match(struct rules *s, struct rule *r, struct str key, struct group *groups) {
    struct regexp *x = r->regexp;
    if (!x)
        return pcre_match(s, r, key, groups);
    if (!regexp_ends_fit(&x->ends, key))
        return 0;
    watch_growth(s, key.n);
    if (x->built != s->regexp_build) {
        regfree(&x->regex);
        int failed = regcomp(&x->regex, x->pattern, x->options);
        x->built = s->regexp_build - (failed ? 1 : 0); /* try again before it is used */
        if (failed)
            return regexp_fault(s, r, failed);
    }
    /* REG_STARTEND: the key's length counts, not a NUL in it */
    regmatch_t m[GROUPS_MAX];
    m[0] = (regmatch_t){ 0, (regoff_t)key.n };
    size_t count = groups ? r->groups + 1 : 0;
    int rc = regexec(&x->regex, key.p, count, m, REG_STARTEND);
    if (rc == REG_NOMATCH)
        return 0;
    if (rc)
        return regexp_fault(s, r, rc);
    for (size_t i = 1; groups && i < count; i++)
        groups[i] = m[i].rm_so < 0 ? (struct group){ 1, 0 } : (struct group){ (size_t)m[i].rm_so, (size_t)m[i].rm_eo };
    return 1;
}

static void pattern_free(struct rule *r) {
    if (r->regexp)
        regfree(&r->regexp->regex);
    pcre2_code_free(r->pcre);
}

const struct engine regexp_engine = { STR_INIT("regexp"), true, regexp_compile, regexp_match, pattern_free };

/* --- pcre: --- */

static const struct {
    char letter;
    uint32_t bit;
} pcre_flags[] = {
    { 'i', PCRE2_CASELESS }, { 'm', PCRE2_MULTILINE },      { 's', PCRE2_DOTALL },   { 'x', PCRE2_EXTENDED },
    { 'A', PCRE2_ANCHORED }, { 'E', PCRE2_DOLLAR_ENDONLY }, { 'U', PCRE2_UNGREEDY }, { 'X', 0 },
};

static bool pcre_compile(struct rules *s, struct rule *r, struct str pattern, struct str flags, const char **ret_fault,
                         error *ret_error) {
    uint32_t options = PCRE2_CASELESS | PCRE2_DOTALL;
    for (size_t i = 0; i < flags.n; i++) {
        size_t k = 0;
        while (k < sizeof pcre_flags / sizeof pcre_flags[0] && pcre_flags[k].letter != flags.p[i])
            k++;
        if (k == sizeof pcre_flags / sizeof pcre_flags[0]) {
            *ret_fault = unknown_option(s, flags.p[i]);
            return false;
        }
        if (pcre_flags[k].bit == 0) /* PCRE2 has no such mode: unknown escapes are always errors */
            rules_warn(s, r->line, "ignoring obsolete regexp option \"X\"");
        options ^= pcre_flags[k].bit;
    }
    note_prefix(r, pattern, options);
    return pcre_build(s, r, pattern, options, ret_fault, ret_error);
}

const struct engine pcre_engine = { STR_INIT("pcre"), true, pcre_compile, pcre_match, pattern_free };

void rules_engine_end(struct rules *s) {
    pcre2_match_data_free(s->match_data);
    pcre2_match_context_free(s->match_context);
    pcre2_jit_stack_free(s->jit_stack);
}

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

const struct engine cidr_engine = { STR_INIT("cidr"), false, cidr_compile, cidr_match, NULL };
