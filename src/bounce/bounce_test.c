#include "test/test.h"

#include "base/log.h"
#include "bounce/bounce.h"
#include "mail/dsn.h"
#include "proto/submit_fake.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char dir[] = "/tmp/bounce_test_XXXXXX";

static struct {
    struct arena *arena;
    struct service_ctx ctx;
    struct ipc *ends[2];
    struct bounce_request req;
    struct spool_failure rcpts[4];
    struct fake_cleanup cleanup;
    struct buf log;
    enum bounce_status status;
    struct queue_id notice;
    error failed;
} t;

static void keep_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx;
    (void)tag;
    (void)level;
    buf_add(&t.log, text);
    buf_byte(&t.log, '\n');
}

static void serve(void *arg) {
    (void)arg;
    bounce_serve(&t.ctx, t.ends[1]);
    fake_cleanup_stop(&t.cleanup);
}
static void ask(void *arg) {
    (void)arg;
    t.failed = bounce_send(t.ends[0], &t.req, deadline_in(60), &t.status, &t.notice);
    ipc_close(t.ends[0]);
}

static struct str bounce_limit = STR_INIT("100"), message_limit = STR_INIT("10240000");

static void begin(enum bounce_kind kind, const char *sender, size_t count, const char *classes) {
    memset(&t, 0, sizeof(t));
    t.arena = arena_new();
    const struct conf_override o[] = {
        { STR("notify_classes"), str_c(classes) },    { STR("myhostname"), STR("mx.example") },
        { STR("myorigin"), STR("example") },          { STR("bounce_size_limit"), bounce_limit },
        { STR("message_size_limit"), message_limit },
    };
    struct conf_source source = { .config_directory = STR("/nonexistent/angarium"),
                                  .overrides = o,
                                  .override_count = sizeof(o) / sizeof(*o),
                                  .process_name = STR("bounce"),
                                  .service_name = STR("bounce"),
                                  .missing_is_empty = true };
    assert_null(conf_load(&source, t.arena, &t.ctx.conf));
    t.ctx.standalone = true;
    assert_null(bounce_init(&t.ctx, t.arena));
    t.req = (struct bounce_request){ .kind = kind, .rcpts = t.rcpts, .rcpt_count = count };
    memcpy(t.req.id.text, "OLD1", 5);
    t.req.env.sender = str_c(sender);
    for (size_t i = 0; i < count; i++)
        t.rcpts[i] =
            (struct spool_failure){ .address = STR("r@x.example"), .status = STR("5.1.1"), .reason = STR("no") };
    t.rcpts[0].address = STR("first@x.example");
}

static void run(const char *content) {
    t.req.content.fd = memfd_create("content", MFD_CLOEXEC);
    t.req.content.offset = 7;
    t.req.content.size = strlen(content);
    assert_int_equal(pwrite(t.req.content.fd, content, strlen(content), 7), (ssize_t)strlen(content));
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    log_set_sink(keep_log, NULL);
    assert_null(loop_init());
    t.ends[0] = ipc_new(pair[0]);
    t.ends[1] = ipc_new(pair[1]);
    fake_cleanup_start(&t.cleanup, t.arena, STR("public/cleanup"));
    assert_non_null(coro_spawn(serve, NULL, "bounce"));
    assert_non_null(coro_spawn(ask, NULL, "qmgr"));
    assert_null(loop_run());
    loop_free();
    ipc_close(t.ends[1]);
    close(t.req.content.fd);
    log_set_sink(NULL, NULL);
    assert_null(t.failed);
}

static void finish(void) {
    fake_cleanup_free(&t.cleanup);
    buf_free(&t.log);
    conf_free(t.ctx.conf);
    arena_free(t.arena);
}

static void content_has(size_t i, const char *text) {
    struct str s = buf_str(&t.cleanup.messages[i].content);
    if (!str_contains(s, str_c(text)))
        print_error("no \"%s\" in:\n%.*s", text, STR_ARG(s));
    assert_true(str_contains(s, str_c(text)));
}

static void test_failed(void **state) {
    (void)state;
    begin(BOUNCE_FAILED, "s@there.example", 2, "resource, software");
    run("Subject: x\n\nb\303\266dy\n");
    assert_int_equal(t.status, BOUNCE_OK);
    assert_str(queue_id_str(&t.notice), "NEW1");
    assert_int_equal(t.cleanup.count, 1);
    const struct fake_message *m = &t.cleanup.messages[0];
    assert_true(m->committed);
    assert_str(m->env.sender, "");
    assert_int_equal(m->env.flags, ENVELOPE_INTERNAL | ENVELOPE_8BIT);
    assert_int_equal(m->rcpt_count, 1);
    assert_str(m->rcpts[0].address, "s@there.example");
    assert_int_equal(m->flags & SUBMIT_FILTER, 0);
    content_has(0, "id NEW1; ");
    content_has(0, "<first@x.example>: no\n");
    content_has(0, "\n\nb\303\266dy\n");
    assert_str(buf_str(&t.log), "OLD1: sender non-delivery notification: NEW1\n");
    finish();
}

/* bounce_size_limit above message_size_limit: the notice must fit through cleanup. */
static void test_message_limit(void **state) {
    (void)state;
    bounce_limit = STR("50000");
    message_limit = STR("18000");
    begin(BOUNCE_FAILED, "s@there.example", 1, "");
    run("A: b\n\nbody\n");
    content_has(0, "\n\nbody\n");
    finish();
    message_limit = STR("16390");
    begin(BOUNCE_FAILED, "s@there.example", 1, "");
    run("A: b\n\nbody\n");
    content_has(0, "text/rfc822-headers");
    finish();
    bounce_limit = STR("100");
    message_limit = STR("10240000");
}

static void test_size_and_ret(void **state) {
    (void)state;
    char big[201];
    memset(big, 'x', 200);
    memcpy(big, "A: b\n\nbody", 10);
    big[200] = 0;
    begin(BOUNCE_FAILED, "s@there.example", 1, "");
    run(big);
    content_has(0, "text/rfc822-headers");
    assert_false(str_contains(buf_str(&t.cleanup.messages[0].content), STR("body")));
    finish();
    begin(BOUNCE_FAILED, "s@there.example", 1, "");
    t.req.env.dsn_ret = DSN_RET_HDRS;
    run("A: b\n\nbody\n");
    content_has(0, "text/rfc822-headers");
    finish();
}

/* RFC 3461, 4.1 */
static void test_notify(void **state) {
    (void)state;
    static const struct {
        enum bounce_kind kind;
        unsigned notify;
        bool told;
    } rows[] = {
        { BOUNCE_FAILED, 0, true },
        { BOUNCE_FAILED, DSN_NOTIFY_NEVER, false },
        { BOUNCE_FAILED, DSN_NOTIFY_SUCCESS | DSN_NOTIFY_DELAY, false },
        { BOUNCE_FAILED, DSN_NOTIFY_FAILURE, true },
        { BOUNCE_DELAYED, 0, true },
        { BOUNCE_DELAYED, DSN_NOTIFY_FAILURE, false },
        { BOUNCE_DELAYED, DSN_NOTIFY_DELAY, true },
        { BOUNCE_SUCCESS, DSN_NOTIFY_SUCCESS, true },
        { BOUNCE_SUCCESS, DSN_NOTIFY_FAILURE, false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        begin(rows[i].kind, "s@there.example", 1, "");
        t.rcpts[0].dsn_notify = rows[i].notify;
        run("A: b\n\nbody\n");
        assert_int_equal(t.cleanup.count, rows[i].told);
        assert_int_equal(t.status, rows[i].told ? BOUNCE_OK : BOUNCE_NOTHING);
        finish();
    }
    /* only those who asked stand in the notice */
    begin(BOUNCE_FAILED, "s@there.example", 2, "");
    t.rcpts[0].dsn_notify = DSN_NOTIFY_NEVER;
    run("A: b\n\nbody\n");
    content_has(0, "<r@x.example>: no");
    assert_false(str_contains(buf_str(&t.cleanup.messages[0].content), STR("first@")));
    finish();
}

static void test_double(void **state) {
    (void)state;
    begin(BOUNCE_FAILED, "", 1, "resource, software");
    run("A: b\n\nbody\n");
    assert_int_equal(t.status, BOUNCE_NOTHING);
    assert_int_equal(t.cleanup.count, 0);
    finish();
    begin(BOUNCE_FAILED, "", 1, "2bounce");
    run("A: b\n\nbody\n");
    assert_int_equal(t.status, BOUNCE_OK);
    assert_str(t.cleanup.messages[0].env.sender, "double-bounce@example");
    assert_str(t.cleanup.messages[0].rcpts[0].address, "postmaster");
    content_has(0, "body\n");
    assert_str(buf_str(&t.log), "OLD1: postmaster non-delivery notification: NEW1\n");
    finish();
    begin(BOUNCE_FAILED, "Double-Bounce@Example", 1, "bounce, 2bounce");
    run("A: b\n\nbody\n");
    assert_int_equal(t.status, BOUNCE_NOTHING);
    assert_int_equal(t.cleanup.count, 0);
    assert_str(buf_str(&t.log), "warning: OLD1: undeliverable postmaster notification discarded\n");
    finish();
    /* another site's address of that name is an address like others */
    begin(BOUNCE_FAILED, "double-bounce@elsewhere.example", 1, "");
    run("A: b\n\nbody\n");
    assert_int_equal(t.status, BOUNCE_OK);
    finish();
}

static void test_copies(void **state) {
    (void)state;
    begin(BOUNCE_FAILED, "s@there.example", 1, "bounce");
    run("A: b\n\nbody\n");
    assert_int_equal(t.status, BOUNCE_OK);
    assert_str(queue_id_str(&t.notice), "NEW1");
    assert_int_equal(t.cleanup.count, 2);
    assert_str(t.cleanup.messages[1].env.sender, "double-bounce@example");
    assert_str(t.cleanup.messages[1].rcpts[0].address, "postmaster");
    content_has(1, "Subject: Postmaster Copy: Undelivered Mail\n");
    assert_false(str_contains(buf_str(&t.cleanup.messages[1].content), STR("body")));
    finish();
    begin(BOUNCE_DELAYED, "s@there.example", 1, "delay");
    run("A: b\n\nbody\n");
    assert_int_equal(t.cleanup.count, 2);
    content_has(1, "Subject: Postmaster Warning: Delayed Mail\n");
    assert_str(buf_str(&t.log), "OLD1: sender delay notification: NEW1\nOLD1: postmaster delay notification: NEW2\n");
    finish();
}

/* BO-02: the reason is logged with the old id, and qmgr keeps the records. */
static void test_cannot_queue(void **state) {
    (void)state;
    begin(BOUNCE_FAILED, "s@there.example", 1, "bounce");
    t.cleanup.open_status = SUBMIT_NO_SPACE;
    run("A: b\n\nbody\n");
    assert_int_equal(t.status, BOUNCE_TEMP);
    assert_str(buf_str(&t.log), "warning: OLD1: sender notification failed to s@there.example: no room\n");
    finish();
    begin(BOUNCE_FAILED, "s@there.example", 1, "");
    t.cleanup.end_status = SUBMIT_TEMP;
    run("A: b\n\nbody\n");
    assert_int_equal(t.status, BOUNCE_TEMP);
    assert_true(str_contains(buf_str(&t.log), STR("OLD1: sender notification failed to s@there.example: not taken\n")));
    finish();
    /* a content shorter than qmgr said: no half notice */
    begin(BOUNCE_FAILED, "s@there.example", 1, "");
    t.req.env.dsn_ret = DSN_RET_FULL;
    run("");
    assert_int_equal(t.status, BOUNCE_OK);
    finish();
}

static int start(void **state) {
    (void)state;
    return mkdtemp(dir) && chdir(dir) == 0 && mkdir("public", 0700) == 0 ? 0 : -1;
}
static int end(void **state) {
    (void)state;
    char command[100];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed),       cmocka_unit_test(test_message_limit), cmocka_unit_test(test_size_and_ret),
        cmocka_unit_test(test_notify),       cmocka_unit_test(test_double),        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_cannot_queue),
    };
    return cmocka_run_group_tests(tests, start, end);
}
