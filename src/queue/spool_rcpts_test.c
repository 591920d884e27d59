/* Messages with very many recipients, read a part at a time. */
#include "queue/spool_test_util.h"

#include "test/fake_sys.h"
#include <errno.h>

struct rcpts_seen {
    size_t count, calls;
    uint32_t last;
};

/* All that is left to do, `max` at a time; each is the one of its index. */
static struct rcpts_seen read_all(struct spool *s, const struct queue_id *id, enum spool_state state,
                                  struct spool_rest *rest, size_t max) {
    struct rcpts_seen seen = { 0 };
    while (rest->todo > 0) {
        struct arena *a = arena_new();
        struct rcpt *r;
        uint32_t *index;
        size_t n, before = rest->todo;
        assert_null(spool_rcpts_next(s, id, state, rest, max, a, &r, &index, &n));
        assert_int_equal(n, before < max ? before : max);
        assert_int_equal(rest->todo, before - n);
        for (size_t i = 0; i < n; i++) {
            assert_true(seen.count == 0 || index[i] > seen.last);
            assert_true(str_eq(r[i].address, arena_printf(a, "to%u@there.example", index[i])));
            assert_int_equal(r[i].state, RCPT_TODO);
            seen.last = index[i];
            seen.count++;
        }
        seen.calls++;
        arena_free(a);
    }
    return seen;
}

static void in_parts(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    static const struct {
        size_t count, max, calls;
    } rows[] = { { 1001, 1000, 2 }, { 5000, 1, 5000 }, { 20000, 7, 2858 }, { 20000, 1000, 20 }, { 20000, 50000, 1 } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct queue_id id;
        struct envelope env;
        struct spool_content c;
        struct spool_rest rest;
        assert_null(test_message(w, q.arena, 100, rows[i].count, SPOOL_INCOMING, &id));
        assert_null(spool_load_front(r, &id, SPOOL_INCOMING, q.arena, &env, &c, &rest));
        assert_null(env.rcpts);
        assert_int_equal(env.rcpt_count, rows[i].count);
        assert_str(env.sender, "from@here.example");
        assert_int_equal(rest.todo, rows[i].count);
        struct rcpts_seen seen = read_all(r, &id, SPOOL_INCOMING, &rest, rows[i].max);
        assert_int_equal(seen.count, rows[i].count);
        assert_int_equal(seen.calls, rows[i].calls);
        spool_content_close(&c);
    }
    spool_close(r);
    spool_close(w);
    test_queue_free(&q);
}

static void few_come_whole(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    struct envelope env;
    struct spool_content c;
    struct spool_rest rest;
    assert_null(test_message(w, q.arena, 100, SPOOL_RCPTS_WHOLE, SPOOL_INCOMING, &id));
    assert_null(spool_load_front(r, &id, SPOOL_INCOMING, q.arena, &env, &c, &rest));
    assert_non_null(env.rcpts);
    assert_int_equal(env.rcpt_count, SPOOL_RCPTS_WHOLE);
    assert_int_equal(rest.todo, 0);
    spool_content_close(&c);
    spool_close(r);
    spool_close(w);
    test_queue_free(&q);
}

/* Only those that are to do, and the mark of the warning is not one of theirs. */
static void without_those_that_are_done(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    struct envelope env;
    struct spool_content c;
    struct spool_rest rest;
    assert_null(test_message(w, q.arena, 100, 3000, SPOOL_INCOMING, &id));
    for (size_t i = 0; i < 3000; i++)
        if (i % 3 || i < 30)
            assert_null(spool_mark_done(r, &id, SPOOL_INCOMING, i));
    assert_null(spool_load_front(r, &id, SPOOL_INCOMING, q.arena, &env, &c, &rest));
    assert_false(env.flags & ENVELOPE_WARNED);
    assert_int_equal(rest.todo, 990);
    spool_content_close(&c);
    assert_null(spool_mark_warned(r, &id, SPOOL_INCOMING));
    assert_null(spool_load_front(r, &id, SPOOL_INCOMING, q.arena, &env, &c, &rest));
    assert_true(env.flags & ENVELOPE_WARNED);
    assert_int_equal(rest.todo, 990);
    struct rcpts_seen seen = read_all(r, &id, SPOOL_INCOMING, &rest, 100);
    assert_int_equal(seen.count, 990);
    assert_int_equal(seen.last, 2997);
    /* marked since they were counted: fewer come, and it ends */
    assert_null(spool_load_front(r, &id, SPOOL_INCOMING, q.arena, &env, NULL, &rest));
    for (size_t i = 0; i < 3000; i++)
        assert_null(spool_mark_done(r, &id, SPOOL_INCOMING, i));
    struct rcpt *some;
    uint32_t *index;
    size_t n;
    assert_null(spool_rcpts_next(r, &id, SPOOL_INCOMING, &rest, 100, q.arena, &some, &index, &n));
    assert_int_equal(n, 0);
    assert_int_equal(rest.todo, 0);
    spool_content_close(&c);
    spool_close(r);
    spool_close(w);
    test_queue_free(&q);
}

static void damage_and_faults(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    struct envelope env;
    struct spool_rest rest;
    assert_null(test_message(w, q.arena, 100, 30000, SPOOL_INCOMING, &id));
    fake_sys_install();
    for (unsigned at = 1; at < 200; at++) { /* each read of the two calls fails once */
        fake_sys_fail("pread", at, EIO);
        error e = spool_load_front(r, &id, SPOOL_INCOMING, q.arena, &env, NULL, &rest);
        if (!e) {
            struct rcpt *some;
            uint32_t *index;
            size_t n;
            e = spool_rcpts_next(r, &id, SPOOL_INCOMING, &rest, 30000, q.arena, &some, &index, &n);
        }
        bool came = fake_sys_clear_faults() == 0;
        assert_true(came ? e && e->sys == EIO : !e);
        if (!came) {
            assert_true(at > 10);
            break;
        }
    }
    fake_sys_remove();
    char path[128];
    snprintf(path, sizeof path, "%s/incoming/%s", q.dir, id.text);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, 200000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 200000), 1);
    close(fd);
    assert_int_equal(spool_load_front(r, &id, SPOOL_INCOMING, q.arena, &env, NULL, &rest)->kind, ERR_SYNTAX);
    spool_close(r);
    spool_close(w);
    test_queue_free(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_parts),
        cmocka_unit_test(few_come_whole),
        cmocka_unit_test(without_those_that_are_done),
        cmocka_unit_test(damage_and_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
