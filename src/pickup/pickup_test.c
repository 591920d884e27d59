#include "test/test.h"

#include "pickup/pickup.h"
#include "proto/submit.h"
#include "queue/maildrop.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* pickup over a real directory, and a cleanup made up for the purpose that writes down what it is told. */

static struct {
    char dir[64];
    struct arena *a;
    struct conf *c;
    struct pickup p;
    struct buf told;
    int failed, connections;
    enum submit_status answer, refuse_open;
    int hang_up_after; /* messages on one connection; 0: never */
    bool mute;         /* hang up in the middle of each message */
    bool complete;     /* what the last scan said */
} t;

#define CHECK_COUNT t.failed
#include "test/check.h"
#define DEADLINE deadline_in(30)

struct connection {
    struct coro *coro;
    int messages;
};

static void take_message(void *ctx, struct submit_in *in) {
    struct connection *c = ctx;
    struct queue_id id = { "QID" };
    struct submit_record m;
    while (!submit_in_next(in, &m)) {
        struct unpack u = unpack_from(m.payload);
        struct envelope e;
        struct rcpt r;
        struct str name;
        switch (m.type) {
        case SUBMIT_MSG_OPEN:
            buf_printf(&t.told, "[%u", unpack_u32(&u));
            if (!t.refuse_open) {
                submit_in_opened(in, &id);
                break;
            }
            submit_in_result(in, &(struct submit_result){ .status = t.refuse_open });
            return;
        case SUBMIT_MSG_ENVELOPE:
            envelope_unpack(&u, &e);
            CHECK(e.arrival_us > 0);
            buf_printf(&t.told, " from=%.*s flags=%u ret=%u envid=%.*s", STR_ARG(e.sender), e.flags, e.dsn_ret,
                       STR_ARG(e.dsn_envid));
            if (!t.mute)
                break;
            coro_cancel(c->coro);
            while (!submit_in_next(in, &m))
                ;
            return;
        case SUBMIT_MSG_FULL_NAME:
            name = unpack_str(&u);
            buf_printf(&t.told, " name=%.*s", STR_ARG(name));
            break;
        case SUBMIT_MSG_RCPT:
            rcpt_unpack(&u, &r);
            buf_printf(&t.told, " rcpt=%.*s(%.*s)%u", STR_ARG(r.address), STR_ARG(r.orig), r.dsn_notify);
            break;
        case SUBMIT_MSG_CONTENT:
            buf_byte(&t.told, ' ');
            buf_add(&t.told, m.payload);
            break;
        case SUBMIT_MSG_END:
            buf_printf(&t.told, "]");
            submit_in_result(in, &(struct submit_result){ .status = t.answer, .id = id });
            if (++c->messages == t.hang_up_after)
                coro_cancel(c->coro);
            return;
        }
    }
}

static void cleanup(void *arg) {
    struct ipc *ipc = arg;
    struct connection c = { .coro = coro_self() };
    struct submit_server server = { .message = take_message, .ctx = &c, .held_max = SIZE_MAX };
    CHECK(submit_serve(&server, ipc) == NULL);
    ipc_close(ipc);
}

static error connect_cleanup(void *ctx, struct ipc **ret) {
    (void)ctx;
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    t.connections++;
    *ret = ipc_new(fds[0]);
    coro_spawn(cleanup, ipc_new(fds[1]), "cleanup");
    return NULL;
}

static void scan(void *arg) {
    (void)arg;
    t.complete = pickup_scan(&t.p);
    submit_link_close(t.p.cleanup);
    t.p.cleanup = NULL;
}

static void run(void) {
    buf_clear(&t.told);
    t.failed = t.connections = 0;
    assert_null(loop_init());
    assert_non_null(coro_spawn(scan, NULL, "pickup"));
    assert_null(loop_run());
    loop_free();
    assert_int_equal(t.failed, 0);
}

static int set_up(void **state) {
    (void)state;
    memset(&t, 0, sizeof t);
    strcpy(t.dir, "/tmp/angarium-pickup-XXXXXX");
    if (!mkdtemp(t.dir) || chdir(t.dir) < 0 || mkdir("maildrop", 0755) < 0 || mkdir("corrupt", 0755) < 0)
        return -1;
    const struct conf_override o[] = { { STR("myhostname"), STR("mx.example") },
                                       { STR("mail_name"), STR("Angarium") } };
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = o,
                                  .override_count = 2,
                                  .process_name = STR("pickup"),
                                  .service_name = STR("pickup"),
                                  .missing_is_empty = true };
    t.a = arena_new();
    if (conf_load(&source, t.a, &t.c) || pickup_open(&t.p, t.c, t.a))
        return -1;
    t.p.connect = connect_cleanup;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int tear_down(void **state) {
    (void)state;
    pickup_close(&t.p);
    conf_free(t.c);
    arena_free(t.a);
    buf_free(&t.told);
    return chdir("/") | nftw(t.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *name, struct str bytes, mode_t mode) {
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes.p, bytes.n), (ssize_t)bytes.n);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static bool there(const char *path) {
    return access(path, F_OK) == 0;
}

#define HEAD "\1\3\0\0\0a@b"
#define RCPT "\6\4\0\0\0\0c@d"
#define CONTENT "\7\6\0\0\0A: b\n\n"
#define END "\10\0\0\0\0"
static const struct str good = STR_INIT(HEAD RCPT CONTENT END);

static void test_good(void **state) {
    (void)state;
    put("maildrop/A1", STR(HEAD "\2\1\0\0\0N\3\1\0\0\0e\4\1\0\0\0\2\5\1\0\0\0\3" CONTENT "\6\4\0\0\0\2c@d" END),
        MAILDROP_READY);
    run();
    struct str told = buf_str(&t.told);
    char *want;
    assert_true(asprintf(&want,
                         "[%u from=a@b flags=3 ret=2 envid=e name=N Received: by mx.example (Angarium, from userid "
                         "%ld)\n\tid QID; ",
                         SUBMIT_FILTER | SUBMIT_MILTER | SUBMIT_MAP | SUBMIT_BOUNCE | SUBMIT_LOCAL_HEADERS,
                         (long)getuid()) > 0);
    if (!str_starts(told, str_c(want)))
        fail_msg("%.*s", STR_ARG(told));
    free(want);
    assert_true(str_ends(told, STR("\nA: b\n\n rcpt=c@d(c@d)2]")));
    assert_false(there("maildrop/A1"));

    put("maildrop/A2", STR("\1\0\0\0\0\5\1\0\0\0\4" RCPT END), MAILDROP_READY); /* a gateway's, without content */
    run();
    assert_true(str_starts(buf_str(&t.told), STR("[83 from= flags=0 ret=0 envid= rcpt=c@d(c@d)0 Received: ")));
    assert_false(there("maildrop/A2"));
}

static void test_many_on_one_connection(void **state) {
    (void)state;
    char name[32];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "maildrop/B%d", i);
        put(name, good, MAILDROP_READY);
    }
    run();
    assert_int_equal(t.connections, 1);
    assert_false(there("maildrop/B0") || there("maildrop/B19"));
    /* a cleanup process that ends between two messages costs nothing but a new connection */
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "maildrop/B%d", i);
        put(name, good, MAILDROP_READY);
    }
    t.hang_up_after = 2;
    run();
    assert_int_equal(t.connections, 3);
    assert_false(there("maildrop/B0") || there("maildrop/B5"));
}

/* What is no message, or not yet, is not taken; what is bad does not stand in the way of the others. */
static void test_bad_files(void **state) {
    (void)state;
    put("maildrop/C1", good, MAILDROP_UNFINISHED);
    put("maildrop/C2", STR("garbage"), MAILDROP_READY);
    put("maildrop/C3", STR(HEAD RCPT CONTENT), MAILDROP_READY); /* cut off */
    put("maildrop/C4", STR(HEAD "\6\4\0\0\0\0c\nd" CONTENT END), MAILDROP_READY);
    put("maildrop/C5", STR(""), MAILDROP_READY);
    put("maildrop/C6", good, MAILDROP_READY);
    put("maildrop/not-a-queue-id", good, MAILDROP_READY);
    put("elsewhere", good, MAILDROP_READY);
    assert_int_equal(symlink("../elsewhere", "maildrop/C7"), 0);
    assert_int_equal(mkfifo("maildrop/C8", 0744), 0);
    assert_int_equal(mkdir("maildrop/C9", 0755), 0);
    run();
    assert_true(there("maildrop/C1"));
    assert_true(there("corrupt/C2") && there("corrupt/C3") && there("corrupt/C4") && there("corrupt/C5"));
    assert_false(there("maildrop/C2") || there("maildrop/C6"));
    assert_true(there("maildrop/not-a-queue-id") && there("elsewhere") && there("maildrop/C8") && there("maildrop/C9"));
    size_t messages = 0;
    for (size_t i = 0; i < t.told.n; i++)
        messages += t.told.p[i] == ']';
    assert_int_equal(messages, 1);

    /* a writer that has been gone for a day leaves nothing behind */
    const struct timespec old[2] = { { 1000000000, 0 }, { 1000000000, 0 } };
    assert_int_equal(utimensat(AT_FDCWD, "maildrop/C1", old, 0), 0);
    run();
    assert_false(there("maildrop/C1"));
}

/* Nothing is removed before cleanup says that it has it. */
static void test_refusals(void **state) {
    (void)state;
    static const enum submit_status kept[] = { SUBMIT_TEMP, SUBMIT_NO_SPACE, SUBMIT_NO_RCPT };
    put("maildrop/D1", good, MAILDROP_READY);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        t.answer = kept[i];
        run();
        assert_true(there("maildrop/D1"));
        t.answer = SUBMIT_OK;
        t.refuse_open = kept[i];
        run();
        assert_true(there("maildrop/D1"));
        t.refuse_open = SUBMIT_OK;
    }
    assert_true(t.complete);
    t.mute = true;
    run();
    assert_true(there("maildrop/D1"));
    assert_false(t.complete); /* worth another try soon */
    t.mute = false;
    t.answer = SUBMIT_BAD;
    run();
    assert_true(there("corrupt/D1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_on_one_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
