/* Unit tests of checks.h: every action, and answers that are none. */
#include "test/test.h"

#include "inspect/checks.h"

static void actions(void **state) {
    (void)state;
    static const struct {
        const char *answer;
        bool body;
        enum check_action action;
        const char *log, *dsn, *value, *fault;
    } rows[] = {
        { "REJECT no way", false, CHECK_REJECT, "reject", "5.7.1", "no way", "" },
        { "reject", false, CHECK_REJECT, "reject", "5.7.1", "message content rejected", "" },
        { "REJECT 4.2.1 later", false, CHECK_REJECT, "reject", "4.2.1", "later", "" },
        { "REJECT 5.7.2", false, CHECK_REJECT, "reject", "5.7.2", "message content rejected", "" },
        { "WARN  a  b ", false, CHECK_WARN, "warning", "", "a  b", "" },
        { "INFO", false, CHECK_INFO, "info", "", "", "" },
        { "DUNNO x", false, CHECK_NONE, "", "", "x", "" },
        { "OK", false, CHECK_NONE, "", "", "", "" },
        { "IGNORE", false, CHECK_IGNORE, "", "", "", "" },
        { "STRIP why", false, CHECK_STRIP, "strip", "", "why", "" },
        { "PASS", false, CHECK_PASS, "pass", "", "", "" },
        { "DISCARD gone", false, CHECK_DISCARD, "discard", "", "gone", "" },
        { "HOLD", false, CHECK_HOLD, "hold", "", "", "" },
        { "FILTER smtp:[x]:25", false, CHECK_FILTER, "filter", "", "smtp:[x]:25", "" },
        { "FILTER x", false, CHECK_NONE, "", "", "",
          "bad FILTER command x in header_checks -- need transport:destination" },
        { "REDIRECT a@b", false, CHECK_REDIRECT, "redirect", "", "a@b", "" },
        { "REDIRECT a", false, CHECK_NONE, "", "", "",
          "bad REDIRECT target \"a\" in header_checks map -- need user@domain" },
        { "BCC a@b", false, CHECK_BCC, "bcc", "", "a@b", "" },
        { "BCC", false, CHECK_NONE, "", "", "", "bad BCC address \"\" in header_checks map -- need user@domain" },
        { "PREPEND X: y", false, CHECK_PREPEND, "prepend", "", "X: y", "" },
        { "PREPEND y", true, CHECK_PREPEND, "prepend", "", "y", "" },
        { "PREPEND y", false, CHECK_NONE, "", "", "",
          "bad PREPEND header text \"y\" in header_checks map -- need \"headername: headervalue\"" },
        { "REPLACE", true, CHECK_NONE, "", "", "", "REPLACE action without text in header_checks map" },
        { "REPLACE none", false, CHECK_NONE, "", "", "",
          "bad REPLACE header text \"none\" in header_checks map -- need \"headername: headervalue\"" },
        { "FROB x", false, CHECK_NONE, "", "", "", "unknown command in header_checks map: FROB x" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct maps *m = maps_open(NULL, arena_printf(a, "inline:{{k=%s}}", rows[i].answer), 0);
        struct check c;
        assert_int_equal(check_find(m, STR("header_checks"), !rows[i].body, STR("k"), a, &c), TABLE_FOUND);
        assert_int_equal(c.action, rows[i].action);
        assert_str(c.log, rows[i].log);
        assert_str(c.dsn, rows[i].dsn);
        assert_str(c.value, rows[i].value);
        assert_str(c.fault, rows[i].fault);
        assert_int_equal(check_find(m, STR("header_checks"), true, STR("other"), a, &c), TABLE_NOT_FOUND);
        assert_int_equal(c.action, CHECK_NONE);
        maps_close(m);
    }
    arena_free(a);
}

static void not_asked(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct check c;
    struct maps *m = maps_open(NULL, STR("static:REJECT"), 0);
    assert_int_equal(check_find(m, STR("body_checks"), false, STR(""), a, &c), TABLE_NOT_FOUND);
    assert_int_equal(check_find(NULL, STR("body_checks"), false, STR("x"), a, &c), TABLE_NOT_FOUND);
    maps_close(m);
    m = maps_open(NULL, STR("fail:x"), 0);
    assert_int_equal(check_find(m, STR("body_checks"), false, STR("x"), a, &c), TABLE_ERROR);
    maps_close(m);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(actions), cmocka_unit_test(not_asked) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
