/* Tables of several threads at a time, each thread with its own: the look-up process has them. */
#include "table/build.h"
#include "table/table.h"
#include "test/test.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 100000, INDEX_EACH = 32 };

static char dir[] = "/tmp/threads_test.XXXXXX";
static struct str index_spec;

static void *open_and_close(void *arg) {
    size_t wrong = 0;
    struct arena *a = arena_new();
    for (int i = 0; i < ROUNDS; i++) {
        bool index = i % INDEX_EACH == 0;
        struct table *one = table_open(NULL, STR("static:value"), 0);
        struct table *two = index ? table_open(NULL, index_spec, 0) : table_open(NULL, STR("static:value"), 0);
        struct str value;
        wrong += table_get(two, STR("key"), a, &value) != TABLE_FOUND || !str_eq(value, STR("value"));
        table_close(i % 2 ? one : two);
        table_close(i % 2 ? two : one);
        arena_reset(a);
    }
    arena_free(a);
    *(size_t *)arg = wrong;
    return NULL;
}

static void many(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    size_t wrong[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, &wrong[i]), 0);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(wrong[i], 0);
    }
    assert_int_equal(tables_confine(true), 0); /* none is left in the list */
}

int main(void) {
    if (!mkdtemp(dir))
        return 1;
    struct arena *a = arena_new();
    struct index_entry entry = { .key = STR("key"), .value = STR("value") };
    uint32_t order = 0;
    const struct index_options o = { .kind = INDEX_LMDB, .mode = 0600, .arena = a };
    struct str path = arena_printf(a, "%s/map.lmdb", dir);
    index_spec = arena_printf(a, "lmdb:%s/map", dir);
    error e = index_write(path, (struct index_entries){ &entry, 1 }, &order, &o);
    const struct CMUnitTest tests[] = { cmocka_unit_test(many) };
    int status = e ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path.p);
    rmdir(dir);
    arena_free(a);
    return status;
}
