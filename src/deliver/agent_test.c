#include "test/test.h"

#include "deliver/agent_fake.h"
#include "mail/date.h"

static void test_delay(void **state) {
    (void)state;
    static const struct {
        int limit;
        int64_t us;
        const char *want;
    } rows[] = {
        { 2, 0, "0" },         { 2, 1, "0" },          { 2, 4999, "0" },        { 2, 5000, "0.01" },
        { 2, 14999, "0.01" },  { 2, 15000, "0.02" },   { 2, 99499, "0.1" },     { 2, 105000, "0.11" },
        { 2, 994999, "0.99" }, { 2, 995000, "1" },     { 2, 1049999, "1" },     { 2, 1050000, "1.1" },
        { 2, 1950000, "2" },   { 2, 9949999, "9.9" },  { 2, 9950000, "10" },    { 2, 10499999, "10" },
        { 2, 10500000, "11" }, { 2, 99500000, "100" }, { 2, 123456789, "123" }, { 0, 105000, "0" },
        { 0, 994999, "1" },    { 0, 1050000, "1" },    { 0, 9949999, "10" },    { 1, 15000, "0" },
        { 1, 99499, "0.1" },   { 1, 994999, "1" },     { 1, 1050000, "1.1" },   { 3, 4999, "0.005" },
        { 3, 99499, "0.099" }, { 3, 14999, "0.015" },  { 6, 1, "0.000001" },    { 6, 4999, "0.005" },
        { 2, -5, "0" },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct str got = delay_format(a, rows[i].us, rows[i].limit);
        if (!str_eq(got, str_c(rows[i].want)))
            print_error("row %zu\n", i);
        assert_str(got, rows[i].want);
    }
    arena_free(a);
}

static void mixed(struct agent_request *r) {
    struct agent_status s = { .relay = STR("local"), .dsn = STR("2.0.0"), .reason = STR("delivered to mailbox") };
    agent_sent(r, 0, &s);
    s = (struct agent_status){ .relay = STR("mx[::1]:25"),
                               .dsn = STR("5.1.1"),
                               .reason = STR("no such user"),
                               .diagnostic_type = STR("smtp"),
                               .diagnostic = STR("550 5.1.1 no") };
    agent_bounced(r, 1, &s);
    agent_bounced(r, 1, &s); /* one answer counts */
    s.dsn = STR("5.7.1");
    s.relay = STR("none");
    s.reason = STR("later\nSECOND");
    agent_deferred(r, 2, &s);
}

static void run_mixed(struct fake_qmgr *f, const struct conf_override *o, size_t n, unsigned flags) {
    fake_start(f, STR("local"), mixed, o, n);
    fake_rcpt(f, STR("a b@x.example"), STR("o@x.example"));
    fake_rcpt(f, STR("two@x.example"), STR("TWO@x.example"));
    fake_rcpt(f, STR("three@x.example"), STR(""));
    fake_rcpt(f, STR("forgotten@x.example"), STR(""));
    f->req.flags = flags;
    fake_run(f);
    assert_null(f->failed);
}

static void has(struct fake_qmgr *f, const char *text) {
    if (!str_contains(buf_str(&f->log), str_c(text)))
        print_error("no \"%s\" in:\n%.*s", text, STR_ARG(buf_str(&f->log)));
    assert_true(str_contains(buf_str(&f->log), str_c(text)));
}

static void test_results(void **state) {
    (void)state;
    struct fake_qmgr f;
    run_mixed(&f, NULL, 0, 0);
    assert_int_equal(f.result_count, 4);
    assert_int_equal(f.results[0].status, DELIVERY_SENT);
    assert_int_equal(f.results[0].rcpt_index, 100);
    assert_int_equal(f.results[1].status, DELIVERY_BOUNCED);
    assert_str(f.results[1].diagnostic, "550 5.1.1 no");
    assert_int_equal(f.results[2].status, DELIVERY_DEFERRED);
    assert_str(f.results[2].dsn, "4.7.1");
    assert_int_equal(f.results[3].status, DELIVERY_DEFERRED);
    assert_int_equal(f.results[3].rcpt_index, 103);
    has(&f, "ABC123: to=<\"a b\"@x.example>, orig_to=<o@x.example>, relay=local, delay=");
    has(&f, ", dsn=2.0.0, status=sent (delivered to mailbox)\n");
    has(&f, "ABC123: to=<two@x.example>, relay=mx[::1]:25, delay=");
    has(&f, ", dsn=5.1.1, status=bounced (no such user)\n");
    has(&f, ", dsn=4.7.1, status=deferred (later?SECOND)\n");
    fake_end(&f);
}

static void test_soft_bounce(void **state) {
    (void)state;
    struct fake_qmgr f;
    const struct conf_override o[] = { { STR_INIT("soft_bounce"), STR_INIT("yes") } };
    run_mixed(&f, o, 1, 0);
    assert_int_equal(f.results[1].status, DELIVERY_DEFERRED);
    has(&f, ", dsn=4.1.1, status=SOFTBOUNCE (no such user)\n");
    fake_end(&f);
}

static void test_probe(void **state) {
    (void)state;
    struct fake_qmgr f;
    run_mixed(&f, NULL, 0, DELIVERY_VERIFY);
    has(&f, "status=deliverable (delivered");
    has(&f, "status=undeliverable (no such");
    fake_end(&f);
}

/* --- the queue manager goes while an agent is at work --- */
static int deliveries;
static size_t answers_seen; /* by qmgr before the second delivery */
static struct fake_qmgr *lonely;

static void two_deliveries(struct agent_request *r) {
    const struct agent_status s = {
        .relay = STR("local"), .dsn = STR("2.0.0"), .reason = STR("delivered"), .conn_use = 2
    };
    for (size_t i = 0; i < r->req.env.rcpt_count && agent_go_on(r); i++) {
        if (i == 1) {
            wait_until(deadline_in_us(1000)); /* qmgr's turn */
            answers_seen = lonely->result_count;
            if (lonely->leave && !agent_go_on(r))
                break;
        }
        deliveries++;
        agent_sent(r, i, &s);
    }
}

static void run_two(struct fake_qmgr *f, bool leave) {
    deliveries = 0;
    answers_seen = 99;
    lonely = f;
    fake_start(f, STR("local"), two_deliveries, NULL, 0);
    f->leave = leave;
    fake_rcpt(f, STR("one@x.example"), STR(""));
    fake_rcpt(f, STR("two@x.example"), STR(""));
    fake_run(f);
}

/* A crash between two deliveries repeats none that was finished. */
static void test_answers_go_before_the_next(void **state) {
    (void)state;
    struct fake_qmgr f;
    run_two(&f, false);
    assert_int_equal(deliveries, 2);
    assert_int_equal(answers_seen, 1);
    assert_int_equal(f.result_count, 2);
    has(&f, "relay=local, conn_use=2, delay=");
    fake_end(&f);
}

static void test_qmgr_gone(void **state) {
    (void)state;
    struct fake_qmgr f;
    run_two(&f, true);
    assert_int_equal(deliveries, 1);
    has(&f, "ABC123: to=<one@x.example>, ");
    has(&f, "ABC123: the queue manager has gone: delivery given up\n");
    assert_false(str_contains(buf_str(&f.log), STR("two@x.example")));
    fake_end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_soft_bounce),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_answers_go_before_the_next),
        cmocka_unit_test(test_qmgr_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
