/* Why recipients wait: written, read, torn, listed; in a file and in the log. */
#include "queue/spool_test_util.h"

#include "queue/log.h"
#include "queue/spool_file.h"
#include <errno.h>

struct place {
    struct test_queue q;
    struct spool *w, *r, *list;
    struct spool_peek *peek;
};

static struct spool *open_with(struct test_queue *q, enum spool_access access, bool log) {
    struct spool *s = NULL;
    struct spool_options o = { .queue_directory = str_c(q->dir), .access = access, .log = log };
    assert_null(spool_open(&o, q->arena, &s));
    return s;
}

static struct place place_new(bool log) {
    struct place p = { .q = test_queue_new() };
    p.w = open_with(&p.q, SPOOL_WRITER, log);
    p.r = open_with(&p.q, SPOOL_READER, log);
    p.list = open_with(&p.q, SPOOL_LISTER, log);
    p.peek = spool_peek_new(p.list);
    assert_true(spool_take_over(p.r));
    return p;
}

static void place_free(struct place *p) {
    spool_peek_free(p->peek);
    spool_close(p->list);
    spool_close(p->w);
    spool_close(p->r);
    test_queue_free(&p->q);
}

static struct queue_id deferred(struct place *p, size_t size, size_t rcpts) {
    struct queue_id id;
    assert_null(test_message(p->w, p->q.arena, size, rcpts, SPOOL_INCOMING, &id));
    assert_null(spool_move(p->r, &id, SPOOL_INCOMING, SPOOL_DEFERRED));
    return id;
}

static char *path_of(struct place *p, const struct queue_id *id, unsigned dir) {
    char path[SPOOL_PATH_MAX];
    spool_path(p->r, dir, id, path);
    return arena_cstr(p->q.arena, arena_printf(p->q.arena, "%s/%s", p->q.dir, path));
}

static size_t reasons_of(struct place *p, const struct queue_id *id, struct spool_failure **ret) {
    struct spool_failure *read;
    struct envelope env;
    size_t n, listed;
    assert_null(spool_reasons_read(p->r, id, SPOOL_DEFERRED, p->q.arena, &read, &n));
    assert_null(spool_peek(p->peek, id, SPOOL_DEFERRED, p->q.arena, &env, ret, &listed));
    assert_int_equal(n, listed);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(read[i].rcpt_index, (*ret)[i].rcpt_index);
        assert_true(str_eq(read[i].reason, (*ret)[i].reason));
    }
    return n;
}

static void added_and_cleared(void **state) {
    (void)state;
    struct place p = place_new(false);
    struct queue_id id = deferred(&p, 100, 3);
    struct spool_failure *f;
    assert_int_equal(reasons_of(&p, &id, &f), 0);
    assert_null(test_reason(p.r, &id, SPOOL_DEFERRED, 2, STR("first"), true));
    assert_null(test_reason(p.r, &id, SPOOL_DEFERRED, 1, STR("second"), false));
    assert_int_equal(reasons_of(&p, &id, &f), 2);
    assert_str(f[0].reason, "first");
    assert_int_equal(f[0].rcpt_index, 2);
    assert_str(f[1].reason, "second");
    assert_str(f[1].status, "5.1.1");
    assert_null(spool_reasons_clear(p.r, &id, SPOOL_DEFERRED));
    assert_null(spool_reasons_clear(p.r, &id, SPOOL_DEFERRED));
    assert_int_equal(reasons_of(&p, &id, &f), 0);
    /* shorter than what stood there: nothing of that is seen again */
    assert_null(test_reason(p.r, &id, SPOOL_DEFERRED, 0, STR("x"), false));
    assert_int_equal(reasons_of(&p, &id, &f), 1);
    assert_str(f[0].reason, "x");
    assert_int_equal(access(path_of(&p, &id, SPOOL_DIR_DEFER), F_OK), -1);
    /* none of it disturbs the message, and the flags none of them */
    assert_null(spool_mark_warned(p.r, &id, SPOOL_DEFERRED));
    assert_null(spool_mark_warned(p.r, &id, SPOOL_DEFERRED));
    struct envelope env;
    struct spool_content c;
    assert_null(spool_load(p.r, &id, SPOOL_DEFERRED, p.q.arena, &env, &c));
    spool_content_close(&c);
    assert_int_equal(env.flags & (ENVELOPE_WARNED | ENVELOPE_EXPIRED), ENVELOPE_WARNED);
    assert_null(spool_mark_expired(p.r, &id, SPOOL_DEFERRED));
    assert_int_equal(spool_mark_expired(p.r, &id, SPOOL_DEFERRED)->sys, EEXIST);
    assert_null(spool_peek(p.peek, &id, SPOOL_DEFERRED, p.q.arena, &env, NULL, NULL));
    assert_int_equal(env.flags & (ENVELOPE_WARNED | ENVELOPE_EXPIRED), ENVELOPE_WARNED | ENVELOPE_EXPIRED);
    assert_int_equal(env.rcpt_count, 3);
    assert_int_equal(env.rcpts[1].state, RCPT_TODO);
    assert_int_equal(reasons_of(&p, &id, &f), 1);
    place_free(&p);
}

/* The file as power may leave it: cut anywhere in the reasons, which cost themselves and nothing else. */
static void torn(void **state) {
    (void)state;
    struct place p = place_new(false);
    struct queue_id id = deferred(&p, 100, 2);
    char *path = path_of(&p, &id, SPOOL_DEFERRED);
    struct stat without, one, two;
    assert_int_equal(stat(path, &without), 0);
    assert_null(test_reason(p.r, &id, SPOOL_DEFERRED, 0, STR("first"), false));
    assert_int_equal(stat(path, &one), 0);
    assert_null(test_reason(p.r, &id, SPOOL_DEFERRED, 1, STR("second"), false));
    assert_int_equal(stat(path, &two), 0);
    for (off_t cut = two.st_size - 1; cut >= without.st_size; cut--) {
        struct spool_failure *f;
        struct envelope env;
        assert_int_equal(truncate(path, cut), 0);
        assert_int_equal(reasons_of(&p, &id, &f), cut >= one.st_size ? 1 : 0);
        assert_null(spool_load(p.r, &id, SPOOL_DEFERRED, p.q.arena, &env, NULL));
    }
    /* the next attempt's are whole again */
    assert_null(spool_reasons_clear(p.r, &id, SPOOL_DEFERRED));
    assert_null(test_reason(p.r, &id, SPOOL_DEFERRED, 1, STR("third"), false));
    struct spool_failure *f;
    assert_int_equal(reasons_of(&p, &id, &f), 1);
    assert_str(f[0].reason, "third");
    place_free(&p);
}

/* Content, recipients and reasons, each small and larger than what is read at first. */
static void of_every_size(void **state) {
    (void)state;
    static const struct {
        size_t size, rcpts, reasons;
    } rows[] = {
        { 1, 1, 1 },        { 4096, 1, 1 },    { 7800, 1, 1 },        { 7900, 1, 1 },      { 8000, 1, 1 },
        { 8100, 1, 0 },     { 8192, 1, 1 },    { 100000, 1, 1 },      { 3000000, 2, 2 },   { 100, 900, 900 },
        { 100, 30000, 10 }, { 7000, 40, 400 }, { 20000, 3000, 6000 }, { 7900, 1, 100000 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct place p = place_new(false);
        struct queue_id id = deferred(&p, rows[i].size, rows[i].rcpts);
        struct buf records = { 0 };
        for (size_t k = 0; k < rows[i].reasons; k++) {
            struct spool_failure one = test_failure(k % rows[i].rcpts, STR("busy"));
            assert_true(spool_record_pack(&records, &one));
        }
        assert_null(spool_reasons_add(p.r, &id, SPOOL_DEFERRED, buf_str(&records), false));
        buf_free(&records);
        struct envelope env;
        struct spool_failure *f;
        size_t n;
        assert_null(spool_peek(p.peek, &id, SPOOL_DEFERRED, p.q.arena, &env, &f, &n));
        assert_int_equal(env.size, rows[i].size);
        assert_int_equal(env.rcpt_count, rows[i].rcpts);
        assert_str(env.sender, "from@here.example");
        assert_str(env.rcpts[0].address, "to0@there.example");
        assert_int_equal(n, rows[i].reasons);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(f[k].rcpt_index, k % rows[i].rcpts);
            assert_str(f[k].reason, "busy");
        }
        assert_int_equal(reasons_of(&p, &id, &f), rows[i].reasons);
        place_free(&p);
    }
}

static void refused(struct place *p, const struct queue_id *id, enum spool_state where) {
    struct envelope env;
    struct spool_failure *f;
    size_t n;
    assert_non_null(spool_peek(p->peek, id, where, p->q.arena, &env, &f, &n));
    assert_int_equal(n, 0);
}

static void what_is_no_message(void **state) {
    (void)state;
    struct place p = place_new(false);
    struct queue_id id = deferred(&p, 9000, 2), gone, fifo, folder;
    char *path = path_of(&p, &id, SPOOL_DEFERRED);
    struct stat whole;
    assert_int_equal(stat(path, &whole), 0);
    for (off_t cut = whole.st_size - 1; cut > 0; cut -= cut > 8900 ? 1 : 61) {
        assert_int_equal(truncate(path, cut), 0);
        refused(&p, &id, SPOOL_DEFERRED);
    }
    assert_true(queue_id_from(STR("0ABCD12345"), &gone) && queue_id_from(STR("0ABCD12346"), &fifo) &&
                queue_id_from(STR("0ABCD12347"), &folder));
    assert_null(spool_make_parents(p.r, "deferred/0/x"));
    assert_int_equal(mkfifo(path_of(&p, &fifo, SPOOL_DEFERRED), 0700), 0);
    assert_int_equal(mkdir(path_of(&p, &folder, SPOOL_DEFERRED), 0700), 0);
    refused(&p, &gone, SPOOL_DEFERRED);
    refused(&p, &fifo, SPOOL_DEFERRED);
    refused(&p, &folder, SPOOL_DEFERRED);
    /* one that is being written */
    struct spool_new *m;
    assert_null(spool_create(p.w, &m));
    refused(&p, spool_new_id(m), SPOOL_INCOMING);
    spool_abort(m);
    place_free(&p);
}

/* A message in the log has no file: its reasons go along when it gets one; meanwhile lists find them when it takes
 * long. */
static void in_the_log(void **state) {
    (void)state;
    for (int goes_on = 0; goes_on < 2; goes_on++) {
        struct place p = place_new(true);
        struct queue_id id;
        struct spool_entry e;
        struct envelope env;
        struct spool_failure *f;
        size_t n;
        assert_null(test_message(p.w, p.q.arena, 100, 2, SPOOL_INCOMING, &id));
        spool_log_look(p.r);
        assert_true(spool_log_next(p.r, &e));
        assert_null(test_reason(p.r, &id, SPOOL_ACTIVE, 0, STR("busy"), goes_on));
        spool_log_flush(p.r);
        assert_null(spool_reasons_read(p.r, &id, SPOOL_ACTIVE, p.q.arena, &f, &n));
        assert_int_equal(n, 1);
        assert_null(spool_peek(p.peek, &id, SPOOL_ACTIVE, p.q.arena, &env, &f, &n));
        assert_int_equal(n, goes_on);
        assert_int_equal(access(path_of(&p, &id, SPOOL_DIR_DEFER), F_OK), goes_on ? 0 : -1);
        assert_null(test_reason(p.r, &id, SPOOL_ACTIVE, 1, STR("busy, too"), false));
        assert_null(spool_move(p.r, &id, SPOOL_ACTIVE, SPOOL_DEFERRED));
        assert_int_equal(access(path_of(&p, &id, SPOOL_DIR_DEFER), F_OK), -1);
        assert_int_equal(reasons_of(&p, &id, &f), 2);
        assert_str(f[0].reason, "busy");
        assert_str(f[1].reason, "busy, too");
        assert_null(spool_move(p.r, &id, SPOOL_DEFERRED, SPOOL_ACTIVE));
        assert_null(spool_reasons_clear(p.r, &id, SPOOL_ACTIVE));
        assert_null(spool_peek(p.peek, &id, SPOOL_ACTIVE, p.q.arena, &env, &f, &n));
        assert_int_equal(n, 0);
        place_free(&p);
    }
}

static void too_long(void **state) {
    (void)state;
    struct buf b = { 0 };
    struct arena *a = arena_new();
    char *text = arena_zalloc(a, 70000);
    struct spool_failure one = test_failure(0, STR("short")), large = test_failure(0, str_n(text, 70000));
    assert_true(spool_record_pack(&b, &one));
    size_t n = b.n;
    assert_false(spool_record_pack(&b, &large));
    assert_int_equal(b.n, n);
    buf_free(&b);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(added_and_cleared),  cmocka_unit_test(torn),       cmocka_unit_test(of_every_size),
        cmocka_unit_test(what_is_no_message), cmocka_unit_test(in_the_log), cmocka_unit_test(too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
