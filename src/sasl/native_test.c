/* Mechanisms of native.c, with the examples of their RFCs; what is chosen; servers that are not to be believed. */
#include "sasl/native.h"

#include "test/test.h"

static struct arena *a;
static struct sasl_login login;
static struct native_login *n;
static struct sasl_move m;

static int setup(void **state) {
    (void)state;
    a = arena_new();
    n = NULL;
    login = (struct sasl_login){ .host = STR("mail.example"),
                                 .port = 587,
                                 .username = STR("user"),
                                 .password = STR("pencil"),
                                 .authzid = STR(""),
                                 .binding = STR(""),
                                 .binding_type = STR("") };
    return 0;
}

static void end(void) {
    if (n)
        native_end(n);
    n = NULL;
}

static int teardown(void **state) {
    (void)state;
    end();
    native_fix_nonce(STR(""));
    arena_free(a);
    return 0;
}

static void begin(const char *offered) {
    end();
    login.mechanisms = str_c(offered);
    n = native_begin(&login, a, &m);
}

static void step(const char *challenge) {
    native_step(n, str_c(challenge), a, &m);
}

static void says(const char *text) {
    assert_int_equal(m.what, SASL_SAY);
    assert_true(m.has_response);
    assert_str(m.response, text);
}

static void gives_up(const char *why) {
    assert_int_equal(m.what, SASL_GIVE_UP);
    assert_str(m.why, why);
}

static void plain_and_login(void **state) {
    (void)state;
    begin("LOGIN PLAIN XYZ");
    assert_str(m.mechanism, "PLAIN");
    assert_int_equal(m.response.n, 12);
    assert_memory_equal(m.response.p, "\0user\0pencil", 12);
    assert_true(native_accepted(n));
    login.authzid = STR("boss");
    begin("plain");
    assert_memory_equal(m.response.p, "boss\0user\0pencil", 16);
    step("");
    gives_up("the server asks for more than the mechanism has");
    begin("LOGIN");
    assert_str(m.mechanism, "LOGIN");
    assert_false(m.has_response);
    step("Username:");
    says("user");
    step("");
    says("pencil");
    step("Really?");
    gives_up("the server asks for more than the mechanism has");
}

static void cram_md5(void **state) { /* RFC 2195, 2 */
    (void)state;
    login.username = STR("tim");
    login.password = STR("tanstaaftanstaaf");
    begin("CRAM-MD5 PLAIN");
    assert_str(m.mechanism, "CRAM-MD5");
    assert_false(m.has_response);
    step("<1896.697170952@postoffice.reston.mci.net>");
    says("tim b913a602c7eda7a495b4e6e7334d3890");
    step("again");
    gives_up("the server asks for more than the mechanism has");
}

static void scram_sha_1(void **state) { /* RFC 5802, 5 */
    (void)state;
    native_fix_nonce(STR("fyko+d2lbbFgONRv9qkxdawL"));
    begin("SCRAM-SHA-1 CRAM-MD5");
    assert_str(m.mechanism, "SCRAM-SHA-1");
    says("n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
    assert_true(native_is_slow(n));
    step("r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096");
    says("c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=");
    assert_false(native_accepted(n));
    step("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    says("");
    assert_true(native_accepted(n));
}

static const char sha256_first[] =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

static void scram_sha_256(void **state) { /* RFC 7677, 3 */
    (void)state;
    native_fix_nonce(STR("rOprNGfwEbeRWgbNEkqO"));
    begin("SCRAM-SHA-1 SCRAM-SHA-256");
    assert_str(m.mechanism, "SCRAM-SHA-256");
    says("n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    step(sha256_first);
    says("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
         "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    step("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_true(native_accepted(n));
}

/* Who does not know the password, or wants it cheaper. */
static void scram_false_servers(void **state) {
    (void)state;
    static const struct {
        const char *first, *why;
    } firsts[] = {
        { "", "the server's first SCRAM message is malformed" },
        { "m=x,r=abcd,s=YQ==,i=4096", "the server's first SCRAM message is malformed" },
        { "r=abcx,s=YQ==", "the server's first SCRAM message is malformed" },
        { "r=abc,s=YQ==,i=4096", "the server's nonce does not begin with ours" },
        { "r=abd1,s=YQ==,i=4096", "the server's nonce does not begin with ours" },
        { "r=abc1,s=,i=4096", "the server's salt is malformed" },
        { "r=abc1,s=====,i=4096", "the server's salt is malformed" },
        { "r=abc1,s=a,i=4096", "the server's salt is malformed" },
        { "r=abc1,s=YQ==,i=4095", "the server's iteration count is out of bounds" },
        { "r=abc1,s=YQ==,i=-1", "the server's iteration count is out of bounds" },
        { "r=abc1,s=YQ==,i=1000001", "the server's iteration count is out of bounds" },
        { "r=abc1,s=YQ==,i=99999999999999999999", "the server's iteration count is out of bounds" },
    };
    native_fix_nonce(STR("abc"));
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        begin("SCRAM-SHA-256");
        step(firsts[i].first);
        gives_up(firsts[i].why);
        assert_false(native_accepted(n));
    }
    static const char *const finals[] = { "v=AAAA", "v=", "", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95A4=" };
    native_fix_nonce(STR("rOprNGfwEbeRWgbNEkqO"));
    for (size_t i = 0; i < sizeof finals / sizeof *finals; i++) {
        begin("SCRAM-SHA-256");
        step(sha256_first);
        step(finals[i]);
        gives_up("the server does not know the password");
        assert_false(native_accepted(n));
    }
    begin("SCRAM-SHA-256"); /* a reason, and then its refusal */
    step(sha256_first);
    step("e=invalid-proof");
    says("");
    assert_false(native_accepted(n));
}

static void scram_binding(void **state) {
    (void)state;
    native_fix_nonce(STR("abc"));
    const char both[] = "SCRAM-SHA-1-PLUS SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN";
    begin(both); /* no TLS */
    assert_str(m.mechanism, "SCRAM-SHA-256");
    says("n,,n=user,r=abc");
    login.binding = STR("\1\2\3");
    login.binding_type = STR("tls-exporter");
    begin(both);
    assert_str(m.mechanism, "SCRAM-SHA-256-PLUS");
    says("p=tls-exporter,,n=user,r=abc");
    step("r=abcd,s=YQ==,i=4096");
    assert_int_equal(m.what, SASL_SAY);
    assert_true(str_starts(m.response, STR("c=cD10bHMtZXhwb3J0ZXIsLAECAw==,r=abcd,p=")));
    begin("SCRAM-SHA-256"); /* whoever took -PLUS out of the list is found out (RFC 5802, 6) */
    says("y,,n=user,r=abc");
    login.plus_excluded = true;
    begin("SCRAM-SHA-256");
    says("n,,n=user,r=abc");
    login.authzid = STR("a,b");
    login.username = STR("u=1");
    begin("SCRAM-SHA-256");
    says("n,a=a=2Cb,n=u=3D1,r=abc");
}

static void tokens(void **state) {
    (void)state;
    const char all[] = "LOGIN PLAIN XOAUTH2 OAUTHBEARER SCRAM-SHA-256";
    begin(all);
    assert_str(m.mechanism, "SCRAM-SHA-256");
    begin("XOAUTH2"); /* nothing else: the password is a token, then */
    assert_str(m.mechanism, "XOAUTH2");
    login.token = true;
    login.password = STR("tok");
    begin(all);
    assert_str(m.mechanism, "OAUTHBEARER");
    says("n,a=user,\1host=mail.example\1port=587\1auth=Bearer tok\1\1");
    step("{\"status\":\"invalid_token\"}");
    says("\1");
    step("");
    gives_up("the server asks for more than the mechanism has");
    begin("PLAIN XOAUTH2");
    assert_str(m.mechanism, "XOAUTH2");
    says("user=user\1auth=Bearer tok\1\1");
    step("{}");
    says("");
    begin("PLAIN LOGIN");
    assert_int_equal(m.what, SASL_NO_MECHANISM);
    assert_str(m.why, "no mechanism available");
}

static void security_options(void **state) {
    (void)state;
    static const struct {
        const char *options, *chosen;
    } rows[] = {
        { "", "SCRAM-SHA-256" },
        { "noplaintext", "SCRAM-SHA-256" },
        { "nodictionary", "OAUTHBEARER" },
        { "noactive", "SCRAM-SHA-256" },
        { "mutual_auth", "SCRAM-SHA-256" },
        { "forward_secrecy", "" },
        { "noplaintext, nodictionary", "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str word;
        assert_true(sasl_policy_parse(str_c(rows[i].options), &login.policy, &word));
        begin("PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 OAUTHBEARER");
        assert_int_equal(m.what, rows[i].chosen[0] ? SASL_SAY : SASL_NO_MECHANISM);
        assert_str(m.mechanism, rows[i].chosen);
    }
    struct sasl_mechanism known;
    struct sasl_policy p;
    struct str word;
    assert_true(sasl_mechanism_known(STR("Plain"), &known));
    assert_true(sasl_policy_parse(STR("noanonymous, mutual_auth"), &p, &word));
    assert_str(sasl_policy_against(&p, &known), "mutual_auth");
    assert_true(sasl_policy_parse(STR("noanonymous"), &p, &word));
    assert_str(sasl_policy_against(&p, &known), "");
    assert_false(sasl_mechanism_known(STR("XYZ"), &known));
}

static void nonces_differ(void **state) {
    (void)state;
    begin("SCRAM-SHA-1");
    struct str one = m.response;
    begin("SCRAM-SHA-1");
    assert_int_equal(one.n, m.response.n);
    assert_false(str_eq(one, m.response));
}

int main(void) {
    assert_true(native_prepare());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(plain_and_login, setup, teardown),
        cmocka_unit_test_setup_teardown(cram_md5, setup, teardown),
        cmocka_unit_test_setup_teardown(scram_sha_1, setup, teardown),
        cmocka_unit_test_setup_teardown(scram_sha_256, setup, teardown),
        cmocka_unit_test_setup_teardown(scram_false_servers, setup, teardown),
        cmocka_unit_test_setup_teardown(scram_binding, setup, teardown),
        cmocka_unit_test_setup_teardown(tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(security_options, setup, teardown),
        cmocka_unit_test_setup_teardown(nonces_differ, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
