#include "test/test.h"

#include "tls/tickets.h"
#include <stdlib.h>

enum { LIFETIME = 3600, TURN = LIFETIME / 2 };

/* At any moment there is a key to make tickets with, the next one is known, and a ticket is accepted for its life. */
static void test_turns(void **state) {
    (void)state;
    struct tls_ticket_keys keys = { 0 };
    int64_t now = 1000000;
    unsigned char name[TICKET_NAME] = { 0 };
    int64_t made = 0;
    uint32_t most = 0;
    for (int step = 0; step < 2000; step++, now += 97) {
        assert_true(ticket_keys_advance(&keys, now, LIFETIME));
        const struct tls_ticket_key *k = ticket_key_now(&keys, now);
        assert_non_null(k);
        assert_non_null(ticket_key_now(&keys, now + TURN)); /* known before its turn */
        if (made && now < made + LIFETIME)
            assert_non_null(ticket_key_find(&keys, name, now));
        if (!made || now >= made + LIFETIME) {
            memcpy(name, k->name, sizeof name);
            made = now;
        }
        most = keys.n > most ? keys.n : most;
    }
    assert_in_range(most, 3, 6);
}

static void test_gaps_and_clocks(void **state) {
    (void)state;
    struct tls_ticket_keys keys = { 0 };
    assert_true(ticket_keys_advance(&keys, 1000000, LIFETIME));
    unsigned char old[TICKET_NAME];
    memcpy(old, keys.key[0].name, sizeof old);
    assert_true(ticket_keys_advance(&keys, 9000000, LIFETIME)); /* nobody asked for months */
    assert_non_null(ticket_key_now(&keys, 9000000));
    assert_null(ticket_key_find(&keys, old, 9000000));
    assert_true(ticket_keys_advance(&keys, 1000000, LIFETIME)); /* and the clock goes back */
    assert_non_null(ticket_key_now(&keys, 1000000));
    assert_in_range(keys.key[keys.n - 1].until, 1000000, 1000000 + 2 * TURN);
    assert_true(ticket_keys_advance(&keys, 1000000, 0)); /* no life at all */
    assert_non_null(ticket_key_now(&keys, 1000000));
    assert_int_equal(ticket_keys_refresh(&keys, 1000000), ticket_key_now(&keys, 1000000)->until);
}

static void test_packed(void **state) {
    (void)state;
    struct tls_ticket_keys keys = { 0 }, back;
    assert_true(ticket_keys_advance(&keys, 1000000, LIFETIME));
    struct buf b = { 0 };
    ticket_keys_pack(&b, &keys);
    assert_true(ticket_keys_unpack(buf_str(&b), &back));
    assert_memory_equal(&back, &keys, sizeof keys);
    for (size_t n = 0; n < b.n; n++) { /* cut anywhere */
        char *copy = malloc(n ? n : 1);
        memcpy(copy, b.p, n);
        assert_false(ticket_keys_unpack(str_n(copy, n), &back));
        free(copy);
    }
    b.p[0] = (char)(TICKET_KEYS_MAX + 1);
    assert_false(ticket_keys_unpack(buf_str(&b), &back));
    buf_free(&b);
    struct tls_ticket_keys full = { .n = TICKET_KEYS_MAX };
    ticket_keys_pack(&b, &full);
    assert_true(b.n <= 1024); /* CONTROL_KEEP_MAX */
    assert_true(ticket_keys_unpack(buf_str(&b), &back));
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_turns), cmocka_unit_test(test_gaps_and_clocks),
                                        cmocka_unit_test(test_packed) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
