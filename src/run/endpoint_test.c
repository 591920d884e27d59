#include "test/test.h"

#include "run/loop.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <stdlib.h>
#include <unistd.h>

static int set_up(void **state) {
    (void)state;
    fake_sys_install();
    return loop_init() != NULL;
}

static int tear_down(void **state) {
    (void)state;
    bool left = coro_count() > 0;
    loop_free();
    fake_sys_remove();
    return left;
}

#define ENDPOINT_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

static void test_endpoints(void **state) {
    (void)state;
    static const struct {
        const char *text, *normal;
        bool fine;
    } rows[] = {
        { "127.0.0.1", "127.0.0.1", true },
        { "::1", "::1", true },
        { "2001:DB8:0:0::1", "2001:db8::1", true },
        { "::ffff:192.0.2.1", "192.0.2.1", true },
        { "", "", false },
        { "127.0.0.1 ", "", false },
        { "[::1]", "", false },
        { "127.1", "", false },
        { "0x7f.0.0.1", "", false },
        { "localhost", "", false },
        { "1234:1234:1234:1234:1234:1234:123.123.123.123.123.123", "", false },
    };
    char out[INET6_ADDRSTRLEN];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct endpoint e;
        struct str text = str_c(rows[i].text);
        char *exact = malloc(text.n + 1);
        memcpy(exact, text.p, text.n);
        exact[text.n] = '1'; /* not a terminator */
        assert_int_equal(endpoint_ip(str_n(exact, text.n), 25, &e), rows[i].fine);
        free(exact);
        if (!rows[i].fine)
            continue;
        assert_str(endpoint_address(&e, out), rows[i].normal);
        assert_int_equal(endpoint_port(&e), 25);
    }
    struct endpoint e;
    assert_false(endpoint_ip(str_n("1.2.3.4\0.5", 10), 25, &e));
    char path[200];
    memset(path, 'p', sizeof path);
    assert_true(endpoint_unix(str_n(path, sizeof e.u.un.sun_path - 1), &e));
    assert_str(endpoint_address(&e, out), "");
    assert_int_equal(endpoint_port(&e), 0);
    assert_false(endpoint_unix(str_n(path, sizeof e.u.un.sun_path), &e));
    assert_false(endpoint_unix(STR(""), &e));
}

static void loopback(void **state) {
    (void)state;
    static const struct {
        const char *address;
        bool loopback;
    } rows[] = {
        { "127.0.0.1", true }, { "127.9.9.9", true },  { "::1", true }, { "::ffff:127.0.0.1", true },
        { "0.0.0.0", false },  { "128.0.0.1", false }, { "::", false }, { "::ffff:192.0.2.1", false },
        { "::2", false },      { "7f00:1::", false },
    };
    struct endpoint e;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(endpoint_ip(str_c(rows[i].address), 25, &e));
        assert_int_equal(endpoint_is_loopback(&e), rows[i].loopback);
    }
    assert_true(endpoint_unix(STR("private/x"), &e));
    assert_false(endpoint_is_loopback(&e));
}

static void client_main(void *arg) {
    struct endpoint *to = arg;
    struct io *io;
    struct endpoint from;
    assert_true(endpoint_ip(STR("127.0.0.1"), 0, &from));
    error e = io_connect(to, to->u.sa.sa_family == AF_INET ? &from : NULL, deadline_in(10), &io);
    assert_null(e);
    struct str s;
    assert_null(io_line(io, 100, deadline_in(10), &s));
    assert_str(s, "hello\r\n");
    io_write(io, STR("HELO\r\n"));
    assert_null(io_flush(io, deadline_in(10)));
    io_close(io);
}

static void connect_to(const struct endpoint *at) {
    static const char *const scripts[] = { "> hello\n< HELO\neof\n", "> hello\n< HELO\neof\n" };
    struct endpoint to;
    fake_sys_real_wait(5000); /* the kernel's TCP may take a moment */
    script_peer_listen(at, scripts, 2, &to);
    coro_spawn(client_main, &to, "client");
    coro_spawn(client_main, &to, "client");
    assert_null(loop_run());
    script_peer_check();
    fake_sys_real_wait(0);
}

static void test_connect(void **state) {
    (void)state;
    struct endpoint at;
    assert_true(endpoint_ip(STR("127.0.0.1"), 0, &at));
    connect_to(&at);
    char path[64];
    snprintf(path, sizeof path, "/tmp/io_test.%d.socket", (int)getpid());
    assert_true(endpoint_unix(str_c(path), &at));
    connect_to(&at);
    /* an old socket is replaced; its mode is what was asked for */
    int fd;
    assert_null(listen_on(&at, 5, 0620, &fd));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0620);
    close(fd);
    unlink(path);
    /* and something else than a socket is not */
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    assert_int_equal(listen_on(&at, 5, 0600, &fd)->sys, EADDRINUSE);
    assert_int_equal(fd, -1);
    unlink(path);
}

static void refused_main(void *arg) {
    struct io *io = arg;
    struct endpoint to;
    assert_true(endpoint_ip(STR("127.0.0.1"), 1, &to));
    assert_int_equal(io_connect(&to, NULL, deadline_in(10), &io)->sys, ECONNREFUSED);
    assert_null(io);
    fake_sys_real_wait(0);
    fake_sys_fail("connect", 1, ENETUNREACH);
    assert_int_equal(io_connect(&to, NULL, deadline_in(10), &io)->sys, ENETUNREACH);
    fake_sys_fail("socket", 1, EMFILE);
    assert_int_equal(io_connect(&to, NULL, deadline_in(10), &io)->sys, EMFILE);
    /* a unix socket whose queue is full is tried again until the deadline */
    fake_sys_fail_from("connect", 1, EAGAIN);
    assert_true(endpoint_unix(STR("/nonexistent/socket"), &to));
    int64_t deadline = deadline_in(3);
    assert_ptr_equal(io_connect(&to, NULL, deadline, &io), &err_timeout);
    assert_true(sys->mono_us() > deadline - 100 * 1000);
    fake_sys_clear_faults();
    assert_int_equal(io_connect(&to, NULL, deadline_in(3), &io)->sys, ENOENT);
}

static void test_connect_failures(void **state) {
    (void)state;
    fake_sys_real_wait(5000);
    coro_spawn(refused_main, NULL, "refused");
    assert_null(loop_run());
}

/* EMFILE: said at once, the connection stays in the queue, and is there when descriptors are. Faults of connections
 * that have gone meanwhile are skipped, but not without end. */
static void acceptor_main(void *arg) {
    struct endpoint *at = arg, peer, bound = { .len = sizeof bound.u };
    int listener, client, fd;
    assert_null(listen_on(at, 5, 0600, &listener));
    assert_int_equal(getsockname(listener, &bound.u.sa, &bound.len), 0);
    wait_keep(listener);
    assert_ptr_equal(io_accept(listener, deadline_in(5), &peer, &fd), &err_timeout);
    assert_int_equal(fd, -1);
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, &bound.u.sa, bound.len), 0);
    fake_sys_fail("accept4", 1, EMFILE);
    fake_sys_fail("accept4", 2, ENFILE);
    fake_sys_fail("accept4", 3, ECONNABORTED);
    fake_sys_fail("accept4", 4, EINTR);
    assert_int_equal(io_accept(listener, deadline_in(5), &peer, &fd)->sys, EMFILE);
    assert_int_equal(io_accept(listener, deadline_in(5), &peer, &fd)->sys, ENFILE);
    assert_null(wait_until(deadline_in(1))); /* nobody accepts, the loop does not spin: the fake clock went on */
    assert_null(io_accept(listener, deadline_in(5), &peer, &fd));
    assert_true(fd >= 0);
    char out[INET6_ADDRSTRLEN];
    assert_str(endpoint_address(&peer, out), "127.0.0.1");
    assert_true(endpoint_port(&peer) > 0);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
    fake_sys_fail_from("accept4", 1, EPERM);
    assert_int_equal(io_accept(listener, deadline_in(5), &peer, &fd)->sys, EPERM);
    fake_sys_clear_faults();
    coro_cancel(coro_self());
    assert_ptr_equal(io_accept(listener, deadline_in(5), &peer, &fd), &err_cancelled);
    close(client);
    wait_forget(listener);
    close(listener);
}

static void test_accept(void **state) {
    (void)state;
    fake_sys_real_wait(0);
    struct endpoint at;
    assert_true(endpoint_ip(STR("127.0.0.1"), 0, &at));
    coro_spawn(acceptor_main, &at, "acceptor");
    assert_null(loop_run());
}

static void test_any(void **state) {
    (void)state;
    static const struct {
        const char *address;
        bool any;
    } rows[] = { { "0.0.0.0", true }, { "::", true }, { "127.0.0.1", false }, { "::1", false } };
    struct endpoint e;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(endpoint_ip(str_c(rows[i].address), 25, &e));
        assert_int_equal(endpoint_is_any(&e), rows[i].any);
    }
    assert_true(endpoint_unix(STR("private/x"), &e));
    assert_false(endpoint_is_any(&e));
}

static unsigned segments_in(int fd) {
    struct tcp_info info;
    socklen_t n = sizeof info;
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n), 0);
    return info.tcpi_segs_in;
}

/* How many segments bring a last reply and the end. */
static unsigned good_bye(int listener, const struct sockaddr *to, socklen_t len) {
    int client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(client, to, len), 0);
    struct io *io = io_new(accept(listener, NULL, NULL));
    unsigned before = segments_in(client);
    io_write(io, STR("221 Bye\r\n"));
    assert_null(io_flush_last(io, DEADLINE_NEVER));
    io_close(io);
    char got[20];
    assert_int_equal(recv(client, got, sizeof got, MSG_WAITALL), 9);
    assert_memory_equal(got, "221 Bye\r\n", 9);
    unsigned segments = segments_in(client) - before;
    close(client);
    return segments;
}

/* The kernel does not keep it back for more than 200 ms: one that was too slow here tries again. */
static void test_last_segment(void **state) {
    (void)state;
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (void *)&at, len), 0);
    assert_int_equal(listen(listener, 5), 0);
    assert_int_equal(getsockname(listener, (void *)&at, &len), 0);
    unsigned least = 100;
    for (int i = 0; i < 50 && least > 1; i++) {
        unsigned n = good_bye(listener, (void *)&at, len);
        least = n < least ? n : least;
    }
    assert_int_equal(least, 1);
    close(listener);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ENDPOINT_TEST(test_endpoints),        ENDPOINT_TEST(loopback),    ENDPOINT_TEST(test_connect),
        ENDPOINT_TEST(test_connect_failures), ENDPOINT_TEST(test_accept), ENDPOINT_TEST(test_any),
        ENDPOINT_TEST(test_last_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
