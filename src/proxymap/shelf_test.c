/* Tables that hang, and those that do not. */
#include "test/test.h"

#include "base/buf.h"
#include "base/log.h"
#include "proxymap/shelf.h"
#include "table/table_impl.h"

#include <pthread.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    pthread_cond_t released;
    bool hang;
    unsigned open, asking, asking_most;
    struct buf log;
    int failed;
} t = { .lock = PTHREAD_MUTEX_INITIALIZER, .released = PTHREAD_COND_INITIALIZER };

#define CHECK_COUNT t.failed
#include "test/check.h"

/* slow:name - a server that answers when it is let */
static error slow_open(struct table *table) {
    (void)table;
    pthread_mutex_lock(&t.lock);
    t.open++;
    pthread_mutex_unlock(&t.lock);
    return NULL;
}
static void slow_close(struct table *table) {
    (void)table;
    t.open--;
}
static enum table_result slow_get(struct table *table, struct str key, struct arena *a, struct str *ret_value) {
    pthread_mutex_lock(&t.lock);
    if (++t.asking > t.asking_most)
        t.asking_most = t.asking;
    while (t.hang)
        pthread_cond_wait(&t.released, &t.lock);
    t.asking--;
    pthread_mutex_unlock(&t.lock);
    if (str_eq(key, STR("warn")))
        log_warn("said in a thread");
    if (str_eq(key, STR("two lines")))
        log_warn("one\n2two"); /* a server's words may be anything */
    if (str_eq(key, STR("none")))
        return TABLE_NOT_FOUND;
    if (str_eq(key, STR("nul"))) {
        *ret_value = STR("a\0b");
        return TABLE_FOUND;
    }
    if (str_eq(key, STR("bad")))
        return table_fail(table, "it is broken");
    *ret_value = arena_cat(a, key, STR("!"));
    return TABLE_FOUND;
}
static const struct table_type slow = {
    .name = STR_INIT("slow"), .fixed = true, .open = slow_open, .get = slow_get, .close = slow_close
};
static const struct table_type server = {
    .name = STR_INIT("tcp"), .fixed = true, .open = slow_open, .get = slow_get, .close = slow_close
};
static const struct table_type *const types[] = { &slow, &server };

static void let_go(bool hang) {
    pthread_mutex_lock(&t.lock);
    t.hang = hang;
    pthread_cond_broadcast(&t.released);
    pthread_mutex_unlock(&t.lock);
}

static struct shelf *shelf;

static enum table_result ask(const char *spec, const char *key, int64_t us, struct arena *a, struct str *value,
                             struct str *why) {
    struct str unused;
    struct table_question q = { .what = TABLE_ASK_GET, .spec = str_c(spec), .key = str_c(key), .flags = TABLE_FOLD };
    return shelf_ask(shelf, &q, deadline_in_us(us), a, &unused, value, why);
}

static void answers(void *arg) {
    (void)arg;
    struct arena *a = arena_new();
    struct str value, why;
    CHECK(ask("slow:x", "KEY", 5000000, a, &value, &why) == TABLE_FOUND && str_eq(value, STR("key!")));
    CHECK(ask("slow:x", "none", 5000000, a, &value, &why) == TABLE_NOT_FOUND);
    CHECK(ask("slow:x", "bad", 5000000, a, &value, &why) == TABLE_ERROR && str_eq(why, STR("it is broken")));
    CHECK(t.open == 1); /* one after the other: one connection does */
    CHECK(ask("slow:x", "nul", 5000000, a, &value, &why) == TABLE_ERROR && str_contains(why, STR("NUL")));
    CHECK(ask("slow:x", "warn", 5000000, a, &value, &why) == TABLE_FOUND);
    CHECK(str_contains(buf_str(&t.log), STR("said in a thread")));
    CHECK(ask("slow:x", "two lines", 5000000, a, &value, &why) == TABLE_FOUND);
    CHECK(str_contains(buf_str(&t.log), STR("warning: one")) && !str_contains(buf_str(&t.log), STR("error: two")));
    CHECK(ask("inline:{a=b}", "A", 5000000, a, &value, &why) == TABLE_FOUND && str_eq(value, STR("b")));
    CHECK(ask("nosuch:x", "a", 5000000, a, &value, &why) == TABLE_ERROR && str_contains(why, STR("nosuch")));
    arena_free(a);
}

/* What means nothing to a server does not make another table: each has threads of its own. */
static void flags(void *arg) {
    (void)arg;
    struct arena *a = arena_new();
    struct str key, value, why;
    static const unsigned sets[] = { TABLE_FOLD, TABLE_FOLD | TABLE_NO_REGSUB, TABLE_FOLD | TABLE_ALIASES };
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        struct table_question q = { .what = TABLE_ASK_GET, .spec = STR("tcp:x"), .key = STR("K"), .flags = sets[i] };
        CHECK(shelf_ask(shelf, &q, deadline_in(5), a, &key, &value, &why) == TABLE_FOUND);
        CHECK(str_eq(value, STR("k!")));
    }
    CHECK(t.open == 1);
    arena_free(a);
}

static struct group asking;
static unsigned in_time, at_once; /* what those who gave up were told */

static void gives_up(void *arg) {
    struct arena *a = arena_new();
    struct str value, why;
    CHECK(ask("slow:dead", arg, 200000, a, &value, &why) == TABLE_ERROR);
    in_time += str_eq(why, STR("slow:dead: no answer in time"));
    at_once += str_eq(why, STR("slow:dead: did not answer a moment ago"));
    arena_free(a);
    group_leave(&asking);
}

static void hangs(void *arg) {
    (void)arg;
    struct arena *a = arena_new();
    struct str value, why;
    let_go(true);
    for (int i = 0; i < SHELF_COPIES + 3; i++) {
        group_enter(&asking);
        CHECK(coro_spawn(gives_up, "key", "asking") != NULL);
    }
    coro_yield();
    /* others are answered meanwhile */
    CHECK(ask("inline:{a=b}", "a", 5000000, a, &value, &why) == TABLE_FOUND);
    group_wait(&asking, DEADLINE_NEVER);
    CHECK(t.asking_most == SHELF_COPIES && t.open == SHELF_COPIES);
    CHECK(in_time >= SHELF_COPIES && in_time + at_once == SHELF_COPIES + 3);
    let_go(false);
    while (t.asking)
        wait_until(deadline_in_us(1000));
    /* it rests ... */
    CHECK(ask("slow:dead", "too soon", 5000000, a, &value, &why) == TABLE_ERROR);
    CHECK(str_eq(why, STR("slow:dead: did not answer a moment ago")));
    wait_until(deadline_in(SHELF_REST_SECONDS));
    /* ... then one tries, and the others do not wait for it */
    let_go(true);
    in_time = at_once = 0;
    for (int i = 0; i < 3; i++) {
        group_enter(&asking);
        CHECK(coro_spawn(gives_up, "key", "asking") != NULL);
    }
    group_wait(&asking, DEADLINE_NEVER);
    CHECK(in_time == 1 && at_once == 2);
    let_go(false);
    wait_until(deadline_in(SHELF_REST_SECONDS));
    CHECK(ask("slow:dead", "back", 5000000, a, &value, &why) == TABLE_FOUND && str_eq(value, STR("back!")));
    while (t.asking)
        wait_until(deadline_in_us(1000));
    arena_free(a);
}

static void keep_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx;
    (void)level;
    (void)tag;
    buf_add(&t.log, text);
}

static void run(void (*script)(void *)) {
    t.open = t.asking_most = 0;
    t.failed = 0;
    table_register(types, sizeof types / sizeof types[0]);
    log_set_sink(keep_log, NULL);
    assert_null(loop_init());
    shelf = shelf_new(NULL);
    assert_non_null(coro_spawn(script, NULL, "script"));
    assert_null(loop_run());
    shelf_free(shelf);
    loop_free();
    log_set_sink(NULL, NULL);
    buf_free(&t.log);
    assert_int_equal(t.open, 0);
    assert_int_equal(t.failed, 0);
}

static void asked(void **state) {
    (void)state;
    run(answers);
}
static void flagged(void **state) {
    (void)state;
    run(flags);
}
static void hanging(void **state) {
    (void)state;
    run(hangs);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(asked), cmocka_unit_test(flagged), cmocka_unit_test(hanging) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
