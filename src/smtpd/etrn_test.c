/* etrn_test.c - what the dialogues of ETRN cannot see: who is asked, and how often. */
#include "test/test.h"

#include "smtpd/harness.h"
#include "test/fake_sys.h"

static struct harness h;

static int set_up(void **state) {
    (void)state;
    fake_sys_install();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    harness_end(&h);
    fake_sys_remove();
    return 0;
}

/* Names that are not eligible, malformed or refused cost nobody anything but this session. */
static void test_only_what_is_eligible(void **state) {
    (void)state;
    harness_begin(&h, "relay_domains = relay.example\nsmtpd_client_restrictions = warn_if_reject, reject\n"
                      "smtpd_hard_error_limit = 1000\n");
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n"
                   "> ETRN other.example\n<< 459\n"
                   "> ETRN xrelay.example\n<< 459\n"
                   "> ETRN a..relay.example\n<< 501\n"
                   "> ETRN relay.example relay.example\n<< 500\n"
                   "> QUIT\n<< 221\neof\n");
    assert_int_equal(h.flushes, 0);
    harness_script(&h, "192.0.2.1",
                   "< 220 *\n> ETRN relay.example\n<< 250\n> ETRN @sub.relay.example\n<< 250\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.flushes, 2);
}

static void test_refused(void **state) {
    (void)state;
    harness_begin(&h, "relay_domains = relay.example\nsmtpd_etrn_restrictions = reject\n");
    harness_script(&h, "192.0.2.1", "< 220 *\n> ETRN relay.example\n<< 554\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.flushes, 0);
}

/* sendmail -bs: a session with a user's rights asks nobody. */
static void test_standard_input(void **state) {
    (void)state;
    harness_begin(&h, "relay_domains = relay.example\nsmtpd_etrn_restrictions = reject\n");
    h.standard_input = true;
    harness_script(&h, "", "< 220 *\n> ETRN relay.example\n<< 458 Unable to queue messages\n> QUIT\n<< 221\neof\n");
    assert_int_equal(h.flushes, 0);
    assert_true(harness_logged(&h, "*do not use ETRN in \"sendmail -bs\" mode"));
}

#define ETRN_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        ETRN_TEST(test_only_what_is_eligible),
        ETRN_TEST(test_refused),
        ETRN_TEST(test_standard_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
