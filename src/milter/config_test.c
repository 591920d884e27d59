#include "milter/config.h"

#include "test/fixture.h"
#include "test/test.h"

/* Defaults, with the parameters given as overrides: name, value, ... */
static struct conf *with(struct str name, struct str value) {
    struct conf_override over = { .name = name, .value = value };
    struct conf_source source = {
        .config_directory = STR("/nonexistent"), .overrides = &over, .override_count = 1, .missing_is_empty = true
    };
    struct conf *c = NULL;
    assert_null(conf_load(&source, arena, &c));
    return c;
}

static void test_plain(void **state) {
    (void)state;
    struct conf *c = with(STR("milter_default_action"), STR("tempfail"));
    struct milter_configs list;
    assert_null(milter_configs_parse(arena, c, STR("inet:127.0.0.1:8891, unix:run/x.sock inet:[::1]:9"), &list));
    assert_int_equal(list.n, 3);
    assert_str(list.at[0].target.text, "inet:127.0.0.1:8891");
    assert_int_equal(list.at[0].target.port, 8891);
    assert_true(list.at[1].target.local);
    assert_str(list.at[2].target.host, "::1");
    assert_int_equal(list.at[0].connect_timeout, 30);
    assert_int_equal(list.at[0].content_timeout, 300);
    assert_int_equal(list.at[0].version, 6);
    assert_int_equal(list.at[0].on_error, MILTER_DEFAULT_TEMPFAIL);
    assert_null(milter_configs_parse(arena, c, STR(" "), &list));
    assert_int_equal(list.n, 0);
    conf_free(c);
}

static void test_braces(void **state) {
    (void)state;
    struct conf *c = with(STR("milter_protocol"), STR("4"));
    struct milter_configs list;
    /* blanks around = want braces of their own */
    assert_non_null(milter_configs_parse(arena, c, STR("{ inet:127.0.0.1:1, command_timeout = 1m }"), &list));
    assert_null(milter_configs_parse(arena, c,
                                     STR("{ inet:127.0.0.1:1, connect_timeout=10s, { command_timeout = 1m } "
                                         "default_action=accept { protocol = 2, no_header_reply } }"
                                         " { unix:a, content_timeout=2h,default_action=quarantine}, inet:127.0.0.1:2"),
                                     &list));
    assert_int_equal(list.n, 3);
    assert_int_equal(list.at[0].connect_timeout, 10);
    assert_int_equal(list.at[0].command_timeout, 60);
    assert_int_equal(list.at[0].version, 2);
    assert_true(list.at[0].mute_header);
    assert_int_equal(list.at[0].on_error, MILTER_DEFAULT_ACCEPT);
    assert_int_equal(list.at[1].content_timeout, 7200);
    assert_int_equal(list.at[1].on_error, MILTER_DEFAULT_QUARANTINE);
    assert_int_equal(list.at[1].version, 4);
    assert_false(list.at[2].mute_header);
    assert_int_equal(list.at[2].on_error, MILTER_DEFAULT_SHUTDOWN); /* since 3.11 */
    conf_free(c);
}

static void test_wrong(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "tcp:127.0.0.1:1",
        "inet:127.0.0.1:0",
        "{ inet:127.0.0.1:1",
        "{ }",
        "{ inet:127.0.0.1:1, default_action=maybe }",
        "{ inet:127.0.0.1:1, protocol=5 }",
        "{ inet:127.0.0.1:1, protocol=no_header_reply }",
        "{ inet:127.0.0.1:1, connect_timeout=0 }",
        "{ inet:127.0.0.1:1, connect_timeout=soon }",
        "{ inet:127.0.0.1:1, retries=3 }",
    };
    struct conf *c = with(STR("milter_protocol"), STR("6"));
    struct milter_configs list;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        error e = milter_configs_parse(arena, c, str_c(wrong[i]), &list);
        if (!e)
            print_error("taken: %s\n", wrong[i]);
        assert_non_null(e);
        assert_int_equal(e->kind, ERR_CONFIG);
    }
    struct buf many = { 0 };
    for (int i = 0; i <= MILTERS_MAX; i++)
        buf_add(&many, STR("inet:127.0.0.1:1 "));
    assert_non_null(milter_configs_parse(arena, c, buf_str(&many), &list));
    buf_free(&many);
    conf_free(c);
}

static void test_macros(void **state) {
    (void)state;
    struct conf *c = with(STR("milter_macro_defaults"), STR("x=1, {daemon_name}=d {{two} = a b} { three= c,d }"));
    struct milter_macros m;
    assert_null(milter_macros_parse(arena, c, &m));
    assert_int_equal(m.defaults.n, 4);
    assert_str(m.defaults.at[1].name, "{daemon_name}");
    assert_str(m.defaults.at[1].value, "d");
    assert_str(m.defaults.at[2].name, "{two}");
    assert_str(m.defaults.at[2].value, "a b");
    assert_str(m.defaults.at[3].name, "three");
    assert_str(m.defaults.at[3].value, "c,d");
    struct str list = m.lists[MILTER_AT_CONNECT], name;
    assert_true(milter_macro_next(&list, &name));
    assert_str(name, "j");
    assert_true(milter_macro_next(&list, &name));
    assert_str(name, "{daemon_name}");
    assert_true(milter_macro_is(STR("{i}"), STR("i")));
    assert_false(milter_macro_is(STR("{ii}"), STR("i")));
    conf_free(c);
    c = with(STR("milter_macro_defaults"), STR("noequals"));
    assert_non_null(milter_macros_parse(arena, c, &m));
    conf_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_braces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_macros, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("milter_config", tests, NULL, NULL);
}
