#include "sasl/dovecot.h"

#include "run/loop.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include "test/test.h"

#define HELLO                                                                                                          \
    ">| VERSION\\t1\\t2\\nMECH\\tPLAIN\\tplaintext\\nMECH\\tLOGIN\\tplaintext\\n"                                      \
    "MECH\\tCRAM-"                                                                                                     \
    "MD5\\tdictionary\\tactive\\nMECH\\tEXTERNAL\\tprivate\\nSPID\\t9\\nCUID\\t1\\nCOOKIE\\tab\\nDONE\\n\n"            \
    "lf\n< VERSION\t1\t1\n< CPID\t\n"

enum { SCRIPTS_MAX = 4 };
static struct {
    const char *scripts[SCRIPTS_MAX];
    size_t dials;
} servers;

static error dial(void *ctx, int64_t deadline, struct io **ret) {
    static const struct err refused = { .kind = ERR_SYS, .text = STR_INIT("Connection refused") };
    (void)ctx, (void)deadline;
    size_t i = servers.dials++;
    if (i >= SCRIPTS_MAX || !servers.scripts[i])
        return &refused;
    *ret = io_new(script_peer_start(servers.scripts[i]));
    return NULL;
}

static const struct sasl_peer peer = { .service = STR_INIT("smtp"),
                                       .address = STR_INIT("192.0.2.1"),
                                       .port = STR_INIT("4711"),
                                       .local_address = STR_INIT("192.0.2.25"),
                                       .local_port = STR_INIT("587"),
                                       .tls = true };
static const struct sasl_policy any = { 0 };

static void setup(void) {
    fake_sys_install();
    assert_null(loop_init());
    servers.dials = 0;
    memset(servers.scripts, 0, sizeof servers.scripts);
}

static void run(void (*fn)(void *)) {
    struct sasl_server *s = dovecot_new(dial, NULL);
    coro_spawn(fn, s, "test");
    assert_null(loop_run());
    script_peer_check();
    loop_free();
    fake_sys_remove();
}

static struct sasl_exchange *begin(struct sasl_server *s, const char *mechanism, const char *initial, struct arena *a,
                                   struct sasl_answer *ret) {
    struct str text = str_c(initial);
    return s->ops->begin(s, &peer, &any, str_c(mechanism), initial ? &text : NULL, deadline_in(60), a, ret);
}

/* --- one login each --- */
static void do_plain(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_answer r;
    assert_null(begin(s, "plain", "AGpvZQBzZWNyZXQ=", a, &r));
    assert_int_equal(r.outcome, LOGIN_OK);
    assert_str(r.username, "joe?x"); /* what is shown is printable */
    arena_free(a);
    dovecot_free(s);
}
static void test_plain(void **state) {
    (void)state;
    setup();
    servers.scripts[0] =
        HELLO "< AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=192.0.2.25\trip=192.0.2.1\tlport=587\trport=4711\tsecured"
              "\tresp=AGpvZQBzZWNyZXQ=\n"
              ">| OK\\t1\\tuser=joe\\x01tx\\tother=1\\n\neof\n";
    run(do_plain);
}

/* --- several steps; an unknown answer, one that is not ours --- */
static void do_steps(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_answer r;
    struct sasl_exchange *x = begin(s, "LOGIN", NULL, a, &r);
    assert_non_null(x);
    assert_int_equal(r.outcome, LOGIN_MORE);
    assert_str(r.challenge, "VXNlcg==");
    s->ops->respond(x, STR("am9l"), deadline_in(60), a, &r);
    assert_int_equal(r.outcome, LOGIN_MORE);
    assert_str(r.challenge, "");
    s->ops->respond(x, STR(""), deadline_in(60), a, &r);
    assert_int_equal(r.outcome, LOGIN_FAILED);
    assert_str(r.reason, "No such user");
    assert_str(r.username, "joe");
    /* what was said of the last login is not said again */
    assert_null(begin(s, "PLAIN", "", a, &r));
    assert_int_equal(r.outcome, LOGIN_FAILED);
    assert_str(r.reason, "");
    assert_str(r.username, "");
    arena_free(a);
    dovecot_free(s);
}
static void test_steps(void **state) {
    (void)state;
    setup();
    servers.scripts[0] = HELLO "< AUTH\t1\tLOGIN\t\n>| NEWS\\t1\\n\n>| OK\\t77\\tuser=other\\n\n"
                               ">| CONT\\t1\\tVXNlcg==\\n\n< CONT\t1\tam9l\n>| CONT\\t1\\t\\n\n< CONT\t1\t\n"
                               ">| FAIL\\t1\\tuser=joe\\treason=No such user\\n\n"
                               "< AUTH\t2\tPLAIN\t\n>| FAIL\\t2\\n\neof\n";
    run(do_steps);
}

/* --- two at a time, answered the other way round --- */
static struct group two;
static struct sasl_answer answers[2];
static struct arena *answers_arena;
static struct sasl_server *shared;
static void one_of_two(void *arg) {
    bool second = arg != NULL;
    assert_null(begin(shared, "PLAIN", second ? "Mg==" : "MQ==", answers_arena, &answers[second]));
    group_leave(&two);
}
static void do_two(void *arg) {
    shared = arg;
    answers_arena = arena_new();
    group_enter(&two);
    group_enter(&two);
    coro_spawn(one_of_two, NULL, "first");
    coro_spawn(one_of_two, arg, "second");
    assert_null(group_wait(&two, deadline_in(60)));
    assert_int_equal(answers[0].outcome, LOGIN_OK);
    assert_str(answers[0].username, "one");
    assert_int_equal(answers[1].outcome, LOGIN_OK);
    assert_str(answers[1].username, "two");
    assert_int_equal(servers.dials, 1);
    arena_free(answers_arena);
    dovecot_free(shared);
}
static void test_two(void **state) {
    (void)state;
    setup();
    servers.scripts[0] = HELLO "skip AUTH\t1\tPLAIN\n< AUTH\t2\tPLAIN\n"
                               ">| OK\\t2\\tuser=two\\n\nwait 1\n>| OK\\t1\\tuser=one\\n\neof\n";
    run(do_two);
}

/* --- what is offered --- */
static void do_mechanisms(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_policy p;
    struct str word;
    struct sasl_mechanism *m;
    size_t n;
    assert_true(sasl_policy_parse(STR("noanonymous, noplaintext"), &p, &word));
    assert_null(s->ops->mechanisms(s, &peer, &p, deadline_in(60), a, &m, &n));
    assert_int_equal(n, 1);
    assert_str(m[0].name, "CRAM-MD5");
    assert_null(s->ops->mechanisms(s, &peer, &any, deadline_in(60), a, &m, &n));
    assert_int_equal(n, 3); /* EXTERNAL is private */
    struct sasl_answer r;
    struct str secret = STR("AGpvZQBzZWNyZXQ=");
    assert_null(s->ops->begin(s, &peer, &p, STR("PLAIN"), &secret, deadline_in(60), a, &r)); /* forbidden: not sent */
    assert_int_equal(r.outcome, LOGIN_FAILED);
    assert_str(r.reason, "Invalid authentication mechanism");
    assert_false(sasl_policy_parse(STR("noanonymous, nosuch"), &p, &word));
    assert_str(word, "nosuch");
    struct sasl_policy mutual;
    assert_true(sasl_policy_parse(STR("mutual_auth"), &mutual, &word));
    assert_null(s->ops->mechanisms(s, &peer, &mutual, deadline_in(60), a, &m, &n));
    assert_int_equal(n, 0);
    assert_int_equal(servers.dials, 1);
    arena_free(a);
    dovecot_free(s);
}
static void test_mechanisms(void **state) {
    (void)state;
    setup();
    servers.scripts[0] = HELLO "eof\n";
    run(do_mechanisms);
}

/* --- a server that goes away --- */
static void do_restarted(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_answer r;
    assert_null(begin(s, "PLAIN", "AA==", a, &r));
    assert_int_equal(r.outcome, LOGIN_OK);
    assert_null(wait_until(deadline_in(10)));
    assert_null(begin(s, "PLAIN", "AA==", a, &r)); /* on a new connection */
    assert_int_equal(r.outcome, LOGIN_OK);
    assert_null(begin(s, "PLAIN", "AA==", a, &r)); /* closed after the request: begun anew */
    assert_int_equal(r.outcome, LOGIN_OK);
    assert_int_equal(servers.dials, 3);
    arena_free(a);
    dovecot_free(s);
}
static void test_restarted(void **state) {
    (void)state;
    setup();
    servers.scripts[0] = HELLO "< AUTH\t1\t\n>| OK\\t1\\tuser=joe\\n\nwait 1\nclose\n";
    servers.scripts[1] = HELLO "< AUTH\t2\t\n>| OK\\t2\\tuser=joe\\n\n< AUTH\t3\t\nclose\n";
    servers.scripts[2] = HELLO "< AUTH\t4\t\n>| OK\\t4\\tuser=joe\\n\neof\n";
    run(do_restarted);
}

static void do_away(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_answer r;
    struct sasl_exchange *x = begin(s, "LOGIN", NULL, a, &r);
    assert_non_null(x);
    assert_null(wait_until(deadline_in(5))); /* it closes meanwhile */
    s->ops->respond(x, STR("am9l"), deadline_in(60), a, &r);
    assert_int_equal(r.outcome, LOGIN_TEMP);
    assert_str(r.reason, "Connection lost to authentication server");
    /* nobody there: tried once a second, not once a login */
    for (int i = 0; i < 1000; i++) {
        assert_null(begin(s, "PLAIN", "AA==", a, &r));
        assert_int_equal(r.outcome, LOGIN_TEMP);
        assert_str(r.detail, "Connection refused");
    }
    assert_int_equal(servers.dials, 2);
    assert_null(wait_until(deadline_in(2)));
    struct sasl_mechanism *m;
    size_t n;
    error e = s->ops->mechanisms(s, &peer, &any, deadline_in(60), a, &m, &n);
    assert_non_null(e);
    assert_str(e->text, "Connection refused");
    assert_int_equal(servers.dials, 3);
    arena_free(a);
    dovecot_free(s);
}
static void test_away(void **state) {
    (void)state;
    setup();
    servers.scripts[0] = HELLO "< AUTH\t1\tLOGIN\n>| CONT\\t1\\t\\n\nwait 1\nclose\n";
    run(do_away);
}

/* --- silence, and a login that is given up --- */
static void do_silent(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_answer r;
    int64_t before = sys->mono_us();
    assert_null(begin(s, "PLAIN", "AA==", a, &r));
    assert_int_equal(r.outcome, LOGIN_TEMP);
    assert_str(r.detail, "no answer in time");
    assert_int_equal((sys->mono_us() - before) / US_PER_S, 60);
    struct sasl_exchange *x = begin(s, "LOGIN", NULL, a, &r);
    assert_non_null(x);
    s->ops->cancel(x);
    assert_null(begin(s, "PLAIN", "AA==", a, &r)); /* the connection is still good */
    assert_int_equal(r.outcome, LOGIN_OK);
    assert_int_equal(servers.dials, 1);
    arena_free(a);
    dovecot_free(s);
}
static void test_silent(void **state) {
    (void)state;
    setup();
    servers.scripts[0] = HELLO "< AUTH\t1\tPLAIN\n< CANCEL\t1\n< AUTH\t2\tLOGIN\n>| CONT\\t2\\t\\n\n"
                               "< CANCEL\t2\n< AUTH\t3\t\n>| OK\\t3\\tuser=joe\\n\neof\n";
    run(do_silent);
}

/* --- servers that break the protocol: 454, and the connection is closed --- */
static const char *const broken_answers[] = {
    ">| OK\\n\n",   ">| OK\\tx\\tuser=joe\\n\n", ">| OK\\t1\\n\n", ">| OK\\t1\\tuser=\\n\n", ">| CONT\\t1\\t%%%\\n\n",
    ">| FAIL\\n\n", ">| CONT\\t1\\tYQ=\\n\n",
};
static void do_broken(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_answer r;
    assert_null(begin(s, "PLAIN", "AA==", a, &r));
    assert_int_equal(r.outcome, LOGIN_TEMP);
    assert_str(r.reason, "Authentication backend error");
    assert_true(r.detail.n > 0);
    assert_null(begin(s, "PLAIN", "AA==", a, &r));
    assert_int_equal(r.outcome, LOGIN_OK);
    assert_int_equal(servers.dials, 2);
    arena_free(a);
    dovecot_free(s);
}
static void test_broken(void **state) {
    (void)state;
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof broken_answers / sizeof *broken_answers; i++) {
        setup();
        servers.scripts[0] = arena_printf(a, "%s< AUTH\t1\tPLAIN\n%seof\n", HELLO, broken_answers[i]).p;
        servers.scripts[1] = HELLO "< AUTH\t2\t\n>| OK\\t2\\tuser=joe\\n\neof\n";
        run(do_broken);
    }
    arena_free(a);
}

static const char *const broken_greetings[] = {
    ">| VERSION\\t2\\t0\\nMECH\\tPLAIN\\nDONE\\n\n",
    ">| VERSION\\tx\\nMECH\\tPLAIN\\nDONE\\n\n",
    ">| VERSION\\t1\\t1\\nMECH\\nDONE\\n\n",
    ">| VERSION\\t1\\t1\\nMECH\\tA B\\nDONE\\n\n",
    ">| VERSION\\t1\\t1\\nDONE\\n\n",
};
static void do_bad_greeting(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_mechanism *m;
    size_t n;
    error e = s->ops->mechanisms(s, &peer, &any, deadline_in(60), a, &m, &n);
    assert_non_null(e);
    assert_true(str_starts(e->text, STR("handshake: ")));
    arena_free(a);
    dovecot_free(s);
}
static void test_bad_greeting(void **state) {
    (void)state;
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof broken_greetings / sizeof *broken_greetings; i++) {
        setup();
        servers.scripts[0] = arena_printf(a, "%sdrop\n", broken_greetings[i]).p;
        run(do_bad_greeting);
    }
    setup(); /* silence, and a line without end */
    servers.scripts[0] = ">| VERSION\\t1\\t1\\n\ndrop\n";
    run(do_bad_greeting);
    struct buf longest = { 0 };
    buf_add(&longest, STR(">| "));
    for (int i = 0; i < DOVECOT_LINE_MAX + 1; i++)
        buf_byte(&longest, 'x');
    buf_add(&longest, STR("\ndrop\n"));
    setup();
    servers.scripts[0] = longest.p;
    run(do_bad_greeting);
    buf_free(&longest);
    arena_free(a);
}

/* --- texts that are too long or not printable --- */
static void do_long(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_answer r;
    assert_null(begin(s, "PLAIN", "AA==", a, &r));
    assert_int_equal(r.outcome, LOGIN_FAILED);
    assert_in_range(r.reason.n, SASL_REASON_MAX - 3, SASL_REASON_MAX);
    assert_str(r.username, "j?e");
    assert_null(begin(s, "PLAIN", "AA==", a, &r));
    assert_int_equal(r.outcome, LOGIN_TEMP);
    assert_str(r.reason, "later");
    assert_str(r.detail, "");
    arena_free(a);
    dovecot_free(s);
}
static void test_long(void **state) {
    (void)state;
    struct buf script = { 0 };
    buf_add(&script, STR(HELLO "< AUTH\t1\n>| FAIL\\t1\\tuser=j\\x01ne\\treason="));
    for (int i = 0; i < 2000; i++)
        buf_byte(&script, 'r');
    buf_add(&script, STR("\\n\n< AUTH\t2\n>| FAIL\\t2\\treason=later\\tcode=temp_fail\\n\neof\n"));
    setup();
    servers.scripts[0] = script.p;
    run(do_long);
    buf_free(&script);
}

static void test_base64(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool valid;
    } rows[] = { { "", true },      { "YQ==", true },  { "YWI=", true },  { "YWJj", true },
                 { "+/09", true },  { "Y", false },    { "YQ", false },   { "YQ=", false },
                 { "Y===", false }, { "====", false }, { "=", false },    { "YQ==YQ==", false },
                 { "Y Q=", false }, { "*", false },    { "YQ=A", false }, { "YWJ\n", false } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (sasl_base64_valid(str_c(rows[i].text)) != rows[i].valid)
            fail_msg("%s", rows[i].text);
    assert_false(sasl_base64_valid(str_n("YQ\0=", 4)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),      cmocka_unit_test(test_steps),     cmocka_unit_test(test_two),
        cmocka_unit_test(test_mechanisms), cmocka_unit_test(test_restarted), cmocka_unit_test(test_away),
        cmocka_unit_test(test_silent),     cmocka_unit_test(test_broken),    cmocka_unit_test(test_bad_greeting),
        cmocka_unit_test(test_long),       cmocka_unit_test(test_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
