#include "test/test.h"

#include "base/buf.h"
#include "build_config.h"
#include "conf/conf.h"
#include "conf/params.h"
#include "conf/settings.h"
#include "conf/values.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/angarium-conf-XXXXXX";
static struct arena *arena;

static int set_up(void **state) {
    (void)state;
    arena = arena_new();
    unsetenv("MAIL_CONFIG");
    return mkdtemp(directory) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    unlink(arena_printf(arena, "%s/main.cf", directory).p);
    rmdir(directory);
    arena_free(arena);
    return 0;
}

static void write_main_cf(const char *text) {
    FILE *f = fopen(arena_printf(arena, "%s/main.cf", directory).p, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct conf_source source_of(const char *text) {
    write_main_cf(text);
    return (struct conf_source){ .config_directory = str_c(directory), .process_name = STR("smtpd") };
}

static struct conf *load(const char *text) {
    struct conf_source source = source_of(text);
    struct conf *c = NULL;
    error e = conf_load(&source, arena, &c);
    if (e)
        fail_msg("%s: %s", text, e->text.p);
    return c;
}

static void defaults(void **state) {
    (void)state;
    struct conf *c = load("");
    assert_str(conf_str(c, PARAM_2bounce_notice_recipient), "postmaster");
    assert_str(conf_str(c, PARAM_mail_name), "Angarium");
    assert_str(conf_str(c, PARAM_mail_version), "3.12.0");
    assert_str(conf_str(c, PARAM_angarium_version), ANGARIUM_VERSION);
    assert_str(conf_str(c, PARAM_alias_maps), "lmdb:" BUILD_SYSCONF_DIRECTORY "/aliases");
    assert_str(conf_str(c, PARAM_daemon_directory), BUILD_DAEMON_DIRECTORY);
    assert_str(conf_str(c, PARAM_process_name), "smtpd");
    assert_str(conf_str(c, PARAM_forward_path), "$home/.forward${recipient_delimiter}${extension}, $home/.forward");
    assert_int_equal(conf_int(c, PARAM_smtpd_hard_error_limit), 20);
    assert_int_equal(conf_time(c, PARAM_smtpd_timeout), 300);
    assert_int_equal(conf_time(c, PARAM_maximal_queue_lifetime), 5 * 86400);
    assert_true(conf_bool(c, PARAM_append_dot_mydomain));
    assert_true(conf_str(c, PARAM_myhostname).n > 0);
    assert_true(str_index(conf_str(c, PARAM_myhostname), '.') > 0);
    const struct str *warnings;
    assert_int_equal(conf_warnings(c, &warnings), 0);
    conf_free(c);
}

/* The other branch of every conditional default fits its type and range too. */
static void other_defaults(void **state) {
    (void)state;
    struct conf *c = load("compatibility_level = 3.12\nstress = yes\n");
    assert_false(conf_bool(c, PARAM_append_dot_mydomain));
    assert_int_equal(conf_int(c, PARAM_smtpd_hard_error_limit), 1);
    assert_int_equal(conf_time(c, PARAM_smtpd_timeout), 10);
    assert_str(conf_str(c, PARAM_mynetworks_style), "host");
    assert_str(conf_str(c, PARAM_smtp_tls_security_level), "may");
    struct str mydomain = conf_str(c, PARAM_mydomain);
    struct str begin = arena_printf(arena, "inline:{{%.*s=opportunistic}, {.%.*s=opportunistic}, ", STR_ARG(mydomain),
                                    STR_ARG(mydomain));
    assert_true(str_starts(conf_str(c, PARAM_smtp_requiretls_policy), begin));
    conf_free(c);
}

static void every_name_is_found(void **state) {
    (void)state;
    for (int i = 0; i < PARAM_COUNT; i++) {
        enum param p;
        assert_true(param_find(param_row((enum param)i)->name, &p));
        assert_int_equal(p, i);
        if (param_row(p)->status == STATUS_INERT)
            assert_true(param_row(p)->note.n > 0);
    }
    enum param p;
    assert_false(param_find(STR(""), &p));
    assert_false(param_find(STR("zzz"), &p));
}

static void settings(void **state) {
    (void)state;
    struct conf *c = load("# a comment\n"
                          "myhostname = mail.example.com\n"
                          "mydestination = $myhostname,\n"
                          "  # in the middle\n"
                          "\n"
                          "\tlocalhost.$mydomain\n"
                          "compatibility_level = 3.9\n"
                          "smtpd_timeout = 5\n"
                          "delay_warning_time = 4\n"
                          "own = $mydomain/${later}\n"
                          "relayhost = $own\n"
                          "later = yes\n"
                          "smtp_destination_concurrency_limit = 7\n");
    assert_str(conf_str(c, PARAM_mydestination), "mail.example.com,\tlocalhost.example.com");
    assert_str(conf_str(c, PARAM_relayhost), "example.com/yes");
    assert_int_equal(conf_time(c, PARAM_smtpd_timeout), 5);
    assert_int_equal(conf_time(c, PARAM_delay_warning_time), 4 * 3600);
    assert_false(conf_bool(c, PARAM_append_dot_mydomain));
    assert_true(conf_level_at_least(c, STR("3.6")));
    assert_false(conf_level_at_least(c, STR("3.12")));
    assert_int_equal(conf_service_int(c, STR("smtp"), STR("_destination_concurrency_limit")), 7);
    assert_int_equal(conf_service_int(c, STR("relay"), STR("_destination_concurrency_limit")), 20);
    assert_int_equal(conf_service_int(c, STR("local"), STR("_destination_recipient_limit")), 1);
    assert_int_equal(conf_service_time(c, STR("x"), STR("_time_limit")), 1000);
    assert_str(conf_service_str(c, STR("x"), STR("_destination_concurrency_positive_feedback")), "1");
    struct str value;
    assert_true(conf_lookup(c, STR("own"), arena, &value));
    assert_str(value, "example.com/yes");
    assert_true(conf_lookup(c, STR("smtp_destination_concurrency_limit"), arena, &value));
    assert_str(value, "7");
    assert_false(conf_lookup(c, STR("nobody"), arena, &value));
    conf_free(c);
}

/* Postfix's text, then the place. %s is the directory. */
static const struct {
    const char *main_cf, *text;
} bad[] = {
    { "myorigin", "%s/main.cf, line 1: missing '=' after attribute name: \"myorigin\"" },
    { "\n= foo", "%s/main.cf, line 2: missing attribute name: \"= foo\"" },
    { "a b = c", "%s/main.cf, line 1: missing '=' after attribute name: \"a b = c\"" },
    { "message_size_limit = foo", "bad numerical configuration: message_size_limit = foo (%s/main.cf, line 1)" },
    { "message_size_limit =", "bad numerical configuration: message_size_limit =  (%s/main.cf, line 1)" },
    { "message_size_limit = 99999999999999999999",
      "bad numerical configuration: message_size_limit = 99999999999999999999 (%s/main.cf, line 1)" },
    { "debug_peer_level = 99999999999",
      "bad numerical configuration: debug_peer_level = 99999999999 (%s/main.cf, line 1)" },
    { "debug_peer_level = 5 # x", "bad numerical configuration: debug_peer_level = 5 # x (%s/main.cf, line 1)" },
    { "debug_peer_level = 0x10", "bad numerical configuration: debug_peer_level = 0x10 (%s/main.cf, line 1)" },
    { "debug_peer_level = +-1", "bad numerical configuration: debug_peer_level = +-1 (%s/main.cf, line 1)" },
    { "\n\ndebug_peer_level = 0", "invalid debug_peer_level parameter value 0 < 1 (%s/main.cf, line 3)" },
    { "delay_logging_resolution_limit = 99",
      "invalid delay_logging_resolution_limit parameter value 99 > 6 (%s/main.cf, line 1)" },
    { "ipc_timeout = foo", "parameter ipc_timeout: bad time value or unit: foo (%s/main.cf, line 1)" },
    { "ipc_timeout = 1H", "parameter ipc_timeout: bad time value or unit: 1H (%s/main.cf, line 1)" },
    { "ipc_timeout = -1", "parameter ipc_timeout: bad time value or unit: -1 (%s/main.cf, line 1)" },
    { "ipc_timeout = 10 s", "parameter ipc_timeout: bad time value or unit: 10 s (%s/main.cf, line 1)" },
    { "ipc_timeout = 9999999w", "parameter ipc_timeout: bad time value or unit: 9999999w (%s/main.cf, line 1)" },
    { "ipc_timeout = 0", "invalid ipc_timeout: 0 (min 1) (%s/main.cf, line 1)" },
    { "in_flow_delay = 11s", "invalid in_flow_delay: 11 (max 10) (%s/main.cf, line 1)" },
    { "helpful_warnings = true", "bad boolean configuration: helpful_warnings = true (%s/main.cf, line 1)" },
    { "syslog_name =", "bad string length 0 < 1: syslog_name =  (%s/main.cf, line 1)" },
    { "default_verp_delimiters = abc", "bad string length 3 > 2: default_verp_delimiters = abc (%s/main.cf, line 1)" },
    { "compatibility_level = 3.x", "malformed compatibility level syntax: \"3.x\" (%s/main.cf, line 1)" },
    { "inet_protocols = foo", "unknown inet_protocols value \"foo\" in \"foo\" (%s/main.cf, line 1)" },
    { "mynetworks_style = foo", "unknown mynetworks mask style value \"foo\" in \"foo\"" },
    { "myhostname = a..b",
      "parameter myhostname: bad parameter value: a..b: misplaced delimiter (%s/main.cf, line 1)" },
    { "myhostname = 1.2.3.4",
      "parameter myhostname: bad parameter value: 1.2.3.4: numeric hostname (%s/main.cf, line 1)" },
    { "smtpd_banner = ${foo", /* not postscreen_greet_banner, whose default it is */
      "parameter smtpd_banner: truncated macro reference: \"${foo\" (%s/main.cf, line 1)" },
    { "syslog_name = ${foo", "parameter syslog_name: truncated macro reference: \"${foo\" (%s/main.cf, line 1)" },
    { "a = $b\nb = $a\nsyslog_name = $a",
      "parameter syslog_name: unreasonable macro call nesting: \"b\" (%s/main.cf, line 3)" },
    { "smtp_destination_recipient_limit = x",
      "bad numerical configuration: smtp_destination_recipient_limit = x (%s/main.cf, line 1)" },
};

static void bad_values(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct conf_source source = source_of(bad[i].main_cf);
        struct conf *c = NULL;
        error e = conf_load(&source, arena, &c);
        if (!e) {
            fail_msg("accepted: %s", bad[i].main_cf);
            return;
        }
        assert_int_equal(e->kind, ERR_CONFIG);
        struct buf want = { 0 };
        const char *at = strstr(bad[i].text, "%s");
        if (at)
            buf_printf(&want, "%.*s%s%s", (int)(at - bad[i].text), bad[i].text, directory, at + 2);
        else
            buf_printf(&want, "%s", bad[i].text);
        assert_str(e->text, want.p);
        buf_free(&want);
    }
}

static void warnings(void **state) {
    (void)state;
    struct conf *c = load("  stray = 1\n"
                          "myorigin = a\n"
                          "myorigin = b # why\n"
                          "process_name = x\n"
                          "smtpd_use_tls = yes\n"
                          "my_orogin = c\n"
                          "used = 1\n"
                          "relayhost = $used\n"
                          "smtpd_restriction_classes = own_class\n"
                          "own_class = permit\n"
                          "virtual_alias_maps = ldap:people\n"
                          "people_server_host = h\n"
                          "whatever_is_this = 1\n");
    static const char *const want[] = {
        "%s/main.cf: logical line must not start with whitespace: \"  stray = 1\"",
        "%s/main.cf, line 3: overriding earlier entry: myorigin=a",
        "%s/main.cf: read-only parameter assignment: process_name=x",
        "%s/main.cf: #comment after other text is not allowed: # why...",
        ("%s/main.cf: support for parameter \"smtpd_use_tls\" will be removed; instead, specify "
         "\"smtpd_tls_security_level\""),
        "%s/main.cf: unused parameter: my_orogin=c (did you mean myorigin?)",
        "%s/main.cf: unused parameter: whatever_is_this=1",
    };
    const struct str *got;
    size_t n = conf_warnings(c, &got);
    for (size_t i = 0; i < n && i < sizeof want / sizeof want[0]; i++)
        assert_str(got[i], arena_printf(arena, "%s%s", directory, want[i] + 2).p);
    assert_int_equal(n, sizeof want / sizeof want[0]);
    assert_str(conf_str(c, PARAM_process_name), "smtpd");
    assert_str(conf_str(c, PARAM_myorigin), "b # why");
    conf_free(c);
}

/* CF-03: an older name has the effect of the new one. */
static void older_names(void **state) {
    (void)state;
    struct conf *c = load("virtual_maps = static:a\n"
                          "fallback_relay = b\n"
                          "authorized_verp_clients = c\n"
                          "postscreen_blacklist_action = drop\n"
                          "postscreen_dnsbl_ttl = 3\n"
                          "postscreen_dnsbl_whitelist_threshold = -2\n"
                          "postscreen_whitelist_interfaces = d\n"
                          "smtp_per_record_deadline = yes\n"
                          "lmtp_per_record_deadline = yes\n"
                          "smtpd_per_record_deadline = yes\n"
                          "smtpd_client_connection_limit_exceptions = e\n"
                          "tlsproxy_client_level = may\n"
                          "tlsproxy_client_policy = f\n");
    assert_str(conf_str(c, PARAM_virtual_alias_maps), "static:a");
    assert_str(conf_str(c, PARAM_smtp_fallback_relay), "b");
    assert_str(conf_str(c, PARAM_smtpd_authorized_verp_clients), "c");
    assert_str(conf_str(c, PARAM_postscreen_denylist_action), "drop");
    assert_int_equal(conf_time(c, PARAM_postscreen_dnsbl_max_ttl), 3 * 3600);
    assert_int_equal(conf_int(c, PARAM_postscreen_dnsbl_allowlist_threshold), -2);
    assert_str(conf_str(c, PARAM_postscreen_allowlist_interfaces), "d");
    assert_true(conf_bool(c, PARAM_smtp_per_request_deadline));
    assert_true(conf_bool(c, PARAM_lmtp_per_request_deadline));
    assert_true(conf_bool(c, PARAM_smtpd_per_request_deadline));
    assert_str(conf_str(c, PARAM_smtpd_client_event_limit_exceptions), "e");
    assert_str(conf_str(c, PARAM_tlsproxy_client_security_level), "may");
    assert_str(conf_str(c, PARAM_tlsproxy_client_policy_maps), "f");
    conf_free(c);
}

/* CF-04: a default that refers to a parameter set before, after or not at all. */
static void order_never_matters(void **state) {
    (void)state;
    struct conf *c = load("smtp_tls_security_level = may\nmydestination = $mydomain\nmyhostname = a.example.org\n");
    assert_str(conf_str(c, PARAM_mydestination), "example.org");
    assert_str(conf_str(c, PARAM_myorigin), "a.example.org");
    conf_free(c);
    c = load("myhostname = a.example.org\nmydestination = $mydomain\nmydomain = example.net\n");
    assert_str(conf_str(c, PARAM_mydestination), "example.net");
    conf_free(c);
    c = load("mydomain = example.net\n");
    struct str host = conf_str(c, PARAM_myhostname);
    char own[256] = "";
    gethostname(own, sizeof own - 1);
    assert_true(str_ends(host, STR(".example.net")) || strchr(own, '.'));
    conf_free(c);
}

/* CF-02: lists put together from pieces. */
static void default_lists(void **state) {
    (void)state;
    struct conf *c = load("");
    static const struct {
        enum param p;
        size_t words;
        const char *one;
    } lists[] = {
        { PARAM_import_environment, 10, "XDG_RUNTIME_DIR" },
        { PARAM_export_environment, 3, "MAIL_CONFIG" },
        { PARAM_mynetworks, 0, NULL },
        { PARAM_smtpd_forbidden_commands, 0, "GET" },
        { PARAM_propagate_unmatched_extensions, 2, "virtual" },
        { PARAM_parent_domain_matches_subdomains, 0, "mynetworks" },
        { PARAM_maillog_file_prefixes, 0, "/var" },
    };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct str rest = conf_str(c, lists[i].p), word;
        size_t n = 0;
        bool found = lists[i].one == NULL;
        while (str_word(&rest, STR_COMMA_SPACE, &word)) {
            n++;
            found |= lists[i].one && str_eq(word, str_c(lists[i].one));
        }
        if (lists[i].words)
            assert_int_equal(n, lists[i].words);
        assert_true(found);
    }
    conf_free(c);
}

static void overrides(void **state) {
    (void)state;
    struct conf_source source = source_of("myorigin = a\nrelayhost = $myorigin\n");
    const struct conf_override list[] = {
        { STR_INIT("myorigin"), STR_INIT("b") },
        { STR_INIT("process_name"), STR_INIT("x") },
        { STR_INIT("service_name"), STR_INIT("") },
        { STR_INIT("mynetworks"), STR_INIT("") },
    };
    source.overrides = list;
    source.override_count = sizeof list / sizeof list[0];
    source.service_name = STR("submission");
    struct conf *c;
    assert_null(conf_load(&source, arena, &c));
    assert_str(conf_str(c, PARAM_relayhost), "b");
    assert_str(conf_str(c, PARAM_mynetworks), "");
    assert_str(conf_str(c, PARAM_process_name), "smtpd"); /* CF-09 */
    assert_str(conf_str(c, PARAM_service_name), "submission");
    conf_free(c);
}

static void missing_file(void **state) {
    (void)state;
    struct conf_source source = { .config_directory = STR("/nonexistent/angarium") };
    struct conf *c = NULL;
    error e = conf_load(&source, arena, &c);
    assert_non_null(e);
    assert_str(e->text, "open /nonexistent/angarium/main.cf: No such file or directory");
    source.missing_is_empty = true;
    assert_null(conf_load(&source, arena, &c));
    assert_str(conf_directory(c), "/nonexistent/angarium");
    assert_str(conf_str(c, PARAM_config_directory), "/nonexistent/angarium");
    conf_free(c);
    write_main_cf("myorigin = from.environment\n");
    setenv("MAIL_CONFIG", directory, 1);
    source = (struct conf_source){ .config_directory = STR("") };
    assert_null(conf_load(&source, arena, &c));
    assert_str(conf_str(c, PARAM_myorigin), "from.environment");
    conf_free(c);
    unsetenv("MAIL_CONFIG");
}

static void times(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds; /* -1: refused */
    } cases[] = { { "5", 300 },
                  { "5s", 5 },
                  { "+5s", 5 },
                  { "2w", 1209600 },
                  { "0", 0 },
                  { "", -1 },
                  { "s", -1 },
                  { "5x", -1 },
                  { "5 s", -1 },
                  { "-5", -1 },
                  { "1d", 86400 },
                  { "3551w", -1 },
                  { "99999999999999999999", -1 },
                  { "2147483647s", 2147483647 } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t got = -1;
        if (!time_parse(str_c(cases[i].text), 'm', &got))
            got = -1;
        assert_int_equal(got, cases[i].seconds);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),    cmocka_unit_test(other_defaults), cmocka_unit_test(every_name_is_found),
        cmocka_unit_test(settings),    cmocka_unit_test(bad_values),     cmocka_unit_test(warnings),
        cmocka_unit_test(older_names), cmocka_unit_test(default_lists),  cmocka_unit_test(order_never_matters),
        cmocka_unit_test(overrides),   cmocka_unit_test(missing_file),   cmocka_unit_test(times),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
