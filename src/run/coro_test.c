#include "test/test.h"

#include "run/loop.h"
#include "test/fake_sys.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* What happened, in order: "a1 b1 a2 ". */
static struct buf trace;

static void note(const char *what) {
    buf_printf(&trace, "%s ", what);
}

static int set_up(void **state) {
    (void)state;
    buf_clear(&trace);
    return loop_init() != NULL;
}

static int tear_down(void **state) {
    (void)state;
    bool left = coro_count() > 0;
    loop_free();
    buf_free(&trace);
    return left;
}

#define CORO_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* --- order and errno --- */

static void three_steps(void *arg) {
    const char *name = arg;
    for (int i = 1; i <= 3; i++) {
        buf_printf(&trace, "%s%d ", name, i);
        errno = (unsigned char)name[0];
        coro_yield();
        assert_int_equal(errno, (unsigned char)name[0]);
    }
}

static void test_yield_takes_turns(void **state) {
    (void)state;
    assert_null(coro_self());
    assert_non_null(coro_spawn(three_steps, "a", "a"));
    assert_non_null(coro_spawn(three_steps, "b", "b"));
    assert_int_equal(coro_count(), 2);
    assert_null(loop_run());
    assert_str(buf_str(&trace), "a1 b1 a2 b2 a3 b3 ");
}

/* The calling convention wants frames on multiples of 16 bytes; vector instructions fault on others. */
static void look_at_frame(void *arg) {
    bool *aligned = arg;
    *aligned = (uintptr_t)__builtin_frame_address(0) % 16 == 0;
    _Alignas(16) volatile char local[16] = { 0 };
    *aligned = *aligned && (uintptr_t)local % 16 == 0 && !local[0];
}

static void test_stack_alignment(void **state) {
    (void)state;
    bool aligned = false;
    coro_spawn(look_at_frame, &aligned, "frame");
    assert_null(loop_run());
    assert_true(aligned);
}

/* Below the stack is a page nobody can touch: the kernel says so without our dying of it. */
static void look_below(void *arg) {
    int *fds = arg;
    const char *low = coro_self()->stack->low;
    assert_int_equal(write(fds[1], low, 1), 1);
    assert_int_equal(write(fds[1], low - 1, 1), -1);
    assert_int_equal(errno, EFAULT);
}

static void test_guard_page(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    coro_spawn(look_below, fds, "below");
    assert_null(loop_run());
    close(fds[0]);
    close(fds[1]);
}

/* --- descriptors --- */

struct pipe_case {
    int fds[2];
    int64_t wait_us;
    error result;
    struct coro *reader;
};

static void pipe_reader(void *arg) {
    struct pipe_case *p = arg;
    p->reader = coro_self();
    p->result = wait_readable(p->fds[0], deadline_in_us(p->wait_us));
    note("reader");
}

static void pipe_writer(void *arg) {
    struct pipe_case *p = arg;
    wait_until(deadline_in_us(2000));
    note("writer");
    assert_int_equal(write(p->fds[1], "x", 1), 1);
}

static void pipe_canceller(void *arg) {
    struct pipe_case *p = arg;
    wait_until(deadline_in_us(2000));
    coro_cancel(p->reader);
    coro_cancel(p->reader); /* once more does no harm */
}

static void pipe_closer(void *arg) {
    struct pipe_case *p = arg;
    wait_until(deadline_in_us(2000));
    close(p->fds[1]);
    p->fds[1] = -1;
}

static error pipe_run(void (*other)(void *arg), int64_t wait_us) {
    struct pipe_case p = { .wait_us = wait_us };
    assert_int_equal(pipe2(p.fds, O_NONBLOCK | O_CLOEXEC), 0);
    coro_spawn(pipe_reader, &p, "reader");
    if (other)
        coro_spawn(other, &p, "other");
    assert_null(loop_run());
    close(p.fds[0]);
    if (p.fds[1] >= 0)
        close(p.fds[1]);
    return p.result;
}

static void test_wait_readable(void **state) {
    (void)state;
    assert_null(pipe_run(pipe_writer, 60 * US_PER_S));
    assert_str(buf_str(&trace), "writer reader ");
}

static void test_wait_deadline(void **state) {
    (void)state;
    assert_ptr_equal(pipe_run(NULL, 3000), &err_timeout);
    assert_ptr_equal(pipe_run(NULL, -5), &err_timeout);
    assert_ptr_equal(pipe_run(pipe_writer, 0), &err_timeout);
}

static void test_wait_cancelled(void **state) {
    (void)state;
    assert_ptr_equal(pipe_run(pipe_canceller, 60 * US_PER_S), &err_cancelled);
}

static void test_wait_hang_up(void **state) {
    (void)state;
    assert_null(pipe_run(pipe_closer, 60 * US_PER_S));
}

/* A level-triggered event that nobody waits for must not keep the loop awake. */
static unsigned polls;

static int counting_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms) {
    polls++;
    return sys_real.epoll_wait(epfd, events, max, timeout_ms);
}

static void keeper(void *arg) {
    struct pipe_case *p = arg;
    wait_keep(p->fds[0]);
    wait_keep(p->fds[1]);
    assert_null(wait_readable(p->fds[0], DEADLINE_NEVER));
    assert_null(wait_writable(p->fds[1], DEADLINE_NEVER));
    /* a byte is there and stays there, the other end can be written; nobody cares for a while */
    polls = 0;
    assert_null(wait_until(deadline_in_us(50 * 1000)));
    assert_true(polls < 10);
    /* the same after a hang-up, which epoll reports whether asked for or not */
    wait_forget(p->fds[1]);
    close(p->fds[1]);
    char byte;
    assert_int_equal(read(p->fds[0], &byte, 1), 1);
    assert_null(wait_readable(p->fds[0], DEADLINE_NEVER));
    polls = 0;
    assert_null(wait_until(deadline_in_us(50 * 1000)));
    assert_true(polls < 10);
    /* and it is still found by who asks */
    assert_null(wait_readable(p->fds[0], DEADLINE_NEVER));
    wait_forget(p->fds[0]);
}

static void test_unwanted_events_do_not_spin(void **state) {
    (void)state;
    struct sys counting = sys_real;
    counting.epoll_wait = counting_epoll_wait;
    sys = &counting;
    struct pipe_case p = { .wait_us = 0 };
    assert_int_equal(pipe2(p.fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(write(p.fds[1], "x", 1), 1);
    coro_spawn(keeper, &p, "keeper");
    assert_null(loop_run());
    sys = &sys_real;
    close(p.fds[0]);
}

struct two_ways {
    int fd;
    unsigned read, written;
};

static void way_in(void *arg) {
    struct two_ways *t = arg;
    assert_null(wait_readable(t->fd, deadline_in(60)));
    t->read++;
    note("in");
}

static void way_out(void *arg) {
    struct two_ways *t = arg;
    assert_null(wait_writable(t->fd, deadline_in(60)));
    t->written++;
    note("out");
}

static void test_many_wait_on_one_descriptor(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct two_ways t = { .fd = fds[0] };
    coro_spawn(way_in, &t, "in 1");
    coro_spawn(way_in, &t, "in 2");
    coro_spawn(way_out, &t, "out");
    struct pipe_case p = { .fds = { -1, fds[1] } };
    coro_spawn(pipe_writer, &p, "writer");
    assert_null(loop_run());
    assert_str(buf_str(&trace), "out writer in in ");
    close(fds[0]);
    close(fds[1]);
}

static void on_regular_file(void *arg) {
    (void)arg;
    int fd = open("meson.build", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_null(wait_readable(fd, DEADLINE_NEVER));
    close(fd);
    error e = wait_readable(fd, DEADLINE_NEVER);
    assert_non_null(e);
    assert_int_equal(e->sys, EBADF);
    assert_int_equal(wait_readable(-1, DEADLINE_NEVER)->sys, EBADF);
}

static void test_odd_descriptors(void **state) {
    (void)state;
    coro_spawn(on_regular_file, NULL, "file");
    assert_null(loop_run());
}

/* The number of a closed descriptor comes again at once: what epoll knew of the old one must not be believed. */
static void reuse(void *arg) {
    (void)arg;
    for (int i = 0; i < 3; i++) {
        int fds[2];
        assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
        assert_ptr_equal(wait_readable(fds[0], deadline_in_us(500)), &err_timeout);
        assert_int_equal(write(fds[1], "x", 1), 1);
        assert_null(wait_readable(fds[0], deadline_in(60)));
        close(fds[0]);
        close(fds[1]);
    }
}

static void test_descriptor_numbers_come_again(void **state) {
    (void)state;
    coro_spawn(reuse, NULL, "reuse");
    assert_null(loop_run());
}

/* --- time --- */

struct sleeper {
    const char *name;
    int64_t at, woke;
};

static void sleep_until(void *arg) {
    struct sleeper *s = arg;
    assert_null(wait_until(s->at));
    s->woke = sys->mono_us();
    note(s->name);
}

static void test_timers_fire_in_order(void **state) {
    (void)state;
    fake_sys_install();
    struct sleeper s[] = {
        { .name = "c", .at = FAKE_MONO_START + 30 * US_PER_S },
        { .name = "a", .at = FAKE_MONO_START + 10 * US_PER_S },
        { .name = "e", .at = FAKE_MONO_START + 5 * 86400 * US_PER_S },
        { .name = "b1", .at = FAKE_MONO_START + 20 * US_PER_S },
        { .name = "b2", .at = FAKE_MONO_START + 20 * US_PER_S },
        { .name = "b3", .at = FAKE_MONO_START + 20 * US_PER_S },
        { .name = "past", .at = FAKE_MONO_START - 1 },
        { .name = "d", .at = FAKE_MONO_START + 30 * US_PER_S + 1 },
    };
    for (size_t i = 0; i < sizeof s / sizeof s[0]; i++)
        coro_spawn(sleep_until, &s[i], s[i].name);
    assert_null(loop_run());
    assert_str(buf_str(&trace), "past a b1 b2 b3 c d e ");
    for (size_t i = 0; i < sizeof s / sizeof s[0]; i++)
        if (s[i].at >= FAKE_MONO_START)
            assert_int_equal(s[i].woke, s[i].at);
    assert_int_equal(sys->wall_us() - FAKE_WALL_START, 5 * 86400 * US_PER_S);
    fake_sys_remove();
}

/* Timers taken out of the middle of the heap: each one left still fires at its own time. */
enum { HEAP_CORO_COUNT = 500 };

static void random_waiter(void *arg) {
    struct cond *never = arg;
    static uint32_t seed = 99;
    for (int i = 0; i < 10; i++) {
        seed = seed * 1664525 + 1013904223;
        int64_t at = sys->mono_us() + (seed >> 8) % 7000;
        error e = cond_wait(never, at);
        assert_true(e == NULL || (e == &err_timeout && sys->mono_us() == at));
        if (seed & 256)
            cond_signal(never);
    }
}

static void test_timer_heap(void **state) {
    (void)state;
    fake_sys_install();
    struct cond never = { 0 };
    for (int i = 0; i < HEAP_CORO_COUNT; i++)
        coro_spawn(random_waiter, &never, "waiter");
    assert_null(loop_run());
    assert_int_equal(loop.timer_count, 0);
    assert_null(never.first);
    fake_sys_remove();
}

static void clock_jumper(void *arg) {
    (void)arg;
    int64_t deadline = deadline_in(100);
    wait_until(deadline_in(10));
    fake_sys_step_wall(-86400 * US_PER_S); /* deadlines do not follow the wall clock */
    assert_null(wait_until(deadline));
    assert_int_equal(sys->mono_us(), deadline);
    fake_sys_advance(3600 * US_PER_S); /* the machine was asleep: late, but each timer fires once */
    note("late");
    assert_null(wait_until(deadline + US_PER_S));
    assert_int_equal(sys->mono_us(), deadline + 3600 * US_PER_S);
}

static void test_clock_jumps(void **state) {
    (void)state;
    fake_sys_install();
    coro_spawn(clock_jumper, NULL, "jumper");
    assert_null(loop_run());
    fake_sys_remove();
}

/* Data that lies there when the deadline has passed too: the peer was in time, we were late. */
static void late_reader(void *arg) {
    struct pipe_case *p = arg;
    int64_t deadline = deadline_in(5);
    assert_int_equal(write(p->fds[1], "x", 1), 1);
    fake_sys_advance(10 * US_PER_S);
    p->result = wait_readable(p->fds[0], deadline);
}

static void test_data_beat_the_deadline(void **state) {
    (void)state;
    fake_sys_install();
    struct pipe_case p = { .result = &err_eof };
    assert_int_equal(pipe2(p.fds, O_NONBLOCK | O_CLOEXEC), 0);
    coro_spawn(late_reader, &p, "late");
    assert_null(loop_run());
    assert_null(p.result);
    close(p.fds[0]);
    close(p.fds[1]);
    fake_sys_remove();
}

static void test_deadlines_saturate(void **state) {
    (void)state;
    assert_int_equal(deadline_in(INT64_MAX), DEADLINE_NEVER);
    assert_int_equal(deadline_in_us(DEADLINE_NEVER), DEADLINE_NEVER);
    assert_int_equal(deadline_in_us(INT64_MAX - 1), DEADLINE_NEVER);
    assert_true(deadline_in(INT64_MIN) < sys->mono_us());
    assert_true(deadline_in(0) <= sys->mono_us());
}

/* --- conditions --- */

enum { WAITERS_MAX = 4 };
enum leave { STAY, LEAVE_SELF, LEAVE_NEXT, LEAVE_ALL };

struct bystander {
    struct party *party;
    size_t index;
    struct coro *coro;
    error result;
    bool done;
};

struct party {
    struct cond cond;
    struct bystander who[WAITERS_MAX];
    size_t count;
    enum leave leave;
    bool signal_only;
};

/* Each one, when it is woken, does something to those that are woken or still waiting. */
static void party_waiter(void *arg) {
    struct bystander *b = arg;
    struct party *p = b->party;
    b->result = cond_wait(&p->cond, deadline_in(60));
    b->done = true;
    if (p->leave == LEAVE_NEXT && b->index + 1 < p->count && !p->who[b->index + 1].done)
        coro_cancel(p->who[b->index + 1].coro);
    if (p->leave == LEAVE_ALL)
        for (size_t i = 0; i < p->count; i++)
            if (!p->who[i].done)
                coro_cancel(p->who[i].coro);
    if (p->leave == LEAVE_SELF)
        coro_cancel(coro_self());
    /* wait again on the same condition while others are still being woken */
    error e = cond_wait(&p->cond, deadline_in(1));
    if (coro_cancelled())
        assert_ptr_equal(e, &err_cancelled);
}

static void party_host(void *arg) {
    struct party *p = arg;
    for (size_t i = 0; i < p->count; i++) {
        p->who[i] = (struct bystander){ .party = p, .index = i };
        p->who[i].coro = coro_spawn(party_waiter, &p->who[i], "waiter");
    }
    coro_yield();
    if (p->signal_only)
        cond_signal(&p->cond);
    else
        cond_broadcast(&p->cond);
    wait_until(deadline_in(100));
    if (p->signal_only)
        cond_broadcast(&p->cond);
}

static void test_broadcast_while_waiters_leave(void **state) {
    (void)state;
    fake_sys_install();
    for (size_t count = 0; count <= WAITERS_MAX; count++) {
        for (int leave = STAY; leave <= LEAVE_ALL; leave++) {
            for (int signal_only = 0; signal_only <= 1; signal_only++) {
                struct party p = { .count = count, .leave = (enum leave)leave, .signal_only = signal_only };
                coro_spawn(party_host, &p, "host");
                assert_null(loop_run());
                assert_null(p.cond.first);
                assert_null(p.cond.last);
                /* who was woken before it was cancelled keeps its signal */
                for (size_t i = 0; i < count; i++) {
                    assert_true(p.who[i].done);
                    if (!signal_only)
                        assert_null(p.who[i].result);
                }
                if (count > 0)
                    assert_null(p.who[0].result);
                if (count > 1 && signal_only && leave == LEAVE_NEXT)
                    assert_ptr_equal(p.who[1].result, &err_cancelled);
            }
        }
    }
    fake_sys_remove();
}

/* A waiter removed by another while it waits: its neighbours stay on the list, in order (0, 1 and 2 left). */
static void test_waiter_removed_by_another(void **state) {
    (void)state;
    fake_sys_install();
    for (size_t count = 1; count <= 3; count++) {
        for (size_t gone = 0; gone < count; gone++) {
            struct party p = { .count = count };
            for (size_t i = 0; i < count; i++) {
                p.who[i] = (struct bystander){ .party = &p, .index = i };
                p.who[i].coro = coro_spawn(party_waiter, &p.who[i], "waiter");
            }
            struct coro *first = loop.ready.first;
            assert_ptr_equal(first, p.who[0].coro);
            /* cancelled before it ever ran: its first wait says so */
            coro_cancel(p.who[gone].coro);
            coro_spawn(party_host, &(struct party){ .count = 0 }, "clock");
            assert_null(loop_run());
            for (size_t i = 0; i < count; i++)
                assert_ptr_equal(p.who[i].result, i == gone ? &err_cancelled : &err_timeout);
            assert_null(p.cond.first);
        }
    }
    fake_sys_remove();
}

static void signalled(void *arg) {
    struct bystander *b = arg;
    b->result = cond_wait(&b->party->cond, DEADLINE_NEVER);
    buf_printf(&trace, "%d ", (int)b->index);
}

static void signaller(void *arg) {
    struct party *p = arg;
    for (size_t i = 0; i < p->count; i++) {
        cond_signal(&p->cond);
        note("s");
        coro_yield();
    }
    cond_signal(&p->cond); /* nobody there: forgotten */
}

static void test_signal_wakes_in_order(void **state) {
    (void)state;
    struct party p = { .count = 3 };
    for (size_t i = 0; i < p.count; i++) {
        p.who[i] = (struct bystander){ .party = &p, .index = i };
        coro_spawn(signalled, &p.who[i], "waiter");
    }
    coro_spawn(signaller, &p, "signaller");
    assert_null(loop_run());
    assert_str(buf_str(&trace), "s 0 s 1 s 2 ");
}

/* --- cancellation --- */

static void shielded(void *arg) {
    struct pipe_case *p = arg;
    p->reader = coro_self();
    int old = coro_shield(1);
    assert_int_equal(old, 0);
    assert_null(wait_until(deadline_in(5))); /* cancelled meanwhile: goes on */
    assert_true(coro_cancelled());
    assert_int_equal(coro_shield(1), 1); /* nested */
    assert_null(wait_until(deadline_in(5)));
    coro_shield(1);
    coro_shield(old);
    p->result = wait_until(deadline_in(5));
    assert_ptr_equal(wait_readable(p->fds[0], DEADLINE_NEVER), &err_cancelled);
    static struct cond c;
    assert_ptr_equal(cond_wait(&c, DEADLINE_NEVER), &err_cancelled);
    assert_null(c.first);
    coro_yield(); /* not a wait: allowed, and comes back */
}

static void test_shield(void **state) {
    (void)state;
    fake_sys_install();
    struct pipe_case p = { .fds = { 0, 0 } };
    coro_spawn(shielded, &p, "shielded");
    coro_spawn(pipe_canceller, &p, "canceller");
    assert_null(loop_run());
    assert_ptr_equal(p.result, &err_cancelled);
    assert_int_equal(sys->mono_us() - FAKE_MONO_START, 10 * US_PER_S);
    fake_sys_remove();
}

struct team {
    struct group group;
    error waited;
};

static void member(void *arg) {
    struct team *t = arg;
    wait_until(deadline_in(10));
    group_leave(&t->group);
}

static void leader(void *arg) {
    struct team *t = arg;
    assert_null(group_wait(&t->group, DEADLINE_NEVER)); /* nobody in it */
    for (int i = 0; i < 3; i++) {
        group_enter(&t->group);
        coro_spawn(member, t, "member");
    }
    assert_ptr_equal(group_wait(&t->group, deadline_in(5)), &err_timeout);
    assert_int_equal(t->group.running, 3);
    t->waited = group_wait(&t->group, deadline_in(60));
}

static void test_group(void **state) {
    (void)state;
    fake_sys_install();
    struct team t = { .waited = &err_eof };
    coro_spawn(leader, &t, "leader");
    assert_null(loop_run());
    assert_null(t.waited);
    assert_int_equal(t.group.running, 0);
    fake_sys_remove();
}

/* --- many, and again --- */

enum { MANY = 10000 };

static void one_of_many(void *arg) {
    struct group *g = arg;
    wait_until(deadline_in(1));
    group_leave(g);
}

static void test_ten_thousand(void **state) {
    (void)state;
    fake_sys_install();
    struct group g = { 0 };
    for (int i = 0; i < MANY; i++) {
        group_enter(&g);
        if (!coro_spawn(one_of_many, &g, "one of many"))
            fail_msg("no stack for coroutine %d", i);
    }
    assert_int_equal(coro_count(), MANY);
    assert_null(loop_run());
    assert_int_equal(g.running, 0);
    assert_int_equal(sys->mono_us() - FAKE_MONO_START, US_PER_S);
    fake_sys_remove();
}

/* Leaves marks of its frames all over the stack, and goes at different depths: the next user of the stack must be able
 * to use all of it (under AddressSanitizer, red zones left behind would be found). */
static int dig(int depth) {
    volatile char hole[512];
    memset((char *)(uintptr_t)hole, depth, sizeof hole);
    if (depth == 0) {
        coro_yield();
        return hole[7];
    }
    return dig(depth - 1) + hole[depth % (int)sizeof hole];
}

static void digger(void *arg) {
    int *depth = arg;
    assert_int_equal(dig(*depth), *depth * (*depth + 1) / 2);
}

static void test_stacks_are_used_again(void **state) {
    (void)state;
    int depths[] = { 1, 40, 3, 60, 5, 2, 64, 10 };
    enum { DEPTHS = sizeof depths / sizeof depths[0] };
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < DEPTHS; i++)
            coro_spawn(digger, &depths[(i + round) % DEPTHS], "digger");
        assert_null(loop_run());
    }
}

/* A coroutine that is never resumed: its stack is given to another after loop_free(), which must not trip on its
 * frames. */
static void abandoned(void *arg) {
    (void)arg;
    volatile char frame[4096];
    memset((char *)(uintptr_t)frame, 1, sizeof frame);
    loop_stop();
    coro_yield();
    fail_msg("resumed at %d", frame[0]);
}

static void test_loop_stop_and_free(void **state) {
    (void)state;
    coro_spawn(abandoned, NULL, "abandoned");
    assert_null(loop_run());
    assert_int_equal(coro_count(), 1);
    loop_free();
    assert_null(loop_init());
    int depth = 60;
    coro_spawn(digger, &depth, "digger");
    assert_null(loop_run());
}

/* A descriptor that is always ready, and coroutines that wake each other without end, keep nobody else from running. */
static void greedy(void *arg) {
    struct pipe_case *p = arg;
    while (!p->result)
        if (wait_writable(p->fds[1], DEADLINE_NEVER))
            return;
}

static void yielder(void *arg) {
    struct pipe_case *p = arg;
    while (!p->result)
        coro_yield();
}

static void modest(void *arg) {
    struct pipe_case *p = arg;
    assert_null(wait_until(deadline_in_us(3000)));
    assert_null(wait_readable(p->fds[0], deadline_in(60)));
    p->result = &err_eof; /* the others stop */
}

static void late_writer(void *arg) {
    struct pipe_case *p = arg;
    assert_null(wait_until(deadline_in_us(6000)));
    assert_int_equal(write(p->fds[1], "x", 1), 1);
}

static void test_nobody_starves(void **state) {
    (void)state;
    struct pipe_case p = { .result = NULL };
    assert_int_equal(pipe2(p.fds, O_NONBLOCK | O_CLOEXEC), 0);
    coro_spawn(greedy, &p, "greedy");
    coro_spawn(yielder, &p, "yielder");
    coro_spawn(modest, &p, "modest");
    coro_spawn(late_writer, &p, "writer");
    assert_null(loop_run());
    close(p.fds[0]);
    close(p.fds[1]);
}

/* --- outside a coroutine --- */

static void test_waits_without_a_loop(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_ptr_equal(wait_readable(fds[0], deadline_in_us(1000)), &err_timeout);
    assert_null(wait_writable(fds[1], deadline_in(60)));
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_null(wait_readable(fds[0], DEADLINE_NEVER));
    int64_t at = deadline_in_us(2000);
    assert_null(wait_until(at));
    assert_true(sys->mono_us() >= at);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(wait_readable(fds[0], DEADLINE_NEVER)->sys, EBADF);
    coro_yield();
    assert_false(coro_cancelled());
}

/* --- epoll fails --- */

static int failing_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms) {
    (void)epfd, (void)events, (void)max, (void)timeout_ms;
    errno = polls++ < 3 ? EINTR : EINVAL;
    return -1;
}

static void test_epoll_failure(void **state) {
    (void)state;
    struct sys failing = sys_real;
    failing.epoll_wait = failing_epoll_wait;
    sys = &failing;
    polls = 0;
    struct sleeper s = { .name = "s", .at = deadline_in(1000) };
    coro_spawn(sleep_until, &s, "sleeper");
    error e = loop_run();
    sys = &sys_real;
    assert_non_null(e);
    assert_int_equal(e->sys, EINVAL);
    assert_int_equal(polls, 4);
    loop_free();
    assert_null(loop_init());
}

static void test_stack_marks(void **state) {
    (void)state;
    int depth = 30;
    coro_spawn(digger, &depth, "digger");
    assert_null(loop_run());
#ifdef CORO_STACK_MARKS
    assert_true(coro_stack_high_water() > 30 * 512 && coro_stack_high_water() < CORO_STACK_SANITIZED);
#else
    assert_int_equal(coro_stack_high_water(), 0);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CORO_TEST(test_yield_takes_turns),
        CORO_TEST(test_stack_alignment),
        CORO_TEST(test_guard_page),
        CORO_TEST(test_wait_readable),
        CORO_TEST(test_wait_deadline),
        CORO_TEST(test_wait_cancelled),
        CORO_TEST(test_wait_hang_up),
        CORO_TEST(test_unwanted_events_do_not_spin),
        CORO_TEST(test_many_wait_on_one_descriptor),
        CORO_TEST(test_odd_descriptors),
        CORO_TEST(test_descriptor_numbers_come_again),
        CORO_TEST(test_timers_fire_in_order),
        CORO_TEST(test_timer_heap),
        CORO_TEST(test_clock_jumps),
        CORO_TEST(test_data_beat_the_deadline),
        CORO_TEST(test_deadlines_saturate),
        CORO_TEST(test_broadcast_while_waiters_leave),
        CORO_TEST(test_waiter_removed_by_another),
        CORO_TEST(test_signal_wakes_in_order),
        CORO_TEST(test_shield),
        CORO_TEST(test_group),
        CORO_TEST(test_ten_thousand),
        CORO_TEST(test_stacks_are_used_again),
        CORO_TEST(test_loop_stop_and_free),
        CORO_TEST(test_nobody_starves),
        CORO_TEST(test_waits_without_a_loop),
        CORO_TEST(test_epoll_failure),
        CORO_TEST(test_stack_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
