#include "test/test.h"

#include "queue/crc32c.h"
#include "queue/log.h"
#include <stdio.h>
#include <stdlib.h>

enum { AT = SEGMENT_MARKS_AT + SEGMENT_SIZE_MIN / SEGMENT_MARK_SHARE };

static struct segment_head head(void) {
    return segment_head_for(SEGMENT_SIZE_MIN, 0x0102030405060708);
}

static struct segment_record record(void) {
    struct segment_record r = { .state = SEGMENT_INCOMING, .content_size = 5, .envelope_size = 3, .rcpt_count = 2 };
    r.content_crc = crc32c(0, STR("hello"));
    r.envelope_crc = crc32c(0, STR("env"));
    assert_true(queue_id_from(STR("ABC123"), &r.id));
    return r;
}

static void heads(void **state) {
    (void)state;
    struct segment_head h = head(), got;
    struct buf b = { 0 };
    segment_front_pack(&b, &h);
    assert_int_equal(b.n, SEGMENT_FRONT_SIZE);
    assert_int_equal(segment_front_unpack(buf_str(&b), h.size, &got), SEGMENT_OURS);
    assert_true(got.mark_size == h.mark_size && got.size == h.size && got.generation == h.generation);
    assert_int_equal(segment_records_at(&h), AT);
    /* a file of another size, or cut */
    assert_int_equal(segment_front_unpack(buf_str(&b), h.size + SEGMENT_MARKS_AT, &got), SEGMENT_BAD);
    assert_int_equal(segment_front_unpack(str_sub(buf_str(&b), 0, SEGMENT_HEAD_SIZE - 1), h.size, &got), SEGMENT_BAD);
    for (size_t bit = 0; bit < (size_t)SEGMENT_HEAD_SIZE * 8; bit++) {
        char flip = (char)(1 << bit % 8), *first = &b.p[bit / 8], *second = &b.p[SEGMENT_HEAD_2_AT + bit / 8];
        *first ^= flip;
        memset(&got, 0, sizeof got);
        if (segment_front_unpack(buf_str(&b), h.size, &got) != SEGMENT_OURS_REPAIRED || got.generation != h.generation)
            fail_msg("a head with bit %zu flipped is not healed by the second", bit);
        *second ^= flip;
        if (segment_front_unpack(buf_str(&b), h.size, &got) != SEGMENT_BAD)
            fail_msg("a head with bit %zu flipped passes", bit);
        *first ^= flip;
        assert_int_equal(segment_front_unpack(buf_str(&b), h.size, &got), SEGMENT_OURS);
        *second ^= flip;
    }
    /* an earlier program wrote one head only */
    memset(b.p + SEGMENT_HEAD_2_AT, 0, SEGMENT_HEAD_SIZE);
    assert_int_equal(segment_front_unpack(buf_str(&b), h.size, &got), SEGMENT_OURS);
    buf_free(&b);
}

/* Heads whose check sum is right, and which are wrong all the same. */
static void heads_that_lie(void **state) {
    (void)state;
    static const struct segment_head rows[] = {
        { .mark_size = 32768, .size = SEGMENT_SIZE_MIN, .generation = 0 },
        { .mark_size = 32767, .size = SEGMENT_SIZE_MIN, .generation = 1 },
        { .mark_size = UINT32_MAX, .size = SEGMENT_SIZE_MIN, .generation = 1 },
        { .mark_size = 0, .size = SEGMENT_MARKS_AT, .generation = 1 },
        { .mark_size = 32768, .size = SEGMENT_SIZE_MIN + 1, .generation = 1 },
        { .mark_size = 4194304, .size = UINT64_C(2) * SEGMENT_SIZE_MAX, .generation = 1 },
        { .mark_size = 0, .size = UINT64_MAX, .generation = 1 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf b = { 0 };
        struct segment_head got;
        segment_front_pack(&b, &rows[i]);
        if (segment_front_unpack(buf_str(&b), rows[i].size, &got) != SEGMENT_BAD)
            fail_msg("row %zu passes", i);
        buf_free(&b);
    }
}

static void put_record(struct buf *b, const struct segment_head *h, const struct segment_record *r) {
    segment_record_pack(b, h, r);
    buf_add(b, STR("helloenv"));
}

static void records(void **state) {
    (void)state;
    struct segment_head h = head(), other = h;
    struct segment_record r = record(), got;
    struct buf b = { 0 };
    put_record(&b, &h, &r);
    assert_int_equal(b.n, SEGMENT_RECORD_HEAD + 8);
    assert_int_equal(segment_record_size(&r), SEGMENT_RECORD_HEAD + 8);
    assert_true(segment_record_unpack(buf_str(&b), &h, AT, &got));
    struct buf again = { 0 };
    put_record(&again, &h, &got);
    assert_memory_equal(again.p, b.p, b.n);
    buf_free(&again);
    assert_true(segment_record_whole(buf_str(&b), &got));
    assert_false(segment_record_whole(str_sub(buf_str(&b), 0, b.n - 1), &got));
    assert_false(segment_record_unpack(buf_str(&b), &h, AT + 1, &got));
    assert_false(segment_record_unpack(buf_str(&b), &h, AT - SEGMENT_ALIGN, &got));
    assert_false(segment_record_unpack(buf_str(&b), &h, UINT64_MAX / SEGMENT_ALIGN * SEGMENT_ALIGN, &got));
    other.generation++; /* what an earlier use has left */
    assert_false(segment_record_unpack(buf_str(&b), &other, AT, &got));
    for (size_t bit = 0; bit < b.n * 8; bit++) {
        b.p[bit / 8] ^= (char)(1 << bit % 8);
        bool in_head = bit < (size_t)SEGMENT_RECORD_HEAD * 8;
        if (in_head ? segment_record_unpack(buf_str(&b), &h, AT, &got) : segment_record_whole(buf_str(&b), &r))
            fail_msg("a record with bit %zu flipped passes", bit);
        b.p[bit / 8] ^= (char)(1 << bit % 8);
    }
    buf_free(&b);
}

static void records_that_lie(void **state) {
    (void)state;
    struct segment_head h = head();
    struct segment_record rows[8];
    for (size_t i = 0; i < 8; i++)
        rows[i] = record();
    rows[0].state = 0;
    rows[1].state = 99;
    rows[2].content_size = UINT32_MAX;
    rows[3].envelope_size = UINT32_MAX - 100;
    rows[4].rcpt_count = UINT32_MAX;
    rows[5].mark = h.mark_size;
    rows[6].mark = h.mark_size - 2; /* the message's and one of its two recipients' */
    rows[7].id.text[3] = '/';
    for (size_t i = 0; i < 8; i++) {
        struct buf b = { 0 };
        struct segment_record got;
        put_record(&b, &h, &rows[i]);
        if (segment_record_unpack(buf_str(&b), &h, AT, &got))
            fail_msg("row %zu passes", i);
        buf_free(&b);
    }
    /* at the very end it fits, one step further it does not */
    struct segment_record r = record(), got;
    struct buf b = { 0 };
    put_record(&b, &h, &r);
    uint64_t last = h.size - segment_record_size(&r);
    assert_true(segment_record_unpack(buf_str(&b), &h, last, &got));
    assert_false(segment_record_unpack(buf_str(&b), &h, last + SEGMENT_ALIGN, &got));
    buf_free(&b);
}

static void names(void **state) {
    (void)state;
    char name[LOG_NAME_MAX];
    uint64_t n = 0;
    log_name("free.", 0xAB, name);
    assert_string_equal(name, "log/free.00000000000000ab");
    log_name("", UINT64_MAX, name);
    assert_string_equal(name, "log/ffffffffffffffff");
    assert_true(log_number("free.00000000000000ab", "free.", &n) && n == 0xAB);
    assert_true(log_number("ffffffffffffffff", "", &n) && n == UINT64_MAX);
    static const char *const bad[] = { "",
                                       "00000000000000ab.",
                                       "00000000000000AB",
                                       "0000000000000ab",
                                       "+000000000000ab1",
                                       "00000000000000000ab",
                                       "free.00000000000000ab",
                                       "0000000000000000",
                                       "." };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (log_number(bad[i], "", &n))
            fail_msg("%s passes", bad[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads),   cmocka_unit_test(heads_that_lie),
        cmocka_unit_test(records), cmocka_unit_test(records_that_lie),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
