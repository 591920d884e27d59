/* The reader of the log against segments that the test writes itself, byte by byte. */
#include "queue/log_test_util.h"

#include "queue/spool_file.h"
#include <errno.h>
#include <sys/file.h>

static void expect_next(struct spool *s, const char *id) {
    struct spool_entry e;
    bool found = spool_log_next(s, &e);
    if (!id) {
        assert_false(found);
        return;
    }
    assert_true(found);
    assert_string_equal(e.id.text, id);
    assert_int_equal(e.state, SPOOL_ACTIVE);
}

static void expect_load(struct test_queue *q, struct spool *s, const char *id, enum spool_state state, size_t size,
                        size_t todo) {
    struct envelope env;
    struct spool_content c;
    struct queue_id qid = id_of(id);
    assert_null(spool_load(s, &qid, state, q->arena, &env, &c));
    assert_int_equal(c.size, size);
    size_t left = 0;
    for (size_t i = 0; i < env.rcpt_count; i++)
        left += env.rcpts[i].state != RCPT_DONE;
    assert_int_equal(left, todo);
    assert_true(str_eq(env.sender, STR("from@here.example")));
    if (c.bytes.n)
        assert_int_equal(c.bytes.p[0], test_content(0, size));
    spool_content_close(&c);
}

static void read_again_after_a_crash(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xa1, 7);
    put(&q, &w, "A1", 100, 1, SEGMENT_INCOMING);
    put(&q, &w, "A2", 5000, 3, SEGMENT_INCOMING);
    put(&q, &w, "A3", 0, 1, SEGMENT_HOLD);
    put(&q, &w, "A4", 128 * 1024, 2, SEGMENT_INCOMING);
    close(w.fd);

    struct spool *s = reader(&q);
    expect_next(s, "A1");
    expect_next(s, "A2");
    expect_next(s, "A4");
    expect_next(s, NULL);
    expect_load(&q, s, "A1", SPOOL_ACTIVE, 100, 1);
    expect_load(&q, s, "A2", SPOOL_ACTIVE, 5000, 3);
    expect_load(&q, s, "A3", SPOOL_HOLD, 0, 1);
    struct queue_id a1 = id_of("A1"), a2 = id_of("A2");
    assert_null(spool_remove(s, &a1, SPOOL_ACTIVE));
    assert_null(spool_mark_done(s, &a2, SPOOL_ACTIVE, 1));
    assert_non_null(spool_mark_done(s, &a2, SPOOL_ACTIVE, 3));
    expect_load(&q, s, "A2", SPOOL_ACTIVE, 5000, 2);
    spool_log_flush(s);
    spool_close(s);

    s = reader(&q); /* what was marked is known */
    expect_next(s, "A2");
    expect_next(s, "A4");
    expect_next(s, NULL);
    expect_load(&q, s, "A2", SPOOL_ACTIVE, 5000, 2);
    expect_load(&q, s, "A3", SPOOL_HOLD, 0, 1);
    spool_close(s);
    test_queue_free(&q);
}

static void moves_into_files(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xb1, 9);
    put(&q, &w, "00000B1", 100, 3, SEGMENT_INCOMING);
    put(&q, &w, "00000B2", 100, 1, SEGMENT_HOLD);
    close(w.fd);
    struct spool *s = reader(&q);
    struct queue_id b1 = id_of("00000B1"), b2 = id_of("00000B2");
    expect_next(s, "00000B1");
    expect_next(s, NULL);
    assert_null(spool_mark_done(s, &b1, SPOOL_ACTIVE, 0));
    assert_null(spool_mark_warned(s, &b1, SPOOL_ACTIVE));
    assert_null(spool_set_next_try(s, &b1, SPOOL_ACTIVE, 1790000001000000));
    assert_null(spool_move(s, &b1, SPOOL_ACTIVE, SPOOL_DEFERRED));
    assert_null(spool_move(s, &b2, SPOOL_HOLD, SPOOL_HOLD));
    spool_log_flush(s);
    /* a list shows each once, as a file */
    struct spool *list = test_spool(&q, SPOOL_LISTER);
    assert_int_equal(test_count(list, SPOOL_ACTIVE) + test_count(list, SPOOL_INCOMING), 0);
    assert_int_equal(test_count(list, SPOOL_HOLD), 1);
    spool_close(list);
    spool_close(s); /* not settled: both are there, and the file counts */

    s = reader(&q);
    expect_next(s, NULL);
    struct spool_scan scan = { 0 };
    struct spool_entry e;
    assert_true(spool_scan_next(s, &scan, SPOOL_DEFERRED, &e));
    assert_int_equal(e.next_try_us, 1790000001000000);
    spool_scan_end(s, &scan);
    expect_load(&q, s, "00000B1", SPOOL_DEFERRED, 100, 2); /* settles */
    struct envelope env;
    assert_null(spool_load(s, &b1, SPOOL_DEFERRED, q.arena, &env, NULL));
    assert_true(env.flags & ENVELOPE_WARNED);
    assert_null(spool_remove(s, &b1, SPOOL_DEFERRED));
    spool_close(s);

    s = reader(&q); /* a removed file does not come back from the log */
    expect_next(s, NULL);
    assert_int_equal(test_count(s, SPOOL_DEFERRED), 0);
    assert_int_equal(test_count(s, SPOOL_HOLD), 1);
    spool_close(s);
    test_queue_free(&q);
}

/* The file is taken up before its record in the log has had its turn. */
static void a_file_is_touched_before_its_record(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xb1, 9);
    put(&q, &w, "00000B1", 100, 1, SEGMENT_INCOMING);
    close(w.fd);
    struct queue_id b1 = id_of("00000B1");
    struct spool *s = reader(&q);
    expect_next(s, "00000B1");
    assert_null(spool_move(s, &b1, SPOOL_ACTIVE, SPOOL_DEFERRED));
    spool_log_flush(s);
    spool_close(s); /* killed before it is settled */
    s = reader(&q);
    expect_load(&q, s, "00000B1", SPOOL_DEFERRED, 100, 1);
    assert_null(spool_move(s, &b1, SPOOL_DEFERRED, SPOOL_ACTIVE));
    expect_next(s, NULL);
    assert_null(spool_remove(s, &b1, SPOOL_ACTIVE));
    expect_next(s, NULL);
    spool_close(s);
    test_queue_free(&q);
}

static void torn_files_are_made_again(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xc1, 9);
    put(&q, &w, "00000C1", 100, 1, SEGMENT_INCOMING);
    close(w.fd);
    struct spool *s = reader(&q);
    struct queue_id c1 = id_of("00000C1");
    expect_next(s, "00000C1");
    assert_null(spool_move(s, &c1, SPOOL_ACTIVE, SPOOL_DEFERRED));
    spool_log_flush(s);
    spool_close(s);
    char path[128];
    snprintf(path, sizeof path, "%s/deferred/0/00000C1", q.dir);
    assert_int_equal(truncate(path, 90), 0); /* the power went before the file was synced */
    s = reader(&q);
    expect_next(s, "00000C1");
    assert_int_not_equal(access(path, F_OK), 0);
    spool_close(s);
    test_queue_free(&q);
}

static void follows_the_writer(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *s = reader(&q);
    struct written w = segment_new(&q, 0xd1, 3);
    assert_int_equal(flock(w.fd, LOCK_EX), 0);
    put(&q, &w, "D1", 10, 1, SEGMENT_INCOMING);
    uint64_t first = w.at;
    put(&q, &w, "D2", 10, 1, SEGMENT_INCOMING); /* written, and not yet synced */
    expect_next(s, NULL);
    spool_log_committed(s, (struct spool_position){ 0xd1, first });
    expect_next(s, "D1");
    expect_next(s, NULL);
    spool_log_committed(s, (struct spool_position){ 0xd1, w.at });
    expect_next(s, "D2");
    put(&q, &w, "D3", 10, 1, SEGMENT_INCOMING); /* nobody tells */
    expect_next(s, NULL);
    spool_log_look(s);
    expect_next(s, "D3");
    expect_next(s, NULL);
    close(w.fd);
    spool_close(s);
    test_queue_free(&q);
}

static void torn_and_damaged(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xe1, 3);
    put(&q, &w, "E1", 100, 1, SEGMENT_INCOMING);
    uint64_t e2 = put(&q, &w, "E2", 100, 1, SEGMENT_INCOMING);
    put(&q, &w, "E3", 100, 1, SEGMENT_INCOMING);
    uint64_t e4 = put(&q, &w, "E4", 100, 1, SEGMENT_INCOMING);
    assert_int_equal(pwrite(w.fd, "x", 1, (off_t)e2 + 8), 1);   /* its head: found again behind it */
    assert_int_equal(pwrite(w.fd, "x", 1, (off_t)e4 + 100), 1); /* the end is torn: no answer was given */
    close(w.fd);
    struct spool *s = reader(&q);
    expect_next(s, "E1");
    expect_next(s, "E3");
    expect_next(s, NULL);
    spool_close(s);

    w = segment_new(&q, 0xe2, 4);
    uint64_t e5 = put(&q, &w, "E5", 100, 1, SEGMENT_INCOMING);
    put(&q, &w, "E6", 100, 1, SEGMENT_INCOMING);
    assert_int_equal(pwrite(w.fd, "x", 1, (off_t)e5 + 100),
                     1); /* content of one in the middle: for the administrator */
    close(w.fd);
    int fd = open("/dev/null", O_RDONLY);
    close(fd);
    s = reader(&q);
    expect_next(s, "E1");
    expect_next(s, "E3");
    expect_next(s, "E5");
    struct queue_id id5 = id_of("E5");
    struct envelope env;
    struct spool_content c;
    error e = spool_load(s, &id5, SPOOL_ACTIVE, q.arena, &env, &c);
    assert_true(e && e->kind == ERR_SYNTAX);
    assert_null(spool_move(s, &id5, SPOOL_ACTIVE, SPOOL_CORRUPT));
    assert_true(exists(&q, "corrupt/E5"));
    expect_next(s, "E6");
    spool_close(s);
    test_queue_free(&q);
}

static void foreign_segments(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xf1, 3);
    static const char bytes[SEGMENT_FRONT_SIZE] = "not a segment";
    assert_int_equal(pwrite(w.fd, bytes, sizeof bytes, 0), sizeof bytes);
    close(w.fd);
    w = segment_new(&q, 0xf2, 3); /* of a later version */
    set_version(&w, 99);
    close(w.fd);
    w = segment_new(&q, 0xf3, 3);
    put(&q, &w, "F1", 100, 1, SEGMENT_INCOMING);
    close(w.fd);
    struct spool *s = reader(&q);
    expect_next(s, "F1");
    expect_next(s, NULL);
    assert_true(exists(&q, "corrupt/log.00000000000000f1"));
    assert_true(exists(&q, "log/00000000000000f2"));
    spool_close(s);
    test_queue_free(&q);
}

static void one_reader_hands_over(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xa1, 3);
    put(&q, &w, "A1", 10, 1, SEGMENT_INCOMING);
    put(&q, &w, "A2", 10, 2, SEGMENT_INCOMING);
    put(&q, &w, "A3", 10, 1, SEGMENT_INCOMING);
    close(w.fd);
    struct spool *old = reader(&q);
    expect_next(old, "A1");
    expect_next(old, "A2");
    struct queue_id a1 = id_of("A1"), a2 = id_of("A2");
    spool_hand_over(old);
    struct spool *new = reader(&q);
    expect_next(new, "A3"); /* the other two are being delivered */
    expect_next(new, NULL);
    assert_null(spool_remove(old, &a1, SPOOL_ACTIVE));
    assert_null(spool_mark_done(old, &a2, SPOOL_ACTIVE, 0));
    spool_log_flush(old);
    spool_close(old);
    struct spool_entry e;
    for (int i = 0; i < 50 && !spool_log_next(new, &e); i++)
        usleep(100 * 1000);
    assert_string_equal(e.id.text, "A2");
    expect_load(&q, new, "A2", SPOOL_ACTIVE, 10, 1);
    expect_next(new, NULL);
    spool_close(new);
    test_queue_free(&q);
}

static void found_by_name(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xa1, 3);
    put(&q, &w, "A1", 10, 1, SEGMENT_INCOMING);
    put(&q, &w, "A2", 10, 1, SEGMENT_HOLD);
    put(&q, &w, "A3", 10, 1, SEGMENT_INCOMING);
    close(w.fd);
    struct spool *s = reader(&q);
    struct queue_id a1 = id_of("A1"), a2 = id_of("A2"), a3 = id_of("A3"), a4 = id_of("A4");
    expect_next(s, "A1");
    enum spool_state where;
    assert_true(spool_find(s, &a1, &where) && where == SPOOL_ACTIVE);
    assert_true(spool_find(s, &a2, &where) && where == SPOOL_HOLD); /* not read yet */
    assert_true(spool_find(s, &a3, &where) && where == SPOOL_INCOMING);
    assert_false(spool_find(s, &a4, &where));
    assert_null(spool_remove(s, &a3, SPOOL_INCOMING)); /* before its turn */
    expect_next(s, NULL);
    assert_false(spool_find(s, &a3, &where));
    assert_null(spool_remove(s, &a2, SPOOL_HOLD));
    assert_null(spool_remove(s, &a1, SPOOL_ACTIVE));
    spool_close(s);
    s = reader(&q);
    expect_next(s, NULL);
    spool_close(s);
    test_queue_free(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_again_after_a_crash),
        cmocka_unit_test(moves_into_files),
        cmocka_unit_test(a_file_is_touched_before_its_record),
        cmocka_unit_test(torn_files_are_made_again),
        cmocka_unit_test(follows_the_writer),
        cmocka_unit_test(torn_and_damaged),
        cmocka_unit_test(foreign_segments),
        cmocka_unit_test(one_reader_hands_over),
        cmocka_unit_test(found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
