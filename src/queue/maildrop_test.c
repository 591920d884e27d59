#include "test/test.h"

#include "mail/dsn.h"
#include "queue/maildrop.h"

#include <stdlib.h>
#include <unistd.h>

#define GOOD_HEAD "\1\3\0\0\0a@b"
#define RCPT "\6\4\0\0\0\0c@d"
#define CONTENT "\7\2\0\0\0x\n"
#define END "\10\0\0\0\0"

static const struct {
    struct str bytes;
    bool good;
} streams[] = {
    { STR_INIT(GOOD_HEAD RCPT CONTENT END), true },
    { STR_INIT(GOOD_HEAD CONTENT RCPT RCPT END), true },
    { STR_INIT(GOOD_HEAD RCPT END), true },
    { STR_INIT("\1\0\0\0\0" RCPT CONTENT CONTENT RCPT END), true },
    { STR_INIT(GOOD_HEAD "\2\3\0\0\0A\nB\3\1\0\0\0e\4\1\0\0\0\2\5\1\0\0\0\7" RCPT END), true },
    /* what must not pass */
    { STR_INIT(""), false },
    { STR_INIT(GOOD_HEAD RCPT CONTENT), false }, /* no end */
    { STR_INIT(GOOD_HEAD CONTENT END), false },  /* nobody to send it to */
    { STR_INIT(GOOD_HEAD RCPT END "x"), false }, /* something behind the end */
    { STR_INIT(GOOD_HEAD RCPT END END), false },
    { STR_INIT(RCPT END), false }, /* no sender */
    { STR_INIT(GOOD_HEAD GOOD_HEAD RCPT END), false },
    { STR_INIT("\0\0\0\0\0" GOOD_HEAD RCPT END), false }, /* type 0 */
    { STR_INIT(GOOD_HEAD "\0\0\0\0\0" RCPT END), false },
    { STR_INIT(GOOD_HEAD "\11\0\0\0\0" RCPT END), false }, /* unknown type */
    { STR_INIT(GOOD_HEAD "\377\0\0\0\0" RCPT END), false },
    { STR_INIT(GOOD_HEAD CONTENT RCPT CONTENT END), false }, /* content in two places */
    { STR_INIT(GOOD_HEAD RCPT "\2\1\0\0\0A" END), false },   /* out of order */
    { STR_INIT(GOOD_HEAD CONTENT "\3\1\0\0\0A" RCPT END), false },
    { STR_INIT(GOOD_HEAD "\2\1\0\0\0A\2\1\0\0\0A" RCPT END), false }, /* twice */
    { STR_INIT("\1\3\0\0\0a\0b" RCPT END), false },                   /* NUL, CR, LF in values */
    { STR_INIT("\1\3\0\0\0a\nb" RCPT END), false },
    { STR_INIT("\1\3\0\0\0a\rb" RCPT END), false },
    { STR_INIT(GOOD_HEAD "\6\4\0\0\0\0c\nd" END), false },
    { STR_INIT(GOOD_HEAD "\6\4\0\0\0\0c\0d" END), false },
    { STR_INIT(GOOD_HEAD "\3\3\0\0\0e\nf" RCPT END), false },
    { STR_INIT(GOOD_HEAD "\6\0\0\0\0" END), false },          /* no mask */
    { STR_INIT(GOOD_HEAD "\6\4\0\0\0\20c@d" END), false },    /* no such mask */
    { STR_INIT(GOOD_HEAD "\4\1\0\0\0\4" RCPT END), false },   /* no such RET */
    { STR_INIT(GOOD_HEAD "\5\1\0\0\0\100" RCPT END), false }, /* no such flag */
    { STR_INIT(GOOD_HEAD "\5\1\0\0\0\10" RCPT END), true },   /* sendmail -bv */
    { STR_INIT(GOOD_HEAD "\5\3\0\0\0\40+=" RCPT END), true }, /* sendmail -XV+=, with two delimiters */
    { STR_INIT(GOOD_HEAD "\5\1\0\0\0\40" RCPT END), false },
    { STR_INIT(GOOD_HEAD "\5\2\0\0\0\40+" RCPT END), false },
    { STR_INIT(GOOD_HEAD "\5\4\0\0\0\40+==" RCPT END), false },
    { STR_INIT(GOOD_HEAD "\5\3\0\0\0\40+\n" RCPT END), false },
    { STR_INIT(GOOD_HEAD "\5\2\0\0\0\1\1" RCPT END), false },
    { STR_INIT(GOOD_HEAD RCPT "\7\377\377\377\177"), false }, /* lengths */
    { STR_INIT(GOOD_HEAD RCPT "\7\1\0\1\0"), false },
    { STR_INIT("\1\377\377\377\377"), false },
    { STR_INIT(GOOD_HEAD RCPT "\10\1\0\0\0x"), false },
};

static bool parse(struct str in, size_t step) {
    struct maildrop_reader r = { 0 };
    struct maildrop_record m;
    bool good = true;
    while (good && in.n > 0) {
        struct str piece = str_sub(in, 0, step ? step : in.n);
        char *copy = malloc(piece.n); /* no terminator */
        memcpy(copy, piece.p, piece.n);
        maildrop_feed(&r, (struct str){ copy, piece.n });
        free(copy);
        in = str_from(in, piece.n);
        enum maildrop_state state;
        while ((state = maildrop_next(&r, &m)) == MAILDROP_RECORD)
            ;
        good = state != MAILDROP_BAD;
    }
    good = good && maildrop_eof(&r);
    maildrop_reader_free(&r);
    return good;
}

static bool read_it(struct str in) {
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], in.p, in.n), (ssize_t)in.n);
    close(fds[1]);
    struct maildrop_reader r = { 0 };
    struct maildrop_record m = { .type = MAILDROP_SENDER };
    error e = NULL;
    while (!e && m.type != MAILDROP_END)
        e = maildrop_read(&r, fds[0], &m);
    close(fds[0]);
    maildrop_reader_free(&r);
    return !e;
}

static void test_streams(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++)
        for (size_t step = 0; step < 4; step++)
            if (parse(streams[i].bytes, step) != streams[i].good || read_it(streams[i].bytes) != streams[i].good)
                fail_msg("stream %zu", i);
}

static void test_round_trip(void **state) {
    (void)state;
    struct buf b = { 0 };
    maildrop_put(&b, MAILDROP_SENDER, STR("a b@c"));
    maildrop_put(&b, MAILDROP_FULL_NAME, STR("N"));
    maildrop_put_u8(&b, MAILDROP_RET, DSN_RET_HDRS);
    maildrop_put_u8(&b, MAILDROP_FLAGS, MAILDROP_8BIT);
    maildrop_put_rcpt(&b, DSN_NOTIFY_DELAY, STR("x@y"));
    char *big = calloc(1, MAILDROP_CONTENT_MAX);
    maildrop_put(&b, MAILDROP_CONTENT, (struct str){ big, MAILDROP_CONTENT_MAX });
    maildrop_put_rcpt(&b, 0, STR(""));
    maildrop_put(&b, MAILDROP_END, STR(""));
    struct maildrop_reader r = { 0 };
    struct maildrop_record m;
    maildrop_feed(&r, buf_str(&b));
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_RECORD);
    assert_str(m.bytes, "a b@c");
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_RECORD);
    assert_int_equal(m.type, MAILDROP_FULL_NAME);
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_RECORD);
    assert_true(m.type == MAILDROP_RET && m.value == DSN_RET_HDRS);
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_RECORD);
    assert_true(m.type == MAILDROP_FLAGS && m.value == MAILDROP_8BIT);
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_RECORD);
    assert_true(m.type == MAILDROP_RCPT && m.value == DSN_NOTIFY_DELAY);
    assert_str(m.bytes, "x@y");
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_RECORD);
    assert_true(m.type == MAILDROP_CONTENT && m.bytes.n == MAILDROP_CONTENT_MAX);
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_RECORD);
    assert_true(m.type == MAILDROP_RCPT && m.value == 0 && m.bytes.n == 0);
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_RECORD);
    assert_int_equal(m.type, MAILDROP_END);
    assert_true(maildrop_eof(&r));
    assert_int_equal(maildrop_next(&r, &m), MAILDROP_MORE);
    free(big);
    buf_free(&b);
    maildrop_reader_free(&r);
}

/* However long the stream, no more than a few records are in memory. */
static void test_memory(void **state) {
    (void)state;
    struct maildrop_reader r = { 0 };
    struct maildrop_record m;
    struct buf b = { 0 };
    maildrop_put(&b, MAILDROP_SENDER, STR("a@b"));
    maildrop_put_rcpt(&b, 0, STR("c@d"));
    maildrop_feed(&r, buf_str(&b));
    buf_clear(&b);
    maildrop_put(&b, MAILDROP_CONTENT, STR("some content that comes again and again\n"));
    for (int i = 0; i < 100000; i++) {
        maildrop_feed(&r, buf_str(&b));
        while (maildrop_next(&r, &m) == MAILDROP_RECORD)
            ;
        assert_true(r.in.room <= 4 * MAILDROP_RECORD_MAX);
    }
    buf_free(&b);
    maildrop_reader_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
