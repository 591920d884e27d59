#include "test/test.h"

#include "deliver/agent_fake.h"
#include "deliver/status_filter.h"

static const char tables[] =
    "regexp:{ {/^4.2.0 full$$/ 5.2.2 over quota} {/^5.1.1 who$$/ 4.1.1 later} {/^2.0.0 ok$$/ 2.5.0 fine}"
    " {/^4.9.1/ 2.0.0 sent} {/^4.9.2/ only text} {/^4.9.3/ 4.0.0} {/^2.9.1/ 5.0.0 no} }";

/* One question by agent_finish() or, with `member`, by agent_log(). */
static struct agent_status status;
static bool member;
static void finish(struct agent_request *r) {
    struct agent_status s = status;
    if (member) {
        agent_log(r, 0, STR("member@x.example"), &s);
        agent_answer(r, 0, &s);
    } else {
        agent_finish(r, 0, &s);
    }
}

static void run(struct fake_qmgr *f, const char *program, const char *parameter, const char *value, bool soft) {
    const struct conf_override o[] = { { str_c(parameter), str_c(value) },
                                       { STR("soft_bounce"), soft ? STR("yes") : STR("no") } };
    fake_start(f, STR("test"), finish, o, 2);
    f->ctx.program = str_c(program);
    status_filter_open(&f->ctx);
    fake_rcpt(f, STR("a@x.example"), STR(""));
    fake_run(f);
    status_filter_close();
    assert_null(f->failed);
    assert_int_equal(f->result_count, 1);
}

static void check(struct fake_qmgr *f, const char *dsn, const char *reason, const char *line) {
    assert_str(f->results[0].dsn, dsn);
    assert_str(f->results[0].reason, reason);
    if (!str_contains(buf_str(&f->log), str_c(line)))
        print_error("no \"%s\" in:\n%.*s", line, STR_ARG(buf_str(&f->log)));
    assert_true(str_contains(buf_str(&f->log), str_c(line)));
    fake_end(f);
}

static void test_answers(void **state) {
    (void)state;
    static const struct {
        const char *dsn, *reason, *to_dsn, *to_reason;
        enum delivery_status status;
        const char *line;
    } rows[] = {
        { "4.2.0", "full", "5.2.2", "over quota", DELIVERY_BOUNCED, "dsn=5.2.2, status=bounced (over quota)" },
        { "5.1.1", "who", "4.1.1", "later", DELIVERY_DEFERRED, "dsn=4.1.1, status=deferred (later)" },
        { "2.0.0", "ok", "2.5.0", "fine", DELIVERY_SENT, "dsn=2.5.0, status=sent (fine)" },
        { "4.2.1", "full", "4.2.1", "full", DELIVERY_DEFERRED, "dsn=4.2.1, status=deferred (full)" },
        { "4.9.1", "x", "4.9.1", "x", DELIVERY_DEFERRED,
          "local_delivery_status_filter: bad status code: 2.0.0 sent\n" },
        { "4.9.2", "x", "4.9.2", "x", DELIVERY_DEFERRED, "bad status code: only text\n" },
        { "4.9.3", "x", "4.9.3", "x", DELIVERY_DEFERRED, "bad status code: 4.0.0\n" },
        { "2.9.1", "x", "2.9.1", "x", DELIVERY_SENT, "bad status code: 5.0.0 no\n" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int m = 0; m < 2; m++) {
            struct fake_qmgr f;
            member = m;
            status = (struct agent_status){ .relay = STR("local"),
                                            .dsn = str_c(rows[i].dsn),
                                            .reason = str_c(rows[i].reason) };
            run(&f, "local", "local_delivery_status_filter", tables, false);
            assert_int_equal(f.results[0].status, rows[i].status);
            check(&f, rows[i].to_dsn, rows[i].to_reason, rows[i].line);
        }
    member = false;
}

/* A failed table changes nothing; soft_bounce has the last word; a diagnostic is the peer's, and stays. */
static void test_around(void **state) {
    (void)state;
    struct fake_qmgr f;
    status = (struct agent_status){ .relay = STR("local"), .dsn = STR("4.2.0"), .reason = STR("full") };
    run(&f, "local", "local_delivery_status_filter", "fail:x", false);
    check(&f, "4.2.0", "full", "fail:x lookup error for \"4.2.0 full\"");
    run(&f, "local", "local_delivery_status_filter", tables, true);
    assert_int_equal(f.results[0].status, DELIVERY_DEFERRED);
    check(&f, "4.2.2", "over quota", "dsn=4.2.2, status=SOFTBOUNCE (over quota)");
    status.diagnostic_type = STR("x-unix");
    status.diagnostic = STR("full of secrets");
    run(&f, "local", "local_delivery_status_filter", tables, false);
    assert_str(f.results[0].diagnostic, "full of secrets");
    check(&f, "5.2.2", "over quota", "over quota");
}

static void test_programs(void **state) {
    (void)state;
    static const struct {
        const char *program, *parameter;
        bool asks;
    } rows[] = {
        { "local", "local_delivery_status_filter", true },    { "virtual", "virtual_delivery_status_filter", true },
        { "pipe", "pipe_delivery_status_filter", true },      { "smtp", "smtp_delivery_status_filter", true },
        { "lmtp", "lmtp_delivery_status_filter", true },      { "lmtp", "smtp_delivery_status_filter", false },
        { "virtual", "local_delivery_status_filter", false }, { "error", "default_delivery_status_filter", false },
        { "pipe", "default_delivery_status_filter", true },   { "smtp", "default_delivery_status_filter", true },
        { "local", "default_delivery_status_filter", true },  { "virtual", "default_delivery_status_filter", true },
        { "lmtp", "default_delivery_status_filter", true },
    };
    status = (struct agent_status){ .relay = STR("none"), .dsn = STR("4.2.0"), .reason = STR("full") };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fake_qmgr f;
        run(&f, rows[i].program, rows[i].parameter, tables, false);
        check(&f, rows[i].asks ? "5.2.2" : "4.2.0", rows[i].asks ? "over quota" : "full", "to=<a@x.example>");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_around),
        cmocka_unit_test(test_programs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
