/* pair.h - the two ends of a conversation over frames, each in a coroutine of its own. For tests whose CHECK_COUNT is
 * `failed` (test/check.h), and which have included run/ipc.h, run/coro.h and sys/socket.h. */
#ifndef ANGARIUM_TEST_PAIR_H
#define ANGARIUM_TEST_PAIR_H

#define DEADLINE deadline_in(30)

static struct ipc *client, *server; /* an end that closes its own sets it to NULL */

static void run_pair(void (*near)(void *), void (*far)(void *), void *arg) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_null(loop_init());
    failed = 0;
    client = ipc_new(fds[0]);
    server = ipc_new(fds[1]);
    assert_non_null(coro_spawn(near, arg, "near"));
    assert_non_null(coro_spawn(far, arg, "far"));
    assert_null(loop_run());
    ipc_close(client);
    ipc_close(server);
    loop_free();
    assert_int_equal(failed, 0);
}

#endif
