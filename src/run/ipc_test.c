#include "test/test.h"

#include "run/ipc.h"
#include "run/loop.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t open_fds(void) {
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static size_t fds_before;

static int set_up(void **state) {
    (void)state;
    fds_before = open_fds();
    fake_sys_install();
    return loop_init() != NULL;
}

static int tear_down(void **state) {
    (void)state;
    bool left = coro_count() > 0;
    loop_free();
    fake_sys_remove();
    /* whatever a test did, no descriptor may stay open */
    size_t now = open_fds();
    if (now != fds_before)
        print_error("%zu descriptors open, %zu before the test\n", now, fds_before);
    return left || now != fds_before;
}

#define IPC_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

struct ends {
    struct ipc *a, *b;
    void (*at_a)(struct ipc *ipc);
    void (*at_b)(struct ipc *ipc);
};

static void run_a(void *arg) {
    struct ends *e = arg;
    e->at_a(e->a);
    ipc_close(e->a);
}

static void run_b(void *arg) {
    struct ends *e = arg;
    e->at_b(e->b);
    ipc_close(e->b);
}

static void play(void (*at_a)(struct ipc *ipc), void (*at_b)(struct ipc *ipc)) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct ends e = { .a = ipc_new(fds[0]), .b = ipc_new(fds[1]), .at_a = at_a, .at_b = at_b };
    coro_spawn(run_a, &e, "a");
    coro_spawn(run_b, &e, "b");
    assert_null(loop_run());
}

static int64_t soon(void) {
    return deadline_in(10);
}

/* --- frames --- */

static char pattern[2 * IPC_FRAME_MAX];

static size_t size_of(unsigned i) {
    static const size_t sizes[] = { 0, 1, 5, 6, 7, 100, 4096, 65535, 65536, 70000, 300000, IPC_FRAME_MAX };
    return sizes[i % (sizeof sizes / sizeof sizes[0])];
}
enum { FRAMES = 24 };

static void send_sizes(struct ipc *ipc) {
    for (unsigned i = 0; i < FRAMES; i++)
        ipc_send(ipc, (uint8_t)i, str_n(pattern + i, size_of(i)), -1);
    assert_null(ipc_flush(ipc, soon()));
    assert_int_equal(ipc_unsent(ipc), 0);
    struct ipc_msg m;
    assert_null(ipc_recv(ipc, soon(), &m));
    assert_int_equal(m.type, 255);
    assert_str(m.payload, "thanks");
    assert_int_equal(m.fd, -1);
}

static void receive_sizes(struct ipc *ipc) {
    struct ipc_msg m;
    for (unsigned i = 0; i < FRAMES; i++) {
        assert_null(ipc_recv(ipc, soon(), &m));
        assert_int_equal(m.type, i);
        assert_int_equal(m.payload.n, size_of(i));
        assert_memory_equal(m.payload.p, pattern + i, m.payload.n);
    }
    assert_false(ipc_pending(ipc));
    ipc_send(ipc, 255, STR("thanks"), -1);
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), &err_eof);
    assert_true(ipc_pending(ipc));
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), &err_eof);
    assert_int_equal(m.fd, -1);
    assert_int_equal(m.payload.n, 0);
}

static void test_sizes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)(i * 7 + i / 251);
    play(send_sizes, receive_sizes);
    /* torn at every place the kernel may choose */
    fake_sys_read_max(4099);
    fake_sys_write_max(5003);
    play(send_sizes, receive_sizes);
}

static void send_few(struct ipc *ipc) {
    ipc_send(ipc, 1, STR("one"), -1);
    ipc_send(ipc, 2, STR(""), -1);
    ipc_send(ipc, 3, STR("three"), -1);
    assert_null(ipc_flush(ipc, soon()));
}

static void receive_few(struct ipc *ipc) {
    struct ipc_msg m;
    assert_null(ipc_recv(ipc, soon(), &m));
    assert_str(m.payload, "one");
    assert_null(ipc_recv(ipc, soon(), &m));
    assert_int_equal(m.type, 2);
    assert_null(ipc_recv(ipc, soon(), &m));
    assert_str(m.payload, "three");
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), &err_eof);
}

static void test_frames_go_together(void **state) {
    (void)state;
    play(send_few, receive_few);
    assert_int_equal(fake_sys_calls("sendmsg"), 1);
    fake_sys_read_max(1);
    fake_sys_write_max(1);
    play(send_few, receive_few);
    assert_int_equal(fake_sys_calls("sendmsg"), 1 + 3 * IPC_HEADER_SIZE + 8);
    fake_sys_fail("sendmsg", 1, EINTR);
    fake_sys_fail("recvmsg", 1, EINTR);
    play(send_few, receive_few);
}

static void append_lines(struct ipc *ipc) {
    ipc_append(ipc, 7, STR("aa"), 5);
    ipc_append(ipc, 7, STR("bb"), 5);
    ipc_append(ipc, 7, STR("cc"), 5); /* over: a frame of its own */
    ipc_append(ipc, 8, STR("d"), 5);  /* another type */
    ipc_append(ipc, 8, STR(""), 5);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(ipc_unsent(ipc), 3 * IPC_HEADER_SIZE + 7);
    ipc_send(ipc, 8, STR("e"), fd);
    close(fd);
    ipc_append(ipc, 8, STR("f"), 5); /* not to one with a descriptor */
    assert_null(ipc_flush(ipc, soon()));
    ipc_append(ipc, 8, STR("g"), 5); /* not to one that has gone */
    ipc_append(ipc, 8, STR("h"), 5);
    assert_null(ipc_flush(ipc, soon()));
}

static void receive_appended(struct ipc *ipc) {
    static const char *const want[] = { "aabb", "cc", "d", "e", "f", "gh" };
    struct ipc_msg m = { .fd = -1 };
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_null(ipc_recv(ipc, soon(), &m));
        assert_int_equal(m.type, i < 2 ? 7 : 8);
        assert_str(m.payload, want[i]);
        assert_int_equal(m.fd >= 0, i == 3);
    }
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), &err_eof);
}

static void test_append(void **state) {
    (void)state;
    play(append_lines, receive_appended);
}

/* Pieces that join a frame which has begun to go out would change a length that the peer has read. */
enum { PIECES = 50 };

static size_t piece_size(unsigned i) {
    return i % 10 == 0 ? 600000 : 60000;
}

static void append_much(struct ipc *ipc) {
    for (unsigned i = 0; i < PIECES; i++) {
        ipc_append(ipc, 7, str_n(pattern + i * 17, piece_size(i)), IPC_FRAME_MAX);
        if (i % 10 == 9)
            coro_yield();
    }
    assert_null(ipc_flush(ipc, soon()));
}

static void receive_much(struct ipc *ipc) {
    struct buf all = { 0 };
    struct ipc_msg m;
    error e;
    unsigned frames = 0;
    for (; !(e = ipc_recv(ipc, soon(), &m)); frames++) {
        assert_int_equal(m.type, 7);
        buf_add(&all, m.payload);
    }
    assert_ptr_equal(e, &err_eof);
    size_t at = 0;
    for (unsigned i = 0; i < PIECES; at += piece_size(i++)) {
        assert_true(at + piece_size(i) <= all.n);
        assert_memory_equal(all.p + at, pattern + i * 17, piece_size(i));
    }
    assert_int_equal(all.n, at);
    assert_true(frames < PIECES);
    buf_free(&all);
}

static void test_append_much(void **state) {
    (void)state;
    play(append_much, receive_much);
}

/* Much to say, and then the answer is awaited without a flush. */
static void ask_at_length(struct ipc *ipc) {
    for (unsigned i = 0; i < 5; i++)
        ipc_send(ipc, 1, str_n(pattern, IPC_FRAME_MAX), -1);
    struct ipc_msg m;
    assert_null(ipc_recv(ipc, soon(), &m));
    assert_str(m.payload, "understood");
}

static void answer_shortly(struct ipc *ipc) {
    struct ipc_msg m;
    for (unsigned i = 0; i < 5; i++)
        assert_null(ipc_recv(ipc, soon(), &m));
    ipc_send(ipc, 1, STR("understood"), -1);
    assert_null(ipc_flush(ipc, soon()));
}

static void test_long_question(void **state) {
    (void)state;
    play(ask_at_length, answer_shortly);
}

/* Both have much to say before they listen. */
static void talk_then_listen(struct ipc *ipc) {
    for (unsigned i = 0; i < 20; i++)
        ipc_send(ipc, 1, str_n(pattern, IPC_FRAME_MAX), -1);
    struct ipc_msg m;
    for (unsigned i = 0; i < 20; i++) {
        assert_null(ipc_recv(ipc, soon(), &m));
        assert_int_equal(m.payload.n, IPC_FRAME_MAX);
    }
    assert_null(ipc_flush(ipc, soon()));
}

static void test_no_lock_up(void **state) {
    (void)state;
    play(talk_then_listen, talk_then_listen);
}

static void send_too_much(struct ipc *ipc) {
    ipc_send(ipc, 1, str_n(pattern, IPC_FRAME_MAX + 1), -1);
    struct ipc_msg m;
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), &err_limit);
    assert_ptr_equal(ipc_flush(ipc, soon()), &err_limit);
}

static void expect_eof(struct ipc *ipc) {
    struct ipc_msg m;
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), &err_eof);
}

static void test_oversized_send(void **state) {
    (void)state;
    play(send_too_much, expect_eof);
}

static void wait_for_nothing(struct ipc *ipc) {
    struct ipc_msg m;
    assert_false(ipc_pending(ipc));
    assert_ptr_equal(ipc_recv(ipc, deadline_in(3), &m), &err_timeout);
    assert_ptr_equal(ipc_recv(ipc, deadline_in(3), &m), &err_timeout); /* not for ever: the next may do better */
    assert_null(ipc_recv(ipc, deadline_in(30), &m));
    coro_cancel(coro_self());
    assert_ptr_equal(ipc_recv(ipc, deadline_in(3), &m), &err_cancelled);
}

static void say_late(struct ipc *ipc) {
    assert_null(wait_until(deadline_in(20)));
    ipc_send(ipc, 1, STR("late"), -1);
    assert_null(ipc_flush(ipc, soon()));
    expect_eof(ipc);
}

static void test_deadline_and_cancel(void **state) {
    (void)state;
    play(wait_for_nothing, say_late);
}

/* Looking at an idle connection costs nothing, as long as the loop has looked. */
static void look_often(struct ipc *ipc) {
    struct ipc_msg m;
    assert_ptr_equal(ipc_recv(ipc, deadline_in(3), &m), &err_timeout);
    unsigned calls = fake_sys_calls("recvmsg");
    for (int i = 0; i < 10; i++)
        assert_true(!ipc_pending(ipc) && ipc_quiet(ipc));
    assert_int_equal(fake_sys_calls("recvmsg"), calls);
    assert_null(wait_until(deadline_in(20)));
    assert_false(ipc_quiet(ipc));
    assert_int_equal(fake_sys_calls("recvmsg"), calls);
    assert_true(ipc_pending(ipc));
    assert_null(ipc_recv(ipc, deadline_in(3), &m));
    assert_str(m.payload, "late");
}

static void test_look(void **state) {
    (void)state;
    play(look_often, say_late);
}

static void flush_to_deaf(struct ipc *ipc) {
    for (unsigned i = 0; i < 20; i++)
        ipc_send(ipc, 1, str_n(pattern, 100000), -1);
    assert_ptr_equal(ipc_flush(ipc, deadline_in(5)), &err_timeout);
    ipc_send(ipc, 1, STR("more"), -1);
    assert_ptr_equal(ipc_flush(ipc, deadline_in(5)), &err_timeout); /* the stream is cut: nothing can follow */
}

static void be_deaf(struct ipc *ipc) {
    (void)ipc;
    assert_null(wait_until(deadline_in(100)));
}

static void test_flush_deadline(void **state) {
    (void)state;
    play(flush_to_deaf, be_deaf);
}

/* --- bad peers --- */

static void expect_syntax_error(struct ipc *ipc) {
    struct ipc_msg m;
    error e = ipc_recv(ipc, soon(), &m);
    assert_non_null(e);
    assert_int_equal(e->kind, ERR_SYNTAX);
    assert_int_equal(m.fd, -1);
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), e);
    assert_true(ipc_pending(ipc));
}

struct raw_case {
    int fd;
    void (*at)(struct ipc *ipc);
};

static void run_raw(void *arg) {
    struct raw_case *c = arg;
    struct ipc *ipc = ipc_new(c->fd);
    c->at(ipc);
    ipc_close(ipc);
}

static void play_raw(const char *script, void (*at)(struct ipc *ipc)) {
    struct raw_case c = { .fd = script_peer_start(script), .at = at };
    coro_spawn(run_raw, &c, "raw");
    assert_null(loop_run());
    script_peer_check();
}

static void expect_one_then_syntax_error(struct ipc *ipc) {
    struct ipc_msg m;
    assert_null(ipc_recv(ipc, soon(), &m));
    assert_int_equal(m.type, 1);
    assert_str(m.payload, "ok");
    expect_syntax_error(ipc);
}

static void expect_slow_frame(struct ipc *ipc) {
    struct ipc_msg m;
    assert_ptr_equal(ipc_recv(ipc, deadline_in(5), &m), &err_timeout); /* torn: what came stays */
    assert_false(ipc_pending(ipc));
    assert_null(ipc_recv(ipc, deadline_in(30), &m));
    assert_int_equal(m.type, 9);
    assert_str(m.payload, "torn");
    assert_ptr_equal(ipc_recv(ipc, deadline_in(30), &m), &err_eof);
}

static void test_bad_frames(void **state) {
    (void)state;
    play_raw(">| \\x02\\0\\0\\0\\x01\\0ok\\x01\\0\\x10\\0\\x01\\0\neof\n", expect_one_then_syntax_error); /* one over */
    play_raw(">| \\xff\\xff\\xff\\xff\\x01\\0\neof\n", expect_syntax_error);
    play_raw(">| \\0\\0\\0\\0\\x01\\x02\neof\n", expect_syntax_error); /* flag neither 0 nor 1 */
    play_raw(">| \\0\\0\\0\\0\\x01\\x01\neof\n", expect_syntax_error); /* says it has a descriptor, and has none */
    play_raw(">| \\x02\\0\\0\\0\\x01\\0o\nshut\neof\n", expect_syntax_error);
    play_raw(">| \\x02\\0\\0\nclose\n", expect_syntax_error);
    play_raw("close\n", expect_eof);
    play_raw("slow 1\n>| \\x04\\0\\0\\0\\x09\\0torn\n", expect_slow_frame);
}

/* --- the peer dies --- */

static void die_unread(struct ipc *ipc) {
    ipc_send(ipc, 1, STR("last words"), -1);
    assert_null(ipc_flush(ipc, soon()));
    assert_null(wait_until(deadline_in(1))); /* with its request unread */
}

static void outlive(struct ipc *ipc) {
    ipc_send(ipc, 2, STR("request"), -1);
    assert_null(ipc_flush(ipc, soon()));
    assert_null(wait_until(deadline_in(2)));
    ipc_send(ipc, 2, STR("to a dead one"), -1);
    struct ipc_msg m;
    assert_null(ipc_recv(ipc, soon(), &m)); /* what it said before can be read */
    assert_str(m.payload, "last words");
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), &err_eof);
    error e = ipc_flush(ipc, soon());
    assert_non_null(e);
    assert_true(e->sys == EPIPE || e->sys == ECONNRESET);
}

static void test_peer_dies(void **state) {
    (void)state;
    play(die_unread, outlive);
}

/* --- descriptors --- */

static int numbered_file(unsigned number) {
    int fd = memfd_create("ipc test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, &number, sizeof number), sizeof number);
    return fd;
}

static unsigned file_number(int fd) {
    unsigned number = 0;
    assert_int_equal(pread(fd, &number, sizeof number, 0), sizeof number);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    return number;
}

/* 0: small, all at once; 1: with payloads that fill the socket, so that descriptors wait behind */
static size_t fd_payload;
enum { FD_FRAMES = 150 };

static void send_fds(struct ipc *ipc) {
    for (unsigned i = 0; i < FD_FRAMES; i++) {
        bool with = i % 3 != 1;
        int fd = with ? numbered_file(i) : -1;
        ipc_send(ipc, (uint8_t)i, str_n(pattern, fd_payload * (i % 5)), fd);
        if (with)
            close(fd); /* ours again at once */
    }
    assert_null(ipc_flush(ipc, soon()));
}

static void receive_fds(struct ipc *ipc) {
    struct ipc_msg m = { .fd = -1 };
    assert_null(wait_until(deadline_in(1)));
    for (unsigned i = 0; i < FD_FRAMES; i++) {
        assert_null(ipc_recv(ipc, soon(), &m));
        assert_int_equal(m.type, i);
        assert_int_equal(m.payload.n, fd_payload * (i % 5));
        assert_int_equal(m.fd >= 0, i % 3 != 1);
        if (m.fd < 0)
            continue;
        assert_int_equal(file_number(m.fd), i);
        if (i % 2) { /* taken; of the others the next call gets rid */
            close(m.fd);
            m.fd = -1;
        }
    }
    ipc_msg_drop(&m);
    assert_ptr_equal(ipc_recv(ipc, soon(), &m), &err_eof);
}

static void test_descriptors(void **state) {
    (void)state;
    fd_payload = 0;
    play(send_fds, receive_fds);
    fd_payload = 1;
    play(send_fds, receive_fds);
    fd_payload = 50000;
    play(send_fds, receive_fds);
    fd_payload = 3;
    fake_sys_read_max(1);
    fake_sys_write_max(1);
    play(send_fds, receive_fds);
}

/* Many small frames with descriptors wait behind a large one: a frame must not overtake its descriptor. */
static void send_fds_behind(struct ipc *ipc) {
    ipc_send(ipc, 255, str_n(pattern, IPC_FRAME_MAX), -1);
    send_fds(ipc);
}

static void receive_fds_behind(struct ipc *ipc) {
    struct ipc_msg m;
    assert_null(ipc_recv(ipc, soon(), &m));
    assert_int_equal(m.type, 255);
    receive_fds(ipc);
}

static void test_descriptors_in_a_queue(void **state) {
    (void)state;
    fd_payload = 1;
    play(send_fds_behind, receive_fds_behind);
}

static void leave_fds_unread(struct ipc *ipc) {
    struct ipc_msg m;
    assert_null(ipc_recv(ipc, soon(), &m)); /* more have come with it: closed with the ipc */
    ipc_msg_drop(&m);
    ipc_msg_drop(&m);
}

static void test_unread_descriptors_are_closed(void **state) {
    (void)state;
    fd_payload = 1;
    play(send_fds, leave_fds_unread);
}

static void leave_fds_unsent(struct ipc *ipc) {
    for (unsigned i = 0; i < 200; i++) {
        int fd = numbered_file(i);
        ipc_send(ipc, 1, str_n(pattern, 10000), fd);
        close(fd);
    }
    assert_true(ipc_unsent(ipc) > 0);
    size_t held = ipc_unsent_fds(ipc), frames = ipc_unsent(ipc) / 10000;
    assert_true(held > 100 && held >= frames && held <= frames + 1);
}

static void test_unsent_descriptors_are_closed(void **state) {
    (void)state;
    play(leave_fds_unsent, be_deaf);
}

/* A hostile peer: many descriptors, none of them announced. */
static void send_raw(int fd, struct str bytes, size_t count) {
    int fds[250];
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof fds)];
    } control = { 0 };
    for (size_t i = 0; i < count; i++)
        fds[i] = fd;
    struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes.p, .iov_len = bytes.n };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    msg.msg_control = &control;
    msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    assert_int_equal(sendmsg(fd, &msg, MSG_DONTWAIT), (ssize_t)bytes.n);
}

static void flood_fds(struct ipc *ipc) {
    send_raw(ipc_fd(ipc), STR("\x04\0\0\0\x01"), 250);
    expect_eof(ipc);
}

static void trickle_fds(struct ipc *ipc) {
    for (int i = 0; i < 20; i++)
        send_raw(ipc_fd(ipc), STR("\0\0\0\0\x01\0"), 5);
    expect_eof(ipc);
}

static void expect_trickle(struct ipc *ipc) {
    struct ipc_msg m;
    error e;
    unsigned frames = 0;
    while (!(e = ipc_recv(ipc, soon(), &m)))
        frames++;
    assert_int_equal(e->kind, ERR_SYNTAX);
    assert_in_range(frames, IPC_FDS_MAX / 5, 20);
}

static void test_unannounced_descriptors(void **state) {
    (void)state;
    play(flood_fds, expect_syntax_error);
    play(trickle_fds, expect_trickle);
}

/* --- the end as frames --- */

static void into_io_main(void *arg) {
    struct raw_case *c = arg;
    struct ipc *ipc = ipc_new(c->fd);
    struct ipc_msg m;
    assert_null(ipc_recv(ipc, soon(), &m));
    assert_str(m.payload, "x");
    ipc_send(ipc, 2, STR("y"), -1);
    struct io *io = ipc_into_io(ipc);
    struct str line;
    assert_null(io_line(io, 100, soon(), &line));
    assert_str(line, "EHLO\r\n");
    assert_null(io_line(io, 100, soon(), &line));
    assert_str(line, "MAIL\r\n");
    io_write(io, STR("250\r\n"));
    assert_null(io_flush(io, soon()));
    io_close(io);
}

static void test_into_io(void **state) {
    (void)state;
    struct raw_case c = {
        .fd = script_peer_start(
            ">| \\x01\\0\\0\\0\\x01\\0xEHLO\\r\\nMA\n<| \\x01\\0\\0\\0\\x02\\0y\n> IL\n< 250\neof\n")
    };
    coro_spawn(into_io_main, &c, "into io");
    assert_null(loop_run());
    script_peer_check();
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(ipc_release(ipc_new(fds[0])), fds[0]);
    close(fds[0]);
    close(fds[1]);
    ipc_close(NULL);
}

/* --- calls for a question and its answer --- */

enum { QUESTIONS = 500 };

static void ask(struct ipc *ipc) {
    struct ipc_msg m;
    for (unsigned i = 0; i < QUESTIONS; i++) {
        ipc_send(ipc, 1, STR("question"), -1);
        assert_null(ipc_recv(ipc, soon(), &m));
    }
}

static void answer(struct ipc *ipc) {
    struct ipc_msg m;
    while (!ipc_recv(ipc, soon(), &m))
        ipc_send(ipc, 2, STR("answer"), -1);
}

static void test_calls_per_question(void **state) {
    (void)state;
    play(ask, answer);
    assert_in_range(fake_sys_calls("sendmsg"), 2 * QUESTIONS, 2 * QUESTIONS + 2);
    assert_in_range(fake_sys_calls("recvmsg"), 2 * QUESTIONS, 2 * QUESTIONS + 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IPC_TEST(test_sizes),
        IPC_TEST(test_frames_go_together),
        IPC_TEST(test_append),
        IPC_TEST(test_append_much),
        IPC_TEST(test_long_question),
        IPC_TEST(test_no_lock_up),
        IPC_TEST(test_oversized_send),
        IPC_TEST(test_look),
        IPC_TEST(test_deadline_and_cancel),
        IPC_TEST(test_flush_deadline),
        IPC_TEST(test_bad_frames),
        IPC_TEST(test_peer_dies),
        IPC_TEST(test_descriptors),
        IPC_TEST(test_descriptors_in_a_queue),
        IPC_TEST(test_unread_descriptors_are_closed),
        IPC_TEST(test_unsent_descriptors_are_closed),
        IPC_TEST(test_unannounced_descriptors),
        IPC_TEST(test_into_io),
        IPC_TEST(test_calls_per_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
