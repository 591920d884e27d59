#include "test/test.h"

#include "run/loop.h"
#include "test/fake_sys.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static int set_up(void **state) {
    (void)state;
    return loop_init() != NULL;
}

static int tear_down(void **state) {
    (void)state;
    bool left = coro_count() > 0;
    loop_free();
    offload_set_threads(8);
    return left;
}

#define OFFLOAD_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* --- blocking calls in threads --- */

/* Everything here happens in an order that the jobs enforce by a gate, not by time. */
static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_moved = PTHREAD_COND_INITIALIZER;
static bool gate_open;
static unsigned at_gate, most_at_gate, jobs_ended;
static pthread_t loop_thread;

static void gate_reset(void) {
    gate_open = false;
    at_gate = most_at_gate = jobs_ended = 0;
    loop_thread = pthread_self();
}

static void pass_gate(void *arg) {
    unsigned *value = arg;
    pthread_mutex_lock(&gate_lock);
    if (++at_gate > most_at_gate)
        most_at_gate = at_gate;
    pthread_cond_broadcast(&gate_moved);
    while (!gate_open)
        pthread_cond_wait(&gate_moved, &gate_lock);
    at_gate--;
    jobs_ended++;
    pthread_mutex_unlock(&gate_lock);
    *value = pthread_equal(pthread_self(), loop_thread) ? 2 : 1;
}

static void open_gate(void) {
    pthread_mutex_lock(&gate_lock);
    gate_open = true;
    pthread_cond_broadcast(&gate_moved);
    pthread_mutex_unlock(&gate_lock);
}

static void await_at_gate(unsigned n) {
    pthread_mutex_lock(&gate_lock);
    while (at_gate < n)
        pthread_cond_wait(&gate_moved, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
}

static void worker(void *arg) {
    offload(pass_gate, arg);
    assert_int_equal(*(unsigned *)arg, 1);
}

static void opener(void *arg) {
    await_at_gate(*(unsigned *)arg); /* this coroutine runs although the others' calls block */
    open_gate();
}

static void test_offload(void **state) {
    (void)state;
    enum { JOBS = 50 };
    static unsigned values[JOBS];
    unsigned threads = 4;
    gate_reset();
    memset(values, 0, sizeof values);
    offload_set_threads(threads);
    for (int i = 0; i < JOBS; i++)
        coro_spawn(worker, &values[i], "worker");
    coro_spawn(opener, &threads, "opener");
    assert_null(loop_run());
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(values[i], 1);
    assert_int_equal(jobs_ended, JOBS);
    assert_int_equal(most_at_gate, threads);
    assert_int_equal(offload_busy(), 0);
}

static void test_offload_outside(void **state) {
    (void)state;
    unsigned value = 0;
    gate_reset();
    gate_open = true;
    offload(pass_gate, &value);
    assert_int_equal(value, 2);
}

struct nice_job {
    int nice;
    pthread_t thread;
};
static void note_nice(void *arg) {
    struct nice_job *j = arg;
    j->nice = getpriority(PRIO_PROCESS, 0);
    j->thread = pthread_self();
}
static void run_nice(void *arg) {
    struct nice_job *both = arg;
    offload(note_nice, &both[0]);
    offload_low(note_nice, &both[1]);
    offload_low(note_nice, &both[2]);
}

static void test_offload_low(void **state) {
    (void)state;
    struct nice_job jobs[3] = { { .nice = 99 }, { .nice = 99 }, { .nice = 99 } };
    int ours = getpriority(PRIO_PROCESS, 0);
    coro_spawn(run_nice, jobs, "nice");
    assert_null(loop_run());
    assert_int_equal(jobs[0].nice, ours);
    assert_true(jobs[1].nice > ours || ours == 19);
    assert_true(jobs[1].thread == jobs[2].thread && jobs[1].thread != jobs[0].thread);
    assert_true(jobs[1].thread != pthread_self());
    assert_int_equal(getpriority(PRIO_PROCESS, 0), ours);
    jobs[0].nice = 99;
    offload_low(note_nice, &jobs[0]); /* outside a coroutine: at once */
    assert_int_equal(jobs[0].nice, ours);
    assert_int_equal(offload_busy(), 0);
}

struct cancelled_job {
    unsigned value;
    struct coro *coro;
    error after;
    bool ended;
};

static void cancelled_worker(void *arg) {
    struct cancelled_job *j = arg;
    offload(pass_gate, &j->value); /* writes into our memory: must be over when this returns */
    assert_int_equal(j->value, 1);
    j->after = wait_until(deadline_in(10));
    j->ended = true;
}

static void job_canceller(void *arg) {
    struct cancelled_job *j = arg;
    await_at_gate(1);
    coro_cancel(j->coro);
    for (int i = 0; i < 20; i++)
        coro_yield();
    assert_false(j->ended);
    open_gate();
}

static void test_offload_cancelled(void **state) {
    (void)state;
    gate_reset();
    struct cancelled_job j = { .value = 0 };
    j.coro = coro_spawn(cancelled_worker, &j, "worker");
    coro_spawn(job_canceller, &j, "canceller");
    assert_null(loop_run());
    assert_true(j.ended);
    assert_ptr_equal(j.after, &err_cancelled);
}

/* With a fake clock, time stands still while a call is in a thread: a deadline cannot pass meanwhile. */
static void clocked_worker(void *arg) {
    unsigned *value = arg;
    int64_t before = sys->mono_us();
    offload(pass_gate, value);
    assert_int_equal(sys->mono_us(), before);
}

static void sleep_a_moment(void *arg) {
    (void)arg;
    usleep(20 * 1000);
    open_gate();
}

static void impatient(void *arg) {
    (void)arg;
    assert_null(wait_until(deadline_in(1)));
}

static void moment(void *arg) {
    offload(sleep_a_moment, arg);
}

static void test_offload_and_fake_clock(void **state) {
    (void)state;
    fake_sys_install();
    gate_reset();
    unsigned value = 0;
    coro_spawn(impatient, NULL, "impatient");
    coro_spawn(clocked_worker, &value, "worker");
    coro_spawn(moment, NULL, "moment");
    assert_null(loop_run());
    assert_int_equal(value, 1);
    fake_sys_remove();
}

/* loop_free() ends the threads, loop_init() begins anew. */
static void test_offload_again(void **state) {
    for (int i = 0; i < 3; i++) {
        test_offload(state);
        loop_free();
        assert_null(loop_init());
    }
}

/* --- signals --- */

static int seen[NSIG];
static bool in_coroutine;

static void on_signal(int signo, void *arg) {
    seen[signo]++;
    in_coroutine = coro_self() != NULL;
    if (arg)
        cond_broadcast(arg);
}

static struct cond signalled;

static void signal_waiter(void *arg) {
    (void)arg;
    raise(SIGUSR1); /* comes when the loop looks, not here */
    assert_int_equal(seen[SIGUSR1], 0);
    raise(SIGUSR2);
    raise(SIGUSR2); /* the same one twice is one */
    assert_null(cond_wait(&signalled, deadline_in(20)));
    assert_int_equal(seen[SIGUSR1], 1);
    assert_int_equal(seen[SIGUSR2], 1);
    assert_false(in_coroutine);
    raise(SIGUSR1);
    assert_null(cond_wait(&signalled, deadline_in(20)));
    assert_int_equal(seen[SIGUSR1], 2);
}

static void test_signals(void **state) {
    (void)state;
    memset(seen, 0, sizeof seen);
    assert_null(loop_on_signal(SIGUSR1, on_signal, &signalled));
    assert_null(loop_on_signal(SIGUSR2, on_signal, NULL));
    assert_non_null(loop_on_signal(0, on_signal, NULL));
    assert_non_null(loop_on_signal(NSIG, on_signal, NULL));
    coro_spawn(signal_waiter, NULL, "waiter");
    assert_null(loop_run());
    /* a peer that has gone does not end us */
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    assert_int_equal(write(fds[1], "x", 1), -1);
    close(fds[1]);
    /* after the loop the signals are as before */
    loop_free();
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    assert_false(sigismember(&mask, SIGUSR1));
    assert_null(loop_init());
}

static void stop_on_signal(int signo, void *arg) {
    (void)signo, (void)arg;
    loop_stop();
}

static void raiser(void *arg) {
    (void)arg;
    raise(SIGTERM);
    coro_shield(1);
    static struct cond never;
    cond_wait(&never, deadline_in(3600));
}

static void test_signal_stops_the_loop(void **state) {
    (void)state;
    assert_null(loop_on_signal(SIGTERM, stop_on_signal, NULL));
    coro_spawn(raiser, NULL, "raiser");
    assert_null(loop_run());
    assert_int_equal(coro_count(), 1);
    loop_free();
    assert_null(loop_init());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OFFLOAD_TEST(test_offload),
        OFFLOAD_TEST(test_offload_low),
        OFFLOAD_TEST(test_offload_outside),
        OFFLOAD_TEST(test_offload_cancelled),
        OFFLOAD_TEST(test_offload_and_fake_clock),
        OFFLOAD_TEST(test_offload_again),
        OFFLOAD_TEST(test_signals),
        OFFLOAD_TEST(test_signal_stops_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
