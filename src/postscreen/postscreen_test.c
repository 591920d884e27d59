/* What needs no server: sites as main.cf has them, and what the cache believes. */
#include "postscreen/cache.h"

#include "test/test.h"

static error load(struct dnsbl *d, struct arena *a, const char *sites) {
    *d = (struct dnsbl){ 0 };
    return dnsbl_load(d, a, str_c(sites), a);
}

static void test_sites(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct dnsbl d;
    assert_null(load(&d, a, "a.example=127.0.0.2*3, b.example*-2 A.example a.example=127.0.0.[4..9]"));
    assert_int_equal(d.list_count, 2);
    assert_str(d.lists[0].domain, "a.example");
    assert_int_equal(d.lists[0].site_count, 3);
    assert_int_equal(d.lists[0].sites[0].weight, 3);
    assert_true(d.lists[0].sites[0].filtered);
    assert_int_equal(d.lists[0].sites[1].weight, 1);
    assert_false(d.lists[0].sites[1].filtered);
    assert_int_equal(d.lists[1].sites[0].weight, -2);
    assert_null(load(&d, a, ""));
    assert_int_equal(d.list_count, 0);
    arena_free(a);
}

static void test_bad_sites(void **state) {
    (void)state;
    static const char *const bad[] = { "a.example*", "a.example*x", "a.example*9999999999", "=127.0.0.2",
                                       "*3",         "a.example=",  "a.example=1.2.3" };
    struct arena *a = arena_new();
    struct dnsbl d;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error e = load(&d, a, bad[i]);
        assert_non_null(e);
        assert_int_equal(e->kind, ERR_CONFIG);
        assert_true(str_starts(e->text, STR("postscreen_dnsbl_sites: ")));
    }
    struct buf many = { 0 };
    for (int i = 0; i <= DNSBL_LISTS_MAX; i++)
        buf_printf(&many, "l%d.example ", i);
    assert_non_null(load(&d, a, many.p));
    buf_free(&many);
    arena_free(a);
}

/* The cache is a file that anybody who may write data_directory can change. */
static void test_cache(void **state) {
    (void)state;
    struct arena *a = arena_new();
    struct settings s = { .arena = a, .cache_map = STR("internal:postscreen-test"), .cache_retention = 10 };
    struct cache *c = cache_open(&s);
    struct passes p = { .until = { 100, 0, 300, 400, 500 } }, got;
    cache_get(c, STR("192.0.2.1"), &got);
    for (int t = 0; t < TESTS; t++)
        assert_int_equal(got.until[t], 0);
    cache_put(c, STR("192.0.2.1"), &p);
    cache_get(c, STR("192.0.2.1"), &got);
    assert_memory_equal(&got, &p, sizeof p);
    cache_clean(c, 509); /* the last pass ended nine seconds ago */
    cache_get(c, STR("192.0.2.1"), &got);
    assert_int_equal(got.until[TEST_BARE_NEWLINE], 500);
    cache_clean(c, 510);
    cache_get(c, STR("192.0.2.1"), &got);
    assert_int_equal(got.until[TEST_BARE_NEWLINE], 0);
    cache_close(c);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sites),
        cmocka_unit_test(test_bad_sites),
        cmocka_unit_test(test_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
