/* Unit tests of base/: strings, buffers, arenas, maps, pack. */
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/format.h"
#include "base/map.h"
#include "base/pack.h"
#include "base/utf8.h"
#include "test/test.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static void words_and_pieces(void **state) {
    (void)state;
    struct str s = STR("  a, {b c} ,d{e f}"), w;
    assert_true(str_word_braced(&s, STR_COMMA_SPACE, &w));
    assert_str(w, "a");
    assert_true(str_word_braced(&s, STR_COMMA_SPACE, &w));
    assert_str(w, "{b c}");
    assert_true(str_word_braced(&s, STR_COMMA_SPACE, &w));
    assert_str(w, "d{e f}");
    assert_false(str_word_braced(&s, STR_COMMA_SPACE, &w));
    assert_int_equal(s.n, 0);
    s = STR("x {unbalanced");
    assert_true(str_word_braced(&s, STR_COMMA_SPACE, &w));
    assert_false(str_word_braced(&s, STR_COMMA_SPACE, &w));
    assert_int_not_equal(s.n, 0);
    s = STR("a:b:");
    assert_true(str_next(&s, STR(":"), &w));
    assert_true(str_next(&s, STR(":"), &w));
    assert_str(w, "b");
    assert_true(str_next(&s, STR(":"), &w));
    assert_str(w, "");
    assert_false(str_next(&s, STR(":"), &w));
}

static void numbers(void **state) {
    (void)state;
    uint64_t v;
    int64_t i;
    assert_true(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &v));
    assert_false(str_to_u64(STR("18446744073709551616"), UINT64_MAX, &v));
    assert_false(str_to_u64(STR(""), 10, &v));
    assert_false(str_to_u64(STR("+1"), 10, &v));
    assert_false(str_to_u64(STR(" 1"), 10, &v));
    assert_false(str_to_u64(STR("11"), 10, &v));
    assert_true(str_to_i64(STR("-5"), -5, 5, &i));
    assert_int_equal(i, -5);
    assert_false(str_to_i64(STR("-6"), -5, 5, &i));
    assert_false(str_to_i64(STR("-"), -5, 5, &i));
}

static void compares(void **state) {
    (void)state;
    assert_true(str_eq_icase(STR("StartTLS"), STR("STARTTLS")));
    assert_false(str_eq(STR("a"), STR("ab")));
    assert_true(str_cmp(STR("a"), STR("ab")) < 0);
    assert_true(str_cmp_icase(STR("B"), STR("a")) > 0);
    assert_true(str_ends_icase(STR("x.EXAMPLE"), STR(".example")));
    assert_int_equal(str_rindex(STR("a@b@c"), '@'), 3);
    assert_int_equal(str_index(STR("abc"), 'x'), -1);
    assert_str(str_trim(STR(" \t x \r\n")), "x");
    assert_true(str_contains(STR("hello"), STR("ell")));
    assert_false(str_contains(STR("hel"), STR("hello")));
}

static void buffers(void **state) {
    (void)state;
    struct buf b = { 0 };
    assert_str(buf_str(&b), "");
    buf_printf(&b, "%d-%s", 42, "x");
    buf_byte(&b, '!');
    assert_str(buf_str(&b), "42-x!");
    buf_consume(&b, 3);
    assert_str(buf_str(&b), "x!");
    buf_clear(&b);
    buf_printable(&b, STR("a\001\x80\xc3\xa9\xed\xa0\x80z"), 100);
    assert_str(buf_str(&b), "a??\xc3\xa9???z");
    buf_clear(&b);
    buf_printable(&b, STR("ab\xc3\xa9"), 3); /* never half a character */
    assert_str(buf_str(&b), "ab");
    buf_free(&b);
    assert_false(buf_read_file(&b, "/nonexistent/file", 10));
    assert_int_equal(errno, ENOENT);
    buf_free(&b);
}

__attribute__((format(printf, 1, 2))) static void same_as_libc(const char *format, ...) {
    char want[400], got[400];
    for (size_t room = 0; room <= sizeof want; room += room < 40 ? 1 : 60) {
        va_list ap, again;
        va_start(ap, format);
        va_copy(again, ap);
        memset(want, '~', sizeof want);
        memset(got, '~', sizeof got);
        int n = vsnprintf(room ? want : NULL, room, format, ap), m = format_v(got, room, format, again);
        va_end(again);
        va_end(ap);
        if (n != m || memcmp(want, got, room ? sizeof want : 1) != 0)
            fail_msg("\"%s\" with room for %zu: \"%.*s\" (%d), not \"%.*s\" (%d)", format, room, (int)room, got, m,
                     (int)room, want, n);
    }
}

static void formats(void **state) {
    (void)state;
    const char unended[] = { 'e', 'n', 'd', 'l', 'e', 's', 's' };
    const char *volatile nothing = NULL; /* so that the compiler does not know */
    same_as_libc("plain");
    same_as_libc("100%% of %s<%.*s>%.3s%.0s%.*s|%c%c", "it", 7, unended, "abcdef", "none", 0, nothing, 'x', '\n');
    same_as_libc("%.9s", "a\0b"); /* ends at a NUL */
    same_as_libc("%s", "a long text that is longer than any room that is tried first, so that it is cut");
    same_as_libc("%d %d %d %i %u", 0, INT_MIN, INT_MAX, -7, UINT_MAX);
    same_as_libc("%ld %lu %lx %lld %llu %zu %zd", LONG_MIN, ULONG_MAX, ULONG_MAX, LLONG_MIN, ULLONG_MAX, SIZE_MAX,
                 (ssize_t)-1);
    same_as_libc("%02d:%02d:%06ld %03d %04x %010lld %020llu", 7, 123, 45L, -5, 0xabcu, -12345LL, ULLONG_MAX);
    /* what is left to the C library, in front of, between and behind the others */
    same_as_libc("%-9s|%s|%8llu|%*s|%5d|%o|%X|%+d", "left", "x", 5ULL, 4, "w", 3, 8u, 255u, 1);
    same_as_libc("%s %hhu %.1f %s", "a", (unsigned char)200, 1.25, "z");
    same_as_libc("%s%025d%s%#x%s%.3d%s", "a", 1, "b", 255u, "c", 5, "d");
    same_as_libc("%.*s", -1, "whole");
}

static void arenas(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct str s = arena_printf(a, "%s", "hello");
    char *big = arena_alloc(a, 1000000);
    memset(big, 7, 1000000);
    assert_str(s, "hello");
    VEC(int) v = { 0 };
    VEC(struct str) texts = { 0 };
    for (int i = 0; i < 1000; i++)
        *vec_add(a, &v) = i;
    assert_int_equal(v.n, 1000);
    assert_int_equal(v.at[999], 999);
    arena_reset(a);
    assert_int_equal(arena_used(a), 0);
    /* text that fits what is left of a block, and text that does not, at every place in it */
    for (int i = 0; i < 3000; i++) {
        struct str t = arena_printf(a, "%d:%0*d", i, i % 37, 0);
        char want[64];
        snprintf(want, sizeof want, "%d:%0*d", i, i % 37, 0);
        assert_str(t, want);
        assert_int_equal(t.p[t.n], 0);
        *vec_add(a, &texts) = t;
    }
    for (size_t i = 0; i < texts.n; i++)
        assert_int_equal(strtol(texts.at[i].p, NULL, 10), i); /* none lies on another */
    arena_reset(a);
    assert_str(arena_lower(a, STR("MiX")), "mix");
    arena_free(a);
}

static void maps(void **state) {
    (void)state;
    struct map m = { 0 };
    char keys[500][8];
    for (int i = 0; i < 500; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        assert_null(map_put(&m, str_c(keys[i]), keys[i]));
    }
    for (int i = 0; i < 500; i += 2)
        assert_ptr_equal(map_remove(&m, str_c(keys[i])), keys[i]);
    for (int i = 0; i < 500; i++)
        assert_ptr_equal(map_get(&m, str_c(keys[i])), i % 2 ? keys[i] : NULL);
    size_t at = 0, n = 0;
    struct map_entry *e;
    while (map_next(&m, &at, &e))
        n++;
    assert_int_equal(n, 250);
    map_free(&m);
}

static void packing(void **state) {
    (void)state;
    struct buf b = { 0 };
    pack_u8(&b, 200);
    pack_u32(&b, 0xdeadbeef);
    pack_i64(&b, -3);
    pack_str(&b, STR("text"));
    struct unpack u = unpack_from(buf_str(&b));
    assert_int_equal(unpack_u8(&u), 200);
    assert_int_equal(unpack_u32(&u), 0xdeadbeef);
    assert_int_equal(unpack_i64(&u), -3);
    assert_str(unpack_str(&u), "text");
    assert_true(unpack_done(&u));
    u = unpack_from(str_sub(buf_str(&b), 0, b.n - 1)); /* cut short: everything after is empty */
    unpack_u8(&u), unpack_u32(&u), unpack_i64(&u);
    assert_str(unpack_str(&u), "");
    assert_true(u.bad);
    buf_free(&b);
}

static void utf8(void **state) {
    (void)state;
    assert_true(utf8_valid(STR("gr\xc3\xbc\xc3\x9f \xf0\x9f\x93\xa7")));
    assert_false(utf8_valid(STR("\xc0\x80")));         /* over-long NUL */
    assert_false(utf8_valid(STR("\xed\xa0\x80")));     /* surrogate */
    assert_false(utf8_valid(STR("\xf4\x90\x80\x80"))); /* past U+10FFFF */
    assert_false(utf8_valid(STR("\xe2\x82")));         /* cut */
}

static void errors(void **state) {
    (void)state;
    assert_int_equal(err_errno(ENOENT)->sys, ENOENT);
    assert_ptr_equal(err_errno(ENOENT), err_errno(ENOENT));
    struct arena *a = arena_new();
    error e = err_smtp(a, 450, "4.7.1", "Greylisted, %d", 1);
    assert_int_equal(e->kind, ERR_TEMP);
    assert_str(e->text, "Greylisted, 1");
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_and_pieces),
        cmocka_unit_test(numbers),
        cmocka_unit_test(compares),
        cmocka_unit_test(buffers),
        cmocka_unit_test(formats),
        cmocka_unit_test(arenas),
        cmocka_unit_test(maps),
        cmocka_unit_test(packing),
        cmocka_unit_test(utf8),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
