#include "conf/expand.h"
#include "base/buf.h"
#include "conf/lines.h"

#include <idn2.h>

enum op { OP_EQ = 1, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE };

enum frame_kind { FRAME_TEXT = 1, FRAME_COMPARE, FRAME_CALL };

/* What is being done, innermost last: an own stack, because nesting is the administrator's input. */
struct frame {
    enum frame_kind kind;
    struct str rest;    /* TEXT: what is still to be read. COMPARE: the right side, until it is its turn */
    struct buf *out;    /* where the result goes */
    struct buf side[2]; /* COMPARE: the values of both sides; CALL: side[0] the argument */
    size_t sides;       /* COMPARE: how many are known */
    enum op op;
    bool level;
    struct str yes, no;  /* COMPARE: the branches */
    struct str function; /* CALL: its name */
};

struct machine {
    struct frame frames[EXPAND_DEPTH];
    size_t depth, steps;
    expand_lookup *lookup;
    void *ctx;
    struct arena *arena;
};

struct branches {
    bool any; /* a "?" or a ":" was there */
    struct str yes, no;
};

/* --- compatibility levels --- */

enum { LEVEL_PARTS = 3, LEVEL_PART_MAX = 32767 };

static bool level_parse(struct str s, uint32_t part[LEVEL_PARTS]) {
    memset(part, 0, sizeof part[0] * LEVEL_PARTS);
    struct str piece;
    size_t n = 0;
    while (str_next(&s, STR("."), &piece)) {
        if (n == LEVEL_PARTS || !str_to_u32(piece, LEVEL_PART_MAX, &part[n]))
            return false;
        n++;
    }
    return n > 0;
}

bool level_compare(struct str a, struct str b, int *ret, struct str *ret_bad) {
    uint32_t x[LEVEL_PARTS], y[LEVEL_PARTS];
    if (!level_parse(a, x)) {
        *ret_bad = a;
        return false;
    }
    if (!level_parse(b, y)) {
        *ret_bad = b;
        return false;
    }
    *ret = 0;
    for (size_t i = 0; i < LEVEL_PARTS && !*ret; i++)
        *ret = x[i] < y[i] ? -1 : x[i] > y[i];
    return true;
}

/* --- the pieces of a reference --- */

static bool is_name_byte(char c) {
    return byte_is_alnum(c) || c == '_';
}

static size_t name_length(struct str s) {
    size_t n = 0;
    while (n < s.n && is_name_byte(s.p[n]))
        n++;
    return n;
}

/* `s` begins with `open`: take what stands between it and the `close` that belongs to it. */
static bool take_group(struct str *s, char open, char close, struct str *ret) {
    size_t depth = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->p[i] == open) {
            depth++;
        } else if (s->p[i] == close && --depth == 0) {
            *ret = str_sub(*s, 1, i - 1);
            *s = str_from(*s, i + 1);
            return true;
        }
    }
    return false;
}

static error bad(struct machine *m, const char *what, struct str where) {
    return err_make(m->arena, ERR_CONFIG, "%s: \"%.*s\"", what, STR_ARG(conf_excerpt(where, m->arena)));
}

/* As Postfix shows it: what was understood, then ">>>" and what was not. */
static error bad_at(struct machine *m, const char *what, struct str body, struct str at) {
    enum { SHOWN = 30 };
    size_t done = (size_t)(at.p - body.p);
    size_t from = done > SHOWN ? done - SHOWN : 0;
    struct str before = str_sub(body, from, done - from), after = str_sub(at, 0, SHOWN);
    return err_make(m->arena, ERR_CONFIG, "%s at: \"...%.*s>>>%.*s\"", what, STR_ARG(conf_excerpt(before, m->arena)),
                    STR_ARG(conf_excerpt(after, m->arena)));
}

/* cond, up to the end of the body; `at` is where it would begin. */
static error take_branches(struct machine *m, struct str body, struct str at, struct branches *ret) {
    *ret = (struct branches){ .yes = STR(""), .no = STR("") };
    struct str s = str_trim_left(at);
    if (!s.n)
        return NULL;
    ret->any = true;
    bool yes = s.p[0] == '?';
    s = str_from(s, 1);
    struct str inner = str_trim_left(s);
    if (!inner.n || inner.p[0] != '{') {
        *(yes ? &ret->yes : &ret->no) = s;
        return NULL;
    }
    struct str group;
    if (!take_group(&inner, '{', '}', &group))
        return bad(m, "truncated macro reference", body);
    *(yes ? &ret->yes : &ret->no) = group;
    inner = str_trim_left(inner);
    if (!inner.n)
        return NULL;
    if (!yes)
        return bad_at(m, "unexpected input", body, inner);
    if (inner.p[0] != ':')
        return bad_at(m, "\":\" expected", body, inner);
    s = str_from(inner, 1);
    inner = str_trim_left(s);
    if (!inner.n || inner.p[0] != '{') {
        ret->no = s;
        return NULL;
    }
    if (!take_group(&inner, '{', '}', &ret->no))
        return bad(m, "truncated macro reference", body);
    inner = str_trim_left(inner);
    return inner.n ? bad_at(m, "unexpected input", body, inner) : NULL;
}

static error push(struct machine *m, struct frame frame, struct str name) {
    if (m->depth == EXPAND_DEPTH || ++m->steps > EXPAND_STEPS)
        return bad(m, "unreasonable macro call nesting", name);
    m->frames[m->depth++] = frame;
    return NULL;
}

static error push_text(struct machine *m, struct str text, struct buf *out, struct str name) {
    return push(m, (struct frame){ .kind = FRAME_TEXT, .rest = text, .out = out }, name);
}

static const struct {
    struct str text;
    enum op op;
} ops[] = { { STR_INIT("=="), OP_EQ }, { STR_INIT("!="), OP_NE }, { STR_INIT("<="), OP_LE },
            { STR_INIT(">="), OP_GE }, { STR_INIT("<"), OP_LT },  { STR_INIT(">"), OP_GT } };

static bool take_op(struct str *s, enum op *ret, bool *ret_level) {
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (!str_starts(*s, ops[i].text))
            continue;
        struct str rest = str_from(*s, ops[i].text.n);
        *ret = ops[i].op;
        *ret_level = str_starts(rest, STR("level"));
        if (*ret_level)
            rest = str_from(rest, 5);
        rest = str_trim_left(rest);
        *s = rest;
        return true;
    }
    return false;
}

/* comparison [cond] */
static error start_comparison(struct machine *m, struct str body, struct str s, struct buf *out) {
    struct frame f = { .kind = FRAME_COMPARE, .out = out };
    struct str left, right;
    if (!take_group(&s, '{', '}', &left))
        return bad(m, "truncated macro reference", body);
    s = str_trim_left(s);
    if (!take_op(&s, &f.op, &f.level))
        return bad_at(m, "\"==\" or \"!=\" or \"<\" or \"<=\" or \">=\" or \">\" expected", body, s);
    if (!s.n || s.p[0] != '{')
        return bad_at(m, "\"{expression}\" expected", body, s);
    if (!take_group(&s, '{', '}', &right))
        return bad(m, "truncated macro reference", body);
    s = str_trim_left(s);
    if (s.n && s.p[0] != '?' && s.p[0] != ':')
        return bad_at(m, "\"?\" or \":\" expected", body, s);
    struct branches b;
    error e = take_branches(m, body, s, &b);
    if (e)
        return e;
    f.rest = right;
    f.yes = b.any ? b.yes : STR("true");
    f.no = b.no;
    if ((e = push(m, f, body)))
        return e;
    return push_text(m, left, &m->frames[m->depth - 1].side[0], body);
}

bool is_expand_function(struct str name) {
    return str_eq(name, STR("domain_to_ascii")) || str_eq(name, STR("domain_to_utf8"));
}

/* name [cond] / function "{" text "}"; `s` is not empty and begins with no brace. */
static error start_name(struct machine *m, struct str body, struct str s, struct buf *out) {
    size_t n = name_length(s);
    struct str name = str_sub(s, 0, n), after = str_trim_left(str_from(s, n));
    if (n && after.n && after.p[0] == '{' && is_expand_function(name)) {
        struct str arg;
        if (!take_group(&after, '{', '}', &arg))
            return bad(m, "truncated macro reference", body);
        after = str_trim_left(after);
        if (after.n)
            return bad_at(m, "unexpected input", body, after);
        error e = push(m, (struct frame){ .kind = FRAME_CALL, .out = out, .function = name }, name);
        return e ? e : push_text(m, arg, &m->frames[m->depth - 1].side[0], name);
    }
    if (!n || (after.n && after.p[0] != '?' && after.p[0] != ':'))
        return bad_at(m, "attribute name syntax error", body, str_from(s, n));
    struct branches b;
    error e = take_branches(m, body, after, &b);
    if (e)
        return e;
    struct expand_value value = { STR(""), false };
    bool defined = m->lookup(m->ctx, name, &value);
    if (b.any)
        return push_text(m, defined && value.text.n ? b.yes : b.no, out, name);
    if (!defined)
        return NULL;
    if (value.literal) {
        buf_add(out, value.text);
        return NULL;
    }
    return push_text(m, value.text, out, name);
}

/* The next piece of a TEXT frame. */
static error step_text(struct machine *m, struct frame *f) {
    ptrdiff_t dollar = str_index(f->rest, '$');
    struct str whole = f->rest;
    struct buf *out = f->out;
    if (dollar < 0) {
        buf_add(out, f->rest);
        m->depth--;
        return NULL;
    }
    buf_add(out, str_sub(f->rest, 0, (size_t)dollar));
    struct str s = str_from(f->rest, (size_t)dollar + 1);
    char c = s.n ? s.p[0] : 0;
    if (c == '$') {
        buf_byte(out, '$');
        f->rest = str_from(s, 1);
        return NULL;
    }
    if (c == '{' || c == '(') {
        struct str body;
        if (!take_group(&s, c, c == '{' ? '}' : ')', &body))
            return bad(m, "truncated macro reference", whole);
        f->rest = s;
        body = str_trim_left(body);
        struct str name = str_trim_right(body);
        if (!name.n)
            return bad(m, "empty macro name", whole);
        return body.p[0] == '{' ? start_comparison(m, body, body, out) : start_name(m, body, body, out);
    }
    size_t n = name_length(s);
    if (!n)
        return bad(m, "empty macro name", whole);
    struct str name = str_sub(s, 0, n);
    f->rest = str_from(s, n);
    return start_name(m, name, name, out);
}

static bool all_digits(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is_digit(s.p[i]))
            return false;
    return s.n > 0;
}

static error compare(struct machine *m, const struct frame *f, bool *ret) {
    struct str a = buf_str(&f->side[0]), b = buf_str(&f->side[1]), wrong;
    int c;
    if (f->level) {
        if (!level_compare(a, b, &c, &wrong))
            return bad(m, "malformed compatibility level syntax", wrong);
    } else if (all_digits(a) && all_digits(b)) {
        uint64_t x, y;
        if (!str_to_u64(a, INT64_MAX, &x) || !str_to_u64(b, INT64_MAX, &y))
            return bad(m, "number out of range", a.n > b.n ? a : b);
        c = x < y ? -1 : x > y;
    } else {
        c = str_cmp(a, b);
    }
    *ret = f->op == OP_EQ   ? c == 0
           : f->op == OP_NE ? c != 0
           : f->op == OP_LT ? c < 0
           : f->op == OP_LE ? c <= 0
           : f->op == OP_GT ? c > 0
                            : c >= 0;
    return NULL;
}

static error step_compare(struct machine *m, struct frame *f) {
    f->sides++;
    if (f->sides == 1)
        return push_text(m, f->rest, &f->side[1], f->rest);
    bool is_true = false;
    error e = compare(m, f, &is_true);
    if (e)
        return e;
    struct str chosen = is_true ? f->yes : f->no;
    struct buf *out = f->out;
    buf_free(&f->side[0]);
    buf_free(&f->side[1]);
    m->depth--;
    return push_text(m, chosen, out, chosen);
}

/* What cannot be converted stays as it is: such a domain matches nothing, and no mail is lost over it. */
static error step_call(struct machine *m, struct frame *f) {
    struct str arg = str_trim(buf_str(&f->side[0]));
    char *name = arena_cstr(m->arena, arg), *converted = NULL;
    int rc = str_eq(f->function, STR("domain_to_ascii"))
                 ? idn2_to_ascii_8z(name, &converted, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL)
                 : idn2_to_unicode_8z8z(name, &converted, 0);
    buf_add(f->out, rc == IDN2_OK ? str_c(converted) : arg);
    idn2_free(converted);
    buf_free(&f->side[0]);
    m->depth--;
    return NULL;
}

error expand(struct str text, expand_lookup *lookup, void *ctx, struct arena *a, struct str *ret) {
    if (str_index(text, '$') < 0) {
        *ret = arena_str(a, text);
        return NULL;
    }
    struct arena *scratch = arena_new();
    struct machine *m = arena_alloc(scratch, sizeof *m);
    m->depth = m->steps = 0;
    m->lookup = lookup;
    m->ctx = ctx;
    m->arena = a;
    struct buf out = { 0 };
    error e = push_text(m, text, &out, text);
    while (!e && m->depth) {
        struct frame *f = &m->frames[m->depth - 1];
        struct buf *grown = f->out;
        e = f->kind == FRAME_TEXT ? step_text(m, f) : f->kind == FRAME_COMPARE ? step_compare(m, f) : step_call(m, f);
        if (!e && grown->n > EXPAND_SIZE)
            e = err_make(a, ERR_CONFIG, "value longer than %d bytes after expansion", EXPAND_SIZE);
    }
    if (!e)
        *ret = arena_str(a, buf_str(&out));
    for (size_t i = 0; i < m->depth; i++) {
        buf_free(&m->frames[i].side[0]);
        buf_free(&m->frames[i].side[1]);
    }
    buf_free(&out);
    arena_free(scratch);
    return e;
}
