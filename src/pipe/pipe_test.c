#include "test/test.h"

#include "deliver/agent_fake.h"
#include "pipe/pipe.h"
#include <pwd.h>

/* Requests as a whole: real commands, run as the user who tests or, as root, as "nobody". */
static struct fake_qmgr f;

static void deliver(const char *attributes, const char *command, const struct conf_override *o, size_t n) {
    static struct str args[20];
    static char user[300];
    const struct passwd *who = geteuid() == 0 ? getpwnam("nobody") : getpwuid(geteuid());
    assert_non_null(who);
    snprintf(user, sizeof user, "user=%s", who->pw_name);
    struct str rest = str_c(attributes), word;
    fake_start(&f, STR("mypipe"), pipe_deliver, o, n);
    size_t count = 0;
    args[count++] = str_c(user);
    while (str_word(&rest, STR(" "), &word))
        args[count++] = word;
    args[count++] = STR("argv=/bin/sh");
    args[count++] = STR("-c");
    args[count++] = str_c(command);
    args[count++] = STR("sh");
    args[count++] = STR("$recipient");
    f.ctx.args = args;
    f.ctx.arg_count = count;
    f.ctx.mail_uid = 1;
    f.ctx.mail_gid = 1;
    assert_null(pipe_init(&f.ctx, f.arena));
    fake_rcpt(&f, STR("a@x.example"), STR("orig@x.example"));
}

static void run(enum delivery_status status, const char *dsn, const char *reason) {
    fake_run(&f);
    assert_null(f.failed);
    for (size_t i = 0; i < f.result_count; i++) {
        assert_str(f.results[i].dsn, dsn);
        assert_str(f.results[i].reason, reason);
        assert_int_equal(f.results[i].status, status);
    }
    assert_int_equal(f.result_count, f.req.env.rcpt_count);
}

static void end(void) {
    pipe_end(&f.ctx);
    fake_end(&f);
}

static const struct conf_override here[] = { { STR_INIT("queue_directory"), STR_INIT("/") },
                                             { STR_INIT("mypipe_time_limit"), STR_INIT("1s") } };

static void test_success(void **state) {
    (void)state;
    deliver("flags=DRO", "cat; echo $$1", here, 2);
    run(DELIVERY_SENT, "2.0.0",
        "delivered via mypipe service (Return-Path: <sender@there.example> X-Original-To: "
        "orig@x.example Delivered-To: a@x.example Subject:)");
    assert_true(str_contains(buf_str(&f.log), STR("to=<a@x.example>, orig_to=<orig@x.example>, relay=mypipe, ")));
    end();
}

/* Larger than any pipe, and from a file; the command reads all of it, or nothing. */
static void test_large(void **state) {
    (void)state;
    static char large[300000];
    memset(large, 'x', sizeof large);
    for (size_t i = 70; i < sizeof large; i += 71)
        large[i] = '\n';
    deliver("", "wc -c", here, 2);
    f.content = str_n(large, sizeof large);
    run(DELIVERY_SENT, "2.0.0", "delivered via mypipe service (300001)");
    end();
    deliver("", "exit 67", here, 2);
    f.content = str_n(large, sizeof large);
    run(DELIVERY_BOUNCED, "5.1.1", "user unknown");
    end();
    deliver("", "kill -11 $$$$", here, 2);
    f.content = str_n(large, sizeof large);
    run(DELIVERY_DEFERRED, "4.3.0", "Command died with signal 11: \"/bin/sh\"");
    end();
}

/* The content is shorter than it should be: the command must not take it for all, and mail waits. */
static void promise_more(struct fake_qmgr *q) {
    q->req.content.size += 10;
}
static void test_unreadable(void **state) {
    (void)state;
    deliver("", "cat >/dev/null; exit 0", here, 2);
    f.before = promise_more;
    run(DELIVERY_DEFERRED, "4.3.0", "temporary failure");
    end();
}

static void test_time_limit(void **state) {
    (void)state;
    deliver("", "echo so far; exec sleep 1000", here, 2);
    run(DELIVERY_BOUNCED, "5.3.0", "Command time limit exceeded: \"/bin/sh\". Command output: so far ");
    assert_str(f.results[0].diagnostic, "so far ");
    end();
    const struct conf_override common[] = { { STR("queue_directory"), STR("/") },
                                            { STR("command_time_limit"), STR("1s") } };
    deliver("", "exec sleep 1000", common, 2);
    run(DELIVERY_BOUNCED, "5.3.0", "Command time limit exceeded: \"/bin/sh\"");
    end();
}

static void test_refused(void **state) {
    (void)state;
    deliver("flags=D", "exit 0", here, 2);
    fake_rcpt(&f, STR("b@x.example"), STR(""));
    run(DELIVERY_DEFERRED, "4.3.5", "mail system configuration error");
    assert_true(str_contains(buf_str(&f.log), STR("pipe flag `D' requires mypipe_destination_recipient_limit = 1")));
    end();
    deliver("flags=D", "exit 0", here, 2);
    f.content = STR("Delivered-To: A@X.example\n\nx\n");
    run(DELIVERY_BOUNCED, "5.4.6", "mail forwarding loop for a@x.example");
    end();
    deliver("size=5", "exit 0", here, 2);
    run(DELIVERY_BOUNCED, "5.2.3", "message too large");
    end();
    deliver("", "echo $1 $foo", here, 2);
    run(DELIVERY_DEFERRED, "4.3.5", "mail system configuration error");
    assert_true(str_contains(buf_str(&f.log), STR("master.cf: service mypipe: unknown macro name: \"1\"")));
    end();
    deliver("directory=/nonexistent", "exit 0", here, 2);
    run(DELIVERY_DEFERRED, "4.3.0",
        "temporary failure. Command output: pipe: fatal: cannot change directory to "
        "/nonexistent: No such file or directory ");
    end();
}

static void test_probe(void **state) {
    (void)state;
    deliver("", "exit 67", here, 2);
    f.req.flags = DELIVERY_VERIFY;
    run(DELIVERY_SENT, "2.0.0", "delivers to command: /bin/sh");
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success),    FAKE_IN_FRAME(test_success),       cmocka_unit_test(test_large),
        cmocka_unit_test(test_unreadable), cmocka_unit_test(test_time_limit), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_probe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
