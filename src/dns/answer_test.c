/* Answers as a hostile server writes them: records of any type and any length, too many of them, wild names. */
#include "base/buf.h"
#include "dns/internal.h"
#include "test/test.h"
#include <stdlib.h>

enum { ID = 0x1234, SHORT_MAX = 64, FILLS = 20, CROWD = 3000, HEADER_SIZE = 12 };

static const enum dns_type types[] = { DNS_A, DNS_NS, DNS_CNAME, DNS_PTR, DNS_MX, DNS_TXT, DNS_AAAA };

static void u16(struct buf *b, unsigned v) {
    buf_byte(b, (char)(v >> 8));
    buf_byte(b, (char)v);
}

/* Header and question for mail.example. */
static void begin(struct buf *b, enum dns_type type, unsigned records) {
    u16(b, ID);
    u16(b, 0x8180); /* an answer, recursion available, no error */
    u16(b, 1);
    u16(b, records);
    u16(b, 0);
    u16(b, 0);
    buf_add(b, str_n("\4mail\7example", 14));
    u16(b, type);
    u16(b, 1);
}

static void record(struct buf *b, enum dns_type type, struct str data) {
    u16(b, 0xc000 | HEADER_SIZE); /* the question's name */
    u16(b, type);
    u16(b, 1);
    u16(b, 0);
    u16(b, 60);
    u16(b, (unsigned)data.n);
    buf_add(b, data);
}

/* Read from memory that ends where the packet does, so that a sanitizer sees a byte too much. */
static bool read_packet(struct arena *a, const struct buf *b, enum dns_type type, struct dns_answer *ret) {
    bool cut;
    unsigned rcode;
    char *exact = malloc(b->n);
    assert_non_null(exact);
    memcpy(exact, b->p, b->n);
    bool ours = dns_read_answer(a, str_n(exact, b->n), ID, STR("mail.example"), type, ret, &cut, &rcode);
    free(exact);
    return ours;
}

/* Is that enough for a record of this type? Names: a root label is the shortest. (What is too much is left out.) */
static bool possible(enum dns_type type, size_t n) {
    return type == DNS_A ? n >= 4 : type == DNS_AAAA ? n >= 16 : type == DNS_MX ? n >= 3 : n >= 1;
}

/* DN-03, DN-05, DN-06: lengths are checked before anything behind them is read. */
static void test_short_records(void **state) {
    (void)state;
    unsigned seed = 1;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        for (size_t n = 0; n <= SHORT_MAX; n++)
            for (int fill = 0; fill < FILLS; fill++) {
                struct arena *a = arena_new();
                struct buf b = { 0 };
                struct dns_answer answer = { 0 };
                char data[SHORT_MAX];
                for (size_t i = 0; i < n; i++)
                    data[i] = (char)((seed = seed * 1103515245 + 12345) >> 16);
                begin(&b, types[t], 1);
                record(&b, types[t], str_n(data, n));
                bool ours = read_packet(a, &b, types[t], &answer);
                if (ours && answer.count && !possible(types[t], n))
                    fail_msg("type %d took %zu bytes", (int)types[t], n);
                for (size_t i = 0; ours && i < answer.count; i++)
                    for (size_t k = 0; k < answer.records[i].text.n; k++)
                        assert_true(answer.records[i].text.n <= SHORT_MAX);
                buf_free(&b);
                arena_free(a);
            }
}

/* DN-04: not one list of thousands, and no recursion. */
static void test_thousands(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct buf b = { 0 };
    struct dns_answer answer = { 0 };
    begin(&b, DNS_A, CROWD);
    for (int i = 0; i < CROWD; i++) {
        char address[4] = { 10, 0, (char)(i >> 8), (char)i };
        record(&b, DNS_A, str_n(address, sizeof address));
    }
    assert_true(read_packet(a, &b, DNS_A, &answer));
    assert_int_equal(answer.count, DNS_RECORDS_MAX);
    buf_free(&b);
    arena_free(a);
}

/* DN-08: one text, however many pieces it came in. DN-05: a piece that would go beyond the record is no text. */
static void test_texts(void **state) {
    (void)state;
    static const struct {
        const char *data;
        size_t n;
        const char *text; /* NULL: no record */
    } rows[] = {
        { "\3one\4 two", 9, "one two" }, { "\0\1x", 3, "x" }, { "\4one", 4, NULL },
        { "\3one\377two", 8, NULL },     { "\1", 1, NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct arena *a = arena_new();
        struct buf b = { 0 };
        struct dns_answer answer = { 0 };
        begin(&b, DNS_TXT, 1);
        record(&b, DNS_TXT, str_n(rows[i].data, rows[i].n));
        bool ours = read_packet(a, &b, DNS_TXT, &answer);
        assert_int_equal(ours && answer.count ? 1 : 0, rows[i].text ? 1 : 0);
        if (rows[i].text)
            assert_str(answer.records[0].text, rows[i].text);
        buf_free(&b);
        arena_free(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_records),
        cmocka_unit_test(test_thousands),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
