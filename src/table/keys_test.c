/* Unit tests of table/: the keys that are asked, in order, for each use of tables in main.cf. Tables of type debug:
 * tell. */
#include "base/buf.h"
#include "base/log.h"
#include "table/table.h"
#include "test/test.h"

static struct buf asked;

static void log_keys(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)tag, (void)level;
    struct str head = STR("inline:{zz=zz} lookup: \""), tail = STR("\" = \"not_found\"");
    if (!str_starts(text, head) || !str_ends(text, tail))
        return;
    if (asked.n)
        buf_byte(&asked, ' ');
    buf_add(&asked, str_sub(text, head.n, text.n - head.n - tail.n));
}

enum find { ADDRESS, NAME, IP };
enum {
    MAILBOX = ADDR_FIND_BARE_LOCAL | ADDR_FIND_AT_DOMAIN,
    RENAMED = MAILBOX | ADDR_FIND_EXTERNAL,
    TRANSPORT = ADDR_FIND_DOMAIN,
    ACCESS = ADDR_FIND_DOMAIN | ADDR_FIND_LOCAL_AT,
    ACCESS_PARENT = ACCESS | ADDR_FIND_PARENT_NO_DOT,
};

static const struct {
    const char *use;
    enum find find;
    unsigned flags;
    bool local;
    const char *delimiter, *key, *want;
} rows[] = {
    /* access(5), the address form */
    { "access", ADDRESS, ACCESS, false, "+", "u+e@h.d.tld", "u+e@h.d.tld u@h.d.tld h.d.tld .d.tld .tld u+e@ u@" },
    { "access", ADDRESS, ACCESS_PARENT, false, "+", "u+e@h.d.tld", "u+e@h.d.tld u@h.d.tld h.d.tld d.tld tld u+e@ u@" },
    { "access", ADDRESS, ACCESS, false, "", "u+e@d", "u+e@d d u+e@" },
    { "access", ADDRESS, ACCESS, false, "+", "u@[192.0.2.1]", "u@[192.0.2.1] [192.0.2.1] u@" },
    { "access", ADDRESS, ACCESS, false, "+", "\"q@d\"", "\"\\\"q\"@d\" \"q@d\" d\" \"\\\"q\"@ \"q@" },
    /* access(5), client, helo, MX and NS names */
    { "access name", NAME, 0, false, "", "a.b.c", "a.b.c .b.c .c" },
    { "access name", NAME, ADDR_FIND_PARENT_NO_DOT, false, "", "a.b.c", "a.b.c b.c c" },
    { "access name", NAME, 0, false, "", ".b.c", ".b.c .c" },
    { "access name", NAME, 0, false, "", "localhost", "localhost" },
    { "access name", NAME, 0, false, "", "192.0.2.1", "192.0.2.1" },
    { "access name", NAME, 0, false, "", "[192.0.2.1]", "[192.0.2.1]" },
    { "access name", NAME, 0, false, "", "1.2.3", "1.2.3 .2.3 .3" },
    { "access name", NAME, 0, false, "", "a..b.", "a..b. ..b. .b. ." },
    { "access name", NAME, 0, false, "", "", "" },
    /* access(5), addresses */
    { "access address", IP, 0, false, "", "192.0.2.1", "192.0.2.1 192.0.2 192.0 192" },
    { "access address", IP, 0, false, "", "2001:db8:0:1:2:3:4:5",
      "2001:db8:0:1:2:3:4:5 2001:db8:0:1:2:3:4 2001:db8:0:1:2:3 2001:db8:0:1:2 2001:db8:0:1 2001:db8:0 2001:db8 2001" },
    { "access address", IP, 0, false, "", "2001:db8::1", "2001:db8::1 2001:db8: 2001:db8 2001" },
    { "access address", IP, 0, false, "", "::1", "::1 :" },
    { "access address", IP, 0, false, "", "unknown", "unknown" },
    { "access address", IP, 0, false, "", "", "" },
    /* transport(5), address_verify_transport_maps; "*" is asked by the router */
    { "transport", ADDRESS, TRANSPORT, true, "+", "u+e@h.d.tld", "u+e@h.d.tld u@h.d.tld h.d.tld .d.tld .tld" },
    { "transport", ADDRESS, TRANSPORT, true, "+", "u@[IPv6:2001:db8::1]", "u@[IPv6:2001:db8::1] [IPv6:2001:db8::1]" },
    /* canonical(5), virtual(5) */
    { "canonical", ADDRESS, RENAMED, true, "+", "u+e@d", "u+e@d u@d u+e u @d" },
    { "canonical", ADDRESS, RENAMED, false, "+", "u+e@d", "u+e@d u@d @d" },
    { "canonical", ADDRESS, RENAMED, false, "+-", "u-e+f@d", "u-e+f@d u@d @d" },
    { "canonical", ADDRESS, RENAMED, false, "+-", "u+e-f@d", "u+e-f@d u@d @d" },
    { "canonical", ADDRESS, RENAMED, true, "+", "\"u+e@d", "\"\\\"u+e\"@d \"\\\"u\"@d \"\\\"u+e\" \"\\\"u\" @d" },
    { "canonical", ADDRESS, RENAMED, false, "+-", "owner-list@d", "owner-list@d @d" },
    { "canonical", ADDRESS, RENAMED, false, "+-", "list-request@d", "list-request@d @d" },
    { "canonical", ADDRESS, RENAMED, false, "+", "owner-l+x@d", "owner-l+x@d owner-l@d @d" },
    { "canonical", ADDRESS, RENAMED, false, "+", "+x@d", "+x@d @d" },
    { "canonical", ADDRESS, RENAMED, false, "+", "x+@d", "x+@d x@d @d" },
    { "canonical", ADDRESS, RENAMED, false, "r", "mailer-daemon@d", "mailer-daemon@d @d" },
    { "canonical", ADDRESS, RENAMED, true, "+", "u+e", "u+e u" },
    { "canonical", ADDRESS, RENAMED, true, "+", "", "" },
    /* generic(5), relocated(5), local_recipient_maps, smtpd_sender_login_maps, sender_dependent_*_maps */
    { "relocated", ADDRESS, MAILBOX, true, "+", "u+e@d", "u+e@d u@d u+e u @d" },
    { "relocated", ADDRESS, MAILBOX, false, "+", "u,e@d", "\"u,e\"@d u,e@d @d" },
    { "relocated", ADDRESS, MAILBOX, true, "+", "u,x+e@d",
      "\"u,x+e\"@d u,x+e@d \"u,x\"@d u,x@d \"u,x+e\" u,x+e \"u,x\" u,x @d" },
    { "relocated", ADDRESS, MAILBOX, true, "+", "\xc3\xbc@d", "\xc3\xbc@d \xc3\xbc @d" },
    /* virtual(8): no bare names */
    { "virtual_mailbox", ADDRESS, ADDR_FIND_AT_DOMAIN, true, "+", "u+e@d", "u+e@d u@d @d" },
    /* smtp_tls_policy_maps: next hop, .parents */
    { "tls policy", NAME, 0, false, "", "mx.example.com", "mx.example.com .example.com .com" },
    { "tls policy", NAME, 0, false, "", "[mx.example.com]:25", "[mx.example.com]:25" },
    { "tls policy", NAME, 0, false, "", "mx.example.com:25", "mx.example.com:25" },
};

static void keys_in_order(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct arena *a = arena_new();
        struct maps *m = maps_open(NULL, STR("debug:inline:{zz=zz}"), 0);
        struct str key = str_c(rows[i].key), value, extension;
        buf_clear(&asked);
        enum table_result r =
            rows[i].find == NAME ? name_find(m, key, rows[i].flags, a, &value)
            : rows[i].find == IP
                ? ip_find(m, key, a, &value)
                : addr_find(m, key, rows[i].local, rows[i].flags,
                            (struct extension_rules){ str_c(rows[i].delimiter), true }, a, &value, &extension);
        assert_int_equal(r, TABLE_NOT_FOUND);
        if (!str_eq(buf_str(&asked), str_c(rows[i].want)))
            fail_msg("%s, %s: %.*s", rows[i].use, rows[i].key, STR_ARG(buf_str(&asked)));
        maps_close(m);
        arena_free(a);
    }
}

/* The search ends at the first answer and at the first failure; patterns are asked with the whole key only. */
static void answers(void **state) {
    (void)state;
    struct arena *a = arena_new();
    const struct extension_rules no_extensions = { STR(""), true };
    struct str value;
    struct maps *m = maps_open(NULL, STR("inline:{.b.c=parent, 192.0=net, 2001:db8=six}"), TABLE_FOLD);
    assert_int_equal(name_find(m, STR("A.B.C"), 0, a, &value), TABLE_FOUND);
    assert_str(value, "parent");
    assert_int_equal(name_find(m, STR("b.c"), 0, a, &value), TABLE_NOT_FOUND);
    assert_int_equal(name_find(m, STR("a.b.c"), ADDR_FIND_PARENT_NO_DOT, a, &value), TABLE_NOT_FOUND);
    assert_int_equal(ip_find(m, STR("192.0.2.1"), a, &value), TABLE_FOUND);
    assert_str(value, "net");
    assert_int_equal(ip_find(m, STR("2001:DB8::1"), a, &value), TABLE_FOUND);
    assert_str(value, "six");
    maps_close(m);
    m = maps_open(NULL, STR("regexp:{{/^\\.c$/ parent}, {/^192$/ net}, {/^x\\.c$/ whole}, {/^10\\.0\\.0\\.1$/ ip}}"),
                  0);
    assert_int_equal(name_find(m, STR("a.c"), 0, a, &value), TABLE_NOT_FOUND);
    assert_int_equal(name_find(m, STR("x.c"), 0, a, &value), TABLE_FOUND);
    assert_int_equal(ip_find(m, STR("192.0.2.1"), a, &value), TABLE_NOT_FOUND);
    assert_int_equal(ip_find(m, STR("10.0.0.1"), a, &value), TABLE_FOUND);
    maps_close(m);
    m = maps_open(NULL, STR("fail:x, static:y"), 0);
    assert_int_equal(name_find(m, STR("a.c"), 0, a, &value), TABLE_ERROR);
    assert_int_equal(ip_find(m, STR("192.0.2.1"), a, &value), TABLE_ERROR);
    maps_close(m);
    /* external form only, where asked for */
    m = maps_open(NULL, STR("regexp:{{/^a b@d$/ plain}}"), 0);
    assert_int_equal(addr_find(m, STR("a b@d"), false, 0, no_extensions, a, &value, NULL), TABLE_FOUND);
    assert_int_equal(addr_find(m, STR("a b@d"), false, ADDR_FIND_EXTERNAL, no_extensions, a, &value, NULL),
                     TABLE_NOT_FOUND);
    maps_close(m);
    arena_free(a);
}

static int set_up(void **state) {
    (void)state;
    log_set_sink(log_keys, NULL);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    buf_free(&asked);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(keys_in_order), cmocka_unit_test(answers) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
