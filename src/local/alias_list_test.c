#include "test/test.h"

#include "local/alias_list.h"
#include <stdlib.h>

static const char *const kinds[] = { "?", "addr", "cmd", "file", "incl" };

/* Items as "kind:text;kind:text;". The input stands alone in memory, without a terminator. */
static void check(const char *in, const char *want, bool lines) {
    struct arena *a = arena_new();
    size_t n = strlen(in);
    char *copy = malloc(n ? n : 1);
    memcpy(copy, in, n);
    struct alias_list list = { 0 };
    if (lines)
        alias_list_parse_lines(a, str_n(copy, n), &list);
    else
        alias_list_parse(a, str_n(copy, n), &list);
    struct str got = STR("");
    for (size_t i = 0; i < list.n; i++)
        got = arena_printf(a, "%.*s%s:%.*s;", STR_ARG(got), kinds[list.at[i].kind], STR_ARG(list.at[i].text));
    if (!str_eq(got, str_c(want)))
        print_error("input: %s\n", in);
    assert_str(got, want);
    free(copy);
    arena_free(a);
}

static void test_items(void **state) {
    (void)state;
    static const struct {
        const char *in, *want;
    } rows[] = {
        { "", "" },
        { " , ,", "" },
        { "alice", "addr:alice;" },
        { "alice, bob@x.example", "addr:alice;addr:bob@x.example;" },
        { "\"|cmd arg, more\"", "cmd:cmd arg, more;" },
        { "|\"cmd arg\"", "cmd:cmd arg;" },
        { "\"|cmd \\\"a b\\\" c\"", "cmd:cmd \"a b\" c;" },
        { "|exit 0", "cmd:exit;addr:0;" },
        { "\"| cmd\"", "cmd:cmd;" },
        { "/file/name", "file:/file/name;" },
        { "\"/file name/x\"", "file:/file name/x;" },
        { "/dir/, alice", "file:/dir/;addr:alice;" },
        { ":include:/list", "incl:/list;" },
        { ":include: /list", "incl:/list;" },
        { "\":include:/a b\"", "incl:/a b;" },
        { ":INCLUDE:/list", "incl:/list;" },
        { "Gecos <g@x.example> (comment)", "addr:g@x.example;" },
        { "Gecos, Jr <g@x.example>", "addr:Gecos;addr:g@x.example;" },
        { "(a, b) alice", "addr:alice;" },
        { "\"q u\"@x.example", "addr:q u@x.example;" },
        { "\\alice", "addr:alice;" },
        /* what is left open ends at the next comma */
        { "\"open, alice, \"|cmd\"", "addr:open;addr:alice;cmd:cmd;" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        check(rows[i].in, rows[i].want, false);
}

static void test_lines(void **state) {
    (void)state;
    check("# no, \"|no\"\nalice\n\nbob, carol\n\"|c d\"", "addr:alice;addr:bob;addr:carol;cmd:c d;", true);
    check("\n", "", true);
    check("", "", true);
}

/* Linear: a megabyte of openings must not take the square of that. */
static void test_openings(void **state) {
    (void)state;
    enum { N = 200000 };
    char *in = malloc(2 * N);
    for (size_t i = 0; i < N; i++) {
        in[2 * i] = '<';
        in[2 * i + 1] = ',';
    }
    struct arena *a = arena_new();
    struct alias_list list = { 0 };
    alias_list_parse(a, str_n(in, 2 * N), &list);
    free(in);
    arena_free(a);
}

static void test_limit(void **state) {
    (void)state;
    enum { N = ALIAS_ITEMS_MAX + 10 };
    char *in = malloc(3 * N);
    for (size_t i = 0; i < N; i++)
        memcpy(in + 3 * i, "/x,", 3);
    struct arena *a = arena_new();
    struct alias_list list = { 0 };
    alias_list_parse(a, str_n(in, 3 * N), &list);
    assert_int_equal(list.n, ALIAS_ITEMS_MAX);
    assert_true(list.truncated);
    free(in);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_openings),
        cmocka_unit_test(test_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
