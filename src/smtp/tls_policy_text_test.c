/* Values of smtp_tls_policy_maps: what is taken, and what is wrong with the rest. */
#include "test/test.h"

#include "smtp/tls_policy_text.h"
#include <stdlib.h>

static void test_reasons(void **state) {
    static const struct {
        const char *value, *why; /* NULL: nothing is wrong */
    } cases[] = {
        { "may", NULL },
        { "Encrypt,ciphers=high\tprotocols=", NULL },
        { "none", NULL },
        { "dane-only exclude=", NULL },
        { "", "invalid security level \"\"" },
        { "half-dane", "invalid security level \"half-dane\"" },
        { "may ciphers", "malformed attribute/value pair \"ciphers\": missing '=' after attribute name" },
        { "may =high", "malformed attribute/value pair \"=high\": missing '=' after attribute name" },
        { "may colour=red", "invalid attribute name: \"colour\"" },
        { "may ciphers=", "attribute \"ciphers\" has empty value" },
        { "may exclude= exclude=", "attribute \"exclude\" is specified multiple times" },
        { "dane match=a", "attribute \"match\" invalid at security level \"dane\"" },
        { "secure match=", "attribute \"match\" has empty value" },
        { "may servername=-", "\"servername=-\" specifies an invalid hostname" },
        { "may servername=hostname", NULL },
        { "may connection_reuse=1", "attribute \"connection_reuse\" has bad value: \"1\"" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena *a = arena_new();
        struct policy_text p;
        struct str why = STR("");
        char *copy = malloc(strlen(cases[i].value) + 1); /* exactly as long, so that sanitizers see a step too far */
        memcpy(copy, cases[i].value, strlen(cases[i].value));
        bool good = policy_text_parse(a, str_n(copy, strlen(cases[i].value)), &p, &why);
        free(copy);
        if (good != !cases[i].why || !str_eq(why, str_c(cases[i].why ? cases[i].why : "")))
            fail_msg("%s: %.*s", cases[i].value, STR_ARG(why));
        arena_free(a);
    }
}

static void test_values(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct policy_text p;
    struct str why;
    assert_true(policy_text_parse(a,
                                  STR("SECURE match=a:b protocols=>=TLSv1.2 MATCH=nexthop servername=x.example "
                                      "connection_reuse=yes exclude=MD5"),
                                  &p, &why));
    assert_int_equal(p.level, TLS_LEVEL_SECURE);
    assert_int_equal(p.match_count, 2);
    assert_true(str_eq(p.match[0], STR("a:b")) && str_eq(p.match[1], STR("nexthop")));
    assert_true(p.protocols_given && str_eq(p.protocols, STR(">=TLSv1.2")));
    assert_true(p.sni_given && str_eq(p.sni, STR("x.example")));
    assert_true(p.reuse_given && p.reuse && p.exclude_given && !p.grade_given);
    assert_true(policy_text_parse(a, STR("none ciphers=high x=y"), &p, &why));
    assert_true(str_eq(p.ignored, STR("ciphers=high")) && !p.grade_given);
    arena_free(a);
}

static void test_limits(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct policy_text p;
    struct str why;
    struct buf b = { 0 };
    buf_add(&b, STR("verify"));
    for (int i = 0; i < POLICY_MATCH_MAX; i++)
        buf_add(&b, STR(" match=x"));
    assert_true(policy_text_parse(a, buf_str(&b), &p, &why));
    assert_int_equal(p.match_count, POLICY_MATCH_MAX);
    buf_add(&b, STR(" match=x"));
    assert_false(policy_text_parse(a, buf_str(&b), &p, &why));
    while (b.n <= POLICY_TEXT_MAX)
        buf_add(&b, STR("          "));
    assert_false(policy_text_parse(a, buf_str(&b), &p, &why));
    assert_true(str_starts(why, STR("policy of more than 16384 bytes")));
    buf_free(&b);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
