/* Unit tests of mail/header.h and of the address lists in header fields. */
#include "mail/address.h"
#include "mail/header.h"
#include "test/test.h"
#include <stdlib.h>

static const struct {
    const char *value, *addresses; /* joined with '|' */
} lists[] = {
    { "a@b, c@d", "a@b|c@d" },
    { "a@b c@d", "a@b|c@d" },
    { "Foo Bar <a@b>, \"Q, x\" <c@d>", "a@b|c@d" },
    { "grp: a@b, c@d;, e@f", "a@b|c@d|e@f" },
    { "A Group : a@b;", "a@b" },
    { "undisclosed-recipients:;", "" },
    { "a (comment, x) @b", "a@b" },
    { "(com) a@b (com2)", "a@b" },
    { "a@b,,c@d", "a@b|c@d" },
    { "<@x,@y:a@b>", "a@b" },
    { "@x:a@b", "a@b" },
    { "Foo <a@b> Bar <c@d>", "a@b|c@d" },
    { "Foo <a@b", "a@b" },
    { "<a@b>;<c@d>", "a@b|c@d" },
    { "a@b; c@d", "a@b|c@d" },
    { "\"a b\"@c", "a b@c" },
    { "a b@c", "a|b@c" },
    { "\"unterminated <a@b>", "unterminated <a@b>" },
    { "(unterminated <a@b>", "" },
    { "a@[1.2.3.4]", "a@[1.2.3.4]" },
    { "<>", "" },
    { "Foo <>", "" },
    { "\"\"@c", "@c" },
    { "a b c", "a|b|c" },
    { "J. Foo <a@b>", "a@b" },
    { "=?utf-8?q?a?= <a@b>", "a@b" },
    { "a . b @ c . d", "a.b@c.d" },
    { "a\\,b@c", "a,b@c" },
    { "<<a@b>>", "a@b" },
    { "a@b <c@d>", "c@d" },
    { "grp1: grp2: a@b;;", "a@b" },
    { "a:b@c", "a:b@c" },
    { ":include:/foo", ":include:/foo" },
    { "Foo <a@b, c@d>", "a@b|c@d" },
    { "\"a\\\"b\"@c", "a\"b@c" },
    { "a@b\r\n\t(folded\r\n comment), \"x\r\n y\"@d", "a@b|x y@d" },
    { "|cmd", "|cmd" },
    { "((())) a@b", "a@b" },
    { ",", "" },
    { ";", "" },
    { "", "" },
    { "a@b, \\", "a@b" },
    { "<", "" },
    { "a <b <c@d>", "c@d" },
};

static void address_lists(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct arena *a = arena_new();
        size_t n = strlen(lists[i].value);
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, lists[i].value, n);
        struct header_addresses got = header_addresses_parse(a, str_n(copy, n));
        struct str joined = STR("");
        for (size_t k = 0; k < got.n; k++)
            joined = arena_printf(a, "%.*s%s%.*s", STR_ARG(joined), k ? "|" : "", STR_ARG(got.at[k].address));
        if (!str_eq(joined, str_c(lists[i].addresses)))
            fail_msg("%s: %.*s", lists[i].value, STR_ARG(joined));
        assert_false(got.truncated);
        free(copy);
        arena_free(a);
    }
}

static void address_sources(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct header_addresses got = header_addresses_parse(a, STR(" Foo Bar <a@b> (x), grp: c@d (y) ; e f@g (z)"));
    assert_int_equal(got.n, 4);
    assert_str(got.at[0].source, "Foo Bar <a@b>");
    assert_str(got.at[1].source, "c@d (y)");
    assert_str(got.at[2].source, "e");
    assert_str(got.at[3].source, "f@g (z)");
    arena_free(a);
}

static void address_limits(void **state) {
    (void)state;
    struct arena *a = arena_new();
    size_t n = 1u << 20;
    char *big = malloc(n);
    assert_non_null(big);
    for (size_t i = 0; i < n; i++)
        big[i] = i % 2 ? ',' : 'a';
    struct header_addresses got = header_addresses_parse(a, str_n(big, n));
    assert_int_equal(got.n, HEADER_ADDRESS_MAX);
    assert_true(got.truncated);
    memset(big, 'a', n); /* one word of a megabyte: dropped, not cut */
    got = header_addresses_parse(a, str_n(big, n));
    assert_int_equal(got.n, 0);
    assert_true(got.truncated);
    const char *floods[] = { "(", "<", "\"", "[", ":", ";", "a:", "a ", "<a@b>", "\\", "@", ")" };
    for (size_t f = 0; f < sizeof floods / sizeof floods[0]; f++) {
        for (size_t i = 0; i < n; i++)
            big[i] = floods[f][i % strlen(floods[f])];
        got = header_addresses_parse(a, str_n(big, n));
        assert_true(got.n <= HEADER_ADDRESS_MAX);
        arena_reset(a);
    }
    /* NUL and a line end cannot be in an address; the neighbours are not harmed */
    got = header_addresses_parse(a, STR("a@b, \"x\0y\"@c, \"x\\\ny\"@c, d@e"));
    assert_int_equal(got.n, 2);
    assert_str(got.at[1].address, "d@e");
    free(big);
    arena_free(a);
}

static void names(void **state) {
    (void)state;
    assert_int_equal(header_find(STR("TO"))->id, HEADER_TO);
    assert_int_equal(header_find(STR("to"))->flags, HEADER_RECIPIENT_ADDRESS | HEADER_EXTRACT);
    assert_int_equal(header_find(STR("resent-message-ID"))->id, HEADER_RESENT_MESSAGE_ID);
    assert_int_equal(header_find(STR("X-To"))->id, HEADER_OTHER);
    assert_int_equal(header_find(STR(""))->id, HEADER_OTHER);
    /* each row is found by its own name: the table is in order */
    static const char *const all[] = { "Apparently-To",
                                       "Auto-Submitted",
                                       "Bcc",
                                       "Cc",
                                       "Content-Description",
                                       "Content-Disposition",
                                       "Content-ID",
                                       "Content-Length",
                                       "Content-Transfer-Encoding",
                                       "Content-Type",
                                       "Date",
                                       "Delivered-To",
                                       "Disposition-Notification-To",
                                       "Errors-To",
                                       "From",
                                       "Mail-Followup-To",
                                       "Message-Id",
                                       "MIME-Version",
                                       "Received",
                                       "Reply-To",
                                       "Resent-Bcc",
                                       "Resent-Cc",
                                       "Resent-Date",
                                       "Resent-From",
                                       "Resent-Message-Id",
                                       "Resent-Reply-To",
                                       "Resent-Sender",
                                       "Resent-To",
                                       "Return-Path",
                                       "Return-Receipt-To",
                                       "Sender",
                                       "Subject",
                                       "TLS-Required",
                                       "To" };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        assert_int_equal(header_find(str_c(all[i]))->id, (enum header_id)(i + 1));
}

static void lines(void **state) {
    (void)state;
    struct str name, value;
    assert_true(header_split(STR("Subject: x \n"), &name, &value));
    assert_str(name, "Subject");
    assert_str(value, "x");
    assert_true(header_split(STR("X:"), &name, &value));
    assert_str(value, "");
    assert_true(header_split(STR("X \t: y:z"), &name, &value));
    assert_str(name, "X");
    assert_str(value, "y:z");
    const struct str bad[] = { STR(""),       STR(":x"),     STR(" X: y"),  STR("X"),   STR("X y: z"),
                               STR("X\n: y"), STR("X\x7f:"), STR("X\xc3:"), STR("X\0:") };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(header_split(bad[i], &name, &value));
}

static void unfolding(void **state) {
    (void)state;
    struct arena *a = arena_new();
    assert_str(header_unfold(a, STR("a\n b\r\n\tc")), "a b\tc");
    assert_str(header_unfold(a, STR("a\nb\r\n")), "a\nb\r\n");
    assert_str(header_unfold(a, STR("")), "");
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_lists), cmocka_unit_test(address_sources), cmocka_unit_test(address_limits),
        cmocka_unit_test(names),         cmocka_unit_test(lines),           cmocka_unit_test(unfolding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
