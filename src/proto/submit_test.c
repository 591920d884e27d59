#include "test/test.h"

#include "proto/submit.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* cmocka's assertions jump off the stack, which a coroutine must not: count, and say where */
static int failed;
#define CHECK_COUNT failed
#include "test/check.h"
#include "test/pair.h"

static struct arena *arena;
static struct submit_link *link_; /* has taken `client` over */

static void run_link(void (*near)(void *), void (*far)(void *), void *arg) {
    arena = arena_new();
    run_pair(near, far, arg);
    arena_free(arena);
}

static void link_begin(void) {
    link_ = submit_link_new(client);
}
static void link_end(void) {
    submit_link_close(link_);
    client = NULL;
}

/* --- cleanup, made up --- */
struct taken { /* one message, as cleanup heard it */
    uint64_t bytes;
    size_t rcpts;
    bool ended, cancelled, good;
};
enum { MESSAGES_MAX = 512 };
static struct taken taken[MESSAGES_MAX];
static size_t taken_count, under_way, under_way_max;
static struct submit_server cleanup_;
static const struct queue_id queue_id = { "ABC123" };
static bool slow; /* what has come is left where it is until `go` */
static struct cond go;
static struct str content_want; /* repeated */

static void take(void *ctx, struct submit_in *in) {
    (void)ctx;
    struct taken *t = &taken[taken_count++];
    struct submit_record r;
    error e;
    CHECK(taken_count <= MESSAGES_MAX);
    if (++under_way > under_way_max)
        under_way_max = under_way;
    t->good = true;
    while (!(e = submit_in_next(in, &r)) && r.type != SUBMIT_MSG_END) {
        struct unpack u = unpack_from(r.payload);
        struct envelope env;
        struct rcpt rcpt;
        switch (r.type) {
        case SUBMIT_MSG_OPEN:
            t->good = t->good && unpack_u32(&u) == (SUBMIT_MAP | SUBMIT_BOUNCE) && unpack_done(&u);
            submit_in_opened(in, &queue_id);
            break;
        case SUBMIT_MSG_ENVELOPE:
            envelope_unpack(&u, &env);
            t->good = t->good && unpack_done(&u) && str_eq(env.sender, STR("a b@c")) && env.flags == ENVELOPE_8BIT;
            break;
        case SUBMIT_MSG_RCPT:
            rcpt_unpack(&u, &rcpt);
            t->good = t->good && unpack_done(&u) && str_eq(rcpt.address, STR("x@y")) && rcpt.dsn_notify == 4;
            t->rcpts++;
            break;
        case SUBMIT_MSG_CONTENT:
            if (slow)
                cond_wait(&go, DEADLINE_NEVER);
            for (size_t i = 0; i < r.payload.n; i++, t->bytes++)
                t->good = t->good && r.payload.p[i] == content_want.p[t->bytes % content_want.n];
            break;
        default:
            t->good = false;
        }
    }
    t->ended = !e;
    t->cancelled = e == &err_eof;
    under_way--;
    if (!e)
        submit_in_result(in, &(struct submit_result){ .status = SUBMIT_OK,
                                                      .id = queue_id,
                                                      .size = t->bytes,
                                                      .dsn = STR("2.0.0"),
                                                      .text = STR("Ok: queued\r\n250 as ABC123") });
}

static void serve(void *arg) {
    (void)arg;
    memset(taken, 0, sizeof taken);
    taken_count = under_way = under_way_max = 0;
    content_want = STR("012345678\n");
    if (!cleanup_.held_max)
        cleanup_.held_max = SIZE_MAX;
    cleanup_.message = take;
    CHECK(submit_serve(&cleanup_, server) == NULL);
    CHECK(cleanup_.held == 0 && cleanup_.conns == NULL);
    cleanup_ = (struct submit_server){ 0 };
    ipc_close(server);
    server = NULL;
}

static error begin(struct submit **ret) {
    struct queue_id id;
    struct submit_result r;
    error e = submit_open(link_, SUBMIT_MAP | SUBMIT_BOUNCE, DEADLINE, arena, ret, &id, &r);
    if (!e && (r.status != SUBMIT_OK || !str_eq(queue_id_str(&id), STR("ABC123"))))
        failed++;
    return e;
}

static error head(struct submit *m) {
    struct envelope env = { .arrival_us = 1234567, .sender = STR("a b@c"), .flags = ENVELOPE_8BIT };
    error e = submit_envelope(m, &env, DEADLINE);
    return e ? e : submit_rcpt(m, &(struct rcpt){ .address = STR("x@y"), .dsn_notify = 4 }, DEADLINE);
}

static error tens(struct submit *m, size_t n) {
    error e = NULL;
    for (size_t i = 0; i < n && !e; i++)
        e = submit_content(m, STR("012345678\n"), DEADLINE);
    return e;
}

static error whole(size_t n, struct submit_result *ret) {
    struct submit *m;
    error e = begin(&m);
    if (e)
        return e;
    if (!(e = head(m)) && !(e = tens(m, n)))
        return submit_end(m, DEADLINE, arena, ret);
    submit_cancel(m);
    return e;
}

/* --- whole messages --- */
enum { BODY = 100 * 1000 /* lines of ten bytes: many windows */ };

static void send_messages(void *arg) {
    (void)arg;
    struct submit_result r;
    link_begin();
    CHECK(!whole(3, &r) && r.status == SUBMIT_OK && r.size == 30 && str_eq(r.dsn, STR("2.0.0")));
    /* what a peer chose cannot end our line */
    CHECK(str_eq(r.text, STR("Ok: queued??250 as ABC123")));
    CHECK(!whole(BODY, &r) && r.size == 10 * BODY);
    /* in pieces larger than any record */
    struct submit *m;
    struct buf big = { 0 };
    while (big.n < 500000)
        buf_add(&big, STR("012345678\n"));
    CHECK(!begin(&m) && !head(m) && !submit_content(m, buf_str(&big), DEADLINE));
    CHECK(!submit_end(m, DEADLINE, arena, &r) && r.size == big.n);
    /* recipients alone can fill a window */
    CHECK(!begin(&m) && !head(m));
    for (int i = 0; i < 20000; i++)
        CHECK(!submit_rcpt(m, &(struct rcpt){ .address = STR("x@y"), .dsn_notify = 4 }, DEADLINE));
    CHECK(!submit_end(m, DEADLINE, arena, &r) && r.status == SUBMIT_OK && taken[3].rcpts == 20001);
    buf_free(&big);
    CHECK(submit_link_count(link_) == 0);
    link_end();
}

static void test_messages(void **state) {
    (void)state;
    run_link(send_messages, serve, NULL);
    assert_int_equal(taken_count, 4);
    for (size_t i = 0; i < taken_count; i++)
        assert_true(taken[i].good && taken[i].ended);
}

/* --- many at a time --- */
enum { CLIENTS = 50, ROUNDS = 5 };
static int clients_left;
static size_t results;

static void one_client(void *arg) {
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct submit *m;
        struct submit_result r;
        bool good = !begin(&m) && !head(m);
        CHECK(good);
        if (good) {
            coro_yield();
            CHECK(!tens(m, 400) && !submit_end(m, DEADLINE, arena, &r) && r.size == 4000);
            results++;
        }
    }
    if (--clients_left == 0)
        link_end();
}

static size_t writes;
static ssize_t count_sendmsg(int fd, const struct msghdr *msg, int flags) {
    writes++;
    return sys_real.sendmsg(fd, msg, flags);
}

static void start_clients(void *arg) {
    (void)arg;
    link_begin();
    clients_left = CLIENTS;
    for (int i = 0; i < CLIENTS; i++)
        CHECK(coro_spawn(one_client, NULL, "client"));
}

/* What 50 messages have to say at the same time goes in few writes, on both sides. */
static void test_many(void **state) {
    (void)state;
    struct sys counting = sys_real;
    counting.sendmsg = count_sendmsg;
    sys = &counting;
    writes = results = 0;
    run_link(start_clients, serve, NULL);
    sys = &sys_real;
    assert_int_equal(results, CLIENTS * ROUNDS);
    assert_true(under_way_max > CLIENTS / 2);
    assert_true(writes < CLIENTS * ROUNDS / 2);
    for (size_t i = 0; i < taken_count; i++)
        assert_true(taken[i].good && taken[i].ended);
}

/* --- one that is not taken does not stand in the way of others --- */
static struct submit *stuck;
static error stuck_error;
static size_t stuck_bytes;

static void fill_window(void *arg) {
    (void)arg;
    for (; !stuck_error && stuck_bytes < 10 * BODY; stuck_bytes += 10)
        stuck_error = submit_content(stuck, STR("012345678\n"), DEADLINE);
}

static void one_slow(void *arg) {
    (void)arg;
    struct submit_result r;
    struct submit *m;
    link_begin();
    slow = true;
    CHECK(!begin(&stuck) && !head(stuck));
    CHECK(coro_spawn(fill_window, NULL, "filler"));
    for (int64_t until = DEADLINE; cleanup_.held < SUBMIT_WINDOW - SUBMIT_RECORD_MAX - 1024 && sys->mono_us() < until;)
        CHECK(!wait_until(deadline_in_us(1000)));
    CHECK(stuck_bytes >= SUBMIT_WINDOW - 1024 && stuck_bytes < 2 * SUBMIT_WINDOW);
    CHECK(cleanup_.held <= SUBMIT_WINDOW);
    size_t before = stuck_bytes;
    CHECK(!begin(&m) && !head(m) && !submit_end(m, DEADLINE, arena, &r) && r.status == SUBMIT_OK);
    CHECK(stuck_bytes == before && cleanup_.held <= SUBMIT_WINDOW);
    slow = false;
    while (stuck_bytes < 10 * BODY && !stuck_error) {
        cond_signal(&go);
        coro_yield();
        CHECK(!wait_until(deadline_in_us(1000)));
    }
    CHECK(!submit_end(stuck, DEADLINE, arena, &r) && r.size == 10 * BODY);
    link_end();
}

static void test_slow(void **state) {
    (void)state;
    stuck_bytes = 0;
    stuck_error = NULL;
    run_link(one_slow, serve, NULL);
    assert_true(taken[0].good && taken[1].good);
}

/* So much is held for all together; the rest stays in the socket, and goes on when there is room. */
static void fill_all(void *arg) {
    (void)arg;
    struct submit_result r;
    cleanup_.held_max = 64 * 1024;
    link_begin();
    CHECK(!whole(BODY, &r) && r.size == 10 * BODY);
    link_end();
}

static void test_total(void **state) {
    (void)state;
    run_link(fill_all, serve, NULL);
}

/* --- cancelling --- */
static void cancel_some(void *arg) {
    (void)arg;
    struct submit *m;
    struct submit_result r;
    link_begin();
    for (int i = 0; i < 3; i++) {
        CHECK(!begin(&m));
        if (i > 0)
            CHECK(!head(m));
        if (i > 1)
            CHECK(!tens(m, 5000));
        submit_cancel(m);
    }
    CHECK(!whole(1, &r) && r.status == SUBMIT_OK); /* the connection is as good as before */
    CHECK(taken[0].cancelled && taken[1].cancelled && taken[2].cancelled);
    CHECK(submit_link_count(link_) == 0);
    link_end();
}

static void test_cancel(void **state) {
    (void)state;
    run_link(cancel_some, serve, NULL);
    assert_true(taken[3].good && taken[3].ended);
}

/* A client that dies cancels what it has not ended. */
static void die_in_the_middle(void *arg) {
    (void)arg;
    struct submit *m[3];
    link_begin();
    for (int i = 0; i < 3; i++)
        CHECK(!begin(&m[i]) && !head(m[i]) && !tens(m[i], 4000));
    shutdown(ipc_fd(client), SHUT_RDWR);
    for (int i = 0; i < 3; i++)
        submit_cancel(m[i]);
    link_end();
}

static void test_dead_client(void **state) {
    (void)state;
    run_link(die_in_the_middle, serve, NULL);
    for (int i = 0; i < 3; i++)
        assert_true(taken[i].cancelled && !taken[i].ended);
}

/* --- answers that must not be believed --- */
struct answer {
    uint8_t type;
    const char *bytes; /* payload behind the stream number */
    size_t n;
    bool ok_open, ok_end;
};
#define BYTES(literal) literal, sizeof(literal) - 1
#define RESULT_TAIL                                                                                                    \
    "\0\0\0\0\0\0\0\0\5\0\0\0"                                                                                         \
    "2.0.0"                                                                                                            \
    "\2\0\0\0"                                                                                                         \
    "Ok"

static const struct answer answers[] = {
    { SUBMIT_FRAME_OPENED, BYTES("\3\0\0\0ABC"), true, false },
    { SUBMIT_FRAME_OPENED, BYTES("\3\0\0\0ABCx"), false, false },
    { SUBMIT_FRAME_OPENED, BYTES("\3\0\0\0A/C"), false, false },
    { SUBMIT_FRAME_OPENED, BYTES("\3\0\0\0A\0C"), false, false },
    { SUBMIT_FRAME_OPENED, BYTES("\0\0\0\0"), false, false },
    { SUBMIT_FRAME_OPENED, BYTES("\4\0\0\0ABC"), false, false },
    { SUBMIT_FRAME_OPENED, BYTES("\377\377\377\377"), false, false },
    { SUBMIT_FRAME_OPENED, BYTES("\40\0\0\0ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"), false, false },
    { SUBMIT_FRAME_OPENED, BYTES(""), false, false },
    { SUBMIT_FRAME_RESULT, BYTES(""), false, false },
    { SUBMIT_FRAME_RESULT, BYTES("\0\3\0\0\0ABC" RESULT_TAIL), false, true }, /* OK before there was a message */
    { SUBMIT_FRAME_RESULT, BYTES("\0\0\0\0\0" RESULT_TAIL), false, false },   /* OK without a name */
    { SUBMIT_FRAME_RESULT, BYTES("\1\0\0\0\0" RESULT_TAIL), true, true },
    { SUBMIT_FRAME_RESULT, BYTES("\10\0\0\0\0" RESULT_TAIL), false, false }, /* no such status */
    { SUBMIT_FRAME_RESULT, BYTES("\1\0\0\0\0" RESULT_TAIL "x"), false, false },
    { SUBMIT_FRAME_RESULT, BYTES("\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0a\n"), false, false },
    { SUBMIT_FRAME_CREDIT, BYTES("\1\0\2\0"), false, false }, /* more than the window */
    { SUBMIT_FRAME_CREDIT, BYTES("\1\0\0"), false, false },
    { SUBMIT_FRAME_CREDIT, BYTES("\1\0\0\0x"), false, false },
    { SUBMIT_FRAME_BEGIN, BYTES(""), false, false },
    { SUBMIT_FRAME_CLOSING, BYTES("x"), false, false },
    { 0, BYTES("\3\0\0\0ABC"), false, false },
};

/* First the answer to OPEN is the bad one, then that to END. */
static bool at_end;

static void believe(void *arg) {
    const struct answer *a = arg;
    struct queue_id id;
    struct submit_result r;
    struct submit *m;
    link_begin();
    error e = submit_open(link_, 0, DEADLINE, arena, &m, &id, &r);
    bool want = at_end || a->ok_open;
    if (!e && m)
        e = at_end ? submit_end(m, DEADLINE, arena, &r) : (submit_cancel(m), NULL);
    if (at_end)
        want = a->ok_end;
    if ((e == NULL) != want) {
        print_error("answer %zd %s: %s\n", a - answers, at_end ? "to END" : "to OPEN", e ? "an error" : "believed");
        failed++;
    }
    if (!want) /* who has said such a thing once is not asked again */
        CHECK(!submit_link_usable(link_));
    link_end();
}

static void mislead(void *arg) {
    const struct answer *a = arg;
    struct ipc_msg m;
    struct buf b = { 0 };
    CHECK(ipc_recv(server, DEADLINE, &m) == NULL && m.type == SUBMIT_FRAME_BEGIN && m.payload.n > 4);
    buf_add(&b, str_sub(m.payload, 0, 4));
    if (at_end) {
        buf_add(&b, STR("\3\0\0\0ABC"));
        ipc_send(server, SUBMIT_FRAME_OPENED, buf_str(&b), -1);
        CHECK(ipc_recv(server, DEADLINE, &m) == NULL && m.type == SUBMIT_FRAME_DATA);
        buf_truncate(&b, 4);
    }
    buf_add(&b, str_n(a->bytes, a->n));
    /* frames for streams there are not any more are ignored, and descriptors nobody asked for are closed */
    if (a->type != SUBMIT_FRAME_CLOSING)
        ipc_send(server, SUBMIT_FRAME_CREDIT, STR("\377\0\0\0\1\0\0\0"), ipc_fd(server));
    ipc_send(server, a->type, buf_str(&b), -1);
    CHECK(ipc_flush(server, DEADLINE) == NULL);
    buf_free(&b);
    (void)ipc_recv(server, DEADLINE, &m);
}

static void test_hostile_answers(void **state) {
    (void)state;
    int before = dup(0);
    close(before);
    for (size_t i = 0; i < 2 * sizeof answers / sizeof answers[0]; i++) {
        struct answer a = answers[i / 2];
        (void)a;
        at_end = i % 2;
        run_link(believe, mislead, (void *)(uintptr_t)&answers[i / 2]);
    }
    int after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

/* --- requests that must not be believed --- */
struct request {
    uint8_t type;
    const char *bytes;
    size_t n;
};
#define END_RECORD "\0\0\0\0\5"
static const struct request requests[][3] = {
    { { SUBMIT_FRAME_BEGIN, BYTES("\0\0\0") } },
    { { SUBMIT_FRAME_RESULT, BYTES("\0\0\0\0") } },
    { { 0, BYTES("\0\0\0\0") } },
    { { 99, BYTES("\0\0\0\0") } },
    /* a number that is in use, and one that takes the place of one */
    { { SUBMIT_FRAME_BEGIN, BYTES("\1\0\0\0") }, { SUBMIT_FRAME_BEGIN, BYTES("\1\0\0\0") } },
    { { SUBMIT_FRAME_BEGIN, BYTES("\1\0\0\0") }, { SUBMIT_FRAME_BEGIN, BYTES("\1\2\0\0") } },
};

static void ask_badly(void *arg) {
    const struct request *r = arg;
    struct ipc_msg m;
    error e;
    for (int i = 0; i < 3 && r[i].n; i++)
        ipc_send(client, r[i].type, str_n(r[i].bytes, r[i].n), -1);
    while (!(e = ipc_recv(client, DEADLINE, &m)))
        ;
    CHECK(e == &err_eof);
}

static void refuse(void *arg) {
    (void)arg;
    cleanup_.message = take;
    cleanup_.held_max = SIZE_MAX;
    taken_count = 0;
    error e = submit_serve(&cleanup_, server);
    CHECK(e && e->kind == ERR_SYNTAX);
    CHECK(cleanup_.held == 0);
    ipc_close(server);
    server = NULL;
}

/* More than the window at once. */
static void flood(void *arg) {
    (void)arg;
    struct buf b = { 0 };
    struct ipc_msg m;
    pack_u32(&b, 1);
    memset(buf_reserve(&b, SUBMIT_WINDOW + 1), 0, SUBMIT_WINDOW + 1);
    b.n += SUBMIT_WINDOW + 1;
    ipc_send(client, SUBMIT_FRAME_BEGIN, buf_str(&b), -1);
    CHECK(ipc_recv(client, DEADLINE, &m) == &err_eof);
    buf_free(&b);
}

/* What is said to a message that is over, or was never begun, has no effect; a record that cannot be is the end of its
 * message only. */
static void say_too_late(void *arg) {
    (void)arg;
    struct ipc_msg m;
    ipc_send(client, SUBMIT_FRAME_DATA, STR("\1\0\0\0abc"), -1);
    ipc_send(client, SUBMIT_FRAME_CANCEL, STR("\1\0\0\0"), -1);
    ipc_send(client, SUBMIT_FRAME_BEGIN, STR("\1\0\0\0\377\377\377\377\1"), -1);
    CHECK(!ipc_recv(client, DEADLINE, &m) && m.type == SUBMIT_FRAME_RESULT && m.payload.p[4] == SUBMIT_BAD);
    ipc_send(client, SUBMIT_FRAME_DATA, STR("\1\0\0\0abc"), -1);
    ipc_send(client, SUBMIT_FRAME_BEGIN, STR("\1\0\0\0" END_RECORD), -1);
    CHECK(!ipc_recv(client, DEADLINE, &m) && m.type == SUBMIT_FRAME_RESULT && m.payload.p[4] == SUBMIT_OK);
    ipc_close(client);
    client = NULL;
}

static void test_hostile_requests(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        run_link(ask_badly, refuse, (void *)(uintptr_t)&requests[i]);
    run_link(flood, refuse, NULL);
    run_link(say_too_late, serve, NULL);
}

/* --- a peer that goes away --- */
static int lost;

static void lose_one(void *arg) {
    (void)arg;
    struct submit_result r;
    CHECK(whole(50000, &r) != NULL);
    lost++;
}

static void lose_all(void *arg) {
    (void)arg;
    link_begin();
    lost = 0;
    for (int i = 0; i < 10; i++)
        CHECK(coro_spawn(lose_one, NULL, "client"));
    while (lost < 10)
        CHECK(!wait_until(deadline_in_us(1000)));
    CHECK(!submit_link_usable(link_) && submit_link_count(link_) == 0);
    struct submit *m;
    CHECK(begin(&m) != NULL);
    link_end();
}

static void hang_up(void *arg) {
    (void)arg;
    struct ipc_msg m;
    CHECK(ipc_recv(server, DEADLINE, &m) == NULL);
    ipc_close(server);
    server = NULL;
}

static void test_lost_connection(void **state) {
    (void)state;
    run_link(lose_all, hang_up, NULL);
}

/* One that gives up waiting does not take the others with it, also when it was the one who read for all. */
static struct coro *impatient;

static void give_up(void *arg) {
    (void)arg;
    struct submit *m;
    CHECK(!begin(&m) && !head(m));
    struct submit_result r;
    slow = true;
    CHECK(!tens(m, 1));
    CHECK(submit_end(m, DEADLINE, arena, &r) == &err_cancelled);
}

static void stay(void *arg) {
    (void)arg;
    link_begin();
    impatient = coro_spawn(give_up, NULL, "impatient");
    while (!slow || taken_count == 0)
        CHECK(!wait_until(deadline_in_us(1000)));
    struct submit_result r;
    CHECK(!whole(0, &r)); /* it waits behind the other, who reads */
    coro_cancel(impatient);
    CHECK(!whole(0, &r) && r.status == SUBMIT_OK);
    slow = false;
    cond_broadcast(&go);
    CHECK(!whole(1, &r) && r.status == SUBMIT_OK);
    link_end();
}

static void test_give_up(void **state) {
    (void)state;
    run_link(stay, serve, NULL);
}

static void test_codes(void **state) {
    (void)state;
    assert_int_equal(submit_status_code(SUBMIT_OK), 250);
    assert_int_equal(submit_status_code(SUBMIT_TOO_LARGE), 552);
    assert_int_equal(submit_status_code(SUBMIT_HOPS), 554);
    assert_int_equal(submit_status_code((enum submit_status)99), 451);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_total),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_dead_client),
        cmocka_unit_test(test_hostile_answers),
        cmocka_unit_test(test_hostile_requests),
        cmocka_unit_test(test_lost_connection),
        cmocka_unit_test(test_give_up),
        cmocka_unit_test(test_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
