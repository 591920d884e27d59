#include "test/test.h"

#include "proto/rewrite.h"

#include <sys/socket.h>

static struct cond answer_now; /* what "slow" questions wait for */
static size_t waiting;

/* Both ends of the conversation with a router made up for the purpose (these stand before the real functions when the
 * test is linked): the questions and answers matter here, not what a router thinks. */

struct str route_rewrite(struct router *r, struct arena *a, struct str address, struct str origin) {
    (void)r;
    if (str_eq(address, STR("slow"))) {
        waiting++;
        (void)cond_wait(&answer_now, DEADLINE_NEVER);
    }
    return arena_cat(a, arena_cat(a, address, STR("@")), origin);
}

error route_resolve(struct router *r, struct arena *a, struct str sender, struct str recipient, struct route *ret) {
    (void)r;
    if (str_eq(recipient, STR("bad")))
        return err_smtp(a, 501, "5.1.3", "bad address syntax");
    *ret = (struct route){ .class = CLASS_RELAY,
                           .transport = STR("relay"),
                           .nexthop = arena_str(a, sender),
                           .recipient = arena_str(a, recipient),
                           .routed = str_eq(recipient, STR("a%b@c")) };
    return NULL;
}

void route_check(struct router *r, struct arena *a, const struct route_question *q, struct route_check *ret) {
    (void)r;
    *ret = (struct route_check){ .class = CLASS_RELAY, .routed = str_eq(q->address, STR("a%b@c")) };
    if ((q->want & ROUTE_WANT_CLASS) && str_eq(q->address, STR("bad")))
        ret->unroutable = err_smtp(a, 501, "5.1.3", "bad address from %.*s", STR_ARG(q->sender));
    if ((q->want & ROUTE_WANT_LISTED) && q->is_sender)
        ret->unlisted = err_smtp(a, 451, "4.3.0", "%.*s", STR_ARG(q->address));
    else if ((q->want & ROUTE_WANT_LISTED) && !str_eq(q->address, STR("somebody")))
        ret->unlisted = err_smtp(a, 550, "5.1.1", "User unknown");
}

static int failed;
#define CHECK_COUNT failed
#include "test/check.h"
#include "test/pair.h"

static struct arena *arena;

static void run_with_arena(void (*near)(void *), void (*far)(void *), void *arg) {
    arena = arena_new();
    run_pair(near, far, arg);
    arena_free(arena);
}

static struct rewrite_link *link_; /* has taken `client` over */

static void link_begin(void) {
    link_ = rewrite_link_new(client);
}
static void link_end(void) {
    rewrite_link_close(link_);
    client = NULL;
}

static error served;

static void serve(void *arg) {
    (void)arg;
    served = rewrite_serve(server, NULL);
    ipc_close(server);
    server = NULL;
}

static void ask(void *arg) {
    (void)arg;
    struct str s;
    link_begin();
    CHECK(rewrite_address(link_, arena, STR("u\0v"), STR("origin.example"), DEADLINE, &s) == NULL);
    CHECK(str_eq(s, STR("u\0v@origin.example")));

    struct route r;
    error refused;
    CHECK(rewrite_resolve(link_, arena, STR("from@x"), STR("a%b@c"), DEADLINE, &r, &refused) == NULL);
    CHECK(refused == NULL && r.class == CLASS_RELAY && r.routed && str_eq(r.transport, STR("relay")) &&
          str_eq(r.nexthop, STR("from@x")) && str_eq(r.recipient, STR("a%b@c")));
    CHECK(rewrite_resolve(link_, arena, STR(""), STR("bad"), DEADLINE, &r, &refused) == NULL);
    CHECK(refused && refused->code == 501 && refused->kind == ERR_PERM && str_eq(refused->dsn, STR("5.1.3")) &&
          str_eq(refused->text, STR("bad address syntax")));

    struct route_check c;
    const unsigned both = ROUTE_WANT_CLASS | ROUTE_WANT_LISTED;
    struct route_question q = { .want = both, .sender = STR("me"), .address = STR("somebody") };
    CHECK(rewrite_check(link_, arena, &q, DEADLINE, &c) == NULL);
    CHECK(c.class == CLASS_RELAY && !c.routed && !c.unroutable && !c.unlisted);
    q.address = STR("a%b@c");
    CHECK(rewrite_check(link_, arena, &q, DEADLINE, &c) == NULL && c.routed && c.unlisted && c.unlisted->code == 550);
    q.want = ROUTE_WANT_CLASS;
    CHECK(rewrite_check(link_, arena, &q, DEADLINE, &c) == NULL && c.routed && !c.unlisted);
    q = (struct route_question){ .want = both, .sender = STR("me"), .address = STR("bad") };
    CHECK(rewrite_check(link_, arena, &q, DEADLINE, &c) == NULL && c.unlisted);
    CHECK(c.unroutable && c.unroutable->kind == ERR_PERM && str_eq(c.unroutable->text, STR("bad address from me")));
    q = (struct route_question){
        .is_sender = true, .want = ROUTE_WANT_LISTED, .sender = STR(""), .address = STR("me")
    };
    CHECK(rewrite_check(link_, arena, &q, DEADLINE, &c) == NULL && !c.unroutable);
    CHECK(c.unlisted && c.unlisted->code == 451 && c.unlisted->kind == ERR_TEMP && str_eq(c.unlisted->text, STR("me")));
    CHECK(rewrite_link_usable(link_) && rewrite_link_count(link_) == 0);
    link_end();
}

static void test_questions(void **state) {
    (void)state;
    run_with_arena(ask, serve, NULL);
    assert_null(served);
}

/* --- many at a time --- */
enum { ASKERS = 300 /* more than REWRITE_QUESTIONS_MAX */ };
static int askers_left;
static size_t writes;

static void ask_one(void *arg) {
    struct str s;
    struct str address = arena_printf(arena, "u%zu", (size_t)(uintptr_t)arg);
    CHECK(rewrite_address(link_, arena, address, STR("o"), DEADLINE, &s) == NULL);
    CHECK(str_eq(s, arena_cat(arena, address, STR("@o"))));
    if (--askers_left == 0)
        link_end();
}

static void ask_all(void *arg) {
    (void)arg;
    link_begin();
    askers_left = ASKERS;
    for (size_t i = 0; i < ASKERS; i++)
        CHECK(coro_spawn(ask_one, (void *)(uintptr_t)i, "asker"));
}

static ssize_t count_sendmsg(int fd, const struct msghdr *msg, int flags) {
    writes++;
    return sys_real.sendmsg(fd, msg, flags);
}

static void test_many(void **state) {
    (void)state;
    struct sys counting = sys_real;
    counting.sendmsg = count_sendmsg;
    sys = &counting;
    writes = 0;
    run_with_arena(ask_all, serve, NULL);
    sys = &sys_real;
    assert_int_equal(askers_left, 0);
    assert_true(writes < ASKERS / 4);
}

/* One that takes its time does not keep the others waiting; one that is not waited for any more is no harm. */
static void ask_slow(void *arg) {
    (void)arg;
    struct str s;
    CHECK(rewrite_address(link_, arena, STR("slow"), STR("o"), DEADLINE, &s) == NULL && str_eq(s, STR("slow@o")));
    askers_left--;
}

static void ask_impatient(void *arg) {
    (void)arg;
    struct str s;
    CHECK(rewrite_address(link_, arena, STR("slow"), STR("o"), DEADLINE, &s) == &err_cancelled);
    askers_left--;
}

static void ask_beside(void *arg) {
    (void)arg;
    struct str s;
    link_begin();
    askers_left = 2;
    struct coro *impatient = coro_spawn(ask_impatient, NULL, "impatient"); /* who reads for all */
    CHECK(coro_spawn(ask_slow, NULL, "slow"));
    while (waiting < 2)
        CHECK(!wait_until(deadline_in_us(1000)));
    CHECK(rewrite_address(link_, arena, STR("quick"), STR("o"), DEADLINE, &s) == NULL && str_eq(s, STR("quick@o")));
    coro_cancel(impatient);
    while (askers_left > 1)
        CHECK(!wait_until(deadline_in_us(1000)));
    cond_broadcast(&answer_now);
    while (askers_left > 0)
        CHECK(!wait_until(deadline_in_us(1000)));
    CHECK(rewrite_address(link_, arena, STR("quick"), STR("o"), DEADLINE, &s) == NULL && str_eq(s, STR("quick@o")));
    link_end();
}

static void test_slow(void **state) {
    (void)state;
    waiting = 0;
    run_with_arena(ask_beside, serve, NULL);
}

/* --- hostile frames, in both directions --- */

struct frame {
    uint8_t type;
    const char *bytes;
    size_t n;
};
#define BYTES(literal) literal, sizeof(literal) - 1

static const struct frame bad_questions[] = {
    { 0, BYTES("") },
    { REWRITE_MSG_REPLY, BYTES("\1\0\0\0a\1\0\0\0b") },
    { REWRITE_MSG_REWRITE, BYTES("") },
    { REWRITE_MSG_REWRITE, BYTES("\1\0\0\0a") },
    { REWRITE_MSG_REWRITE, BYTES("\377\377\377\377a") },
    { REWRITE_MSG_REWRITE, BYTES("\1\0\0\0a\1\0\0\0bc") },
    { REWRITE_MSG_RESOLVE, BYTES("\1\0\0\0a\5\0\0\0b") },
    { REWRITE_MSG_CHECK, BYTES("x\3\0\0\0\0\1\0\0\0a") },
    { REWRITE_MSG_CHECK, BYTES("r\4\0\0\0\0\1\0\0\0a") },
    { REWRITE_MSG_CHECK, BYTES("r\3\0\0\0\0\1\0\0\0ab") },
    { REWRITE_MSG_CHECK, BYTES("r\3\1\0\0\0a") },
    { REWRITE_MSG_CHECK, BYTES("r") },
};

static void ask_badly(void *arg) {
    const struct frame *f = arg;
    struct ipc_msg m;
    ipc_send(client, f->type, arena_cat(arena, f->n ? STR("\1\0\0\0") : STR("\1\0"), str_n(f->bytes, f->n)), -1);
    error e = ipc_recv(client, DEADLINE, &m);
    CHECK(e && e->kind == ERR_EOF);
}

static void ask_too_long(void *arg) {
    (void)arg;
    char *big = arena_zalloc(arena, 100000);
    struct str s;
    link_begin();
    CHECK(rewrite_address(link_, arena, (struct str){ big, 100000 }, STR("x"), DEADLINE, &s) != NULL);
    CHECK(!rewrite_link_usable(link_));
    link_end();
}

static void test_hostile_questions(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_questions / sizeof bad_questions[0]; i++) {
        struct frame f = bad_questions[i];
        run_with_arena(ask_badly, serve, &f);
        assert_true(served && served->kind == ERR_SYNTAX);
    }
    run_with_arena(ask_too_long, serve, NULL);
    assert_true(served && served->kind == ERR_SYNTAX);
}

/* Answers that fit none of the three questions. */
static const struct frame bad_answers[] = {
    { REWRITE_MSG_REWRITE, BYTES("\1\0\0\0a") },
    { REWRITE_MSG_REPLY, BYTES("") },
    { REWRITE_MSG_REPLY, BYTES("\2") },
    { REWRITE_MSG_REPLY, BYTES("\1") },
    { REWRITE_MSG_REPLY, BYTES("\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0") },                          /* kind 0 */
    { REWRITE_MSG_REPLY, BYTES("\1\11\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0") }, /* rest */
    { REWRITE_MSG_REPLY, BYTES("\1\11\377\377\0\0\0\0\0\0\0\0\0\0\0\0\0\0") },                     /* code */
    { REWRITE_MSG_REPLY, BYTES("\0\6\0\0\0\0\0\0\0\0\0\0\0\0\0") },                                /* class */
    { REWRITE_MSG_REPLY, BYTES("\0\0\0\0\0\0\0\0\0\0\0\0\0\0") },
    { REWRITE_MSG_REPLY, BYTES("\0\6\0\0") }, /* class */
    { REWRITE_MSG_REPLY, BYTES("\0\5\2\0") },
    { REWRITE_MSG_REPLY, BYTES("\0\5\0\0\0") },
    { REWRITE_MSG_REPLY, BYTES("\0\5\0\2") },
};

static int question; /* which of the three */

static void expect_malformed(void *arg) {
    (void)arg;
    struct str s;
    struct route r;
    error refused;
    struct route_check c;
    struct route_question q = { .want = ROUTE_WANT_CLASS, .sender = STR(""), .address = STR("a") };
    link_begin();
    error e = question == 0   ? rewrite_address(link_, arena, STR("a"), STR("b"), DEADLINE, &s)
              : question == 1 ? rewrite_resolve(link_, arena, STR("a"), STR("b"), DEADLINE, &r, &refused)
                              : rewrite_check(link_, arena, &q, DEADLINE, &c);
    CHECK(e && e->kind == ERR_SYNTAX && !rewrite_link_usable(link_));
    link_end();
}

static void answer_badly(void *arg) {
    const struct frame *f = arg;
    struct ipc_msg m;
    CHECK(ipc_recv(server, DEADLINE, &m) == NULL && m.payload.n > 4);
    struct str number = str_sub(m.payload, 0, f->n ? 4 : 3);
    /* an answer to a question nobody has asked has no effect */
    ipc_send(server, REWRITE_MSG_REPLY, STR("\377\0\0\0\0"), -1);
    ipc_send(server, f->type, arena_cat(arena, number, str_n(f->bytes, f->n)), -1);
    CHECK(ipc_flush(server, DEADLINE) == NULL);
}

static void test_hostile_answers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_answers / sizeof bad_answers[0]; i++) {
        struct frame f = bad_answers[i];
        for (question = 0; question < 3; question++)
            run_with_arena(expect_malformed, answer_badly, &f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_hostile_questions),
        cmocka_unit_test(test_hostile_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
