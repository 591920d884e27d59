#include "test/test.h"

#include "queue/crc32c.h"
#include "queue/queue_id.h"
#include <stdio.h>
#include <stdlib.h>

static void crc_known_values(void **state) {
    (void)state;
    /* RFC 3720, appendix B.4, and the check value every description of CRC-32C gives */
    assert_int_equal(crc32c(0, STR("123456789")), 0xE3069283);
    char bytes[32];
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc32c(0, str_n(bytes, sizeof bytes)), 0x8A9136AA);
    memset(bytes, 0xFF, sizeof bytes);
    assert_int_equal(crc32c(0, str_n(bytes, sizeof bytes)), 0x62A8AB43);
    assert_int_equal(crc32c(0, STR("")), 0);
}

static void crc_two_makes_agree(void **state) {
    (void)state;
    uint32_t seed = 1;
    for (size_t n = 0; n < 300; n++) {
        char *p = malloc(n ? n : 1);
        assert_non_null(p);
        for (size_t i = 0; i < n; i++) {
            seed = seed * 1664525 + 1013904223;
            p[i] = (char)(seed >> 24);
        }
        struct str all = str_n(p, n);
        uint32_t whole = crc32c(0, all);
        assert_int_equal(whole, crc32c_portable(0, all));
        size_t cut = n / 3;
        assert_int_equal(whole, crc32c(crc32c(0, str_sub(all, 0, cut)), str_from(all, cut)));
        free(p);
    }
}

static void id_forms(void **state) {
    (void)state;
    struct queue_id id;
    queue_id_make(&id, INT64_C(1234567890) * 1000000 + 0x0ABCD, 0x1F2E, false);
    assert_str(queue_id_str(&id), "0ABCD1F2E");
    queue_id_make(&id, INT64_C(1234567890) * 1000000 + 999999, 7, false);
    assert_str(queue_id_str(&id), "F423F7");
    /* base 52 by hand: 1 is "1", 51 is "z", 52 is "10" */
    queue_id_make(&id, INT64_C(52) * 1000000 + 51, 50, true);
    assert_str(queue_id_str(&id), "000010000zzy");
    queue_id_make(&id, INT64_C(0), 51, true);
    assert_str(queue_id_str(&id), "0000000000z10");
    queue_id_make(&id, INT64_MAX, UINT64_MAX, true); /* fits */
    assert_true(queue_id_valid(queue_id_str(&id)));
    queue_id_make(&id, INT64_MAX, UINT64_MAX, false);
    assert_true(queue_id_valid(queue_id_str(&id)));
}

static void id_later_sorts_later(void **state) {
    (void)state;
    struct queue_id before = { 0 };
    for (int64_t us = INT64_C(1790000000) * 1000000; us < INT64_C(1790000100) * 1000000; us += 777777) {
        struct queue_id id;
        queue_id_make(&id, us, 12345, true);
        assert_true(str_cmp(queue_id_str(&before), queue_id_str(&id)) < 0);
        before = id;
    }
}

static void id_validity(void **state) {
    (void)state;
    static const struct {
        struct str text;
        bool valid;
    } cases[] = {
        { STR_INIT(""), false },
        { STR_INIT("A"), true },
        { STR_INIT("4cXyZ09"), true },
        { STR_INIT("1234567890123456789012345678901"), true },
        { STR_INIT("12345678901234567890123456789012"), false },
        { STR_INIT("../x"), false },
        { STR_INIT("a/b"), false },
        { STR_INIT("a.b"), false },
        { STR_INIT("a\0b"), false },
        { STR_INIT("\xc3\xa9"), false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *copy = malloc(cases[i].text.n ? cases[i].text.n : 1);
        assert_non_null(copy);
        memcpy(copy, cases[i].text.p, cases[i].text.n);
        struct queue_id id;
        assert_int_equal(queue_id_valid(str_n(copy, cases[i].text.n)), cases[i].valid);
        assert_int_equal(queue_id_from(str_n(copy, cases[i].text.n), &id), cases[i].valid);
        if (cases[i].valid)
            assert_true(str_eq(queue_id_str(&id), cases[i].text));
        free(copy);
    }
}

static void id_hash_is_the_same_for_both_forms(void **state) {
    (void)state;
    for (int64_t us = 0; us < 1000000; us += 99991) {
        struct queue_id s, l;
        char hs[QUEUE_ID_HASH_MAX + 1], hl[QUEUE_ID_HASH_MAX + 1];
        queue_id_make(&s, INT64_C(1790000000) * 1000000 + us, 4711, false);
        queue_id_make(&l, INT64_C(1790000000) * 1000000 + us, 4711, true);
        queue_id_hash(&s, hs);
        queue_id_hash(&l, hl);
        assert_string_equal(hs, hl);
    }
    struct queue_id odd;
    char h[QUEUE_ID_HASH_MAX + 1];
    assert_true(queue_id_from(STR("AB"), &odd));
    queue_id_hash(&odd, h);
    assert_string_equal(h, "AB___");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_known_values), cmocka_unit_test(crc_two_makes_agree),
        cmocka_unit_test(id_forms),         cmocka_unit_test(id_later_sorts_later),
        cmocka_unit_test(id_validity),      cmocka_unit_test(id_hash_is_the_same_for_both_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
