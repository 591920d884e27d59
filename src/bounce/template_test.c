#include "test/test.h"

#include "bounce/template.h"

#include "test/fixture.h"

#define FAILURE "failure_template = <<EOF\n"

/* `text` NULL: the built-in one stays. */
static const struct {
    const char *file, *text, *subject, *warning, *error;
} cases[] = {
    { FAILURE "Subject: s\n\nhello\n\n  there\nEOF\n", "hello\n\n  there\n", "s", NULL, NULL },
    { FAILURE "hello\nEOF", "hello\n", NULL, NULL, NULL },
    { FAILURE "\nSubject: hello\nEOF\n", "Subject: hello\n", NULL, NULL, NULL },
    { FAILURE "subject:  a b \nSUBJECT : c\nhello: \xc3\xa9 there\nEOF\n", NULL, NULL,
      "F, line 1: unknown \"hello\" header label in failure template -- ignoring this template", NULL },
    { FAILURE "subject: a\nSUBJECT : c\n x: y\nEOF\n", " x: y\n", "c", NULL, NULL },
    { "# x\n\n \nfailure_template=<<X Y\nhello\nEOF\nX Y \nX Y\n", "hello\nEOF\nX Y \n", NULL, NULL, NULL },
    { "failure_template = hello\n", "hello\n", NULL, NULL, NULL },
    { FAILURE "one\nEOF\n" FAILURE "two\nEOF\n", "two\n", NULL, NULL, NULL },
    { FAILURE "Subject:\n\nhello\nEOF\n", NULL, NULL,
      "F, line 1: empty \"Subject\" header value in failure template -- ignoring this template", NULL },
    { FAILURE "Subject: \xc3\xa9\n\nhello\nEOF\n", NULL, NULL,
      "F, line 1: non-ASCII \"Subject\" header value in failure template -- ignoring this template", NULL },
    { FAILURE "\nh\xc3\xa9\nEOF\n", NULL, NULL,
      "F, line 1: 8-bit message text with a charset of us-ascii in failure template -- ignoring this template", NULL },
    { FAILURE "Charset: utf-8\n\nh\xc3\xa9\nEOF\n", "h\xc3\xa9\n", NULL, NULL, NULL },
    { FAILURE "Subject: x\n\n \n\nEOF\n", NULL, NULL,
      "F, line 1: missing message text in failure template -- ignoring this template", NULL },
    { FAILURE "EOF\n", NULL, NULL, "F, line 1: missing message text in failure template -- ignoring this template",
      NULL },
    { "success_template = <<EOF\nPostmaster-Subject: x\n\nhello\nEOF\n", NULL, NULL,
      "F, line 1: inapplicable \"Postmaster-Subject\" header label in success template -- ignoring this template",
      NULL },
    { "other_template = <<EOF\nx\nEOF\n", NULL, NULL,
      "F, line 3: unknown template name: other_template -- ignoring this template", NULL },
    { "", NULL, NULL, NULL, NULL },
    { "\nwhat\n", NULL, NULL, NULL, "F, line 2: missing '=' after attribute name: \"what\"" },
    { "failure_template = <<\n", NULL, NULL, NULL, "F, line 1: missing end marker after <<" },
    { FAILURE "hello\n EOF\n", NULL, NULL, NULL, "F, line 3: missing end marker EOF" },
};

static void test_parse(void **state) {
    struct bounce_templates plain;
    (void)state;
    bounce_templates_builtin(&plain);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bounce_templates t;
        error e = bounce_templates_parse(str_c(cases[i].file), STR("F"), arena, &t);
        assert_str(e ? e->text : STR("no error"), cases[i].error ? cases[i].error : "no error");
        if (e)
            continue;
        const struct bounce_template *want = &plain.at[TEMPLATE_FAILURE], *got = &t.at[TEMPLATE_FAILURE];
        assert_str(got->text, cases[i].text ? cases[i].text : want->text.p);
        assert_str(got->subject, cases[i].subject ? cases[i].subject : want->subject.p);
        assert_str(got->postmaster_subject, want->postmaster_subject.p);
        assert_str(t.at[TEMPLATE_SUCCESS].text, plain.at[TEMPLATE_SUCCESS].text.p);
        assert_str(t.warnings.n ? t.warnings.at[0] : STR("none"), cases[i].warning ? cases[i].warning : "none");
    }
}

static const struct {
    const char *text, *expanded, *warning, *error;
} expansions[] = {
    { "$myhostname $mydomain",
      "b\xc3\xbc"
      "cher.example \xe4\xbe\x8b.example\n",
      NULL, NULL },
    { "$$x $mine ${mine?y}", "$x $y$ y\n", NULL, NULL },
    { "$delay_warning_time_minutes $delay_warning_time_hours $maximal_queue_lifetime_days", "90 1 1\n", NULL, NULL },
    { "$delay_warning_time_days", "0\n",
      "F: zero result in failure template conversion of parameter \"delay_warning_time_days\": please reduce time unit "
      "\"days\" (see bounce(5))",
      NULL },
    { "$delay_warning_time_seconds", "5400\n",
      "F: excessive result \"5400\" in failure template conversion of parameter \"delay_warning_time_seconds\": please "
      "increase time unit \"seconds\" (see bounce(5))",
      NULL },
    { "$delay_warning_time", "90m\n", NULL, NULL },
    { "$delay_warning_time_years", NULL, NULL,
      "F: unrecognized suffix \"years\" in parameter \"delay_warning_time_years\"" },
    { "a $nobody", NULL, NULL, "F: undefined $name in failure template: nobody" },
    { "a ${x", NULL, NULL, "F: bad $name syntax in failure template: truncated macro reference: \"a ${x?\"" },
};

static void test_expand(void **state) {
    const struct conf_override settings[] = {
        { STR("myhostname"), STR("xn--bcher-kva.example") },
        { STR("mydomain"), STR("xn--fsq.example") },
        { STR("mine"), STR("$$y$$") },
        { STR("delay_warning_time"), STR("90m") },
        { STR("maximal_queue_lifetime"), STR("36h") },
        { STR("smtputf8_enable"), STR("yes") },
    };
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = settings,
                                  .override_count = sizeof settings / sizeof settings[0],
                                  .process_name = STR("test"),
                                  .missing_is_empty = true };
    struct conf *c;
    (void)state;
    assert_null(conf_load(&source, arena, &c));
    for (size_t i = 0; i < sizeof expansions / sizeof expansions[0]; i++) {
        struct bounce_templates t;
        struct str got = STR(""), file = arena_printf(arena, FAILURE "%s\nEOF\n", expansions[i].text);
        assert_null(bounce_templates_parse(file, STR("F"), arena, &t));
        error e = bounce_template_expand(&t, TEMPLATE_FAILURE, c, arena, &got);
        assert_str(e ? e->text : STR("no error"), expansions[i].error ? expansions[i].error : "no error");
        if (e)
            continue;
        assert_str(got, expansions[i].expanded);
        assert_str(t.warnings.n ? t.warnings.at[0] : STR("none"),
                   expansions[i].warning ? expansions[i].warning : "none");
    }
    conf_free(c);
}

/* What we ship expands, and what -t prints of it is a template file with the same meaning. */
static void test_builtin(void **state) {
    static const char *const names[] = { "failure", "delay", "success", "verify" };
    struct conf_source source = { .config_directory = STR("/nonexistent"), .missing_is_empty = true };
    struct bounce_templates t;
    struct conf *c;
    (void)state;
    assert_null(conf_load(&source, arena, &c));
    bounce_templates_builtin(&t);
    for (int i = 0; i < TEMPLATE_COUNT; i++) {
        struct str got;
        struct bounce_templates again;
        assert_str(t.at[i].name, names[i]);
        assert_null(bounce_template_expand(&t, (enum template_kind)i, c, arena, &got));
        assert_true(str_contains(got, conf_str(c, PARAM_myhostname)));
        struct str file =
            arena_printf(arena, "%s_template = <<E\nSubject: %s\n\n%sE\n", names[i], t.at[i].subject.p, t.at[i].text.p);
        assert_null(bounce_templates_parse(file, STR("F"), arena, &again));
        assert_int_equal(again.warnings.n, 0);
        assert_str(again.at[i].text, t.at[i].text.p);
    }
    conf_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_parse, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_expand, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_builtin, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("template", tests, NULL, NULL);
}
