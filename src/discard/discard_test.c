#include "test/test.h"

#include "deliver/agent_fake.h"
#include "discard/discard.h"

static void run(const char *nexthop, const char *dsn, const char *reason) {
    struct fake_qmgr f;
    fake_start(&f, STR("discard"), discard_deliver, NULL, 0);
    f.req.nexthop = str_c(nexthop);
    fake_rcpt(&f, STR("a@x.example"), STR(""));
    fake_run(&f);
    assert_int_equal(f.result_count, 1);
    assert_int_equal(f.results[0].status, DELIVERY_SENT);
    assert_str(f.results[0].dsn, dsn);
    assert_str(f.results[0].reason, reason);
    fake_end(&f);
}

static void test_table(void **state) {
    (void)state;
    run("thrown away", "2.0.0", "thrown away");
    run("2.7.1 gone", "2.7.1", "gone");
    run("5.7.1 gone", "2.0.0", "gone");
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_table) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
