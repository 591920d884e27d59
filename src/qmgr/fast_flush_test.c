/* What flush is told of deferred mail, and what qmgr does with the ids that come back. */
#include "queue/spool_test_util.h"

#include "base/log.h"
#include "proto/flush.h"
#include "qmgr/qmgr.h"
#include "test/fake_sys.h"
#include <errno.h>
#include <sys/socket.h>

static struct {
    struct test_queue dir;
    struct conf *conf;
    struct spool *reader;
    struct qmgr *q;
    struct group work;
    void (*script)(void);
    struct buf log, told; /* "site: id id\n" for each frame, in order */
    int failed;
    unsigned connections, frames;
    bool down, hang_up_once, deaf;
    size_t ids;
    struct cond release;
} t;

#define CHECK_COUNT t.failed
#include "test/check.h"

static void flush_run(void *arg) {
    struct ipc *ipc = arg;
    struct ipc_msg m = { .fd = -1 };
    struct flush_request r;
    struct queue_id id;
    while (t.deaf)
        cond_wait(&t.release, DEADLINE_NEVER);
    for (bool first = true; !ipc_recv(ipc, DEADLINE_NEVER, &m); first = false) {
        CHECK(flush_unpack(&m, &r) && (r.type == FLUSH_MSG_HELLO) == first);
        if (first)
            continue;
        t.frames++;
        t.ids += r.count;
        if (t.told.n < 1000) {
            buf_printf(&t.told, "%.*s:", STR_ARG(r.site));
            while (flush_next_id(&r, &id))
                buf_printf(&t.told, " %s", id.text);
            buf_byte(&t.told, '\n');
        }
        if (t.hang_up_once)
            break;
    }
    t.hang_up_once = false;
    ipc_msg_drop(&m);
    ipc_close(ipc);
}

static error fake_connect(void *ctx, struct str endpoint, int64_t deadline, struct ipc **ret) {
    (void)ctx;
    (void)deadline;
    CHECK(str_eq(endpoint, STR("public/flush")));
    if (t.down)
        return err_errno(ECONNREFUSED);
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    t.connections++;
    *ret = ipc_new(fds[0]);
    CHECK(coro_spawn(flush_run, ipc_new(fds[1]), "flush"));
    return NULL;
}

static error no_resolve(void *ctx, struct arena *a, struct str sender, struct str recipient, struct route *ret) {
    (void)ctx, (void)a, (void)sender, (void)recipient, (void)ret;
    return err_errno(EAGAIN);
}

static unsigned no_limit(void *ctx, struct str transport) {
    (void)ctx, (void)transport;
    return 0;
}

static void keep_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag;
    buf_add(&t.log, text);
    buf_byte(&t.log, '\n');
}

static size_t logged(const char *what) {
    size_t n = 0;
    struct str rest = buf_str(&t.log), line;
    while (str_next(&rest, STR("\n"), &line))
        n += str_contains(line, str_c(what));
    return n;
}

static void run_main(void *arg) {
    (void)arg;
    t.script();
    group_wait(&t.work, DEADLINE_NEVER);
    qmgr_free(t.q); /* then flush sees the end of its connection, and the loop ends */
}

static void play(void (*script)(void), const char *eligible) {
    memset(&t, 0, sizeof t);
    fake_sys_install();
    t.dir = test_queue_new();
    t.script = script;
    const struct conf_override o[] = { { STR("fast_flush_domains"), str_c(eligible) } };
    struct conf_source source = {
        .config_directory = STR("/nonexistent"), .overrides = o, .override_count = 1, .missing_is_empty = true
    };
    assert_null(conf_load(&source, t.dir.arena, &t.conf));
    t.reader = test_spool(&t.dir, SPOOL_READER);
    struct qmgr_outside outside = { fake_connect, no_resolve, NULL, no_limit, NULL };
    t.q = qmgr_new(t.conf, t.reader, &outside, &t.work);
    log_set_sink(keep_log, NULL);
    assert_null(loop_init());
    assert_non_null(coro_spawn(run_main, NULL, "main"));
    assert_null(loop_run());
    loop_free();
    log_set_sink(NULL, NULL);
    spool_close(t.reader);
    conf_free(t.conf);
    if (t.failed)
        print_error("told:\n%.*slog:\n%.*s", STR_ARG(buf_str(&t.told)), STR_ARG(buf_str(&t.log)));
    buf_free(&t.log);
    buf_free(&t.told);
    test_queue_free(&t.dir);
    fake_sys_remove();
    assert_int_equal(t.failed, 0);
}

/* A message that was deferred for the recipients in `to`. */
static void deferred(const char *id, const char *to) {
    struct arena *a = arena_new();
    struct message m = { .q = t.q, .arena = a };
    CHECK(queue_id_from(str_c(id), &m.id));
    struct str rest = str_c(to), word;
    while (str_word(&rest, STR(" "), &word))
        fast_flush_rcpt(&m, word);
    fast_flush_add(&m);
    arena_free(a);
}

static void settle(void) {
    group_wait(&t.work, DEADLINE_NEVER);
    for (int i = 0; i < 20; i++)
        coro_yield();
}

static bool told(const char *what) {
    bool same = str_eq(buf_str(&t.told), str_c(what));
    if (!same)
        print_error("told \"%.*s\", not \"%s\"\n", STR_ARG(buf_str(&t.told)), what);
    buf_clear(&t.told);
    return same;
}

static void tells_script(void) {
    deferred("AAAA1", "u@other.example v");
    settle();
    CHECK(t.connections == 0 && told(""));
    deferred("AAAA1", "u@relay.example w@RELAY.Example x@sub.relay.example y@other.example z@relay.example");
    deferred("AAAA2", "\"a@b\"@relay.example");
    deferred("AAAA3", "");
    settle();
    CHECK(told("relay.example: AAAA1 AAAA2\nsub.relay.example: AAAA1\n"));
    deferred("AAAA4", "x@relay.example");
    settle();
    CHECK(told("relay.example: AAAA4\n") && t.connections == 1);
}
static void tells(void **state) {
    (void)state;
    play(tells_script, "relay.example");
}

/* Of one message for very many sites some are enough to find it by. */
static void many_sites_script(void) {
    struct buf to = { 0 };
    for (int i = 0; i < 1000; i++)
        buf_printf(&to, "u@x%d.relay.example ", i);
    deferred("AAAA1", to.p);
    settle();
    CHECK(t.frames == 100 && t.ids == 100);
    buf_free(&to);
}
static void many_sites(void **state) {
    (void)state;
    play(many_sites_script, "relay.example");
}

static void off_script(void) {
    deferred("AAAA1", "u@relay.example");
    settle();
    CHECK(t.connections == 0 && t.log.n == 0);
}
static void off(void **state) {
    (void)state;
    play(off_script, " ,");
}

static void broken_table_script(void) {
    deferred("AAAA1", "u@relay.example v@other.example");
    settle();
    CHECK(t.connections == 0 && logged("fast flush: fast_flush_domains: ") == 1);
}
static void broken_table(void **state) {
    (void)state;
    play(broken_table_script, "hash:/nonexistent/angarium/table");
}

/* flush is not there, or was ended in the meantime. */
static void trouble_script(void) {
    t.down = true;
    deferred("AAAA1", "u@relay.example");
    settle();
    deferred("AAAA2", "u@relay.example");
    settle();
    CHECK(logged("fast flush: connect to the flush service: Connection refused") == 1);
    t.down = false;
    t.hang_up_once = true;
    deferred("AAAA3", "u@relay.example");
    settle();
    CHECK(told("relay.example: AAAA3\n") && t.connections == 1);
    deferred("AAAA4", "u@relay.example");
    settle();
    CHECK(told("relay.example: AAAA4\n") && t.connections == 2);
    fake_sys_advance(61 * US_PER_S);
    CHECK(logged("fast flush:") == 1);
}
static void trouble(void **state) {
    (void)state;
    play(trouble_script, "relay.example");
}

/* It hangs: what waits for it is bounded, and frames are no larger than allowed. */
enum { MANY = 130 * 1000 };
static void slow_script(void) {
    t.deaf = true;
    deferred("AAAA0", "u@relay.example");
    for (int i = 0; i < 20; i++) /* the first is on its way */
        coro_yield();
    for (int i = 0; i < MANY; i++) {
        char id[20];
        snprintf(id, sizeof id, "%X", 0x100000 + i);
        deferred(id, "u@relay.example");
    }
    CHECK(logged("fast flush: the flush service is too slow") == 1);
    t.deaf = false;
    cond_broadcast(&t.release);
    settle();
    CHECK(t.ids == 1 + 100 * 1000 && t.frames == 1 + 100 * 1000 / FLUSH_ADD_MAX);
}
static void slow(void **state) {
    (void)state;
    play(slow_script, "relay.example");
}

/* --- ids that come back --- */
static bool last_in;
static void want_all(void *arg) {
    (void)arg;
    struct queue_id id = { "AAAA1" };
    for (int i = 0; i < FEED_NOTICES_MAX; i++)
        CHECK(!feed_deferred_id(t.q, &id, true));
    last_in = true;
    group_leave(&t.work);
}
static void feeder(void *arg) {
    (void)arg;
    feed_run(t.q);
    group_leave(&t.work);
}
/* More ids than qmgr remembers wait their turn, and leave room for new mail. */
static void ids_wait_script(void) {
    last_in = false;
    group_enter(&t.work);
    coro_spawn(want_all, NULL, "want");
    for (int i = 0; i < 100; i++)
        coro_yield();
    CHECK(!last_in && t.q->want_count == FEED_NOTICES_MAX / 2);
    struct queue_id id = { "BBBB1" };
    feed_notice(t.q, &id, SPOOL_INCOMING);
    CHECK(t.q->want_count == FEED_NOTICES_MAX / 2 + 1);
    group_enter(&t.work);
    coro_spawn(feeder, NULL, "feeder");
    for (int i = 0; i < 3 * FEED_NOTICES_MAX && (!last_in || t.q->want_count); i++)
        coro_yield();
    CHECK(last_in && t.q->want_count == 0);
    feed_drain(t.q);
}
static void ids_wait(void **state) {
    (void)state;
    play(ids_wait_script, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells),        cmocka_unit_test(many_sites), cmocka_unit_test(off),
        cmocka_unit_test(broken_table), cmocka_unit_test(trouble),    cmocka_unit_test(slow),
        cmocka_unit_test(ids_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
