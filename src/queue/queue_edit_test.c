#include "queue/spool_test_util.h"

#include "queue/queue_edit.h"
#include "queue/queue_file.h"

static struct queue_id message_in(struct test_queue *q, struct spool *w, struct spool *r, enum spool_state state) {
    struct queue_id id;
    assert_null(test_message(w, q->arena, 100, 3, SPOOL_INCOMING, &id));
    if (state != SPOOL_INCOMING)
        assert_null(spool_move(r, &id, SPOOL_INCOMING, state));
    return id;
}

static enum queue_edited edit(struct spool *s, const struct queue_id *id, enum queue_edit what, unsigned states) {
    error e;
    enum queue_edited did = queue_edit(s, id, what, states, &e);
    assert_null(e);
    return did;
}

static enum spool_state place(struct spool *s, const struct queue_id *id) {
    enum spool_state state = SPOOL_STATES;
    return spool_find(s, id, &state) ? state : SPOOL_STATES;
}

/* From each state, each change: what comes out, and where it is then. */
static void every_change_in_every_state(void **state) {
    (void)state;
    static const struct {
        enum queue_edit what;
        enum queue_edited did[4];
        enum spool_state then[4]; /* SPOOL_STATES: in no queue */
    } rows[] = {
#define Q QUEUE_EDITED
#define N QUEUE_NOTHING
        { QUEUE_DELETE, { Q, Q, Q, Q }, { SPOOL_STATES, SPOOL_STATES, SPOOL_STATES, SPOOL_STATES } },
        { QUEUE_HOLD, { Q, Q, Q, N }, { SPOOL_HOLD, SPOOL_HOLD, SPOOL_HOLD, SPOOL_HOLD } },
        { QUEUE_RELEASE, { N, N, N, Q }, { SPOOL_INCOMING, SPOOL_ACTIVE, SPOOL_DEFERRED, SPOOL_DEFERRED } },
        { QUEUE_REQUEUE, { Q, Q, Q, Q }, { SPOOL_STATES, SPOOL_STATES, SPOOL_STATES, SPOOL_STATES } },
        { QUEUE_EXPIRE, { Q, Q, Q, Q }, { SPOOL_INCOMING, SPOOL_ACTIVE, SPOOL_DEFERRED, SPOOL_HOLD } },
#undef Q
#undef N
    };
    static const enum spool_state from[4] = { SPOOL_INCOMING, SPOOL_ACTIVE, SPOOL_DEFERRED, SPOOL_HOLD };
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    char path[160];
    snprintf(path, sizeof path, "%s/maildrop", q.dir);
    mkdir(path, 0700);
    assert_true(spool_take_over(r));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t k = 0; k < 4; k++) {
            struct queue_id id = message_in(&q, w, r, from[k]);
            struct envelope env;
            /* not where it is looked for */
            assert_int_equal(edit(r, &id, rows[i].what, QUEUE_STATES_ALL & ~queue_states(from[k])), QUEUE_NOTHING);
            assert_int_equal(place(r, &id), from[k]);
            assert_int_equal(edit(r, &id, rows[i].what, QUEUE_STATES_ALL), rows[i].did[k]);
            assert_int_equal(place(r, &id), rows[i].then[k]);
            snprintf(path, sizeof path, "%s/maildrop/%s", q.dir, id.text);
            assert_int_equal(access(path, F_OK) == 0, rows[i].what == QUEUE_REQUEUE);
            if (rows[i].then[k] == SPOOL_STATES)
                continue;
            assert_null(spool_load(r, &id, rows[i].then[k], q.arena, &env, NULL));
            assert_int_equal((env.flags & ENVELOPE_EXPIRED) != 0, rows[i].what == QUEUE_EXPIRE);
            /* marked once; the mark moves with the message */
            if (rows[i].what == QUEUE_EXPIRE) {
                assert_int_equal(edit(r, &id, QUEUE_EXPIRE, QUEUE_STATES_ALL), QUEUE_NOTHING);
                edit(r, &id, QUEUE_HOLD, QUEUE_STATES_ALL);
                assert_null(spool_load(r, &id, SPOOL_HOLD, q.arena, &env, NULL));
                assert_true(env.flags & ENVELOPE_EXPIRED);
            }
        }
    }
    struct queue_id none;
    assert_true(queue_id_from(STR("ABCDEF"), &none));
    assert_int_equal(edit(r, &none, QUEUE_DELETE, QUEUE_STATES_ALL), QUEUE_NOTHING);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

/* What is being written or delivered is not touched. */
static void busy_ones_are_left_alone(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER),
                 *old = test_spool(&q, SPOOL_READER);
    struct spool_new *m;
    struct spool_content c;
    assert_true(spool_take_over(r));
    assert_null(spool_create(w, &m));
    struct queue_id writing = *spool_new_id(m), active = message_in(&q, w, r, SPOOL_ACTIVE);
    assert_null(spool_content_open(old, &active, SPOOL_ACTIVE, &c));
    for (enum queue_edit what = QUEUE_DELETE; what <= QUEUE_EXPIRE; what++) {
        enum queue_edited want = what == QUEUE_RELEASE ? QUEUE_NOTHING : QUEUE_BUSY;
        assert_int_equal(edit(r, &writing, what, QUEUE_STATES_ALL), want);
        assert_int_equal(edit(r, &active, what, QUEUE_STATES_ALL), want);
    }
    spool_content_close(&c);
    assert_int_equal(edit(r, &active, QUEUE_DELETE, QUEUE_STATES_ALL), QUEUE_EDITED);
    spool_abort(m);
    spool_close(old);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

/* Who was to be told of a failure and has not been is tried again; who has the message is not. */
static void a_requeued_message_loses_no_recipient(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    char path[160];
    snprintf(path, sizeof path, "%s/maildrop", q.dir);
    mkdir(path, 0700);
    assert_true(spool_take_over(r));
    struct queue_id id = message_in(&q, w, r, SPOOL_DEFERRED);
    struct spool_failure f = test_failure(1, STR("no such user"));
    assert_null(spool_log_add(r, &id, SPOOL_LOG_BOUNCE, &f));
    assert_null(spool_mark_done(r, &id, SPOOL_DEFERRED, 0));
    assert_null(spool_mark_done(r, &id, SPOOL_DEFERRED, 1));
    assert_int_equal(edit(r, &id, QUEUE_REQUEUE, QUEUE_STATES_ALL), QUEUE_EDITED);
    snprintf(path, sizeof path, "%s/maildrop/%s", q.dir, id.text);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    enum queue_file_kind kind;
    struct queue_file file;
    assert_null(queue_file_kind(fd, &kind));
    assert_int_equal(kind, QUEUE_FILE_MESSAGE);
    assert_null(queue_file_read(fd, q.arena, &file));
    assert_null(queue_file_check_content(fd, &file));
    assert_int_equal(file.env.rcpts[0].state, RCPT_DONE);
    assert_int_equal(file.env.rcpts[1].state, RCPT_TODO);
    assert_int_equal(file.env.rcpts[2].state, RCPT_TODO);
    close(fd);
    struct spool_failure *logs;
    size_t n;
    assert_null(spool_log_read(r, &id, SPOOL_LOG_BOUNCE, q.arena, &logs, &n));
    assert_int_equal(n, 0);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

static void what_a_file_is(void **state) {
    (void)state;
    static const struct {
        struct str bytes;
        enum queue_file_kind kind;
        const char *why;
    } rows[] = {
        { STR_INIT(""), QUEUE_FILE_UNFINISHED, "cut" },
        { STR_INIT("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), QUEUE_FILE_UNFINISHED, "cut" },
        { STR_INIT("ANGMAIL\n\1\0\0\0"), QUEUE_FILE_MESSAGE, "cut" },
        { STR_INIT("ANGMAIL\n\7\0\0\0................................................................"),
          QUEUE_FILE_MESSAGE, "version 7" },
        { STR_INIT("ANGMAIL\n\1\0\0\0................................................................"),
          QUEUE_FILE_MESSAGE, "version 1, this program knows 2" },
        { STR_INIT("ANGMAIL\n\2\0\0\0................................................................"),
          QUEUE_FILE_MESSAGE, "damaged head" },
        { STR_INIT("\1\3\0\0\0a@b"), QUEUE_FILE_SUBMISSION, "cut" },
        { STR_INIT("From someone, something, some other text, and more than a head has"), QUEUE_FILE_OTHER,
          "not a queue" },
    };
    struct test_queue q = test_queue_new();
    char path[160];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(path, sizeof path, "%s/file%zu", q.dir, i);
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        assert_int_equal(write(fd, rows[i].bytes.p, rows[i].bytes.n), (ssize_t)rows[i].bytes.n);
        enum queue_file_kind kind;
        struct queue_file file;
        assert_null(queue_file_kind(fd, &kind));
        assert_int_equal(kind, rows[i].kind);
        error e = queue_file_read(fd, q.arena, &file);
        assert_non_null(e);
        assert_true(str_contains(e->text, str_c(rows[i].why)));
        close(fd);
    }
    test_queue_free(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_change_in_every_state),
        cmocka_unit_test(busy_ones_are_left_alone),
        cmocka_unit_test(a_requeued_message_loses_no_recipient),
        cmocka_unit_test(what_a_file_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
