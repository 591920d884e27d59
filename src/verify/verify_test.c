/* verify_test.c - the cache of verify(8): what is asked, when, and what is believed. */
#include "test/test.h"

#include "route/probe.h"
#include "run/coro.h"
#include "verify/verify.h"

#define DAY 86400

static struct conf *c;
static struct verify v;
static struct arena *a;
static size_t probes;
static bool refuse;

static bool count_probe(void *ctx, struct str address) {
    (void)ctx, (void)address;
    if (!refuse)
        probes++;
    return !refuse;
}

static void begin(const char *name, const char *value) {
    const struct conf_override over[] = { { STR("address_verify_map"), STR("internal:test") },
                                          { str_c(name), str_c(value) } };
    const struct conf_source source = { .config_directory = STR("/nonexistent"),
                                        .overrides = over,
                                        .override_count = 2,
                                        .process_name = STR("verify"),
                                        .service_name = STR("verify"),
                                        .missing_is_empty = true };
    a = arena_new();
    assert_null(conf_load(&source, a, &c));
    v = (struct verify){ .probe = count_probe };
    verify_open(&v, c);
    probes = 0;
    refuse = false;
}

static void end(void) {
    table_close(v.cache);
    conf_free(c);
    arena_free(a);
}

static void asks(int64_t now, enum verify_status status, size_t all_probes) {
    struct verify_answer is = verify_ask(&v, a, STR("a@b.example"), now);
    assert_int_equal(is.status, status);
    assert_int_equal(probes, all_probes);
}

static void tells(int64_t now, enum verify_status status) {
    verify_tell(&v, STR("a@b.example"), &(struct verify_answer){ status, STR("because") }, now);
}

static void test_life(void **state) {
    (void)state;
    begin("address_verify_negative_cache", "yes");
    const int64_t t = 1700000000;
    asks(t, VERIFY_TODO, 1);
    asks(t + 5, VERIFY_TODO, 1);                     /* it is under way */
    asks(t + VERIFY_PROBE_LIFE + 1, VERIFY_TODO, 2); /* it is lost */
    tells(t, VERIFY_OK);
    asks(t + 6 * DAY, VERIFY_OK, 2);
    asks(t + 8 * DAY, VERIFY_OK, 3); /* positive_refresh_time */
    asks(t + 8 * DAY + 60, VERIFY_OK, 3);
    tells(t + 8 * DAY + 90, VERIFY_DEFER); /* it took mail before */
    asks(t + 8 * DAY + 91, VERIFY_OK, 3);
    asks(t + 9 * DAY, VERIFY_OK, 4);
    asks(t + 32 * DAY, VERIFY_TODO, 5); /* positive_expire_time */
    tells(t + 32 * DAY, VERIFY_BOUNCE);
    struct verify_answer is = verify_ask(&v, a, STR("a@b.example"), t + 32 * DAY + 60);
    assert_int_equal(is.status, VERIFY_BOUNCE);
    assert_true(str_eq(is.text, STR("because")));
    asks(t + 32 * DAY + 4 * 3600, VERIFY_BOUNCE, 6); /* negative_refresh_time */
    tells(t + 32 * DAY + 4 * 3600, VERIFY_OK);
    asks(t + 32 * DAY + 4 * 3600, VERIFY_OK, 6);
    end();
}

static void test_no_negative_cache(void **state) {
    (void)state;
    begin("address_verify_negative_cache", "no");
    asks(1700000000, VERIFY_TODO, 1);
    tells(1700000001, VERIFY_BOUNCE);
    asks(1700000002, VERIFY_TODO, 2);
    end();
}

static void test_limits(void **state) {
    (void)state;
    begin("address_verify_pending_request_limit", "1");
    v.pending = 1;
    asks(1700000000, VERIFY_DEFER, 0);
    v.pending = 0;
    refuse = true;
    asks(1700000000, VERIFY_DEFER, 0);
    refuse = false;
    asks(1700000000, VERIFY_TODO, 1);
    end();
}

static void test_clock_that_went_back(void **state) {
    (void)state;
    begin("address_verify_negative_cache", "yes");
    tells(1700000000 + 100 * DAY, VERIFY_OK);
    asks(1700000000, VERIFY_TODO, 1);
    end();
}

static void clean(void *arg) {
    (void)arg;
    size_t kept, dropped;
    verify_clean(&v, 1700000000 + 20 * DAY, &kept, &dropped);
    assert_int_equal(kept, 1);
    assert_int_equal(dropped, 3);
}

static void test_clean(void **state) {
    (void)state;
    begin("address_verify_negative_cache", "yes");
    tells(1700000000, VERIFY_OK);
    struct verify_answer bad = { VERIFY_BOUNCE, STR("no") };
    verify_tell(&v, STR("b@b.example"), &bad, 1700000000);
    verify_ask(&v, a, STR("c@b.example"), 1700000000);
    assert_int_equal(table_put(v.cache, STR("d@b.example"), STR("garbage")), TABLE_FOUND);
    assert_null(loop_init());
    coro_spawn(clean, NULL, "clean");
    assert_null(loop_run());
    loop_free();
    asks(1700000000 + 3600, VERIFY_OK, 1);
    end();
}

static void test_entries(void **state) {
    (void)state;
    static const char *const bad[] = { "", "0", "0:1", "0:1:2", "4:0:0:x", "-1:0:0:x", "0:x:0:y", "0::0:y" };
    struct verify_entry e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (verify_entry_parse(str_c(bad[i]), &e))
            fail_msg("%s", bad[i]);
    assert_true(verify_entry_parse(STR("2:1:3:550 5.1.1: no: user"), &e));
    assert_true(e.status == VERIFY_BOUNCE && e.probed == 1 && e.updated == 3);
    assert_true(str_eq(e.text, STR("550 5.1.1: no: user")));
}

static void test_sender(void **state) {
    (void)state;
    begin("address_verify_sender_ttl", "3600");
    struct str now = verify_sender(c, a, 1700000000);
    assert_true(str_starts(now, STR("double-bounce")) && !str_starts(now, STR("double-bounce@")));
    assert_true(verify_is_sender(c, now, 1700000000 + 3600));
    assert_false(verify_is_sender(c, now, 1700000000 + 3 * 3600));
    assert_false(verify_is_sender(c, STR("double-bounce@x"), 1700000000));
    assert_false(str_eq(now, verify_sender(c, a, 1700000000 + 3600)));
    end();
    begin("address_verify_sender", "");
    assert_int_equal(verify_sender(c, a, 1700000000).n, 0);
    assert_false(verify_is_sender(c, STR(""), 1700000000));
    end();
    begin("address_verify_sender", "probe@x.example");
    assert_true(str_eq(verify_sender(c, a, 1700000000), STR("probe@x.example")));
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),   cmocka_unit_test(test_no_negative_cache),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_clock_that_went_back),
        cmocka_unit_test(test_clean),  cmocka_unit_test(test_entries),
        cmocka_unit_test(test_sender),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
