/* Held messages of the log: found by name, left where they are while they fill their segments, moved when they do not.
 */
#include "queue/log_test_util.h"

#include "test/fake_sys.h"
#include <stdio.h>

/* cmocka's assertions jump off the stack, which a coroutine must not: count, and say where */
static int failed;
#define CHECK_COUNT failed
#include "test/check.h"

static struct queue_id number(unsigned i) {
    char text[16];
    snprintf(text, sizeof text, "%07X", i + 1);
    return id_of(text);
}

/* `held` of `all` messages are, the first ones. */
static void fill_segment(struct test_queue *q, uint64_t segment, unsigned first, unsigned all, unsigned held) {
    struct written w = segment_new(q, segment, 7);
    for (unsigned i = 0; i < all; i++)
        put(q, &w, number(first + i).text, 1000 * i, 1, i < held ? SEGMENT_HOLD : SEGMENT_INCOMING);
    close(w.fd);
}

static unsigned read_to_the_end(struct spool *s) {
    struct spool_entry e;
    unsigned n = 0;
    while (spool_log_next(s, &e))
        n++;
    return n;
}

static struct log_message *find_held(struct spool *s, unsigned i) {
    struct queue_id id = number(i);
    return log_find(s, &id, SPOOL_HOLD);
}

static void found_by_name(void **state) {
    (void)state;
    enum { EACH = 20 };
    struct test_queue q = test_queue_new();
    fill_segment(&q, 0xa1, 0, EACH, EACH);
    fill_segment(&q, 0xa2, EACH, EACH, EACH);
    struct spool *s = reader(&q);
    assert_int_equal(read_to_the_end(s), 0);
    struct log_reader *r = s->log_reader;
    assert_int_equal(r->held.n, 2 * EACH);
    assert_int_equal(r->messages.n, 0);
    for (unsigned i = 0; i < 2 * EACH; i += 2) {
        struct queue_id id = number(i);
        struct log_message *m = find_held(s, i);
        assert_non_null(m);
        assert_string_equal(m->record.id.text, id.text);
        assert_ptr_equal(find_held(s, i), m);
        assert_null(log_find(s, &id, SPOOL_ACTIVE));
    }
    assert_null(find_held(s, 2 * EACH));
    assert_int_equal(r->held.n, EACH);
    assert_int_equal(r->segments->held + r->segments->next->held, EACH);

    /* what was only looked at goes back, what was changed stays */
    struct queue_id changed = number(4);
    assert_null(spool_mark_warned(s, &changed, SPOOL_HOLD));
    log_held_put_back(r);
    assert_int_equal(r->messages.n, 1);
    assert_int_equal(r->held.n, 2 * EACH - 1);
    for (unsigned i = 0; i < 2 * EACH; i++) {
        struct queue_id id = number(i);
        assert_null(spool_remove(s, &id, SPOOL_HOLD));
        assert_null(find_held(s, i));
    }
    assert_int_equal(r->held.n, 0);
    assert_int_equal(r->messages.n, 0);
    assert_int_equal(r->segments->live + r->segments->held + r->segments->held_bytes, 0);
    spool_close(s);
    test_queue_free(&q);
}

/* A name that is not in the table, though another with its hash is: the record has the last word. */
static void the_record_decides(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fill_segment(&q, 0xa1, 0, 1, 1);
    struct spool *s = reader(&q);
    read_to_the_end(s);
    char path[128];
    snprintf(path, sizeof path, "%s/log/00000000000000a1", q.dir);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "x", 1, (off_t)segment_records_at(&s->log_reader->segments->head) + 20), 1);
    close(fd);
    assert_null(find_held(s, 0));
    spool_close(s);
    test_queue_free(&q);
}

/* --- moving --- */

static struct spool *running;

static void run_main(void *arg) {
    (void)arg;
    spool_log_run(running);
}

static void script(void *arg) {
    void (*run)(void) = *(void (**)(void))arg;
    struct coro *runner = coro_spawn(run_main, NULL, "log");
    run();
    coro_cancel(runner);
}

/* `run` in a coroutine, beside spool_log_run(), with a clock that jumps. */
static void with_runner(struct spool *s, void (*run)(void)) {
    running = s;
    failed = 0;
    fake_sys_install();
    assert_null(loop_init());
    assert_non_null(coro_spawn(script, &run, "script"));
    assert_null(loop_run());
    loop_free();
    fake_sys_remove();
    assert_int_equal(failed, 0);
}

static void pass_time(int64_t seconds) {
    CHECK(wait_until(deadline_in(seconds)) == NULL);
}

static size_t files_held(void) {
    struct spool_scan scan = { .files_only = true };
    struct spool_entry e;
    size_t n = 0;
    while (spool_scan_next(running, &scan, SPOOL_HOLD, &e))
        n++;
    return n;
}

static void delivered(unsigned i) {
    struct queue_id id = number(i);
    CHECK(spool_remove(running, &id, SPOOL_ACTIVE) == NULL);
}

static void many_stay(void) {
    CHECK(read_to_the_end(running) == 2);
    delivered(8);
    delivered(9);
    pass_time(100);
    CHECK(files_held() == 0);
    CHECK(running->log_reader->segments && running->log_reader->held.n == 8);
    struct queue_id id;
    for (unsigned i = 0; i < 3; i++) {
        id = number(i);
        CHECK(spool_remove(running, &id, SPOOL_HOLD) == NULL);
    }
    /* the small ones have gone: what is left still fills a half */
    pass_time(100);
    CHECK(files_held() == 0);
    for (unsigned i = 3; i < 7; i++) {
        id = number(i);
        CHECK(spool_remove(running, &id, SPOOL_HOLD) == NULL);
    }
    /* mail is coming: that comes first */
    for (unsigned i = 0; i < 30; i++) {
        pass_time(1);
        spool_log_committed(running, (struct spool_position){ 0xa1, 1 });
    }
    CHECK(files_held() == 0);
    pass_time(10);
    CHECK(files_held() == 1);
    pass_time(20); /* settled: the segment is free for its next use */
    CHECK(running->log_reader->segments == NULL);
    id = number(7);
    CHECK(spool_remove(running, &id, SPOOL_HOLD) == NULL);
}

static void left_while_they_fill_their_segment(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fill_segment(&q, 0xa1, 0, 10, 8);
    struct spool *s = reader(&q);
    with_runner(s, many_stay);
    spool_close(s);
    test_queue_free(&q);
}

static void oldest_go(void) {
    CHECK(read_to_the_end(running) == 0);
    pass_time(100);
    CHECK(files_held() == 3);
    struct spool_entry e;
    struct spool_scan scan = { .files_only = true };
    while (spool_scan_next(running, &scan, SPOOL_HOLD, &e)) {
        bool oldest = strcmp(e.id.text, number(0).text) == 0 || strcmp(e.id.text, number(1).text) == 0 ||
                      strcmp(e.id.text, number(2).text) == 0;
        CHECK(oldest);
    }
}

static void only_so_many_segments(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    for (unsigned i = 0; i < 512 + 3; i++)
        fill_segment(&q, 0xa1 + i, i, 1, 1);
    struct spool *s = reader(&q);
    with_runner(s, oldest_go);
    spool_close(s);
    test_queue_free(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_by_name),
        cmocka_unit_test(the_record_decides),
        cmocka_unit_test(left_while_they_fill_their_segment),
        cmocka_unit_test(only_so_many_segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
