/* Unit tests of receive.h. */
#include "test/test.h"

#include "proto/receive.h"

static struct conf *load(struct arena *a, const char *name, const char *value) {
    struct conf_override all[] = { { STR("compatibility_level"), STR("3.6") }, { str_c(name), str_c(value) } };
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = all,
                                  .override_count = 2,
                                  .process_name = STR("smtpd"),
                                  .service_name = STR("smtp"),
                                  .missing_is_empty = true };
    struct conf *c;
    assert_null(conf_load(&source, a, &c));
    return c;
}

static void override_options(void **state) {
    (void)state;
    const unsigned all = SUBMIT_FILTER | SUBMIT_MILTER | SUBMIT_MAP;
    const struct {
        const char *value;
        unsigned off;
        bool no_unknown;
    } rows[] = {
        { "", 0, false },
        { "no_header_body_checks", SUBMIT_FILTER, false },
        { "no_milters", SUBMIT_MILTER, false },
        { "no_address_mappings", SUBMIT_MAP, false },
        { "no_unknown_recipient_checks", 0, true },
        { "no_unknown_recipient_checks, no_milters NO_Address_Mappings", SUBMIT_MILTER | SUBMIT_MAP, true },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf *c = load(a, "receive_override_options", rows[i].value);
        unsigned flags = 0;
        bool no_unknown = !rows[i].no_unknown;
        assert_null(receive_flags(c, a, &flags, &no_unknown));
        assert_int_equal(flags, all & ~rows[i].off);
        assert_int_equal(no_unknown, rows[i].no_unknown);
        conf_free(c);
    }
    struct conf *c = load(a, "receive_override_options", "no_milters no_such_thing");
    unsigned flags;
    bool no_unknown;
    error e = receive_flags(c, a, &flags, &no_unknown);
    assert_non_null(e);
    assert_int_equal(e->kind, ERR_CONFIG);
    conf_free(c);
    arena_free(a);
}

static void classes(void **state) {
    (void)state;
    struct arena *a = arena_new();
    const struct {
        const char *value, *class;
        bool found;
    } rows[] = {
        { "sendmail, verify", "sendmail", true },
        { "sendmail, verify", "smtpd", false },
        { "all", "smtpd", true },
        { "SMTPD", "smtpd", true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf *c = load(a, "smtputf8_autodetect_classes", rows[i].value);
        assert_int_equal(receive_detect_utf8(c, str_c(rows[i].class)), rows[i].found ? SUBMIT_DETECT_UTF8 : 0);
        conf_free(c);
    }
    struct conf *c = load(a, "smtputf8_enable", "no");
    assert_int_equal(receive_detect_utf8(c, STR("sendmail")), 0);
    conf_free(c);
    c = load(a, "internal_mail_filter_classes", "bounce");
    assert_int_equal(receive_internal_filter(c, STR("bounce")), SUBMIT_FILTER | SUBMIT_MILTER);
    assert_int_equal(receive_internal_filter(c, STR("notify")), 0);
    conf_free(c);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(override_options), cmocka_unit_test(classes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
