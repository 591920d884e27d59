/* Unit tests of service/lookup_client: connections to the look-up process, which is played here. */
#include "service/lookup_client.h"

#include "proto/lookup.h"
#include "test/test.h"
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ASKERS = 40, OF_ONE_TABLE = 16 };

static struct {
    unsigned connections, hanging, most_hanging, deaths;
    struct str last_endpoint;
    bool refuses;
    struct cond released;
    bool is_released;
} server;

/* "hang:x" waits until it is released, "die:x" ends the process once; others have their own key. */
static void serve(void *arg) {
    struct ipc *ipc = arg;
    struct ipc_msg m = { .fd = -1 };
    struct table_question q;
    while (!ipc_recv(ipc, deadline_in(60), &m) && !lookup_read(&m, &q)) {
        if (str_eq(q.spec, STR("die:x")) && server.deaths > 0) {
            server.deaths--;
            break;
        }
        struct buf value = { 0 };
        buf_add(&value, q.key);
        if (str_eq(q.spec, STR("hang:x"))) {
            if (++server.hanging > server.most_hanging)
                server.most_hanging = server.hanging;
            while (!server.is_released && !cond_wait(&server.released, deadline_in(60)))
                ;
            server.hanging--;
        }
        error e = lookup_answer(ipc, deadline_in(60), TABLE_FOUND, STR(""), buf_str(&value), STR(""));
        buf_free(&value);
        if (e)
            break;
    }
    ipc_msg_drop(&m);
    ipc_close(ipc);
}

/* In place of the one that asks master. */
error service_connect(struct service_ctx *ctx, struct str endpoint, int64_t deadline, struct ipc **ret) {
    (void)ctx, (void)deadline;
    int pair[2];
    if (server.refuses)
        return err_errno(ECONNREFUSED);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return err_errno(errno);
    server.connections++;
    server.last_endpoint = endpoint;
    if (!coro_spawn(serve, ipc_new(pair[1]), "server"))
        return err_errno(EAGAIN);
    *ret = ipc_new(pair[0]);
    return NULL;
}

static struct service_ctx ctx;
static unsigned hung_answers;

static enum table_result ask(const char *spec, unsigned flags, const char *key, struct arena *a, struct str *ret) {
    struct table *t = table_open(ctx.conf, str_c(spec), flags);
    enum table_result r = table_get(t, str_c(key), a, ret);
    *ret = r == TABLE_ERROR ? arena_str(a, table_error(t)->text) : *ret;
    table_close(t);
    return r;
}

static void ask_what_hangs(void *arg) {
    struct arena *a = arena_new();
    struct str value;
    (void)arg;
    hung_answers += ask("proxy:hang:x", 0, "k", a, &value) == TABLE_FOUND && str_eq(value, STR("k"));
    arena_free(a);
}

static void ask_all(void *arg) {
    struct arena *a = arg;
    struct str value;
    /* one connection, kept */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask("proxy:live:x", 0, "key", a, &value), TABLE_FOUND);
        assert_str(value, "key");
    }
    assert_int_equal(server.connections, 1);
    assert_str(server.last_endpoint, "private/proxymap");
    assert_int_equal(ask("proxy:live:x", TABLE_WRITE, "key", a, &value), TABLE_FOUND);
    assert_str(server.last_endpoint, "private/writer");
    assert_int_equal(server.connections, 2);
    /* the process behind the kept one ends, and the next one, too */
    server.deaths = 2;
    assert_int_equal(ask("proxy:die:x", 0, "key", a, &value), TABLE_FOUND);
    assert_int_equal(server.deaths, 0);
    server.deaths = 10; /* not for ever */
    assert_int_equal(ask("proxy:die:x", 0, "key", a, &value), TABLE_ERROR);
    assert_true(server.deaths > 0);
    server.deaths = 0;
    /* there is none */
    server.refuses = true;
    assert_int_equal(ask("proxy:live:x", 0, "key", a, &value), TABLE_ERROR);
    assert_true(str_starts(value, STR("private/proxymap service: ")));
    server.refuses = false;
    /* a table that hangs leaves room for the others */
    for (int i = 0; i < ASKERS; i++)
        assert_non_null(coro_spawn(ask_what_hangs, NULL, "asker"));
    while (server.hanging < OF_ONE_TABLE)
        assert_null(wait_until(deadline_in_us(1000)));
    assert_int_equal(ask("proxy:live:x", 0, "key", a, &value), TABLE_FOUND);
    assert_int_equal(hung_answers, 0);
    server.is_released = true;
    cond_broadcast(&server.released);
    while (hung_answers < ASKERS)
        assert_null(wait_until(deadline_in_us(1000)));
    assert_int_equal(server.most_hanging, OF_ONE_TABLE);
    lookup_client_stop();
}

static void connections(void **state) {
    (void)state;
    static const struct conf_override o[] = { { STR_INIT("proxywrite_service_name"), STR_INIT("writer") } };
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = o,
                                  .override_count = 1,
                                  .process_name = STR("test"),
                                  .missing_is_empty = true };
    struct arena *a = arena_new();
    struct str value;
    assert_null(conf_load(&source, a, &ctx.conf));
    lookup_client_start(&ctx);
    assert_int_equal(ask("proxy:live:x", 0, "key", a, &value), TABLE_ERROR);
    assert_str(value, "asked before the service was up");
    assert_null(loop_init());
    assert_non_null(coro_spawn(ask_all, a, "all"));
    assert_null(loop_run());
    loop_free();
    conf_free(ctx.conf);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(connections) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
