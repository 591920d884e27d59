/* ldap: what can be tested without a server (tests/lookup/test_ldap.py has the others). */
#include "test/test.h"

#include "lookup/ldap_client.h"
#include "lookup/ldap_text.h"
#include "run/sys.h"
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void quoting(void **state) {
    (void)state;
    static const struct {
        struct str text;
        const char *filter, *dn;
    } rows[] = {
        { STR_INIT("user+ext@example.com"), "user+ext@example.com", "user\\2bext@example.com" },
        { STR_INIT("*"), "\\2a", "*" },
        { STR_INIT("a(b)\\"), "a\\28b\\29\\5c", "a(b)\\5c" },
        { STR_INIT("#x,y=z;<>\""), "#x,y=z;<>\"", "\\23x\\2cy\\3dz\\3b\\3c\\3e\\22" },
        { STR_INIT(" a b "), " a b ", "\\20a b\\20" },
        { STR_INIT("a\0\n\x7f"), "a\\00\\0a\\7f", "a\\00\\0a\\7f" },
        { STR_INIT("\xc3\xbc"), "\\c3\\bc", "\\c3\\bc" },
        { STR_INIT(""), "", "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf b = { 0 };
        assert_true(ldap_quote_filter(NULL, &b, rows[i].text));
        assert_str(buf_str(&b), rows[i].filter);
        buf_clear(&b);
        assert_true(ldap_quote_dn(NULL, &b, rows[i].text));
        assert_str(buf_str(&b), rows[i].dn);
        buf_free(&b);
    }
}

static void servers(void **state) {
    (void)state;
    struct arena *a = arena_new();
    assert_str(ldap_server_uri(a, STR("host"), 389), "ldap://host:389");
    assert_str(ldap_server_uri(a, STR("host:1"), 389), "ldap://host:1");
    assert_str(ldap_server_uri(a, STR("[::1]"), 389), "ldap://[::1]:389");
    assert_str(ldap_server_uri(a, STR("[::1]:2"), 389), "ldap://[::1]:2");
    assert_str(ldap_server_uri(a, STR("ldapi://%2Fx"), 389), "ldapi://%2Fx");
    arena_free(a);
}

static void attributes(void **state) {
    (void)state;
    static const struct {
        const char *selected, *listed, *common;
    } rows[] = {
        { "mail", "MAIL", "MAIL" },
        { "mail", "mailbox", "" },
        { "mail;x", "mail", "mail;x" },
        { "mail", "mail;x", "mail;x" },
        { "mail;x", "mail;x", "mail;x" },
        { "mail;x", "mail;x;y", "" },
        { "*", "mail", "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_str(ldap_attribute_common(str_c(rows[i].selected), str_c(rows[i].listed)), rows[i].common);
    assert_true(ldap_attribute_is(STR("Mail;lang-en"), STR("mail")));
    assert_false(ldap_attribute_is(STR("mailbox"), STR("mail")));
    assert_false(ldap_attribute_is(STR("mail"), STR("mail;lang-en")));
}

/* A server that failed rests: as long as it made us wait, and a second at least. */
static void rest(void **state) {
    (void)state;
    struct ldap_host h;
    ldap_host_init(&h, "ldap://127.0.0.1");
    int64_t now = sys->mono_us();
    ldap_host_failed(&h, now - 7000000);
    assert_true(h.rest_until >= now + 7000000);
    now = sys->mono_us();
    ldap_host_failed(&h, now);
    assert_true(h.rest_until >= now + 1000000 && h.rest_until < now + 7000000);
}

static void guard(void **state) {
    (void)state;
    int pair[2], other[2];
    char byte;
    struct ldap_guard g = { 0 }, patient = { 0 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
    assert_true(ldap_guard_add(&g, pair[0]));
    assert_true(ldap_guard_add(&patient, other[0]));
    assert_true(ldap_guard_arm(&patient, sys->mono_us() + INT64_C(3600) * 1000000));
    assert_true(ldap_guard_arm(&g, sys->mono_us() + 20000));
    assert_int_equal(read(pair[0], &byte, 1), 0); /* would block for ever without it */
    assert_int_equal(send(other[0], "x", 1, MSG_NOSIGNAL), 1);
    ldap_guard_clear(&patient);
    ldap_guard_remove(&g, pair[0]);
    assert_int_equal(g.count, 0);
    for (int i = 0; i < LDAP_GUARD_SOCKETS; i++)
        assert_true(ldap_guard_add(&g, other[1]));
    assert_false(ldap_guard_add(&g, other[1]));
    ldap_guard_clear(&g);
    close(other[1]);
    assert_int_equal(send(other[0], "x", 1, MSG_NOSIGNAL), -1); /* no copy is left */
    close(other[0]);
    close(pair[0]);
    close(pair[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quoting), cmocka_unit_test(servers), cmocka_unit_test(attributes),
        cmocka_unit_test(rest),    cmocka_unit_test(guard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
