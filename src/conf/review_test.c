#include "test/test.h"

#include "base/buf.h"
#include "conf/lines.h"
#include "conf/mynetworks.h"
#include "conf/review.h"
#include "conf/settings.h"
#include "conf/suggest.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>

#include "test/fixture.h"

static void distances(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        size_t limit, distance;
    } cases[] = {
        { "", "", 0, 0 },
        { "abc", "abc", 0, 0 },
        { "abc", "abd", 3, 1 },
        { "abc", "acb", 3, 1 },
        { "abc", "ab", 3, 1 },
        { "abc", "xabc", 3, 1 },
        { "", "abc", 3, 3 },
        { "", "abcd", 3, 4 },
        { "kitten", "sitting", 5, 3 },
        { "abcdef", "uvwxyz", 3, 4 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(edit_distance(str_c(cases[i].a), str_c(cases[i].b), cases[i].limit), cases[i].distance);
    char longest[SUGGEST_NAME_MAX + 1];
    memset(longest, 'a', sizeof longest);
    assert_int_equal(
        edit_distance((struct str){ longest, SUGGEST_NAME_MAX }, (struct str){ longest, SUGGEST_NAME_MAX }, 2), 0);
    assert_int_equal(edit_distance((struct str){ longest, SUGGEST_NAME_MAX + 1 }, (struct str){ longest, 5 }, 2), 3);
}

static void suggestions(void **state) {
    (void)state;
    static const struct {
        const char *name, *meant;
    } cases[] = { { "mydestnation", "mydestination" },
                  { "smtpd_recipient_restriction", "smtpd_recipient_restrictions" },
                  { "relay_hosts", "relayhost" },
                  { "message_size_limt", "message_size_limit" },
                  { "biff1", "biff" },
                  { "smtp_destination_concurency_limit", "smtp_destination_concurrency_limit" },
                  { "nothing_like_anything", "" },
                  { "x", "" },
                  { "", "" } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_str(suggest_param(str_c(cases[i].name), arena), cases[i].meant);
}

static struct interface_address interface(const char *address, const char *mask, bool loopback) {
    struct interface_address i = { .family = strchr(address, ':') ? AF_INET6 : AF_INET, .loopback = loopback };
    assert_int_equal(inet_pton(i.family, address, i.address), 1);
    assert_int_equal(inet_pton(i.family, mask, i.mask), 1);
    return i;
}

static void networks(void **state) {
    (void)state;
    const struct interface_address all[] = {
        interface("127.0.0.1", "255.0.0.0", true),
        interface("192.0.2.77", "255.255.255.192", false),
        interface("192.0.2.78", "255.255.255.192", false),
        interface("10.1.2.3", "255.255.255.255", false),
        interface("198.51.101.5", "255.255.254.0", false),
        interface("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
        interface("2001:db8:1:2::3", "ffff:ffff:ffff:ff00::", false),
    };
    static const struct {
        const char *style, *interfaces, *want, *error;
    } cases[] = {
        { "subnet", "all", "127.0.0.0/8 192.0.2.64/26 10.1.2.3/32 198.51.100.0/23 [::1]/128 [2001:db8:1::]/56", NULL },
        { "host", "all",
          "127.0.0.1/32 192.0.2.77/32 192.0.2.78/32 10.1.2.3/32 198.51.101.5/32 [::1]/128 [2001:db8:1:2::3]/128",
          NULL },
        { "class", "all", "127.0.0.0/8 192.0.2.0/24 10.0.0.0/8 198.51.101.0/24 [::1]/128 [2001:db8:1::]/56", NULL },
        { "subnet", "loopback-only", "127.0.0.0/8 [::1]/128", NULL },
        { "subnet", "192.0.2.78, [::1]", "192.0.2.64/26 [::1]/128", NULL },
        { "host", "", "", NULL },
        { "subnet", "192.0.2.1", NULL, "parameter inet_interfaces: no local interface found for 192.0.2.1" },
        { "subnet", "all, 192.0.2.77", NULL, "config variable inet_interfaces: host not found: all" },
        { "net", "all", NULL, "unknown mynetworks mask style value \"net\" in \"net\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str got = STR("");
        error e = mynetworks_default(str_c(cases[i].style), str_c(cases[i].interfaces), all, sizeof all / sizeof all[0],
                                     arena, &got);
        if (cases[i].error) {
            assert_non_null(e);
            assert_str(e->text, cases[i].error);
        } else {
            if (e)
                fail_msg("%s", e->text.p);
            assert_str(got, cases[i].want);
        }
    }
    bool ipv4, ipv6;
    assert_null(inet_protocols_parse(STR("ipv4, IPv6"), arena, &ipv4, &ipv6));
    assert_true(ipv4 && ipv6);
    assert_null(inet_protocols_parse(STR("ipv6"), arena, &ipv4, &ipv6));
    assert_true(!ipv4 && ipv6);
    assert_non_null(inet_protocols_parse(STR("ipv5"), arena, &ipv4, &ipv6));
}

static const char main_cf[] = "max_use = 5\n" /* INERT */
                              "maps_rbl_domains = list.example\n"
                              "table_x = $other\n" /* unused, and other is undefined */
                              "myorigin = $r1 ${r2:x} $$r3 ${domain_to_ascii{$mydomain}} $virtual_maps $from_master\n"
                              "relay_recipient_limit = 5\n"     /* a service of master.cf */
                              "nobody_recipient_limit = 5\n"    /* no such service */
                              "forward_path = $home/.forward\n" /* RAW: home is not ours */
                              "relay_domains = mysql:dom, proxy:ldap:people\n"
                              "dom_hosts = h\n"
                              "people_search_base = b\n"
                              "people_hosts = h\n"               /* not a setting of ldap */
                              "smtpd_tls_eecdh_grade = strong\n" /* advice */
                              "lmtp_cache_connection = yes\n";   /* nobody reads it */
static const char master_cf[] = "relay unix - - n - - smtp\n -o from_master=1 -o own=$r4 -o biff=no\n";

/* "kind name", or "kind name text" where the text matters; sorted as it comes. */
static const struct {
    enum finding_kind kind;
    const char *name, *text; /* behind the directory */
} want[] = {
    { FINDING_UNDEFINED, "other", "/main.cf: undefined parameter: other" },
    { FINDING_UNDEFINED, "r1", NULL },
    { FINDING_UNDEFINED, "r2", NULL },
    { FINDING_UNDEFINED, "r4", "/master.cf: undefined parameter: r4" },
    { FINDING_DEPRECATED, "smtpd_tls_eecdh_grade",
      "/main.cf: support for parameter \"smtpd_tls_eecdh_grade\" will be removed; instead, do not specify (leave at "
      "default)" },
    { FINDING_UNUSED, "lmtp_cache_connection",
      "/main.cf: unused parameter: lmtp_cache_connection=yes; instead, specify \"lmtp_connection_cache_on_demand\"" },
    { FINDING_UNUSED, "nobody_recipient_limit", NULL },
    { FINDING_UNUSED, "own", "/master.cf: unused parameter: own=$r4" },
    { FINDING_UNUSED, "people_hosts", NULL },
    { FINDING_UNUSED, "table_x", NULL },
    { FINDING_INERT, "maps_rbl_domains",
      "/main.cf: parameter maps_rbl_domains has no effect: reject_maps_rbl, which used it, is gone since Postfix 3.9: "
      "write reject_rbl_client LIST for each" },
    { FINDING_INERT, "max_use",
      "/main.cf: parameter max_use has no effect: workers live on: they do not end after a number of sessions" },
    { FINDING_INERT, "smtpd_tls_eecdh_grade", NULL },
};

static void review(void **state) {
    (void)state;
    char directory[] = "/tmp/angarium-review-XXXXXX";
    assert_non_null(mkdtemp(directory));
    struct str path = arena_printf(arena, "%s/main.cf", directory);
    FILE *f = fopen(path.p, "w");
    assert_non_null(f);
    fputs(main_cf, f);
    fclose(f);
    struct conf_source source = { .config_directory = str_c(directory) };
    struct conf *c;
    assert_null(conf_open(&source, arena, &c));
    unlink(path.p);
    rmdir(directory);
    struct master_cf services;
    assert_null(master_cf_parse(str_c(master_cf), STR("master.cf"), false, 100, arena, &services));
    const struct finding *found;
    size_t n = conf_review(c, &services, arena, &found), checked = 0;
    for (size_t i = 0; i < n; i++) {
        if (found[i].kind == FINDING_PENDING) /* which ones these are changes with every piece of work */
            continue;
        assert_true(checked < sizeof want / sizeof want[0]);
        assert_str(found[i].name, want[checked].name);
        assert_int_equal(found[i].kind, want[checked].kind);
        if (want[checked].text)
            assert_str(found[i].text, arena_printf(arena, "%s%s", directory, want[checked].text).p);
        checked++;
    }
    assert_int_equal(checked, sizeof want / sizeof want[0]);
    /* every pending row that is set is told, and nothing else */
    for (size_t i = 0; i < n; i++) {
        enum param p;
        if (found[i].kind == FINDING_PENDING && param_find(found[i].name, &p))
            assert_int_equal(param_row(p)->status, STATUS_PENDING);
    }
    conf_free(c);
}

/* The files that are installed are good ones. */
static void stock_files(void **state) {
    (void)state;
    struct conf_source source = { .config_directory = STR("packaging") };
    struct conf *c;
    error e = conf_load(&source, arena, &c);
    if (e)
        fail_msg("%s", e->text.p);
    const struct str *warnings;
    assert_int_equal(conf_warnings(c, &warnings), 0);
    struct master_cf services;
    e = master_cf_load(STR("packaging/master.cf"), c, arena, &services);
    if (e)
        fail_msg("%s", e->text.p);
    assert_int_equal(services.warning_count, 0);
    assert_int_equal(services.count, 25);
    const struct finding *found;
    size_t n = conf_review(c, &services, arena, &found);
    for (size_t i = 0; i < n; i++)
        if (found[i].kind != FINDING_PENDING)
            fail_msg("%s", found[i].text.p);
    conf_free(c);
    /* the services that are commented out parse too: "#name type" and "#  -o ..." */
    struct str text, line;
    assert_null(conf_read_file(STR("packaging/master.cf"), arena, &text));
    struct buf all = { 0 };
    while (str_next(&text, STR("\n"), &line)) {
        bool is_text = line.n < 2 || (line.p[1] == ' ' && !str_starts(line, STR("#  ")));
        if (line.n && line.p[0] == '#' && !is_text && !str_starts(line, STR("#    ")))
            line = str_from(line, 1);
        buf_add(&all, line);
        buf_byte(&all, '\n');
    }
    size_t shown = services.count;
    e = master_cf_parse(buf_str(&all), STR("master.cf"), false, 100, arena, &services);
    if (e)
        fail_msg("%s", e->text.p);
    assert_true(services.count >= shown + 9);
    assert_int_equal(services.warning_count, 1); /* smtpd and postscreen on one port */
    buf_free(&all);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(distances), cmocka_unit_test(suggestions),
                                        cmocka_unit_test(networks), cmocka_unit_test(review),
                                        cmocka_unit_test(stock_files) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
