/* Tables that are asked elsewhere: look-ups wait, and others begin on the same tables meanwhile. The one who is asked
 * is played here, with a clock that jumps. */
#include "test/test.h"

#include "base/log.h"
#include "mail/address.h"
#include "route/router.h"
#include "run/coro.h"
#include "table/remote.h"
#include "table/table_impl.h"
#include "test/fake_sys.h"

enum { ASKERS = 300, SLOWEST_MS = 50 };

static int failed;
#define CHECK_COUNT failed
#include "test/check.h"

static unsigned waiting, waiting_most;

/* Different keys take different times, so that answers come in another order than questions. */
static void think(struct str key) {
    unsigned ms = 1;
    for (size_t i = 0; i < key.n; i++)
        ms = (ms * 31 + (unsigned char)key.p[i]) % SLOWEST_MS;
    if (++waiting > waiting_most)
        waiting_most = waiting;
    wait_until(deadline_in_us((ms + 1) * 1000));
    waiting--;
}

/* "proxy:alias:": userN@... is alias tN@y.example; "proxy:way:": tN@y.example goes to hopN; dead.example fails. */
static enum table_result play(void *ctx, const struct table_question *q, struct arena *a, struct str *ret_key,
                              struct str *ret_value, struct str *ret_why) {
    (void)ctx;
    *ret_key = *ret_value = *ret_why = STR("");
    think(q->key);
    CHECK(q->what == TABLE_ASK_GET && q->proxied && (q->flags & TABLE_FOLD));
    if (str_ends_icase(q->key, STR("dead.example"))) {
        *ret_why = arena_printf(a, "no answer for %.*s", STR_ARG(q->key));
        return TABLE_ERROR;
    }
    bool way = str_eq(q->spec, STR("way:"));
    struct str first = way ? STR("t") : STR("user");
    struct address_parts p = address_split(q->key);
    if (!p.has_domain || !str_starts(p.local, first))
        return TABLE_NOT_FOUND;
    struct str number = str_from(p.local, first.n);
    *ret_value =
        way ? arena_printf(a, "smtp:hop%.*s", STR_ARG(number)) : arena_printf(a, "t%.*s@y.example", STR_ARG(number));
    return TABLE_FOUND;
}

static struct router *router;

static void expects_its_own(void *arg) {
    unsigned n = *(unsigned *)arg;
    struct arena *a = arena_new();
    bool dead = n % 7 == 0;
    struct str address = arena_printf(a, "user%u@%s", n, dead ? "dead.example" : "x.example"), *at;
    size_t count = 0;
    error e = route_expand_virtual(router, a, address, &at, &count);
    if (dead) {
        CHECK(e && e->code == 451 && str_contains(e->detail, address));
    } else {
        CHECK(!e && count == 1 && str_eq(at[0], arena_printf(a, "t%u@y.example", n)));
        struct route route = { 0 };
        if (!e && count == 1)
            e = route_resolve(router, a, STR(""), at[0], &route);
        CHECK(!e && str_eq(route.nexthop, arena_printf(a, "hop%u", n)) && str_eq(route.recipient, at[0]));
    }
    arena_free(a);
}

static void no_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx;
    (void)level;
    (void)tag;
    (void)text;
}

static void one_router_for_many(void **state) {
    (void)state;
    static const struct conf_override o[] = {
        { STR_INIT("myhostname"), STR_INIT("here.example") },
        { STR_INIT("inet_interfaces"), STR_INIT("127.0.0.1") },
        { STR_INIT("mydestination"), STR_INIT("here.example, proxy:mine:x") },
        { STR_INIT("virtual_alias_maps"), STR_INIT("unionmap:{proxy:alias:, inline:{none=x}}") },
        { STR_INIT("transport_maps"), STR_INIT("inline:{none=x}, proxy:way:") },
    };
    static const struct table_remote remote = { .ask = play };
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = o,
                                  .override_count = sizeof o / sizeof o[0],
                                  .process_name = STR("trivial-rewrite"),
                                  .service_name = STR("rewrite"),
                                  .missing_is_empty = true };
    struct arena *a = arena_new();
    struct conf *c;
    assert_null(conf_load(&source, a, &c));
    fake_sys_install();
    table_set_remote(&remote);
    log_set_sink(no_log, NULL);
    assert_null(loop_init());
    router = router_new(c);
    static unsigned numbers[ASKERS];
    for (unsigned i = 0; i < ASKERS; i++) {
        numbers[i] = i;
        assert_non_null(coro_spawn(expects_its_own, &numbers[i], "asker"));
    }
    assert_null(loop_run());
    router_free(router);
    loop_free();
    log_set_sink(NULL, NULL);
    table_set_remote(NULL);
    fake_sys_remove();
    conf_free(c);
    arena_free(a);
    assert_int_equal(failed, 0);
    assert_true(waiting_most > ASKERS / 2); /* they did wait at the same time */
}

/* --- a type that waits and whose keys are folded --- */

static unsigned opened;

static error echo_open(struct table *t) {
    opened++;
    t->state = ARENA_NEW(t->gen, unsigned);
    return NULL;
}

static enum table_result echo_get(struct table *t, struct str key, struct arena *a, struct str *ret_value) {
    const void *before = t->state;
    think(key);
    CHECK(t->state == before);
    *ret_value = arena_str(a, key);
    return TABLE_FOUND;
}

static const struct table_type echo = { .name = STR_INIT("echo"), .fixed = true, .open = echo_open, .get = echo_get };
static const struct table_type *const echo_only[] = { &echo };
static struct table *table;

static void hears_its_key(void *arg) {
    static const char upper[] = "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
                      lower[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    unsigned n = *(unsigned *)arg;
    int length = (int)(n % 40);
    struct arena *a = arena_new();
    for (unsigned i = 0; i < 3; i++) {
        struct str value, key = arena_printf(a, "KEY-%u-%u-%.*s", i, n, length, upper);
        wait_until(deadline_in_us((int64_t)(n % 13) * 1000)); /* what one leaves behind, another takes up */
        table->stale = true;                                  /* its file has changed */
        CHECK(table_get(table, key, a, &value) == TABLE_FOUND);
        CHECK(str_eq(value, arena_printf(a, "key-%u-%u-%.*s", i, n, length, lower)));
    }
    arena_free(a);
}

static void one_table_for_many(void **state) {
    (void)state;
    fake_sys_install();
    table_register(echo_only, 1);
    assert_null(loop_init());
    table = table_open(NULL, STR("echo:x"), TABLE_FOLD);
    failed = 0;
    static unsigned numbers[ASKERS];
    for (unsigned i = 0; i < ASKERS; i++) {
        numbers[i] = i;
        assert_non_null(coro_spawn(hears_its_key, &numbers[i], "asker"));
    }
    assert_null(loop_run());
    assert_int_equal(failed, 0);
    assert_int_equal(opened, 2); /* once more for the first; not while somebody was in it */
    assert_non_null(coro_spawn(hears_its_key, &numbers[0], "asker"));
    assert_null(loop_run());
    assert_int_equal(opened, 5); /* alone: each time */
    table_close(table);
    loop_free();
    table_register(NULL, 0);
    fake_sys_remove();
    assert_int_equal(failed, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(one_router_for_many), cmocka_unit_test(one_table_for_many) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
