/* The service with the client that uses it (dovecot.c), over a connection. */
#include "sasl/serve.h"

#include "run/loop.h"
#include "sasl/dovecot.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include "test/test.h"
#include <stdlib.h>
#include <sys/socket.h>

static int alive, begun;
static char seen[400];

static void *begin(void *ctx, const struct sasl_peer *peer, struct str mechanism, const struct str *initial,
                   struct arena *a, struct sasl_answer *ret) {
    (void)ctx, (void)a;
    begun++;
    snprintf(seen, sizeof seen, "%.*s %.*s %.*s %.*s:%.*s %.*s:%.*s %d %s", STR_ARG(mechanism), STR_ARG(peer->service),
             STR_ARG(peer->realm), STR_ARG(peer->address), STR_ARG(peer->port), STR_ARG(peer->local_address),
             STR_ARG(peer->local_port), peer->tls, initial ? initial->n ? initial->p : "(empty)" : "(none)");
    if (initial && str_eq(*initial, STR("c2xvdw==")))
        (void)wait_until(deadline_in(30));
    *ret = (struct sasl_answer){ .outcome = LOGIN_OK, .username = STR("jo\te") };
    if (initial)
        return NULL;
    *ret = (struct sasl_answer){ .outcome = LOGIN_MORE, .challenge = STR("YQ==") };
    alive++;
    return malloc(1);
}

static void step(void *state, struct str response, struct arena *a, struct sasl_answer *ret) {
    (void)state, (void)a;
    *ret = str_eq(response, STR("")) ? (struct sasl_answer){ .outcome = LOGIN_TEMP, .reason = STR("later") }
                                     : (struct sasl_answer){ .outcome = LOGIN_FAILED, .reason = STR("no\nway") };
}

static void end(void *state) {
    alive--;
    free(state);
}

static const struct sasl_mechanism mechanisms[] = { { STR_INIT("PLAIN"), SASL_PLAINTEXT | SASL_ACTIVE },
                                                    { STR_INIT("XMUT"), SASL_MUTUAL_AUTH | SASL_FORWARD_SECRECY },
                                                    { STR_INIT("D"), SASL_DICTIONARY | SASL_ANONYMOUS } };
static const struct login_library library = {
    .mechanisms = mechanisms, .mechanism_count = 3, .begin = begin, .step = step, .end = end
};
static error served;

static void serve(void *arg) {
    struct io *io = arg;
    served = login_serve(io, &library);
    io_close(io);
}

static error dial(void *ctx, int64_t deadline, struct io **ret) {
    (void)ctx, (void)deadline;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        return &err_limit;
    *ret = io_new(fds[0]);
    coro_spawn(serve, io_new(fds[1]), "service");
    return NULL;
}

static const struct sasl_peer peer = { .service = STR_INIT("smtp"),
                                       .realm = STR_INIT("a\tb"),
                                       .address = STR_INIT("192.0.2.1"),
                                       .port = STR_INIT("4711"),
                                       .local_address = STR_INIT("192.0.2.25"),
                                       .local_port = STR_INIT("587"),
                                       .tls = true };
static const struct sasl_policy any = { 0 };
static struct group others;

static void slow_login(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_answer r;
    struct str text = STR("c2xvdw==");
    s->ops->begin(s, &peer, &any, STR("PLAIN"), &text, deadline_in(60), a, &r);
    assert_int_equal(r.outcome, LOGIN_OK);
    arena_free(a);
    group_leave(&others);
}

static void do_logins(void *arg) {
    struct sasl_server *s = arg;
    struct arena *a = arena_new();
    struct sasl_mechanism *m;
    size_t n;
    struct sasl_answer r;
    assert_null(s->ops->mechanisms(s, &peer, &any, deadline_in(10), a, &m, &n));
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(m[i].properties, mechanisms[i].properties);
    /* one that takes half a minute does not hold up the others */
    int64_t before = sys->mono_us();
    group_enter(&others);
    coro_spawn(slow_login, s, "slow");
    coro_yield();
    struct str text = STR("Z29vZA=="), empty = STR("");
    assert_null(s->ops->begin(s, &peer, &any, STR("PLAIN"), &text, deadline_in(10), a, &r));
    assert_int_equal(r.outcome, LOGIN_OK);
    assert_str(r.username, "jo?e");
    assert_string_equal(seen, "PLAIN smtp a\tb 192.0.2.1:4711 192.0.2.25:587 1 Z29vZA==");
    assert_true(sys->mono_us() - before < US_PER_S);
    assert_null(s->ops->begin(s, &peer, &any, STR("PLAIN"), &empty, deadline_in(10), a, &r));
    assert_string_equal(seen, "PLAIN smtp a\tb 192.0.2.1:4711 192.0.2.25:587 1 (empty)");
    /* steps */
    struct sasl_exchange *x = s->ops->begin(s, &peer, &any, STR("PLAIN"), NULL, deadline_in(10), a, &r);
    assert_int_equal(r.outcome, LOGIN_MORE);
    assert_str(r.challenge, "YQ==");
    s->ops->respond(x, STR("YQ=="), deadline_in(10), a, &r);
    assert_int_equal(r.outcome, LOGIN_FAILED);
    assert_str(r.reason, "no?way");
    assert_int_equal(alive, 0);
    x = s->ops->begin(s, &peer, &any, STR("PLAIN"), NULL, deadline_in(10), a, &r);
    s->ops->respond(x, STR(""), deadline_in(10), a, &r);
    assert_int_equal(r.outcome, LOGIN_TEMP);
    assert_str(r.reason, "later");
    /* given up by the client: gone with its next line */
    x = s->ops->begin(s, &peer, &any, STR("PLAIN"), NULL, deadline_in(10), a, &r);
    assert_int_equal(alive, 1);
    s->ops->cancel(x);
    s->ops->begin(s, &peer, &any, STR("PLAIN"), &text, deadline_in(10), a, &r);
    assert_int_equal(alive, 0);
    /* ... or with the connection */
    x = s->ops->begin(s, &peer, &any, STR("PLAIN"), NULL, deadline_in(10), a, &r);
    assert_int_equal(alive, 1);
    s->ops->cancel(x);
    assert_null(group_wait(&others, deadline_in(100)));
    arena_free(a);
    dovecot_free(s);
}

static void run(void (*fn)(void *), void *arg) {
    fake_sys_install();
    assert_null(loop_init());
    alive = begun = 0;
    served = &err_limit;
    coro_spawn(fn, arg, "test");
    assert_null(loop_run());
    loop_free();
    fake_sys_remove();
    assert_int_equal(alive, 0);
}

static void test_logins(void **state) {
    (void)state;
    run(do_logins, dovecot_new(dial, NULL));
    assert_null(served);
}

/* --- clients that are not ours --- */
static const char *script;
static void do_script(void *arg) {
    (void)arg;
    coro_spawn(serve, io_new(script_peer_start(script)), "service");
}

static void test_malformed(void **state) {
    (void)state;
    static const char *const bad[] = {
        "AUTH\\t\\n",
        "AUTH\\tx\\tPLAIN\\n",
        "AUTH\\t99999999999\\tPLAIN\\n",
        "CONT\\t1\\tYQ==\\n",
        "CANCEL\\tx\\n",
        "AUTH\\t1\\tPLAIN\\tresp=c2xvdw==\\nAUTH\\t1\\tPLAIN\\n",
        "AUTH\\t1\\tPLAIN\\tresp=c2xvdw==\\nCONT\\t1\\tYQ==\\n",
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        script = arena_printf(a, ">| %s\ndrop\n", bad[i]).p;
        run(do_script, NULL);
        script_peer_check();
        assert_non_null(served);
        assert_int_equal(served->kind, ERR_SYNTAX);
    }
    arena_free(a);
}

static void test_limit(void **state) {
    (void)state;
    struct buf b = { 0 };
    buf_add(&b, STR("lf\n>| VERSION\\t1\\t1\\n\nskip DONE\n"));
    for (int i = 1; i <= SERVE_LOGINS_MAX; i++)
        buf_printf(&b, ">| AUTH\\t%d\\tPLAIN\\n\n< CONT\t%d\tYQ==\n", i, i);
    buf_printf(&b, ">| AUTH\\t5000\\tPLAIN\\n\n< FAIL\t5000\treason=too many logins at a time\ttemp\n"
                   ">| CANCEL\\t7\\n\n>| AUTH\\t5001\\tPLAIN\\n\n< CONT\t5001\tYQ==\n");
    script = b.p;
    run(do_script, NULL);
    script_peer_check();
    assert_int_equal(begun, SERVE_LOGINS_MAX + 1);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_logins), cmocka_unit_test(test_malformed),
                                        cmocka_unit_test(test_limit) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
