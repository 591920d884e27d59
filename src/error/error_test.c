#include "test/test.h"

#include "deliver/agent_fake.h"
#include "error/error.h"

static void run(const char *service, const char *nexthop, enum delivery_status status, const char *dsn,
                const char *reason) {
    struct fake_qmgr f;
    fake_start(&f, str_c(service), error_deliver, NULL, 0);
    f.req.nexthop = str_c(nexthop);
    fake_rcpt(&f, STR("a@x.example"), STR(""));
    fake_rcpt(&f, STR("b@x.example"), STR(""));
    fake_run(&f);
    assert_int_equal(f.result_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(f.results[i].status, status);
        assert_str(f.results[i].dsn, dsn);
        assert_str(f.results[i].reason, reason);
    }
    fake_end(&f);
}

static void test_table(void **state) {
    (void)state;
    run("error", "5.1.6 moved away", DELIVERY_BOUNCED, "5.1.6", "moved away");
    run("error", "just text", DELIVERY_BOUNCED, "5.0.0", "just text");
    run("error", "4.7.1 says four", DELIVERY_BOUNCED, "5.0.0", "says four");
    run("retry", "4.7.9 later", DELIVERY_DEFERRED, "4.7.9", "later");
    run("retry", "just text", DELIVERY_DEFERRED, "4.0.0", "just text");
    run("retry", "5.7.1 says five", DELIVERY_DEFERRED, "4.0.0", "says five");
    /* what looks like a status and is none */
    run("error", "5.1.6", DELIVERY_BOUNCED, "5.1.6", "");
    run("error", "9.1.6 x", DELIVERY_BOUNCED, "5.0.0", "9.1.6 x");
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_table) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
