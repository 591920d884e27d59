#include "test/test.h"

#include "base/arena.h"
#include "conf/expand.h"

#include <stdlib.h>

static const struct {
    const char *name, *value;
    bool literal;
} names[] = {
    { "a1", "aa", false },      { "empty", "", false },         { "b1", "$a1", false },
    { "ref", "$empty", false }, { "loop", "x$loop", false },    { "raw", "${who}$knows", true },
    { "level", "3.6", false },  { "big", "$big9$big9", false },
};

static bool lookup(void *ctx, struct str name, struct expand_value *ret) {
    (void)ctx;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (str_eq(name, str_c(names[i].name))) {
            *ret = (struct expand_value){ str_c(names[i].value), names[i].literal };
            return true;
        }
    }
    return false;
}

/* What Postfix 3.7 and 3.12 make of these; `error` is the beginning of the message. */
static const struct {
    const char *text, *want, *error;
} cases[] = {
    { "", "", NULL },
    { "plain {text} (too)", "plain {text} (too)", NULL },
    { "$$", "$", NULL },
    { "$$x", "$x", NULL },
    { "a$$$$b", "a$$b", NULL },
    { "$a1", "aa", NULL },
    { "$a1-b", "aa-b", NULL },
    { "$a1.x", "aa.x", NULL },
    { "${a1}x", "aax", NULL },
    { "$(a1)x", "aax", NULL },
    { "${ a1 }", "aa", NULL },
    { "$b1", "aa", NULL },
    { "{ $a1 }", "{ aa }", NULL },
    { "$undef", "", NULL },
    { "${undef}", "", NULL },
    { "${a1?yes}", "yes", NULL },
    { "${a1:no}", "", NULL },
    { "${empty?yes}", "", NULL },
    { "${empty:no}", "no", NULL },
    { "${undef?yes}", "", NULL },
    { "${undef:no}", "no", NULL },
    { "$(undef:no)", "no", NULL },
    { "${ref?yes}", "yes", NULL }, /* asked before it is expanded */
    { "${a1?{yes}:{no}}", "yes", NULL },
    { "${undef?{yes}:{no}}", "no", NULL },
    { "X${undef ? { yes } : { no } }X", "X no X", NULL },
    { "X${undef :  yes z }X", "X  yes z X", NULL },
    { "${a1?yes $b1}", "yes aa", NULL },
    { "${a1?{a{b}c}}", "a{b}c", NULL },
    { "${undef:{a{b}c}}", "a{b}c", NULL },
    { "${a1:x?y}", "", NULL },
    { "${a1?x:y}", "x:y", NULL },
    { "${a1?{x}:y}", "x", NULL },
    { "${undef?{x}:y}", "y", NULL },
    { "${undef?{x}: y }", " y ", NULL },
    { "${a1?}", "", NULL },
    { "${a1?{}}", "", NULL },
    { "${a1 ?{x}}", "x", NULL },
    { "${undef?$bad(}", "", NULL },
    { "${b1?{$b1}}", "aa", NULL },
    { "${a1?{${b1?{${undef:{deep}}}}}}", "deep", NULL },
    { "${{a} == {a}}", "true", NULL },
    { "${{a} != {a}}", "", NULL },
    { "${{a}=={a}?{x}:{y}}", "x", NULL },
    { "${{10} < {9} ? {x} : {y}}", "y", NULL },
    { "${{10} < {9a} ? {x} : {y}}", "x", NULL },
    { "${{a} < {b} ? {x} : {y}}", "x", NULL },
    { "${{b} <= {a} ? {x} : {y}}", "y", NULL },
    { "${{b} >= {b} ? {x} : {y}}", "x", NULL },
    { "${{b} > {b} ? {x} : {y}}", "y", NULL },
    { "${{01} == {1} ? {x} : {y}}", "x", NULL },
    { "${{ 1} == {1} ? {x} : {y}}", "y", NULL },
    { "${{} == {} ? {x} : {y}}", "x", NULL },
    { "${{-1} < {-2} ? {x} : {y}}", "x", NULL },
    { "${{+1} == {1} ? {x} : {y}}", "y", NULL },
    { "${{A} == {a} ? {x} : {y}}", "y", NULL },
    { "${{9223372036854775807} > {1} ? {x} : {y}}", "x", NULL },
    { "${{$a1} == {aa} ? {x$b1} : {y}}", "xaa", NULL },
    { "${{$a1} == {aa} ? x : y}", " x : y", NULL },
    { "${{$a1} == {bb} :x}", "x", NULL },
    { "${{$a1} == {bb}?{x}}", "", NULL },
    { "${{3.9} <level {3.10} ? {x} : {y}}", "x", NULL },
    { "${{3.9} < {3.10} ? {x} : {y}}", "y", NULL },
    { "${{3} >=level {2.9} ? {x} : {y}}", "x", NULL },
    { "${{3.6} ==level {3.6.0} ? {x} : {y}}", "x", NULL },
    { "${{$level} <level {3.12} ? {x} : {y}}", "x", NULL },
    /* CF-12 */
    { "<$raw>", "<${who}$knows>", NULL },
    { "${domain_to_ascii{ b\xc3\xbc"
      "cher.example }}",
      "xn--bcher-kva.example", NULL },
    { "${domain_to_ascii{${domain_to_utf8{xn--bcher-kva.example}}}}", "xn--bcher-kva.example", NULL },
    { "${domain_to_utf8{${undef:{xn--bcher-kva}}}}",
      "b\xc3\xbc"
      "cher",
      NULL },
    { "${domain_to_ascii{$a1}}=x, .${domain_to_ascii{$a1}}", "aa=x, .aa", NULL },
    { "${domain_to_ascii{}}", "", NULL },
    { "$", NULL, "empty macro name: \"$\"" },
    { "a $ b", NULL, "empty macro name: \"a $ b\"" },
    { "${}", NULL, "empty macro name: \"${}\"" },
    { "${foo", NULL, "truncated macro reference: \"${foo\"" },
    { "x${a1?{x}", NULL, "truncated macro reference: \"x${a1?{x}\"" },
    { "$(a1", NULL, "truncated macro reference" },
    { "${a1)", NULL, "truncated macro reference" },
    { "${a1?{x}y}", NULL, "\":\" expected at: \"...a1?{x}>>>y\"" },
    { "${undef:{x}?{y}}", NULL, "unexpected input at: \"...undef:{x}>>>?{y}\"" },
    { "${a1 ? {x}:{y} z}", NULL, "unexpected input at: \"...a1 ? {x}:{y} >>>z\"" },
    { "${a-b}", NULL, "attribute name syntax error at: \"...a>>>-b\"" },
    { "${a1 == {aa} ? {x} : {y}}", NULL, "attribute name syntax error at: \"...a1>>> == {aa} ? {x} : {y}\"" },
    { "${nosuch{a}}", NULL, "attribute name syntax error" },
    { "${{a} === {b} ? {x} : {y}}", NULL, "\"{expression}\" expected at" },
    { "${{a} =! {b}}", NULL,
      "\"==\" or \"!=\" or \"<\" or \"<=\" or \">=\" or \">\" expected at: \"...{a} >>>=! {b}\"" },
    { "${{aa} == $a1 ? {x} : {y}}", NULL, "\"{expression}\" expected at: \"...{aa} == >>>$a1 ? {x} : {y}\"" },
    { "${{3.x} <level {3.6} ? {x} : {y}}", NULL, "malformed compatibility level syntax: \"3.x\"" },
    { "${{99999999999999999999} > {1} ? {x} : {y}}", NULL, "number out of range: \"99999999999999999999\"" },
    { "$loop", NULL, "unreasonable macro call nesting: \"loop\"" },
};

static void table(void **state) {
    (void)state;
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = strlen(cases[i].text);
        char *exact = malloc(n ? n : 1);
        memcpy(exact, cases[i].text, n);
        struct str got = STR("(not set)");
        error e = expand((struct str){ exact, n }, lookup, NULL, a, &got);
        if (cases[i].want) {
            if (e)
                fail_msg("%s: %s", cases[i].text, e->text.p);
            assert_str(got, cases[i].want);
        } else {
            if (!e) {
                fail_msg("%s: gave \"%s\"", cases[i].text, got.p);
                return;
            }
            if (!str_starts(e->text, str_c(cases[i].error)))
                fail_msg("%s: %s", cases[i].text, e->text.p);
        }
        free(exact);
    }
    arena_free(a);
}

struct doubling {
    char values[64][16];
};

static bool doubling_lookup(void *ctx, struct str name, struct expand_value *ret) {
    struct doubling *d = ctx;
    uint32_t n;
    if (name.n < 2 || !str_to_u32(str_from(name, 1), 62, &n))
        return false;
    snprintf(d->values[n], sizeof d->values[n], "$v%u$v%u", n + 1, n + 1);
    *ret = (struct expand_value){ n == 62 ? STR("") : str_c(d->values[n]), false };
    return true;
}

/* Few lines that would take for ever: v0 = $v1$v1, v1 = $v2$v2 ... */
static void doubling(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct doubling d;
    struct str got;
    error e = expand(STR("$v0"), doubling_lookup, &d, a, &got);
    assert_non_null(e);
    assert_true(str_starts(e->text, STR("unreasonable macro call nesting")));
    arena_free(a);
}

static void levels(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        int order; /* 2: malformed */
    } cases_of[] = { { "0", "0", 0 },  { "3.6", "3.12", -1 }, { "3", "3.0.0", 0 }, { "4", "3.9", 1 },
                     { "", "1", 2 },   { "1.", "1", 2 },      { "1", "x", 2 },     { "1.2.3.4", "1", 2 },
                     { "-1", "1", 2 }, { "99999", "1", 2 },   { "1.0.1", "1", 1 } };
    for (size_t i = 0; i < sizeof cases_of / sizeof cases_of[0]; i++) {
        int order = 2;
        struct str bad;
        if (!level_compare(str_c(cases_of[i].a), str_c(cases_of[i].b), &order, &bad))
            order = 2;
        assert_int_equal(order, cases_of[i].order);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(table), cmocka_unit_test(doubling), cmocka_unit_test(levels) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
