#include "test/test.h"

#include "mail/dsn.h"
#include "proto/bounce.h"
#include "proto/delivery.h"
#include "proto/listing.h"
#include "proto/notice.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Two ends of a connection and, in a coroutine each, what they say. */
struct pair {
    struct ipc *near, *far;
    struct arena *arena;
    int failed;
};

static void run_both(void (*near)(void *), void (*far)(void *)) {
    int fds[2];
    struct pair p = { .arena = arena_new() };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_null(loop_init());
    p.near = ipc_new(fds[0]);
    p.far = ipc_new(fds[1]);
    assert_non_null(coro_spawn(near, &p, "near"));
    assert_non_null(coro_spawn(far, &p, "far"));
    assert_null(loop_run());
    ipc_close(p.near);
    ipc_close(p.far);
    loop_free();
    arena_free(p.arena);
    assert_int_equal(p.failed, 0);
}

/* cmocka's assertions jump off the stack, which a coroutine must not: count, and say where */
#define CHECK(p, condition)                                                                                            \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_error("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                \
            (p)->failed++;                                                                                             \
        }                                                                                                              \
    } while (0)
#define IS(s, text) str_eq((s), STR(text))

static struct envelope some_envelope(struct arena *a, size_t rcpts) {
    struct envelope e = {
        .arrival_us = 1790000000000001, .size = 4711, .flags = ENVELOPE_8BIT, .dsn_ret = DSN_RET_HDRS
    };
    e.sender = STR("from@here.example");
    e.dsn_envid = STR("envid");
    e.content_filter = STR("");
    e.client.name = STR("client.example");
    e.client.reverse_name = e.client.address = e.client.port = e.client.helo = e.client.protocol = STR("");
    e.client.ident = e.client.sasl_method = e.client.sasl_username = e.client.sasl_sender = STR("");
    e.rcpt_count = rcpts;
    e.rcpts = arena_array(a, rcpts, sizeof *e.rcpts);
    for (size_t i = 0; i < rcpts; i++) {
        e.rcpts[i].address = arena_printf(a, "to%zu@there.example", i);
        e.rcpts[i].orig = STR("orig");
        e.rcpts[i].dsn_orcpt = STR("");
    }
    return e;
}

/* --- delivery --- */

static void delivery_near(void *arg) {
    struct pair *p = arg;
    struct delivery_request r = { .transport = STR("smtp"),
                                  .nexthop = STR("[there.example]:25"),
                                  .active_us = 5,
                                  .sent_us = 6,
                                  .content = { .offset = 64, .size = 4711 } };
    static const uint32_t index[] = { 3, 9 };
    queue_id_make(&r.id, 1790000000000001, 12345, false);
    r.env = some_envelope(p->arena, 2);
    r.rcpt_index = index;
    r.content.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    delivery_send_request(p->near, &r);
    CHECK(p, !ipc_flush(p->near, DEADLINE_NEVER));
    close(r.content.fd);
    struct ipc_msg m;
    struct delivery_result res;
    struct delivery_done done;
    CHECK(p, !ipc_recv(p->near, DEADLINE_NEVER, &m));
    CHECK(p, !delivery_unpack_done(&m, &done));
    CHECK(p, delivery_unpack_result(&m, &res));
    CHECK(p, res.rcpt_index == 9 && res.status == DELIVERY_BOUNCED);
    CHECK(p, IS(res.address, "member@there.example") && IS(res.dsn, "5.1.1") && IS(res.reason, "no such user") &&
                 IS(res.remote_mta, "mx.example"));
    CHECK(p, IS(res.action, "failed") && IS(res.diagnostic, "550 5.1.1 no") && IS(res.diagnostic_type, "smtp"));
    CHECK(p, !ipc_recv(p->near, DEADLINE_NEVER, &m));
    CHECK(p, delivery_unpack_done(&m, &done));
    CHECK(p, done.destination_dead && IS(done.reason, "refused") && IS(done.dsn, "4.4.1"));
}
static void delivery_far(void *arg) {
    struct pair *p = arg;
    struct ipc_msg m;
    struct delivery_request r;
    CHECK(p, !ipc_recv(p->far, DEADLINE_NEVER, &m));
    CHECK(p, delivery_unpack_request(&m, p->arena, &r) && m.fd == -1);
    CHECK(p, fcntl(r.content.fd, F_GETFD) >= 0);
    close(r.content.fd);
    CHECK(p, IS(r.transport, "smtp") && IS(r.nexthop, "[there.example]:25") && IS(r.env.sender, "from@here.example"));
    CHECK(p, r.env.rcpt_count == 2 && r.rcpt_index[0] == 3 && r.rcpt_index[1] == 9);
    CHECK(p, IS(r.env.rcpts[1].address, "to1@there.example") && IS(r.env.client.name, "client.example"));
    CHECK(p, r.active_us == 5 && r.sent_us == 6 && r.content.offset == 64 && r.content.size == 4711);
    struct delivery_result res = { .rcpt_index = 9,
                                   .status = DELIVERY_BOUNCED,
                                   .address = STR("member@there.example"),
                                   .dsn = STR("5.1.1"),
                                   .action = STR("failed"),
                                   .reason = STR("no such user"),
                                   .diagnostic_type = STR("smtp"),
                                   .diagnostic = STR("550 5.1.1 no"),
                                   .remote_type = STR("dns"),
                                   .remote_mta = STR("mx.example") };
    struct delivery_done done = { .destination_dead = true, .reason = STR("refused"), .dsn = STR("4.4.1") };
    delivery_send_result(p->far, &res);
    delivery_send_done(p->far, &done);
    CHECK(p, !ipc_flush(p->far, DEADLINE_NEVER));
}
static void a_delivery(void **state) {
    (void)state;
    run_both(delivery_near, delivery_far);
}

/* --- bounce: more failures than fit into a frame, told of in one notice --- */

enum { FAILURES = 3000 };

static void bounce_near(void *arg) {
    struct pair *p = arg;
    struct bounce_request r = { .kind = BOUNCE_FAILED,
                                .content = { .offset = 64, .size = 10 },
                                .rcpt_count = FAILURES };
    queue_id_make(&r.id, 1790000000000001, 12345, true);
    r.env = some_envelope(p->arena, 0);
    struct spool_failure *f = arena_array(p->arena, FAILURES, sizeof *f);
    char *text = arena_alloc(p->arena, 500);
    memset(text, 'x', 500);
    for (size_t i = 0; i < FAILURES; i++) {
        f[i].rcpt_index = i;
        f[i].address = STR("to@there.example");
        f[i].orig = f[i].dsn_orcpt = f[i].action = f[i].diagnostic_type = f[i].diagnostic = STR("");
        f[i].remote_type = f[i].remote_mta = STR("");
        f[i].status = STR("5.0.0");
        f[i].reason = str_n(text, 500);
    }
    r.rcpts = f;
    r.content.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    enum bounce_status status;
    struct queue_id notice;
    CHECK(p, !bounce_send(p->near, &r, DEADLINE_NEVER, &status, &notice));
    CHECK(p, status == BOUNCE_OK && IS(queue_id_str(&notice), "0ABC1"));
    r.rcpt_count = 1;
    CHECK(p, !bounce_send(p->near, &r, DEADLINE_NEVER, &status, &notice));
    CHECK(p, status == BOUNCE_TEMP && notice.text[0] == 0);
    close(r.content.fd);
}
static void bounce_far(void *arg) {
    struct pair *p = arg;
    struct ipc_msg m;
    struct bounce_request r;
    struct bounce_ahead ahead = { 0 };
    error e;
    while (!(e = ipc_recv(p->far, DEADLINE_NEVER, &m)) && bounce_unpack_more(&m, p->arena, &ahead))
        ;
    CHECK(p, !e && ahead.rcpts.n > 0 && bounce_unpack_request(&m, p->arena, &ahead, &r));
    if (e || p->failed)
        return;
    close(r.content.fd);
    CHECK(p, r.rcpt_count == FAILURES);
    for (size_t i = 0; i < r.rcpt_count; i++)
        CHECK(p, r.rcpts[i].rcpt_index == i && r.rcpts[i].reason.n == 500);
    struct queue_id id = { 0 };
    snprintf(id.text, sizeof id.text, "0ABC1");
    bounce_reply(p->far, BOUNCE_OK, &id);
    CHECK(p, !ipc_flush(p->far, DEADLINE_NEVER));
    CHECK(p, !ipc_recv(p->far, DEADLINE_NEVER, &m));
    bounce_reply(p->far, BOUNCE_TEMP, NULL);
    CHECK(p, !ipc_flush(p->far, DEADLINE_NEVER));
}
static void a_large_bounce(void **state) {
    (void)state;
    run_both(bounce_near, bounce_far);
}

/* --- listing and notices --- */

enum { LISTED = 20000 };

static void listing_near(void *arg) {
    struct pair *p = arg;
    struct listing_entry e = { .queue_name = STR("deferred"), .arrival_s = 1790000000, .size = 77, .sender = STR("") };
    queue_id_make(&e.id, 1790000000000001, 12345, false);
    e.rcpts = arena_array(p->arena, LISTED, sizeof *e.rcpts);
    e.rcpt_count = LISTED;
    for (size_t i = 0; i < LISTED; i++) {
        e.rcpts[i].address = STR("to@there.example");
        e.rcpts[i].orig = STR("");
        e.rcpts[i].delay_reason = STR("connect to there.example[192.0.2.1]:25: Connection refused");
        e.rcpts[i].bounce_reason = STR("");
    }
    listing_send(p->near, &e);
    struct buf many = { 0 };
    CHECK(p, !listing_pack(&many, &e) && many.n == 0); /* too large for a frame */
    e.rcpt_count = 2;
    e.size = 78;
    CHECK(p, listing_pack(&many, &e));
    e.rcpt_count = 1;
    CHECK(p, listing_pack(&many, &e));
    listing_send_packed(p->near, buf_str(&many));
    buf_free(&many);
    listing_end(p->near);
    notice_new(p->near, &e.id);
    notice_flush_id(p->near, &e.id);
    notice_log(p->near, (struct spool_position){ 7, 4096 });
    CHECK(p, !ipc_flush(p->near, DEADLINE_NEVER));
}
static void listing_far(void *arg) {
    struct pair *p = arg;
    size_t seen = 0, entries = 0;
    struct ipc_msg m = { 0 };
    for (;;) {
        struct listing_entry e;
        CHECK(p, !ipc_recv(p->far, DEADLINE_NEVER, &m));
        if (p->failed || m.type == LISTING_MSG_END)
            break;
        struct unpack u = unpack_from(m.payload);
        while (u.rest.n > 0 && !p->failed) {
            CHECK(p, listing_unpack(&u, m.type, p->arena, &e));
            entries += m.type == LISTING_MSG_ENTRIES;
            CHECK(p,
                  m.type == LISTING_MSG_RCPTS || (e.size == (entries == 1 ? 77 : 78) && IS(e.queue_name, "deferred")));
            seen += e.rcpt_count;
            CHECK(p, IS(e.rcpts[0].address, "to@there.example"));
        }
    }
    CHECK(p, seen == LISTED + 3 && entries == 3);
    struct notice n;
    CHECK(p, !ipc_recv(p->far, DEADLINE_NEVER, &m));
    CHECK(p, notice_unpack(&m, &n) && n.type == NOTICE_NEW && queue_id_valid(queue_id_str(&n.id)));
    CHECK(p, !ipc_recv(p->far, DEADLINE_NEVER, &m));
    CHECK(p, notice_unpack(&m, &n) && n.type == NOTICE_FLUSH_ID);
    CHECK(p, !ipc_recv(p->far, DEADLINE_NEVER, &m));
    CHECK(p, notice_unpack(&m, &n) && n.type == NOTICE_LOG && n.position.segment == 7 && n.position.end == 4096);
}
static void a_large_listing(void **state) {
    (void)state;
    run_both(listing_near, listing_far);
}

/* --- what is refused --- */

static struct ipc_msg message(uint8_t type, const struct buf *b) {
    return (struct ipc_msg){ .type = type, .payload = buf_str(b), .fd = -1 };
}

static void bad_frames(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct buf b = { 0 };
    struct notice n;
    pack_str(&b, STR("../etc/passwd"));
    struct ipc_msg m = message(NOTICE_NEW, &b);
    assert_false(notice_unpack(&m, &n));
    buf_clear(&b);
    pack_str(&b, STR("0ABC1"));
    m = message(NOTICE_NEW, &b);
    assert_true(notice_unpack(&m, &n));
    m.type = 77;
    assert_false(notice_unpack(&m, &n));
    buf_byte(&b, 0); /* bytes left over */
    m = message(NOTICE_NEW, &b);
    assert_false(notice_unpack(&m, &n));

    struct delivery_result res;
    buf_clear(&b);
    pack_u32(&b, 0);
    pack_u8(&b, 4); /* no such status */
    for (int i = 0; i < 8; i++) {
        pack_str(&b, STR(""));
        if (i == 2)
            pack_u8(&b, 0); /* passed_on */
    }
    m = message(DELIVERY_MSG_RESULT, &b);
    assert_false(delivery_unpack_result(&m, &res));
    b.p[4] = DELIVERY_SENT;
    assert_true(delivery_unpack_result(&m, &res));

    struct listing_entry e;
    buf_clear(&b);
    pack_u32(&b, 0xFFFFFFFF); /* more recipients than bytes */
    struct unpack u = unpack_from(buf_str(&b));
    assert_false(listing_unpack(&u, LISTING_MSG_RCPTS, a, &e));
    u = unpack_from(STR("\1\0\0"));
    assert_false(listing_unpack(&u, LISTING_MSG_ENTRIES, a, &e));
    assert_false(listing_unpack(&u, 77, a, &e));

    struct delivery_request req; /* a request without the content */
    m = message(DELIVERY_MSG_REQUEST, &b);
    assert_false(delivery_unpack_request(&m, a, &req));
    buf_free(&b);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_delivery),
        cmocka_unit_test(a_large_bounce),
        cmocka_unit_test(a_large_listing),
        cmocka_unit_test(bad_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
