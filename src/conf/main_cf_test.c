#include "test/test.h"

#include "conf/lines.h"
#include "conf/main_cf.h"

#include <stdlib.h>

#include "test/fixture.h"

static error parse(const char *text, size_t n, struct main_cf *ret) {
    char *exact = malloc(n ? n : 1);
    memcpy(exact, text, n);
    error e = main_cf_parse((struct str){ exact, n }, STR("main.cf"), arena, ret);
    free(exact); /* nothing may point into it */
    return e;
}

/* One setting each, or an error. */
static const struct {
    const char *text, *name, *value, *error;
} cases[] = {
    { "a = b", "a", "b", NULL }, /* no newline at the end */
    { "a=b\n", "a", "b", NULL },
    { "a =\n", "a", "", NULL },
    { "a=\n   b\n", "a", "b", NULL },
    { "a = b\r\n", "a", "b", NULL },
    { "a = b \t \n", "a", "b", NULL },
    { "a = = b\n", "a", "= b", NULL },
    { "a==b\n", "a", "=b", NULL },
    { "my-name.x = b\n", "my-name.x", "b", NULL },
    { "{a} = b\n", "{a}", "b", NULL },
    { "a = b # c\n", "a", "b # c", NULL }, /* CF-08 */
    { "a = b\\\n c\n", "a", "b\\ c", NULL },
    { "\n \n# x\n  # y\n\ta = \n", NULL, NULL, NULL },
    { "a = b\n   c\n# x\n  d  \n\n \t\n   e\t\n", "a", "b   c  d     e", NULL },
    { "a = b\n#c", "a", "b", NULL },
    { "a = b\n  # y\n  c\n", "a", "b  c", NULL },
    { "  x = y\n   z\na = b\n", "a", "b", NULL },
    { "a\n", NULL, NULL, "main.cf, line 1: missing '=' after attribute name: \"a\"" },
    { "\n\na b = c\n", NULL, NULL, "main.cf, line 3: missing '=' after attribute name: \"a b = c\"" },
    { "a : c\n", NULL, NULL, "main.cf, line 1: missing '=' after attribute name: \"a : c\"" },
    { "=c\n", NULL, NULL, "main.cf, line 1: missing attribute name: \"=c\"" },
    { "", NULL, NULL, NULL },
    { "\n", NULL, NULL, NULL },
    { " ", NULL, NULL, NULL },
    { "#", NULL, NULL, NULL },
};

static void table(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct main_cf got;
        error e = parse(cases[i].text, strlen(cases[i].text), &got);
        if (cases[i].error) {
            assert_non_null(e);
            assert_str(e->text, cases[i].error);
            continue;
        }
        if (e)
            fail_msg("%s: %s", cases[i].text, e->text.p);
        assert_int_equal(got.settings.n, cases[i].name != NULL);
        if (cases[i].name) {
            assert_str(got.settings.at[0].name, cases[i].name);
            assert_str(got.settings.at[0].value, cases[i].value);
        }
    }
}

static void lines_and_warnings(void **state) {
    (void)state;
    static const char text[] = "  x = y\n   z\n\na = 1\n#\n b\nc = 2\na = 3";
    struct main_cf got;
    assert_null(parse(text, sizeof text - 1, &got));
    assert_int_equal(got.settings.n, 3);
    assert_int_equal(got.settings.at[0].line, 4);
    assert_int_equal(got.settings.at[1].line, 7);
    assert_int_equal(got.settings.at[2].line, 8);
    assert_int_equal(got.warnings.n, 1);
    assert_str(got.warnings.at[0], "main.cf: logical line must not start with whitespace: \"  x = y   z\"");
}

static void limits(void **state) {
    (void)state;
    struct main_cf got;
    error e = parse("a = b\0c\n", 8, &got);
    assert_non_null(e);
    assert_str(e->text, "main.cf, line 1: NUL byte: this is not a text file");
    size_t n = CONF_LINE_MAX + 10;
    char *text = malloc(n);
    memset(text, 'x', n);
    text[0] = 'a';
    text[2] = '=';
    text[1] = text[3] = ' ';
    text[n / 2] = '\n';
    text[n / 2 + 1] = ' ';
    e = parse(text, n, &got);
    assert_non_null(e);
    assert_true(str_contains(e->text, STR("longer than")));
    assert_null(parse(text, CONF_LINE_MAX, &got));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(table), cmocka_unit_test(lines_and_warnings),
                                        cmocka_unit_test(limits) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
