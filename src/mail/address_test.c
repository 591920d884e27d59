/* Unit tests of mail/address.h: SMTP paths, forms, splitting, domains. */
#include "mail/address.h"
#include "test/test.h"
#include <stdlib.h>

/* A copy without terminator, so that a read past the end is seen by the sanitizer. */
static struct str exact(struct str s, char **ret_free) {
    *ret_free = malloc(s.n ? s.n : 1);
    assert_non_null(*ret_free);
    memcpy(*ret_free, s.p, s.n);
    return str_n(*ret_free, s.n);
}

#define REFUSED NULL
static const struct {
    const char *in, *lenient, *strict, *rest;
} paths[] = {
    { "<a@b>", "a@b", "a@b", "" },
    { " \t<a@b>", "a@b", "a@b", "" },
    { "a@b", "a@b", REFUSED, "" },
    { " a@b SIZE=3", "a@b", REFUSED, "SIZE=3" },
    { "<a@b> \t SIZE=3 BODY=7BIT", "a@b", "a@b", "SIZE=3 BODY=7BIT" },
    { "<a@b>SIZE=3", REFUSED, REFUSED, "" },
    { "<@x,@y:a@b>", "a@b", "a@b", "" },
    { "<@x.z,@y:a@b>", "a@b", "a@b", "" },
    { "@x:a@b", "a@b", REFUSED, "" },
    { "<@x:@y:a@b>", "@y:a@b", REFUSED, "" },
    { "<@x,@y:>", "", "", "" },
    { "<@x,a@b>", REFUSED, REFUSED, "" },
    { "<@x,:a@b>", "a@b", REFUSED, "" },
    { "<@x>", "@x", REFUSED, "" },
    { "<\"a b\"@c>", "a b@c", "a b@c", "" },
    { "<\"a\\ b\"@c>", "a b@c", "a b@c", "" },
    { "<\"a\\b\"@c>", "ab@c", "ab@c", "" },
    { "<\"a>b\"@c>", "a>b@c", "a>b@c", "" },
    { "<\"a@b\"@c>", "a@b@c", "a@b@c", "" },
    { "<\"a\\\"b\"@c>", "a\"b@c", "a\"b@c", "" },
    { "<\"a\".\"b\"@c>", "a.b@c", "a.b@c", "" },
    { "<\"\"@c>", "@c", REFUSED, "" },
    { "<\"\"\"\"@c>", REFUSED, REFUSED, "" },
    { "<a b@c>", REFUSED, REFUSED, "" },
    { "<a..b@c>", "a..b@c", "a..b@c", "" },
    { "<.a.@c>", ".a.@c", ".a.@c", "" },
    { "<a@b@c>", "a@b@c", "a@b@c", "" },
    { "<a@[1.2.3.4]>", "a@[1.2.3.4]", "a@[1.2.3.4]", "" },
    { "<a@[IPv6:::1]>", "a@[IPv6:::1]", "a@[IPv6:::1]", "" },
    { "<a@[1.2.3.4>", REFUSED, REFUSED, "" },
    { "<a@y[x]>", REFUSED, REFUSED, "" },
    { "<>", "", "", "" },
    { "<> X=1", "", "", "X=1" },
    { "<()>", "", REFUSED, "" },
    { "", REFUSED, REFUSED, "" },
    { " ", REFUSED, REFUSED, "" },
    { "<", REFUSED, REFUSED, "" },
    { ">", REFUSED, REFUSED, "" },
    { "()", REFUSED, REFUSED, "" },
    { ";", REFUSED, REFUSED, "" },
    { "<a", REFUSED, REFUSED, "" },
    { "<a@", REFUSED, REFUSED, "" },
    { "<a@b", REFUSED, REFUSED, "" },
    { "<a@b SIZE=3", REFUSED, REFUSED, "" },
    { "a@b>", "a@b", REFUSED, "" },
    { "<a@b>>", "a@b", "a@b", "" },
    { "<<a@b>>", "a@b", "a@b", "" },
    { "<<a@b>", REFUSED, REFUSED, "" },
    { "<a@b><c@d>", REFUSED, REFUSED, "" },
    { "<a>b@c>", REFUSED, REFUSED, "" },
    { "(comment)<a@b>", "a@b", REFUSED, "" },
    { "<a@b>(comment)", "a@b", REFUSED, "" },
    { "<a(c)@b>", "a@b", REFUSED, "" },
    { "<(((a)))a@b>", "a@b", REFUSED, "" },
    { "<(((a))a@b>", REFUSED, REFUSED, "" },
    { "Foo<a@b>", "a@b", REFUSED, "" },
    { "Foo Bar <a@b>", "Foo", REFUSED, "Bar <a@b>" },
    { "Foo:<a@b>", REFUSED, REFUSED, "" },
    { "Foo:a@b;", REFUSED, REFUSED, "" },
    { "<a,b@c>", REFUSED, REFUSED, "" },
    { "<a@b,>", "a@b", REFUSED, "" },
    { "<a:b@c>", "a:b@c", "a:b@c", "" },
    { "<a\\@b@c>", "a@b@c", "a@b@c", "" },
    { "<a\\ b@c>", "a b@c", "a b@c", "" },
    { "<a\\>", REFUSED, REFUSED, "" },
    { "<a\\", REFUSED, REFUSED, "" },
    { "<\"\\", REFUSED, REFUSED, "" },
    { "\\", REFUSED, REFUSED, "" },
    { "a\\", REFUSED, REFUSED, "" },
    { "a(b", REFUSED, REFUSED, "" },
    { "\"a", REFUSED, REFUSED, "" },
    { "< a @ b >", "a@b", "a@b", "" },
    { "<a@\"b c\">", "a@b c", "a@b c", "" },
    { "<a@b.>", "a@b.", "a@b.", "" },
    { "<postmaster>", "postmaster", "postmaster", "" },
    { "<a%b!c@d>", "a%b!c@d", "a%b!c@d", "" },
    { "<ma\xc3\xb1"
      "ana@b>",
      "ma\xc3\xb1"
      "ana@b",
      "ma\xc3\xb1"
      "ana@b",
      "" },
    { "<\xff@b>", "\xff@b", "\xff@b", "" },
    { "<;|/bin/sh>", "|/bin/sh", REFUSED, "" },
    { "<a\rb@c>", REFUSED, REFUSED, "" },
    { "<\"a\nb\"@c>", REFUSED, REFUSED, "" },
    { "<a\x01@c>", REFUSED, REFUSED, "" },
    { "<a@b>\"", REFUSED, REFUSED, "" },
};

static void smtp_paths(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        for (int strict = 0; strict < 2; strict++) {
            struct arena *a = arena_new();
            char *copy;
            struct str in = exact(str_c(paths[i].in), &copy);
            struct str address = STR("unset"), rest = STR("unset");
            const char *want = strict ? paths[i].strict : paths[i].lenient;
            bool ok = address_parse_path(a, in, strict ? ADDRESS_STRICT : 0, &address, &rest);
            if (ok != (want != NULL))
                fail_msg("%s strict=%d: %s", paths[i].in, strict, ok ? "taken" : "refused");
            assert_str(address, want ? want : "unset");
            assert_str(rest, want ? paths[i].rest : "unset");
            free(copy);
            arena_free(a);
        }
    }
}

static void path_limits(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct str address, rest;
    char in[ADDRESS_MAX + 3];
    memset(in, 'a', sizeof in);
    in[0] = '<';
    in[ADDRESS_MAX + 1] = '>';
    assert_true(address_parse_path(a, str_n(in, ADDRESS_MAX + 2), 0, &address, &rest));
    assert_int_equal(address.n, ADDRESS_MAX);
    in[ADDRESS_MAX + 1] = 'a';
    in[ADDRESS_MAX + 2] = '>';
    assert_false(address_parse_path(a, str_n(in, ADDRESS_MAX + 3), 0, &address, &rest));
    /* NUL, also inside quotes */
    assert_false(address_parse_path(a, STR("<\"a\0b\"@c>"), 0, &address, &rest));
    assert_false(address_parse_path(a, STR("<a\0@c>"), 0, &address, &rest));
    /* nesting costs no stack */
    size_t n = 1u << 20;
    char *deep = malloc(n);
    assert_non_null(deep);
    memset(deep, '(', n);
    assert_false(address_parse_path(a, str_n(deep, n), 0, &address, &rest));
    memset(deep, '<', n);
    assert_false(address_parse_path(a, str_n(deep, n), 0, &address, &rest));
    free(deep);
    arena_free(a);
}

static const struct {
    const char *internal, *external;
} forms[] = {
    { "", "" },
    { "a@b", "a@b" },
    { "a.b@c", "a.b@c" },
    { "a b@c", "\"a b\"@c" },
    { "a@b@c", "\"a@b\"@c" },
    { "a\"b@c", "\"a\\\"b\"@c" },
    { "a\\b@c", "\"a\\\\b\"@c" },
    { ".a@c", "\".a\"@c" },
    { "a.@c", "\"a.\"@c" },
    { "a..b@c", "\"a..b\"@c" },
    { "@c", "\"\"@c" },
    { "a b", "\"a b\"" },
    { "a<b>@c", "\"a<b>\"@c" },
    { "a@[1.2.3.4]", "a@[1.2.3.4]" },
    { "ma\xc3\xb1"
      "ana@b",
      "ma\xc3\xb1"
      "ana@b" },
};

static void quoting(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct str back;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        assert_str(address_quote(a, str_c(forms[i].internal)), forms[i].external);
        char *copy;
        struct str in = exact(str_c(forms[i].external), &copy);
        assert_true(address_unquote(a, in, &back));
        assert_str(back, forms[i].internal);
        free(copy);
    }
    assert_true(address_unquote(a, STR("a (comment) @b"), &back));
    assert_str(back, "a@b");
    assert_false(address_unquote(a, STR("a b@c"), &back));
    assert_false(address_unquote(a, STR("\"a"), &back));
    assert_false(address_unquote(a, STR("a@b, c@d"), &back));
    assert_false(address_unquote(a, STR("<a@b>"), &back));
    assert_false(address_unquote(a, STR("\"a\nb\"@c"), &back));
    arena_free(a);
}

static void splitting(void **state) {
    (void)state;
    struct address_parts p = address_split(STR("a@b@c"));
    assert_str(p.local, "a@b");
    assert_str(p.domain, "c");
    p = address_split(STR("a@"));
    assert_true(p.has_domain);
    assert_str(p.domain, "");
    p = address_split(STR("a"));
    assert_false(p.has_domain);
    assert_str(p.local, "a");
}

static const struct {
    const char *local, *delimiters, *user, *extension;
} extensions[] = {
    { "a+b", "+", "a", "b" },
    { "a+b+c", "+", "a", "b+c" },
    { "a-b+c", "+-", "a", "b+c" },
    { "a+", "+", "a", "" },
    { "+a", "+", NULL, NULL },
    { "+", "+", NULL, NULL },
    { "", "+", NULL, NULL },
    { "a", "+", NULL, NULL },
    { "a+b", "", NULL, NULL },
    { "a+b", "-", NULL, NULL },
    { "owner-list", "-", NULL, NULL },
    { "Owner-list", "+-", NULL, NULL },
    { "list-request", "-", NULL, NULL },
    { "owner+list", "+", "owner", "list" },
    { "MAILER-DAEMON", "-", NULL, NULL },
    { "double-bounce", "-", NULL, NULL },
    { "double-bounces", "-", "double", "bounces" },
};

static void extension_splitting(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        struct str user, extension;
        struct extension_rules rules = { str_c(extensions[i].delimiters), true };
        bool ok = address_split_extension(str_c(extensions[i].local), rules, &user, &extension);
        if (ok != (extensions[i].user != NULL))
            fail_msg("%s", extensions[i].local);
        if (ok) {
            assert_str(user, extensions[i].user);
            assert_str(extension, extensions[i].extension);
        }
    }
}

/* owner_request_special = no: only the reserved names stay whole. */
static void owner_splitting(void **state) {
    (void)state;
    const struct extension_rules rules = { STR("+-"), false };
    struct str user, extension;
    assert_true(address_split_extension(STR("owner-list"), rules, &user, &extension));
    assert_str(user, "owner");
    assert_str(extension, "list");
    assert_true(address_split_extension(STR("list-request"), rules, &user, &extension));
    assert_str(user, "list");
    assert_str(extension, "request");
    assert_false(address_split_extension(STR("double-bounce"), rules, &user, &extension));
}

static const struct {
    const char *name;
    bool host, literal;
} domains[] = {
    { "a.b", true, false },
    { "A-b_c.9", true, false },
    { "9.a", true, false },
    { "1-2", true, false },
    { "", false, false },
    { ".", false, false },
    { "a.", false, false },
    { ".a", false, false },
    { "a..b", false, false },
    { "-a.b", false, false },
    { "a-.b", false, false },
    { "a.b-", false, false },
    { "1.2.3.4", false, false },
    { "12", false, false },
    { "*.example", false, false },
    { "a b", false, false },
    { "[1.2.3.4]", false, true },
    { "[1.2.3.256]", false, false },
    { "[1.2.3]", false, false },
    { "[IPv6:::1]", false, true },
    { "[ipv6:2001:db8::1]", false, true },
    { "[::1]", false, false },
    { "[IPv6:1.2.3.4]", false, false },
    { "[]", false, false },
    { "[", false, false },
    { "[1.2.3.4", false, false },
};

static void domain_forms(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof domains / sizeof domains[0]; i++) {
        char *copy;
        struct str in = exact(str_c(domains[i].name), &copy);
        if (hostname_valid(in) != domains[i].host || address_domain_is_literal(in) != domains[i].literal)
            fail_msg("%s", domains[i].name);
        free(copy);
    }
    char label[65];
    memset(label, 'a', sizeof label);
    assert_true(hostname_valid(str_n(label, 63)));
    assert_false(hostname_valid(str_n(label, 64)));
    assert_false(address_domain_is_literal(STR("[1.2.3.4\0]")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smtp_paths),   cmocka_unit_test(path_limits),         cmocka_unit_test(quoting),
        cmocka_unit_test(splitting),    cmocka_unit_test(extension_splitting), cmocka_unit_test(owner_splitting),
        cmocka_unit_test(domain_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
