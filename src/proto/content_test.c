#include "test/fake_sys.h"
#include "test/fixture.h"
#include "test/test.h"

#include "proto/bounce.h"
#include "proto/delivery.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 100000, ROOM = 4096 };

static char *message(void) {
    char *p = arena_alloc(arena, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        p[i] = (char)(i * 7 + i / 251);
    return p;
}

static struct spool_content in_file(const char *bytes, size_t offset) {
    struct spool_content c = { .fd = memfd_create("content", MFD_CLOEXEC), .offset = offset, .size = SIZE };
    assert_true(c.fd >= 0);
    assert_int_equal(pwrite(c.fd, bytes, SIZE, (off_t)offset), SIZE);
    assert_int_equal(pwrite(c.fd, "beyond", 6, (off_t)offset + SIZE), 6); /* others' bytes */
    return c;
}

/* All of it from `at`, in pieces; how many. */
static unsigned is_whole(const struct spool_content *c, const char *want, uint64_t at) {
    char room[ROOM];
    unsigned pieces = 0;
    for (struct str piece;; at += piece.n, pieces++) {
        assert_null(content_read(c, at, room, sizeof room, &piece));
        if (!piece.n)
            break;
        assert_true(at + piece.n <= SIZE);
        assert_memory_equal(piece.p, want + at, piece.n);
    }
    assert_int_equal(at, SIZE);
    return pieces;
}

static void both_forms_are_read(void **state) {
    (void)state;
    char *bytes = message();
    struct spool_content file = in_file(bytes, 77);
    is_whole(&file, bytes, 0);
    is_whole(&file, bytes, SIZE - 1);
    is_whole(&file, bytes, 0); /* again */
    content_release(&file);
    assert_int_equal(file.fd, -1);

    struct spool_content memory = { .fd = -1, .size = SIZE, .bytes = str_n(bytes, SIZE) };
    assert_int_equal(is_whole(&memory, bytes, 0), 1); /* lent as it is */
    assert_int_equal(is_whole(&memory, bytes, 5000), 1);
    struct str piece = STR("x");
    assert_null(content_read(&memory, SIZE, NULL, 0, &piece));
    assert_int_equal(piece.n, 0);
    content_release(&memory);
}

static void faults_of_the_disk(void **state) {
    (void)state;
    char *bytes = message(), room[ROOM];
    struct spool_content file = in_file(bytes, 0);
    struct str piece;
    fake_sys_install();
    fake_sys_fail("pread", 1, EINTR);
    assert_null(content_read(&file, 10, room, sizeof room, &piece));
    assert_int_equal(piece.n, sizeof room);
    fake_sys_fail("pread", 1, ENOMEM);
    assert_int_equal(content_read(&file, 10, room, sizeof room, &piece)->sys, ENOMEM);
    assert_int_equal(piece.n, 0);
    fake_sys_remove();
    assert_int_equal(ftruncate(file.fd, SIZE - 100), 0); /* shorter than was said */
    assert_null(content_read(&file, SIZE - 101, room, sizeof room, &piece));
    assert_int_equal(piece.n, 1);
    assert_int_equal(content_read(&file, SIZE - 100, room, sizeof room, &piece)->sys, EIO);
    content_release(&file);
}

/* What `c` looks like in a request, unpacked when the frame comes with descriptor `fd`. */
static bool arrives(const struct spool_content *c, int fd, struct spool_content *ret) {
    struct buf b = { 0 };
    content_pack(&b, c);
    struct str copy = arena_str(arena, buf_str(&b));
    buf_free(&b);
    struct ipc_msg m = { .fd = fd };
    struct unpack u = unpack_from(copy);
    return content_unpack(&u, &m, ret) && unpack_done(&u);
}

static void one_form_of_two(void **state) {
    (void)state;
    const struct spool_content file = { .fd = 9, .offset = 64, .size = 4711 };
    const struct spool_content memory = { .fd = -1, .size = 5, .bytes = STR("hello") };
    const struct spool_content empty = { .fd = -1, .bytes = STR("") };
    struct spool_content got;
    assert_true(arrives(&file, 7, &got));
    assert_int_equal(got.fd, 7);
    assert_true(got.offset == 64 && got.size == 4711 && !got.bytes.p);
    assert_true(arrives(&memory, -1, &got));
    assert_int_equal(got.fd, -1);
    assert_str(got.bytes, "hello");
    assert_int_equal(got.size, 5);
    assert_true(arrives(&empty, -1, &got));
    assert_non_null(got.bytes.p); /* no bytes are a form too */
    assert_int_equal(got.size, 0);

    assert_false(arrives(&file, -1, &got));  /* neither */
    assert_false(arrives(&memory, 7, &got)); /* both */

    char *large = arena_alloc(arena, DELIVERY_INLINE_MAX + 1);
    memset(large, 'x', DELIVERY_INLINE_MAX + 1);
    struct spool_content most = { .fd = -1, .size = DELIVERY_INLINE_MAX, .bytes = str_n(large, DELIVERY_INLINE_MAX) };
    assert_true(arrives(&most, -1, &got));
    most.bytes.n++;
    assert_false(arrives(&most, -1, &got));

    struct spool_content wild = { .fd = 9, .offset = UINT64_MAX, .size = 1 };
    assert_false(arrives(&wild, 7, &got));
    wild = (struct spool_content){ .fd = 9, .offset = 2, .size = INT64_MAX - 1 };
    assert_false(arrives(&wild, 7, &got));

    struct unpack u = unpack_from(STR("\3")); /* no such form */
    struct ipc_msg m = { .fd = -1 };
    assert_false(content_unpack(&u, &m, &got));
    u = unpack_from(STR("\2\10\0\0\0cut"));
    assert_false(content_unpack(&u, &m, &got));
}

/* Both requests with the most content there can be: they fit into a frame, and say what they said. */
struct pair {
    struct ipc *ends[2];
    char *bytes;
    bool delivery_good, bounce_good;
};

static void send_both(void *arg) {
    struct pair *p = arg;
    const struct spool_content content = { .fd = -1,
                                           .size = DELIVERY_INLINE_MAX,
                                           .bytes = str_n(p->bytes, DELIVERY_INLINE_MAX) };
    static const uint32_t index[] = { 5 };
    struct rcpt rcpt = { .address = STR("to@there.example") };
    struct delivery_request d = { .transport = STR("smtp"), .rcpt_index = index, .content = content };
    queue_id_make(&d.id, 1790000000000001, 12345, false);
    d.env.rcpts = &rcpt;
    d.env.rcpt_count = 1;
    delivery_send_request(p->ends[0], &d);
    struct spool_failure *f = arena_array(arena, 2000, sizeof *f);
    for (size_t i = 0; i < 2000; i++)
        f[i] = (struct spool_failure){ .address = rcpt.address, .reason = str_n(p->bytes, 500) };
    struct bounce_request b = { .kind = BOUNCE_FAILED, .id = d.id, .content = content, .rcpts = f, .rcpt_count = 2000 };
    enum bounce_status status = BOUNCE_TEMP;
    struct queue_id notice;
    p->bounce_good = !bounce_send(p->ends[0], &b, deadline_in(60), &status, &notice) && status == BOUNCE_OK;
}

static void receive_both(void *arg) {
    struct pair *p = arg;
    struct ipc_msg m = { .fd = -1 };
    struct delivery_request d;
    if (ipc_recv(p->ends[1], deadline_in(60), &m) || !delivery_unpack_request(&m, arena, &d))
        return;
    p->delivery_good = str_eq(d.content.bytes, str_n(p->bytes, DELIVERY_INLINE_MAX)) && d.content.fd == -1;
    for (size_t rcpts = 0; rcpts < 2000;) {
        struct bounce_request b;
        struct bounce_ahead ahead = { 0 };
        error e;
        while (!(e = ipc_recv(p->ends[1], deadline_in(60), &m)) && bounce_unpack_more(&m, arena, &ahead))
            ;
        if (e || !bounce_unpack_request(&m, arena, &ahead, &b) ||
            !str_eq(b.content.bytes, str_n(p->bytes, DELIVERY_INLINE_MAX)) || !b.rcpt_count)
            return;
        rcpts += b.rcpt_count;
        bounce_reply(p->ends[1], BOUNCE_OK, NULL);
        if (ipc_flush(p->ends[1], deadline_in(60)))
            return;
    }
}

static void most_content_in_a_request(void **state) {
    (void)state;
    struct pair p = { .bytes = arena_alloc(arena, DELIVERY_INLINE_MAX) };
    memset(p.bytes, 'x', DELIVERY_INLINE_MAX);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_null(loop_init());
    p.ends[0] = ipc_new(fds[0]);
    p.ends[1] = ipc_new(fds[1]);
    assert_non_null(coro_spawn(send_both, &p, "send"));
    assert_non_null(coro_spawn(receive_both, &p, "receive"));
    assert_null(loop_run());
    loop_free();
    ipc_close(p.ends[0]);
    ipc_close(p.ends[1]);
    assert_true(p.delivery_good);
    assert_true(p.bounce_good);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_forms_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(faults_of_the_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_form_of_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(most_content_in_a_request, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
