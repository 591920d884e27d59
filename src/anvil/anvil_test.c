/* Unit tests of anvil.h: numbers, their end, connections that break, statistics. */
#include "test/test.h"

#include "anvil/anvil.h"
#include "base/log.h"
#include "test/fake_sys.h"

static struct buf records;

static void keep(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag;
    buf_printf(&records, "%.*s\n", STR_ARG(text));
}

static void counting(void **state) {
    (void)state;
    fake_sys_install();
    struct anvil a = { .unit = 60 };
    struct anvil_open one = { 0 }, two = { 0 };
    struct str x = STR("smtp:192.0.2.1"), y = STR("smtp:192.0.2.2");
    struct anvil_answer r = anvil_take(&a, &one, ANVIL_CONNECT, x);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.rate, 1);
    r = anvil_take(&a, &two, ANVIL_CONNECT, x);
    assert_int_equal(r.count, 2);
    assert_int_equal(r.rate, 2);
    anvil_take(&a, &one, ANVIL_DISCONNECT, x);
    anvil_take(&a, &one, ANVIL_DISCONNECT, x); /* of a session that this connection has not told of */
    r = anvil_take(&a, &one, ANVIL_CONNECT, x);
    assert_int_equal(r.count, 2);
    assert_int_equal(r.rate, 3);
    assert_int_equal(anvil_take(&a, &one, ANVIL_MESSAGE, x).rate, 1);
    assert_int_equal(anvil_take(&a, &one, ANVIL_NEWTLS, x).rate, 1);
    assert_int_equal(anvil_take(&a, &one, ANVIL_NEWTLS_STATUS, x).rate, 1);
    assert_int_equal(anvil_take(&a, &one, ANVIL_CONNECT, y).count, 1);
    anvil_gone(&a, &one); /* its sessions are over */
    assert_int_equal(anvil_take(&a, &two, ANVIL_CONNECT, x).count, 2);
    fake_sys_advance(61 * US_PER_S);
    r = anvil_take(&a, &two, ANVIL_CONNECT, x);
    assert_int_equal(r.count, 3);
    assert_int_equal(r.rate, 1);
    anvil_sweep(&a);
    assert_int_equal(a.clients.n, 1); /* y has gone, x has sessions */
    anvil_gone(&a, &two);
    fake_sys_advance(61 * US_PER_S);
    anvil_sweep(&a);
    assert_int_equal(a.clients.n, 0);
    anvil_free(&a);
    fake_sys_remove();
}

static void statistics(void **state) {
    (void)state;
    fake_sys_install();
    log_set_sink(keep, NULL);
    struct anvil a = { .unit = 60 };
    struct anvil_open o = { 0 };
    anvil_take(&a, &o, ANVIL_CONNECT, STR("smtp:192.0.2.1"));
    anvil_take(&a, &o, ANVIL_CONNECT, STR("smtp:192.0.2.1"));
    anvil_take(&a, &o, ANVIL_AUTH, STR("smtp:192.0.2.2"));
    anvil_report(&a);
    struct str all = buf_str(&records);
    assert_true(str_starts(all, STR("statistics: max connection rate 2/60s for (smtp:192.0.2.1) at ")));
    assert_true(str_contains(all, STR("\nstatistics: max connection count 2 for (smtp:192.0.2.1) at ")));
    assert_true(str_contains(all, STR("\nstatistics: max auth rate 1/60s for (smtp:192.0.2.2) at ")));
    assert_true(str_contains(all, STR("\nstatistics: max cache size 2 at ")));
    assert_false(str_contains(all, STR("message")));
    buf_clear(&records);
    anvil_report(&a); /* nothing new */
    assert_int_equal(records.n, 0);
    anvil_gone(&a, &o);
    anvil_free(&a);
    log_set_sink(NULL, NULL);
    buf_free(&records);
    fake_sys_remove();
}

static void requests(void **state) {
    (void)state;
    static const struct {
        uint8_t type;
        struct str payload;
        bool good;
    } rows[] = {
        { ANVIL_MSG_ASK, STR_INIT("\7\0\0\0\1\1\0\0\0a"), true },
        { ANVIL_MSG_NOTE, STR_INIT("\0\0\0\0\2\1\0\0\0a"), true },
        { ANVIL_MSG_ANSWER, STR_INIT("\7\0\0\0\1\1\0\0\0a"), false },
        { ANVIL_MSG_ASK, STR_INIT("\7\0\0\0\0\1\0\0\0a"), false },
        { ANVIL_MSG_ASK, STR_INIT("\7\0\0\0\10\1\0\0\0a"), false },
        { ANVIL_MSG_ASK, STR_INIT("\7\0\0\0\1\0\0\0\0"), false },
        { ANVIL_MSG_ASK, STR_INIT("\7\0\0\0\1\1\0\0\0ab"), false },
        { ANVIL_MSG_ASK, STR_INIT(""), false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ipc_msg m = { .type = rows[i].type, .payload = rows[i].payload, .fd = -1 };
        struct anvil_request r;
        assert_int_equal(anvil_unpack(&m, &r), rows[i].good);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(counting), cmocka_unit_test(statistics),
                                        cmocka_unit_test(requests) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
