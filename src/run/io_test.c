#include "test/test.h"

#include "run/loop.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
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

#define IO_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* --- a little session: greets, echoes lines, ends at QUIT --- */

enum { ECHO_LINE_MAX = 64 };

struct echo {
    int fd;
    int64_t timeout_us;
    error end;
    unsigned lines, long_lines;
    int64_t ended_at;
};

static void echo_main(void *arg) {
    struct echo *s = arg;
    struct io *io = io_new(s->fd);
    struct str line;
    error e;
    io_write(io, STR("220 ready\r\n"));
    for (;;) {
        e = io_line(io, ECHO_LINE_MAX, deadline_in_us(s->timeout_us ? s->timeout_us : 300 * US_PER_S), &line);
        if (e == &err_limit) {
            s->long_lines++;
            continue;
        }
        if (e)
            break;
        if (s->long_lines) { /* the rest of a line that was too long */
            io_printf(io, "500 %u pieces too many\r\n", s->long_lines);
            s->long_lines = 0;
            continue;
        }
        s->lines++;
        line = str_trim_right(line);
        if (str_eq(line, STR("QUIT"))) {
            io_write(io, STR("221 bye\r\n"));
            e = io_flush(io, deadline_in(10));
            break;
        }
        io_printf(io, "250 %.*s\r\n", STR_ARG(line));
    }
    s->end = e;
    s->ended_at = sys->mono_us() - FAKE_MONO_START;
    io_close(io);
}

static struct echo echo_play(const char *script) {
    struct echo s = { .fd = script_peer_start(script) };
    coro_spawn(echo_main, &s, "echo");
    assert_null(loop_run());
    script_peer_check();
    return s;
}

static void test_dialogue(void **state) {
    (void)state;
    struct echo s =
        echo_play("< 220 *\n> one\n< 250 one\n> two\n> three\n< 250 two\n< 250 three\n> QUIT\n<< 221\neof\n");
    assert_null(s.end);
    assert_int_equal(s.lines, 4);
}

static void test_pipelined_replies_go_together(void **state) {
    (void)state;
    struct echo s = echo_play(
        "< 220\n>| a\\r\\nb\\r\\nc\\r\\nQUIT\\r\\n\n<| 250 a\\r\\n250 b\\r\\n250 c\\r\\n221 bye\\r\\n\neof\n");
    assert_int_equal(s.lines, 4);
    assert_int_equal(fake_sys_calls("writev"), 2);
    assert_int_equal(fake_sys_calls("read"), 1);
}

static void test_byte_by_byte(void **state) {
    (void)state;
    static const char script[] = "< 220\nslow 0\n> hello\n< 250 hello\n> QUIT\n< 221\neof\n";
    struct echo s = echo_play(script);
    assert_int_equal(s.lines, 2);
    assert_true(fake_sys_calls("read") >= 13);
    /* the same by reads and writes that move one byte each */
    fake_sys_install();
    fake_sys_read_max(1);
    fake_sys_write_max(1);
    s = echo_play("< 220\n> hello\n< 250 hello\n> QUIT\n< 221\neof\n");
    assert_int_equal(s.lines, 2);
    assert_true(fake_sys_calls("read") >= 7 + 6);
    assert_int_equal(fake_sys_calls("writev"), 11 + 11 + 9);
}

static void test_deadline_is_a_point_in_time(void **state) {
    (void)state;
    /* one byte every 50 seconds does not keep the session alive past its 300 */
    struct echo s = echo_play("< 220\nslow 50\n>| 123456789\ndrop\n");
    assert_ptr_equal(s.end, &err_timeout);
    assert_int_equal(s.ended_at, 300 * US_PER_S);
}

static void test_readable_and_then_eof(void **state) {
    (void)state;
    struct echo s = echo_play("< 220\n>| one\\r\\ncut\nshut\n< 250 one\neof\n");
    assert_ptr_equal(s.end, &err_eof);
    assert_int_equal(s.lines, 1);
    s = echo_play("< 220\nclose\n");
    assert_ptr_equal(s.end, &err_eof);
}

static void test_peer_is_reset(void **state) {
    (void)state;
    struct echo s = echo_play("close\n"); /* with our greeting unread */
    assert_non_null(s.end);
    assert_true(s.end->kind == ERR_EOF || s.end->sys == ECONNRESET);
}

static void test_line_limit(void **state) {
    (void)state;
    char script[600] = "< 220\n> ";
    size_t n = strlen(script);
    memset(script + n, 'x', 200);
    n += 200;
    /* 62 bytes and CR LF are just within */
    n += (size_t)snprintf(script + n, sizeof script - n, "\n< 500 3 pieces\n> ");
    memset(script + n, 'y', ECHO_LINE_MAX - 2);
    n += ECHO_LINE_MAX - 2;
    n += (size_t)snprintf(script + n, sizeof script - n, "\n< 250 yyyy\n> ");
    memset(script + n, 'z', ECHO_LINE_MAX - 1);
    n += ECHO_LINE_MAX - 1;
    snprintf(script + n, sizeof script - n, "\n< 500 1 pieces\n> QUIT\n< 221\neof\n");
    struct echo s = echo_play(script);
    assert_null(s.end);
}

/* --- looking costs nothing where the loop has looked already --- */

struct looker {
    int fd, far;
};

static void looker_main(void *arg) {
    struct looker *l = arg;
    struct io *io = io_new(l->fd);
    struct str s;
    assert_int_equal(io_pending(io, true), 0); /* never waited for: a true look */
    assert_int_equal(fake_sys_calls("read"), 1);
    assert_ptr_equal(io_line(io, 100, deadline_in(1), &s), &err_timeout);
    unsigned reads = fake_sys_calls("read");
    for (int i = 0; i < 10; i++)
        assert_int_equal(io_pending(io, true), 0);
    assert_int_equal(fake_sys_calls("read"), reads);
    /* it comes while another thing is waited for */
    assert_int_equal(write(l->far, "abc\n", 4), 4);
    assert_null(wait_until(deadline_in(1)));
    assert_int_equal(io_pending(io, true), 4);
    assert_null(io_line(io, 100, deadline_in(1), &s));
    assert_str(s, "abc\n");
    assert_ptr_equal(io_line(io, 100, deadline_in(1), &s), &err_timeout);
    /* it comes while it is waited for, by somebody who does not read it */
    assert_int_equal(write(l->far, "de\n", 3), 3);
    assert_null(wait_readable(l->fd, deadline_in(1)));
    assert_int_equal(io_pending(io, true), 3);
    assert_null(io_line(io, 100, deadline_in(1), &s));
    /* so does the end */
    assert_ptr_equal(io_line(io, 100, deadline_in(1), &s), &err_timeout);
    close(l->far);
    assert_null(wait_until(deadline_in(1)));
    reads = fake_sys_calls("read");
    assert_int_equal(io_pending(io, true), 0);
    assert_int_equal(fake_sys_calls("read"), reads + 1);
    assert_ptr_equal(io_line(io, 100, deadline_in(1), &s), &err_eof);
    io_close(io);
}

static void test_look(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    struct looker l = { ends[0], ends[1] };
    coro_spawn(looker_main, &l, "looker");
    assert_null(loop_run());
}

/* --- reading in other ways --- */

struct reader {
    int fd;
    bool done;
};

static void pieces_main(void *arg) {
    struct reader *r = arg;
    struct io *io = io_new(r->fd);
    struct str s;
    char four[4];
    int64_t soon = deadline_in(10);
    assert_null(io_some(io, 3, soon, &s));
    assert_str(s, "abc");
    assert_int_equal(io_pending(io, false), 7);
    assert_str(io_peek(io), "defg\nij");
    assert_null(io_full(io, four, 4, soon));
    assert_str(str_n(four, 4), "defg");
    assert_null(io_line(io, 100, soon, &s));
    assert_str(s, "\n");
    /* a limit of the bytes that are there, and none beyond it */
    assert_ptr_equal(io_line(io, 2, soon, &s), &err_limit);
    assert_str(s, "ij");
    assert_int_equal(io_pending(io, true), 0);
    assert_int_equal(io_peek(io).n, 0);
    assert_null(wait_until(deadline_in(2)));
    assert_int_equal(io_pending(io, false), 0);
    assert_int_equal(io_pending(io, true), 5);
    assert_null(io_line(io, 100, soon, &s));
    assert_str(s, "kl\n");
    assert_ptr_equal(io_line(io, 100, deadline_in(2), &s), &err_timeout);
    assert_int_equal(s.n, 0);
    assert_int_equal(io_pending(io, false), 2); /* what came stays after a timeout */
    assert_ptr_equal(io_line(io, 100, soon, &s), &err_eof);
    assert_str(s, "mn");
    assert_ptr_equal(io_line(io, 100, soon, &s), &err_eof);
    assert_int_equal(s.n, 0);
    assert_ptr_equal(io_some(io, 100, soon, &s), &err_eof);
    assert_ptr_equal(io_full(io, four, 4, soon), &err_eof);
    assert_int_equal(io_pending(io, true), 0);
    io_close(io);
    r->done = true;
}

static void test_pieces(void **state) {
    (void)state;
    struct reader r = { .fd = script_peer_start(">| abcdefg\\nij\nwait 1\n>| kl\\nmn\nwait 3\nshut\neof\n") };
    coro_spawn(pieces_main, &r, "pieces");
    assert_null(loop_run());
    script_peer_check();
    assert_true(r.done);
}

static void test_read_error_stays(void **state) {
    (void)state;
    fake_sys_fail("read", 2, EIO);
    struct echo s = { .fd = script_peer_start("< 220\n> a\n< 250 a\n> b\ndrop\n") };
    coro_spawn(echo_main, &s, "echo");
    assert_null(loop_run());
    script_peer_check();
    assert_int_equal(s.end->sys, EIO);
    assert_int_equal(fake_sys_clear_faults(), 0);
    /* interrupted calls are made again */
    fake_sys_fail("read", 1, EINTR);
    fake_sys_fail("writev", 1, EINTR);
    echo_play("< 220\n> a\n< 250 a\n> QUIT\n< 221\neof\n");
}

static void two_reads(void *arg) {
    struct reader *r = arg;
    struct io *io = io_new(r->fd);
    struct str s;
    error e = io_line(io, 100, deadline_in(10), &s);
    assert_int_equal(e->sys, EIO);
    assert_ptr_equal(io_line(io, 100, deadline_in(10), &s), e);
    io_close(io);
    r->done = true;
}

static void test_no_read_after_an_error(void **state) {
    (void)state;
    struct reader r = { .fd = script_peer_start("> a\neof\n") };
    fake_sys_fail("read", 1, EIO);
    coro_spawn(two_reads, &r, "reader");
    assert_null(loop_run());
    script_peer_forget();
    assert_true(r.done);
}

/* --- writing --- */

static void writer_failing(void *arg) {
    struct reader *r = arg;
    struct io *io = io_new(r->fd);
    io_write(io, STR("first\r\n"));
    error e = io_flush(io, deadline_in(10));
    assert_int_equal(e->sys, ECONNRESET);
    io_write(io, STR("second\r\n"));
    io_printf(io, "third %d\r\n", 3);
    assert_ptr_equal(io_flush(io, deadline_in(10)), e);
    /* and yet what the peer has sent can be read */
    struct str s;
    assert_null(io_line(io, 100, deadline_in(10), &s));
    assert_str(s, "hello\r\n");
    io_close(io);
    r->done = true;
}

static void test_first_write_error_is_kept(void **state) {
    (void)state;
    struct reader r = { .fd = script_peer_start("> hello\neof\n") };
    fake_sys_fail("writev", 1, ECONNRESET);
    coro_spawn(writer_failing, &r, "writer");
    assert_null(loop_run());
    script_peer_check();
    assert_true(r.done);
    assert_int_equal(fake_sys_calls("writev"), 1);
}

enum { MUCH = 4 * 1024 * 1024 };
static char much[MUCH];

struct flood {
    int fds[2];
    size_t read;
    error written;
    int64_t took;
    bool with_line;
};

static void flood_writer(void *arg) {
    struct flood *f = arg;
    struct io *io = io_new(f->fds[0]);
    int64_t start = sys->mono_us();
    io_set_write_deadline(io, deadline_in(100));
    io_write(io, STR("head\n"));
    for (size_t at = 0; at < MUCH;) { /* in pieces of all sizes */
        size_t n = at % 7919 + 1 + (at % 5 == 0 ? 70000 : 0);
        if (n > MUCH - at)
            n = MUCH - at;
        io_write(io, str_n(much + at, n));
        at += n;
    }
    if (f->with_line) {
        struct str line;
        f->written = io_line(io, 100, deadline_in(50), &line);
    } else {
        f->written = io_flush(io, deadline_in(100));
    }
    f->took = sys->mono_us() - start;
    io_close(io);
}

static void slow_reader(void *arg) {
    struct flood *f = arg;
    struct io *io = io_new(f->fds[1]);
    struct str s;
    assert_null(io_line(io, 100, deadline_in(10), &s));
    assert_str(s, "head\n");
    while (!io_some(io, 50000, deadline_in(10), &s)) {
        assert_true(f->read + s.n <= MUCH);
        assert_memory_equal(s.p, much + f->read, s.n);
        f->read += s.n;
        if (f->read % 3 == 0)
            wait_until(deadline_in_us(1000));
    }
    io_close(io);
}

static void stuck_reader(void *arg) {
    struct flood *f = arg;
    wait_until(deadline_in(1000));
    close(f->fds[1]);
}

static struct flood flood_run(void (*reader)(void *arg), bool with_line) {
    struct flood f = { .with_line = with_line };
    for (size_t i = 0; i < MUCH; i++)
        much[i] = (char)(i * 31 + i / 4096);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, f.fds), 0);
    coro_spawn(flood_writer, &f, "writer");
    coro_spawn(reader, &f, "reader");
    assert_null(loop_run());
    return f;
}

static void test_slow_reader(void **state) {
    (void)state;
    struct flood f = flood_run(slow_reader, false);
    assert_null(f.written);
    assert_int_equal(f.read, MUCH);
}

static void test_write_deadline(void **state) {
    (void)state;
    struct flood f = flood_run(stuck_reader, false);
    assert_ptr_equal(f.written, &err_timeout);
    assert_int_equal(f.took, 100 * US_PER_S);
}

static void little_then_stuck(void *arg) {
    struct flood *f = arg;
    struct io *io = io_new(f->fds[0]);
    /* fill the socket, then leave less than a bufferful, which only the read will try to send */
    while (write(f->fds[0], much, MUCH) > 0)
        ;
    int64_t start = sys->mono_us();
    io_write(io, STR("reply\r\n"));
    struct str line;
    assert_ptr_equal(io_line(io, 100, deadline_in(50), &line), &err_timeout);
    assert_int_equal(sys->mono_us() - start, 50 * US_PER_S);
    /* only the reading is out of time; the write deadline, when it is the earlier one, ends both */
    io_set_write_deadline(io, deadline_in(20));
    f->written = io_line(io, 100, deadline_in(50), &line);
    f->took = sys->mono_us() - start;
    assert_ptr_equal(io_flush(io, deadline_in(50)), &err_timeout);
    assert_int_equal(sys->mono_us() - start, f->took);
    io_close(io);
}

static void test_read_behind_a_write_that_hangs(void **state) {
    (void)state;
    struct flood f = { .with_line = true };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, f.fds), 0);
    coro_spawn(little_then_stuck, &f, "writer");
    coro_spawn(stuck_reader, &f, "reader");
    assert_null(loop_run());
    assert_ptr_equal(f.written, &err_timeout);
    assert_int_equal(f.took, 70 * US_PER_S);
}

static void cancelled_writer(void *arg) {
    struct flood *f = arg;
    struct io *io = io_new(f->fds[0]);
    coro_cancel(coro_self());
    /* there is room, so no wait is needed to say good-bye */
    io_write(io, STR("421 closing\r\n"));
    f->written = io_flush(io, deadline_in(10));
    struct str line;
    assert_ptr_equal(io_line(io, 100, deadline_in(10), &line), &err_cancelled);
    io_close(io);
}

static void test_good_bye_after_cancel(void **state) {
    (void)state;
    struct flood f = { .written = &err_eof };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, f.fds), 0);
    assert_int_equal(write(f.fds[1], "QUIT\r\n", 6), 6);
    coro_spawn(cancelled_writer, &f, "writer");
    assert_null(loop_run());
    assert_null(f.written);
    char got[20] = "";
    assert_int_equal(read(f.fds[1], got, sizeof got), 13);
    close(f.fds[1]);
}

static void canceller(void *arg) {
    wait_until(deadline_in(7));
    coro_cancel(arg);
}

static void test_cancel_while_reading(void **state) {
    (void)state;
    struct echo s = { .fd = script_peer_start("< 220\neof\n") };
    struct coro *c = coro_spawn(echo_main, &s, "echo");
    coro_spawn(canceller, c, "canceller");
    assert_null(loop_run());
    script_peer_check();
    assert_ptr_equal(s.end, &err_cancelled);
    assert_int_equal(s.ended_at, 7 * US_PER_S);
}

/* --- reading and writing at a time --- */

struct duplex {
    struct io *io;
    struct group group;
    size_t read;
};

static void duplex_reader(void *arg) {
    struct duplex *d = arg;
    struct str s;
    while (d->read < MUCH && !io_some(d->io, IO_READ_SIZE, deadline_in(60), &s)) {
        assert_memory_equal(s.p, much + d->read, s.n);
        d->read += s.n;
    }
    group_leave(&d->group);
}

static void duplex_writer(void *arg) {
    struct duplex *d = arg;
    for (size_t at = 0; at < MUCH; at += 4096)
        io_write(d->io, str_n(much + at, 4096));
    assert_null(io_flush(d->io, deadline_in(60)));
    group_leave(&d->group);
}

static void duplex_end(void *arg) {
    struct duplex *d = arg;
    group_enter(&d->group);
    group_enter(&d->group);
    coro_spawn(duplex_reader, d, "reader");
    coro_spawn(duplex_writer, d, "writer");
    assert_null(group_wait(&d->group, DEADLINE_NEVER));
    io_close(d->io);
}

static void test_both_directions_at_once(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct duplex a = { .io = io_new(fds[0]) }, b = { .io = io_new(fds[1]) };
    coro_spawn(duplex_end, &a, "a");
    coro_spawn(duplex_end, &b, "b");
    assert_null(loop_run());
    assert_int_equal(a.read, MUCH);
    assert_int_equal(b.read, MUCH);
}

/* --- fairness: a session that always finds data must let others run --- */

struct endless {
    struct io *io;
    bool stop;
    unsigned rounds;
};

static ssize_t endless_read(void *ctx, void *p, size_t n, uint32_t *ret_wait) {
    (void)ctx, (void)ret_wait;
    memset(p, '\n', n);
    return (ssize_t)n;
}

static ssize_t endless_write(void *ctx, const void *p, size_t n, uint32_t *ret_wait) {
    (void)ctx, (void)p, (void)ret_wait;
    return (ssize_t)n;
}

static void endless_close(void *ctx) {
    (void)ctx;
}

static const struct io_transport endless_transport = { endless_read, endless_write, endless_close };

static void endless_lines(void *arg) {
    struct endless *e = arg;
    struct str line;
    while (!e->stop) {
        assert_null(io_line(e->io, 100, deadline_in(60), &line));
        assert_true(e->rounds++ < 1000000);
    }
}

static void endless_pieces(void *arg) {
    struct endless *e = arg;
    struct str s;
    while (!e->stop) {
        assert_null(io_some(e->io, IO_READ_BULK_SIZE, deadline_in(60), &s));
        assert_true(e->rounds++ < 1000000);
    }
}

static void endless_writes(void *arg) {
    struct endless *e = arg;
    while (!e->stop) {
        io_write(e->io, str_n(much, IO_WRITE_SIZE + 1));
        assert_true(e->rounds++ < 1000000);
    }
}

static void endless_stop(void *arg) {
    struct endless *e = arg;
    for (int i = 0; i < 3; i++)
        coro_yield();
    e->stop = true;
}

static void test_fairness(void **state) {
    (void)state;
    void (*const greedy[])(void *) = { endless_lines, endless_pieces, endless_writes };
    for (size_t i = 0; i < 3; i++) {
        struct endless e = { .io = io_new_transport(&endless_transport, NULL, -1) };
        coro_spawn(greedy[i], &e, "greedy");
        coro_spawn(endless_stop, &e, "other");
        assert_null(loop_run());
        io_close(e.io);
        assert_true(e.rounds <= 5 * LOOP_BUDGET);
    }
}

/* --- a transport of its own, and the change to it --- */

static ssize_t rot_read(void *ctx, void *p, size_t n, uint32_t *ret_wait) {
    *ret_wait = EPOLLIN;
    ssize_t got = read(*(int *)ctx, p, n);
    for (ssize_t i = 0; i < got; i++)
        ((char *)p)[i] ^= 1;
    return got;
}

static ssize_t rot_write(void *ctx, const void *p, size_t n, uint32_t *ret_wait) {
    *ret_wait = EPOLLOUT;
    char byte = (char)(*(const char *)p ^ 1);
    return n ? write(*(int *)ctx, &byte, 1) : 0;
}

static void rot_close(void *ctx) {
    close(*(int *)ctx);
}

static const struct io_transport rot_transport = { rot_read, rot_write, rot_close };

static void switching(void *arg) {
    struct reader *r = arg;
    struct io *io = io_new(r->fd);
    struct str s;
    io_write(io, STR("go\n")); /* goes out before the change by itself */
    assert_null(io_switch(io, &rot_transport, &r->fd));
    assert_null(io_line(io, 100, deadline_in(5), &s));
    assert_str(s, "a\n");
    io_write(io, STR("`b"));
    assert_null(io_flush(io, deadline_in(5)));
    io_close(io);
    r->done = true;
}

static void test_switch(void **state) {
    (void)state;
    struct reader r = { .fd = script_peer_start("<| go\\n\n>| `\\x0b\n<| ac\neof\n") };
    coro_spawn(switching, &r, "switching");
    assert_null(loop_run());
    script_peer_check();
    assert_true(r.done);
}

static void switching_late(void *arg) {
    struct reader *r = arg;
    struct io *io = io_new(r->fd);
    struct str s;
    assert_null(io_line(io, 100, deadline_in(5), &s));
    assert_str(s, "STARTTLS\r\n");
    error e = io_switch(io, &rot_transport, &r->fd);
    assert_non_null(e);
    assert_int_equal(e->kind, ERR_SYNTAX);
    io_close(io);
    r->done = true;
}

static void test_no_switch_over_buffered_input(void **state) {
    (void)state;
    struct reader r = { .fd = script_peer_start(">| STARTTLS\\r\\nMAIL\\r\\n\neof\n") };
    coro_spawn(switching_late, &r, "switching");
    assert_null(loop_run());
    script_peer_check();
    assert_true(r.done);
}

/* --- without a loop --- */

static void test_blocking_use(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    loop_free();
    struct io *a = io_new(fds[0]), *b = io_new(fds[1]);
    io_write(a, STR("question\n"));
    assert_null(io_flush(a, deadline_in(5)));
    struct str s;
    assert_null(io_line(b, 100, deadline_in(5), &s));
    assert_str(s, "question\n");
    io_close(a);
    assert_ptr_equal(io_line(b, 100, deadline_in(5), &s), &err_eof);
    io_close(b);
    io_close(NULL);
    assert_null(loop_init());
}

/* --- system calls and memory --- */

static void ping_pong_server(void *arg) {
    struct io *io = io_new(*(int *)arg);
    struct str line;
    while (!io_line(io, 100, deadline_in(60), &line))
        io_write(io, line);
    io_close(io);
}

static void ping_pong_client(void *arg) {
    struct io *io = io_new(*(int *)arg);
    struct str line;
    for (int i = 0; i < 1000; i++) {
        io_write(io, STR("ping\n"));
        assert_null(io_line(io, 100, deadline_in(60), &line));
    }
    io_close(io);
}

static void test_calls_per_message(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    coro_spawn(ping_pong_server, &fds[0], "server");
    coro_spawn(ping_pong_client, &fds[1], "client");
    assert_null(loop_run());
    /* one each way, and no read that finds nothing: a few for the start and the end */
    assert_in_range(fake_sys_calls("read"), 2000, 2010);
    assert_in_range(fake_sys_calls("writev"), 2000, 2010);
}

enum { IDLE_SESSIONS = 1000, IDLE_BYTES_MAX = 12 * 1024 };

struct idle {
    int fd;
};

static void idle_main(void *arg) {
    struct idle *s = arg;
    struct io *io = io_new(s->fd);
    struct str line;
    io_write(io, STR("220 ready\r\n"));
    while (!io_line(io, 1000, deadline_in(300), &line))
        io_printf(io, "250 %.*s\r\n", STR_ARG(line));
    io_close(io);
}

static size_t resident(void) {
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long total = 0, pages = 0;
    assert_int_equal(fscanf(f, "%lu %lu", &total, &pages), 2);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t idle_memory;
static void idle_measure(void *arg) {
    int *peers = arg;
    assert_null(wait_until(deadline_in(1)));
    for (size_t i = 0; i < IDLE_SESSIONS; i++)
        assert_int_equal(write(peers[i], "NOOP\r\n", 6), 6);
    assert_null(wait_until(deadline_in(1)));
    idle_memory = resident();
    for (size_t i = 0; i < IDLE_SESSIONS; i++)
        close(peers[i]);
}

static void test_idle_memory(void **state) {
    (void)state;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 2 * IDLE_SESSIONS + 100) {
        limit.rlim_cur = 2 * IDLE_SESSIONS + 100;
        if (setrlimit(RLIMIT_NOFILE, &limit)) {
            print_message("# idle session: too few descriptors allowed here to measure\n");
            return;
        }
    }
    static struct idle sessions[IDLE_SESSIONS];
    static int peers[IDLE_SESSIONS];
    size_t before = resident();
    for (size_t i = 0; i < IDLE_SESSIONS; i++) {
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        sessions[i].fd = fds[0];
        peers[i] = fds[1];
        assert_non_null(coro_spawn(idle_main, &sessions[i], "idle"));
    }
    coro_spawn(idle_measure, peers, "measure");
    assert_null(loop_run());
    size_t each = (idle_memory - before) / IDLE_SESSIONS;
    print_message("# idle session: %zu bytes resident\n", each);
#if !defined(RUN_ASAN) && !defined(CORO_STACK_MARKS)
    assert_true(each <= IDLE_BYTES_MAX);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        IO_TEST(test_dialogue),
        IO_TEST(test_pipelined_replies_go_together),
        IO_TEST(test_look),
        IO_TEST(test_byte_by_byte),
        IO_TEST(test_deadline_is_a_point_in_time),
        IO_TEST(test_readable_and_then_eof),
        IO_TEST(test_peer_is_reset),
        IO_TEST(test_line_limit),
        IO_TEST(test_pieces),
        IO_TEST(test_read_error_stays),
        IO_TEST(test_no_read_after_an_error),
        IO_TEST(test_first_write_error_is_kept),
        IO_TEST(test_slow_reader),
        IO_TEST(test_write_deadline),
        IO_TEST(test_read_behind_a_write_that_hangs),
        IO_TEST(test_good_bye_after_cancel),
        IO_TEST(test_cancel_while_reading),
        IO_TEST(test_both_directions_at_once),
        IO_TEST(test_fairness),
        IO_TEST(test_switch),
        IO_TEST(test_no_switch_over_buffered_input),
        IO_TEST(test_blocking_use),
        IO_TEST(test_calls_per_message),
        IO_TEST(test_idle_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
