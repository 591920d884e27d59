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

/* --- a whole message --- */

enum { BODY = 1000 * 1000 };

static void send_message(void *arg) {
    (void)arg;
    struct queue_id id;
    struct submit_result r;
    CHECK(submit_open(client, SUBMIT_MAP | SUBMIT_BOUNCE, DEADLINE, &id, &r) == NULL);
    CHECK(r.status == SUBMIT_OK && str_eq(queue_id_str(&id), STR("ABC123")));
    struct envelope e = { .arrival_us = 1234567, .sender = STR("a b@c"), .flags = ENVELOPE_8BIT };
    submit_envelope(client, &e);
    submit_rcpt(client, &(struct rcpt){ .address = STR("x@y"), .orig = STR("x"), .dsn_notify = 4 });
    submit_rcpt(client, &(struct rcpt){ .address = STR("z@y"), .orig = STR("z") });
    for (int i = 0; i < BODY / 10; i++)
        CHECK(submit_content(client, STR("012345678\n"), DEADLINE) == NULL);
    CHECK(submit_end(client, DEADLINE, &r) == NULL);
    CHECK(r.status == SUBMIT_OK && r.size == BODY && str_eq(r.dsn, STR("2.0.0")));
    /* what a peer chose cannot end our line */
    CHECK(str_eq(r.text, STR("Ok: queued??250 as ABC123")));
    CHECK(submit_open(client, 0, DEADLINE, &id, &r) == NULL);
    CHECK(r.status == SUBMIT_NO_SPACE && submit_status_code(r.status) == 452);
}

static void take_message(void *arg) {
    (void)arg;
    struct ipc_msg m;
    struct queue_id id = { "ABC123" };
    CHECK(ipc_recv(server, DEADLINE, &m) == NULL && m.type == SUBMIT_MSG_OPEN);
    struct unpack u = unpack_from(m.payload);
    CHECK(unpack_u32(&u) == (SUBMIT_MAP | SUBMIT_BOUNCE) && unpack_done(&u));
    submit_reply_opened(server, &id);
    CHECK(ipc_recv(server, DEADLINE, &m) == NULL && m.type == SUBMIT_MSG_ENVELOPE);
    struct envelope e;
    u = unpack_from(m.payload);
    envelope_unpack(&u, &e);
    CHECK(unpack_done(&u) && str_eq(e.sender, STR("a b@c")) && e.arrival_us == 1234567 && e.flags == ENVELOPE_8BIT);
    for (int i = 0; i < 2; i++) {
        CHECK(ipc_recv(server, DEADLINE, &m) == NULL && m.type == SUBMIT_MSG_RCPT);
        struct rcpt rcpt;
        u = unpack_from(m.payload);
        rcpt_unpack(&u, &rcpt);
        CHECK(unpack_done(&u) && str_eq(rcpt.address, i ? STR("z@y") : STR("x@y")));
        CHECK(str_eq(rcpt.orig, i ? STR("z") : STR("x")) && rcpt.dsn_notify == (i ? 0u : 4u));
    }
    uint64_t got = 0, frames = 0;
    for (;;) {
        if (ipc_recv(server, DEADLINE, &m)) {
            CHECK(false);
            return;
        }
        if (m.type != SUBMIT_MSG_CONTENT)
            break;
        for (size_t i = 0; i < m.payload.n; i++, got++)
            if (m.payload.p[i] != "012345678\n"[got % 10])
                CHECK(false);
        frames++;
    }
    CHECK(m.type == SUBMIT_MSG_END && got == BODY);
    CHECK(frames < BODY / 1000); /* gathered */
    submit_reply_result(server, &(struct submit_result){ .status = SUBMIT_OK,
                                                         .id = id,
                                                         .size = got,
                                                         .dsn = STR("2.0.0"),
                                                         .text = STR("Ok: queued\r\n250 as ABC123") });
    CHECK(ipc_recv(server, DEADLINE, &m) == NULL && m.type == SUBMIT_MSG_OPEN);
    submit_reply_result(server,
                        &(struct submit_result){ .status = SUBMIT_NO_SPACE, .dsn = STR("4.3.1"), .text = STR("") });
    CHECK(ipc_flush(server, DEADLINE) == NULL);
}

static void test_message(void **state) {
    (void)state;
    run_pair(send_message, take_message, NULL);
}

/* --- answers that must not be believed --- */

struct answer {
    uint8_t type;
    const char *bytes; /* payload */
    size_t n;
    error want_open, want_end; /* &err_limit: any error */
};
#define ANY (&err_limit)
#define BYTES(literal) literal, sizeof(literal) - 1
#define RESULT_TAIL                                                                                                    \
    "\0\0\0\0\0\0\0\0\5\0\0\0"                                                                                         \
    "2.0.0"                                                                                                            \
    "\2\0\0\0"                                                                                                         \
    "Ok"

static const struct answer answers[] = {
    { SUBMIT_MSG_OPENED, BYTES("\3\0\0\0ABC"), NULL, ANY },
    { SUBMIT_MSG_OPENED, BYTES("\3\0\0\0ABCx"), ANY, ANY },
    { SUBMIT_MSG_OPENED, BYTES("\3\0\0\0A/C"), ANY, ANY },
    { SUBMIT_MSG_OPENED, BYTES("\3\0\0\0A\0C"), ANY, ANY },
    { SUBMIT_MSG_OPENED, BYTES("\0\0\0\0"), ANY, ANY },
    { SUBMIT_MSG_OPENED, BYTES("\4\0\0\0ABC"), ANY, ANY },
    { SUBMIT_MSG_OPENED, BYTES("\377\377\377\377"), ANY, ANY },
    { SUBMIT_MSG_OPENED, BYTES("\40\0\0\0ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"), ANY, ANY },
    { SUBMIT_MSG_OPENED, BYTES(""), ANY, ANY },
    { SUBMIT_MSG_RESULT, BYTES(""), ANY, ANY },
    { SUBMIT_MSG_RESULT, BYTES("\0\3\0\0\0ABC" RESULT_TAIL), ANY, NULL }, /* OK before there was a message */
    { SUBMIT_MSG_RESULT, BYTES("\0\0\0\0\0" RESULT_TAIL), ANY, ANY },     /* OK without a name */
    { SUBMIT_MSG_RESULT, BYTES("\1\0\0\0\0" RESULT_TAIL), NULL, NULL },
    { SUBMIT_MSG_RESULT, BYTES("\10\0\0\0\0" RESULT_TAIL), ANY, ANY }, /* no such status */
    { SUBMIT_MSG_RESULT, BYTES("\1\0\0\0\0" RESULT_TAIL "x"), ANY, ANY },
    { SUBMIT_MSG_RESULT, BYTES("\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0a\n"), ANY, ANY },
    { SUBMIT_MSG_END, BYTES(""), ANY, ANY },
    { SUBMIT_MSG_OPEN, BYTES("\3\0\0\0ABC"), ANY, ANY },
    { 0, BYTES("\3\0\0\0ABC"), ANY, ANY },
};

static void check_answer(const struct answer *a, error got, error want) {
    if ((got != NULL) != (want != NULL)) {
        print_error("answer %zd: got %s\n", a - answers, got ? "an error" : "no error");
        failed++;
    }
}

static void ask_open(void *arg) {
    const struct answer *a = arg;
    struct queue_id id;
    struct submit_result r;
    check_answer(a, submit_open(client, 0, DEADLINE, &id, &r), a->want_open);
}

static void ask_end(void *arg) {
    const struct answer *a = arg;
    struct submit_result r;
    check_answer(a, submit_end(client, DEADLINE, &r), a->want_end);
}

static void give_answer(void *arg) {
    const struct answer *a = arg;
    struct ipc_msg m;
    CHECK(ipc_recv(server, DEADLINE, &m) == NULL);
    ipc_send(server, a->type, (struct str){ a->bytes, a->n }, -1);
    CHECK(ipc_flush(server, DEADLINE) == NULL);
}

static void test_hostile_answers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct answer a = answers[i];
        run_pair(ask_open, give_answer, &a);
        run_pair(ask_end, give_answer, &a);
    }
}

/* --- descriptors nobody asked for --- */

enum { GIFTS = 20 };

static void take_gifts(void *arg) {
    int *more = arg;
    struct queue_id id;
    struct submit_result r;
    int lowest_before = dup(ipc_fd(client));
    CHECK(lowest_before >= 0);
    close(lowest_before);
    for (int i = 0; i < GIFTS; i++) {
        submit_open(client, 0, DEADLINE, &id, &r);
        submit_end(client, DEADLINE, &r);
    }
    int lowest = dup(ipc_fd(client));
    *more = lowest - lowest_before;
    close(lowest);
}

static void give_gifts(void *arg) {
    (void)arg;
    struct ipc_msg m;
    for (int i = 0; i < 2 * GIFTS; i++) {
        CHECK(ipc_recv(server, DEADLINE, &m) == NULL);
        ipc_send(server, SUBMIT_MSG_RESULT, STR("?"), ipc_fd(server));
        CHECK(ipc_flush(server, DEADLINE) == NULL);
    }
}

static void test_unasked_descriptors(void **state) {
    (void)state;
    int more = -1;
    run_pair(take_gifts, give_gifts, &more);
    assert_int_equal(more, 0);
}

/* --- a peer that goes away --- */

static void write_to_nobody(void *arg) {
    (void)arg;
    struct queue_id id;
    struct submit_result r;
    CHECK(submit_open(client, 0, DEADLINE, &id, &r) != NULL);
    char *big = calloc(1, 300000);
    CHECK(submit_content(client, (struct str){ big, 300000 }, DEADLINE) != NULL);
    CHECK(submit_end(client, DEADLINE, &r) != NULL);
    free(big);
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
    run_pair(write_to_nobody, hang_up, NULL);
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
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_hostile_answers),
        cmocka_unit_test(test_unasked_descriptors),
        cmocka_unit_test(test_lost_connection),
        cmocka_unit_test(test_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
