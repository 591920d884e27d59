#include "master/roles.h"

#include "test/test.h"

static struct conf *load(struct arena *a) {
    struct conf *c = NULL;
    struct conf_source source = { .config_directory = STR("/nonexistent"), .missing_is_empty = true };
    assert_null(conf_load(&source, a, &c));
    return c;
}

static void test_table(void **state) {
    (void)state;
    static const struct {
        struct str program;
        struct str endpoint;
        bool connect, trigger;
    } rows[] = {
        { STR_INIT("smtpd"), STR_INIT("public/cleanup"), true, true },
        { STR_INIT("smtpd"), STR_INIT("private/rewrite"), true, true },
        { STR_INIT("smtpd"), STR_INIT("private/anvil"), true, true },
        { STR_INIT("smtpd"), STR_INIT("public/qmgr"), false, true },
        { STR_INIT("smtpd"), STR_INIT("private/smtp"), false, false },
        { STR_INIT("smtpd"), STR_INIT("private/local"), false, false },
        { STR_INIT("smtpd"), STR_INIT("private/bounce"), false, false },
        { STR_INIT("smtpd"), STR_INIT("public/pickup"), false, false },
        { STR_INIT("qmgr"), STR_INIT("private/smtp"), true, true },
        { STR_INIT("qmgr"), STR_INIT("private/any-transport"), true, true },
        { STR_INIT("qmgr"), STR_INIT("private/bounce"), true, true },
        { STR_INIT("qmgr"), STR_INIT("public/pickup"), false, false },
        { STR_INIT("qmgr"), STR_INIT("public/flush"), true, true },
        { STR_INIT("smtpd"), STR_INIT("public/flush"), true, true },
        { STR_INIT("flush"), STR_INIT("public/qmgr"), true, true },
        { STR_INIT("flush"), STR_INIT("public/cleanup"), false, false },
        { STR_INIT("bounce"), STR_INIT("public/flush"), false, false },
        { STR_INIT("cleanup"), STR_INIT("public/flush"), false, false },
        { STR_INIT("cleanup"), STR_INIT("public/qmgr"), true, true },
        { STR_INIT("cleanup"), STR_INIT("private/local"), false, false },
        { STR_INIT("smtp"), STR_INIT("public/cleanup"), false, false },
        { STR_INIT("smtp"), STR_INIT("private/proxymap"), true, true },
        { STR_INIT("smtp"), STR_INIT("private/bounce"), false, false },
        { STR_INIT("smtp"), STR_INIT("public/qmgr"), false, false },
        { STR_INIT("lmtp"), STR_INIT("private/rewrite"), false, false },
        { STR_INIT("qmgr"), STR_INIT("private/proxymap"), true, true },
        { STR_INIT("cleanup"), STR_INIT("private/proxymap"), true, true },
        { STR_INIT("local"), STR_INIT("private/proxymap"), true, true },
        { STR_INIT("trivial-rewrite"), STR_INIT("private/proxymap"), true, true },
        { STR_INIT("trivial-rewrite"), STR_INIT("public/cleanup"), false, false },
        { STR_INIT("proxymap"), STR_INIT("private/rewrite"), false, false },
        { STR_INIT("nobody-knows-it"), STR_INIT("public/cleanup"), false, false },
        /* not endpoints */
        { STR_INIT("qmgr"), STR_INIT(""), false, false },
        { STR_INIT("qmgr"), STR_INIT("private/"), false, false },
        { STR_INIT("qmgr"), STR_INIT("private"), false, false },
        { STR_INIT("qmgr"), STR_INIT("private/../public/pickup"), false, false },
        { STR_INIT("qmgr"), STR_INIT("private//smtp"), false, false },
        { STR_INIT("qmgr"), STR_INIT("/private/smtp"), false, false },
        { STR_INIT("smtpd"), STR_INIT("pid/cleanup"), false, false },
    };
    struct arena *a = arena_new();
    struct conf *c = load(a);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct master_entry e = { .command = rows[i].program };
        if (role_may_connect(c, &e, rows[i].endpoint) != rows[i].connect ||
            role_may_trigger(c, &e, rows[i].endpoint) != rows[i].trigger)
            fail_msg("%.*s -> %.*s", STR_ARG(rows[i].program), STR_ARG(rows[i].endpoint));
    }
    conf_free(c);
    arena_free(a);
}

static void test_overrides(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct conf *c = load(a);
    const struct conf_override o[] = { { STR("cleanup_service_name"), STR("wrong") },
                                       { STR("cleanup_service_name"), STR("pre-$rewrite_service_name") },
                                       { STR("unrelated"), STR("cleanup") } };
    struct master_entry e = { .command = STR("smtpd"), .overrides = o, .override_count = 3 };
    assert_true(role_may_connect(c, &e, STR("public/pre-rewrite")));
    assert_false(role_may_connect(c, &e, STR("public/wrong")));
    assert_false(role_may_connect(c, &e, STR("public/cleanup")));
    assert_true(role_may_connect(c, &e, STR("private/rewrite")));
    conf_free(c);
    arena_free(a);
}

static void test_keeping(void **state) {
    (void)state;
    assert_true(role_may_scratch(&(struct master_entry){ .command = STR("smtpd") }));
    assert_false(role_may_scratch(&(struct master_entry){ .command = STR("smtp") }));
    assert_true(role_may_keep(&(struct master_entry){ .command = STR("tlsmgr") }));
    assert_false(role_may_keep(&(struct master_entry){ .command = STR("smtpd") }));
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_table), cmocka_unit_test(test_overrides),
                                        cmocka_unit_test(test_keeping) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
