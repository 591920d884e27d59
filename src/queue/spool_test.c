#include "queue/spool_test_util.h"

#include "queue/spool_file.h"
#include "test/fake_sys.h"
#include <errno.h>
#include <sys/file.h>

static void content_is(const struct spool_content *c, size_t size) {
    assert_int_equal(c->size, size);
    char *all = malloc(size ? size : 1);
    assert_non_null(all);
    assert_int_equal(pread(c->fd, all, size, (off_t)c->offset), size);
    for (size_t i = 0; i < size; i++)
        if (all[i] != test_content(i, size))
            fail_msg("byte %zu of %zu", i, size);
    free(all);
}

static void what_goes_in_comes_out(void **state) {
    (void)state;
    /* around the size of the write buffer, and above it */
    static const size_t sizes[] = { 0, 1, 1000, 65471, 65472, 65473, 65536, 200000, 300000 };
    struct test_queue q = test_queue_new();
    size_t files = test_open_files();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct queue_id id;
        struct envelope e;
        struct spool_content c;
        assert_null(test_message(w, q.arena, sizes[i], 3, SPOOL_INCOMING, &id));
        assert_null(spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, &c));
        assert_int_equal(e.arrival_us, 1790000000000000);
        assert_str(e.sender, "from@here.example");
        assert_int_equal(e.size, sizes[i]);
        assert_int_equal(e.rcpt_count, 3);
        assert_str(e.rcpts[2].address, "to2@there.example");
        assert_int_equal(e.rcpts[2].state, RCPT_TODO);
        content_is(&c, sizes[i]);
        close(c.fd);
    }
    assert_int_equal(test_count(r, SPOOL_INCOMING), sizeof sizes / sizeof sizes[0]);
    spool_close(w);
    spool_close(r);
    assert_int_equal(test_open_files(), files);
    test_queue_free(&q);
}

/* A large message is on its way to the disk while it comes, and that this fails is no failure. */
static void large_ones_are_written_behind(void **state) {
    (void)state;
    enum { SIZE = 3 * 1024 * 1024 + 100 };
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    struct envelope e;
    struct spool_content c;
    fake_sys_install();
    fake_sys_fail("sync_file_range", 2, EIO);
    assert_null(test_message(w, q.arena, SIZE, 1, SPOOL_INCOMING, &id));
    assert_int_equal(fake_sys_calls("sync_file_range"), 2);
    assert_in_range(fake_sys_calls("pwrite"), 1, SIZE / (200 * 1024));
    fake_sys_fail("pwrite", 3, EIO);
    assert_int_equal(test_message(w, q.arena, SIZE, 1, SPOOL_INCOMING, &id)->sys, EIO);
    fake_sys_remove();
    assert_int_equal(test_count(r, SPOOL_INCOMING), 1);
    struct spool_scan scan = { 0 };
    struct spool_entry entry;
    assert_true(spool_scan_next(r, &scan, SPOOL_INCOMING, &entry));
    assert_null(spool_load(r, &entry.id, SPOOL_INCOMING, q.arena, &e, &c));
    content_is(&c, SIZE);
    close(c.fd);
    spool_scan_end(r, &scan);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

/* A message is looked at while it is written, and begun anew, small or large, as a file or in the log. */
static void begun_anew(void **state) {
    (void)state;
    static const struct {
        bool log;
        size_t before, after;
    } rows[] = { { false, 100, 50 },   { false, 300000, 20 }, { false, 10, 300000 }, { true, 100, 50 },
                 { true, 10, 300000 }, { true, 300000, 20 },  { true, 0, 0 } };
    struct test_queue q = test_queue_new();
    size_t files = test_open_files();
    struct spool *w = NULL, *r = test_spool(&q, SPOOL_READER);
    char *seen = malloc(300000);
    assert_true(spool_take_over(r));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct spool_options o = { .queue_directory = str_c(q.dir), .access = SPOOL_WRITER, .log = rows[i].log };
        assert_null(spool_open(&o, q.arena, &w));
        struct spool_new *m;
        assert_null(spool_create(w, &m));
        struct queue_id id = *spool_new_id(m);
        size_t before = rows[i].before, after = rows[i].after;
        for (size_t at = 0; at < before; at++)
            spool_write(m, str_n(&(char){ test_content(at, before) }, 1));
        assert_null(spool_new_read(m, 0, seen, before));
        for (size_t at = 0; at < before; at++)
            assert_int_equal(seen[at], test_content(at, before));
        assert_non_null(spool_new_read(m, before, seen, 1));
        assert_non_null(spool_old_read(m, 0, seen, 0));
        assert_null(spool_new_again(m));
        assert_int_equal(spool_new_size(m), 0);
        for (size_t at = 0; at < after; at++) {
            if (at < before) {
                assert_null(spool_old_read(m, at, seen, 1));
                assert_int_equal(seen[0], test_content(at, before));
            }
            spool_write(m, str_n(&(char){ test_content(at, after) }, 1));
        }
        struct envelope e = { .arrival_us = 1, .size = after };
        assert_null(spool_commit(m, &e, SPOOL_INCOMING));
        spool_close(w);
        struct spool_content c;
        struct spool_entry next;
        enum spool_state found = SPOOL_INCOMING;
        spool_log_look(r);
        if (spool_log_next(r, &next)) { /* a file otherwise */
            assert_str(queue_id_str(&next.id), id.text);
            found = next.state;
        }
        assert_null(spool_load(r, &id, found, q.arena, &e, &c));
        if (c.fd >= 0)
            content_is(&c, after);
        else
            for (size_t at = 0; at < after; at++)
                assert_int_equal(c.bytes.p[at], test_content(at, after));
        assert_int_equal(c.size, after);
        spool_content_close(&c);
    }
    free(seen);
    spool_close(r);
    assert_int_equal(test_open_files(), files);
    test_queue_free(&q);
}

static void states_and_marks(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id, held;
    struct envelope e;
    assert_null(test_message(w, q.arena, 10, 3, SPOOL_INCOMING, &id));
    assert_null(test_message(w, q.arena, 10, 3, SPOOL_HOLD, &held));
    assert_int_equal(test_count(r, SPOOL_HOLD), 1);
    assert_null(spool_move(r, &id, SPOOL_INCOMING, SPOOL_ACTIVE));
    assert_null(spool_mark_done(r, &id, SPOOL_ACTIVE, 1));
    assert_int_equal(spool_mark_done(r, &id, SPOOL_ACTIVE, 3)->sys, EINVAL);
    assert_null(spool_set_next_try(r, &id, SPOOL_ACTIVE, 1790000123456789));
    assert_null(spool_move(r, &id, SPOOL_ACTIVE, SPOOL_DEFERRED));
    struct spool_scan scan = { 0 };
    struct spool_entry entry;
    assert_true(spool_scan_next(r, &scan, SPOOL_DEFERRED, &entry));
    assert_str(queue_id_str(&entry.id), id.text);
    assert_int_equal(entry.next_try_us, 1790000123456789);
    assert_false(spool_scan_next(r, &scan, SPOOL_DEFERRED, &entry));
    assert_null(spool_load(r, &id, SPOOL_DEFERRED, q.arena, &e, NULL));
    assert_int_equal(e.rcpts[0].state, RCPT_TODO);
    assert_int_equal(e.rcpts[1].state, RCPT_DONE);
    assert_int_equal(e.rcpts[2].state, RCPT_TODO);
    /* deferred/H/ID, H the first character */
    char path[128];
    snprintf(path, sizeof path, "%s/deferred/%c/%s", q.dir, id.text[0], id.text);
    assert_int_equal(access(path, F_OK), 0);
    assert_null(spool_remove(r, &id, SPOOL_DEFERRED));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(spool_load(r, &id, SPOOL_DEFERRED, q.arena, &e, NULL)->sys, ENOENT);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

static void one_reader_delivers(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER),
                 *l = test_spool(&q, SPOOL_LISTER);
    struct queue_id id;
    struct envelope e;
    struct spool_content c, again, listed;
    assert_null(test_message(w, q.arena, 100, 1, SPOOL_INCOMING, &id));
    assert_null(spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, &c));
    assert_false(e.flags & ENVELOPE_WARNED);
    assert_int_equal(spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, &again)->sys, EWOULDBLOCK);
    assert_int_equal(spool_content_open(r, &id, SPOOL_INCOMING, &again)->sys, EWOULDBLOCK);
    assert_null(spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, NULL));
    assert_null(spool_load(l, &id, SPOOL_INCOMING, q.arena, &e, &listed));
    close(listed.fd);
    int agents = dup(c.fd); /* as passed to another process */
    close(c.fd);
    assert_int_equal(spool_content_open(r, &id, SPOOL_INCOMING, &again)->sys, EWOULDBLOCK);
    close(agents);
    assert_null(spool_content_open(r, &id, SPOOL_INCOMING, &again));
    content_is(&again, 100);
    close(again.fd);
    assert_null(spool_mark_warned(r, &id, SPOOL_INCOMING));
    assert_null(spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, NULL));
    assert_true(e.flags & ENVELOPE_WARNED);
    assert_int_equal(e.rcpts[0].state, RCPT_TODO);
    spool_close(w);
    spool_close(r);
    spool_close(l);
    test_queue_free(&q);
}

static void one_reader_is_in_office(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *a = test_spool(&q, SPOOL_READER), *b = test_spool(&q, SPOOL_READER);
    assert_true(spool_take_over(a));
    assert_true(spool_take_over(a));
    assert_false(spool_take_over(b));
    spool_hand_over(a);
    assert_true(spool_take_over(b));
    spool_close(b);
    assert_true(spool_take_over(a));
    spool_close(a);
    test_queue_free(&q);
}

static void a_move_runs_over_nobody(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id, other;
    assert_null(test_message(w, q.arena, 10, 1, SPOOL_INCOMING, &id));
    assert_null(test_message(w, q.arena, 20, 1, SPOOL_HOLD, &other));
    char from[128], to[128];
    snprintf(from, sizeof from, "%s/hold/%s", q.dir, other.text);
    snprintf(to, sizeof to, "%s/active/%s", q.dir, id.text);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(spool_move(r, &id, SPOOL_INCOMING, SPOOL_ACTIVE)->sys, EEXIST);
    assert_int_equal(test_count(r, SPOOL_INCOMING), 1);
    assert_int_equal(test_count(r, SPOOL_ACTIVE), 1);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

static void unfinished_is_not_there(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct spool_new *m;
    struct envelope e;
    assert_null(spool_create(w, &m));
    struct queue_id id = *spool_new_id(m);
    spool_write(m, STR("Subject: x\n\n"));
    assert_int_equal(test_count(r, SPOOL_INCOMING), 0);
    assert_int_equal(spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, NULL)->sys, EAGAIN);
    spool_abort(m);
    assert_int_equal(spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, NULL)->sys, ENOENT);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

static int64_t clock_ahead_s;
static int64_t ahead_wall_us(void) {
    return sys_real.wall_us() + clock_ahead_s * US_PER_S;
}

static void the_unfinished_of_the_dead_goes(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER),
                 *l = test_spool(&q, SPOOL_LISTER);
    struct spool_new *m;
    assert_null(spool_create(w, &m)); /* alive: locked */
    char dead[128], temporary[128], live[128];
    snprintf(live, sizeof live, "%s/incoming/%s", q.dir, spool_new_id(m)->text);
    snprintf(dead, sizeof dead, "%s/incoming/0DEAD1", q.dir);
    snprintf(temporary, sizeof temporary, "%s/incoming/tmp.77.1", q.dir);
    close(open(dead, O_CREAT | O_WRONLY, 0600));
    close(open(temporary, O_CREAT | O_WRONLY, 0600));
    struct sys ahead = sys_real;
    ahead.wall_us = ahead_wall_us;
    sys = &ahead;
    clock_ahead_s = 10; /* may be one that is just being created */
    test_count(r, SPOOL_INCOMING);
    assert_int_equal(access(dead, F_OK), 0);
    clock_ahead_s = 3600;
    test_count(l, SPOOL_INCOMING); /* a lister touches nothing */
    assert_int_equal(access(dead, F_OK), 0);
    test_count(r, SPOOL_INCOMING);
    assert_int_equal(access(dead, F_OK), -1);
    assert_int_equal(access(temporary, F_OK), -1);
    assert_int_equal(access(live, F_OK), 0);
    clock_ahead_s = INT64_C(60) * 24 * 3600; /* set wrong: no reason to take it from a living writer */
    test_count(r, SPOOL_INCOMING);
    assert_int_equal(access(live, F_OK), 0);
    sys = &sys_real;
    spool_abort(m);
    spool_close(w);
    spool_close(r);
    spool_close(l);
    test_queue_free(&q);
}

static void logs(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    assert_true(queue_id_from(STR("0ABCD12345"), &id));
    struct spool_failure *f, one = test_failure(0, STR("first")), two = test_failure(1, STR("second"));
    size_t n;
    assert_null(spool_log_read(r, &id, SPOOL_LOG_DEFER, q.arena, &f, &n));
    assert_int_equal(n, 0);
    assert_null(spool_log_add(r, &id, SPOOL_LOG_DEFER, &one));
    assert_null(spool_log_add(r, &id, SPOOL_LOG_DEFER, &two));
    assert_null(spool_log_add(r, &id, SPOOL_LOG_BOUNCE, &two));
    assert_null(spool_log_sync(r, &id, SPOOL_LOG_BOUNCE));
    assert_null(spool_log_read(r, &id, SPOOL_LOG_DEFER, q.arena, &f, &n));
    assert_int_equal(n, 2);
    assert_str(f[0].reason, "first");
    assert_int_equal(f[1].rcpt_index, 1);
    assert_str(f[1].status, "5.1.1");
    assert_null(spool_log_clear(r, &id, SPOOL_LOG_DEFER));
    assert_null(spool_log_clear(r, &id, SPOOL_LOG_DEFER));
    assert_null(spool_log_read(r, &id, SPOOL_LOG_DEFER, q.arena, &f, &n));
    assert_int_equal(n, 0);
    assert_null(spool_log_read(r, &id, SPOOL_LOG_BOUNCE, q.arena, &f, &n));
    assert_int_equal(n, 1);
    spool_close(r);
    test_queue_free(&q);
}

static void a_torn_log_loses_only_what_is_torn(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    char path[128];
    assert_true(queue_id_from(STR("0ABCD12345"), &id));
    snprintf(path, sizeof path, "%s/bounce/%s", q.dir, id.text);
    struct spool_failure f = test_failure(0, STR("whole")), *got;
    assert_null(spool_log_add(r, &id, SPOOL_LOG_BOUNCE, &f));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    off_t whole = st.st_size;
    for (off_t cut = whole; cut < 2 * whole; cut++) {
        size_t n;
        f.reason = STR("torn");
        assert_int_equal(truncate(path, whole), 0);
        assert_null(spool_log_add(r, &id, SPOOL_LOG_BOUNCE, &f));
        assert_int_equal(truncate(path, cut), 0);
        f.reason = STR("after");
        assert_null(spool_log_add(r, &id, SPOOL_LOG_BOUNCE, &f));
        assert_null(spool_log_read(r, &id, SPOOL_LOG_BOUNCE, q.arena, &got, &n));
        assert_int_equal(n, cut < 2 * whole - 1 ? 2 : 3); /* "torn" is one byte shorter than "whole" */
        assert_str(got[0].reason, "whole");
        assert_str(got[n - 1].reason, "after");
        arena_reset(q.arena);
    }
    spool_close(r);
    test_queue_free(&q);
}

/* Each cut and each flipped bit: refused, never believed, never a crash. */
static void damage_is_seen(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    struct envelope e;
    struct spool_content c;
    assert_null(test_message(w, q.arena, 70, 2, SPOOL_INCOMING, &id));
    char path[128];
    snprintf(path, sizeof path, "%s/incoming/%s", q.dir, id.text);
    struct buf file = { 0 };
    assert_true(buf_read_file(&file, path, 4096));
    for (size_t at = 0; at < file.n; at++) {
        int fd = open(path, O_RDWR);
        char flipped = (char)(file.p[at] ^ 4);
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
        error got = spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, &c);
        if (at >= file.n - SPOOL_REASONS_HEAD - SPOOL_FLAGS - 2) { /* a mark: to do, whatever it is; or no message's */
            assert_null(got);
            assert_int_equal(e.rcpts[0].state, RCPT_TODO);
            assert_int_equal(e.rcpts[1].state, RCPT_TODO);
            assert_false(e.flags & (ENVELOPE_WARNED | ENVELOPE_EXPIRED));
            close(c.fd);
        } else {
            assert_non_null(got);
            assert_int_equal(got->kind, ERR_SYNTAX);
        }
        assert_int_equal(pwrite(fd, &file.p[at], 1, (off_t)at), 1);
        close(fd);
    }
    for (size_t n = file.n - 1; n > 0; n--) {
        assert_int_equal(truncate(path, (off_t)n), 0);
        assert_int_equal(spool_load(r, &id, SPOOL_INCOMING, q.arena, &e, &c)->kind, ERR_SYNTAX);
    }
    assert_null(spool_move(r, &id, SPOOL_INCOMING, SPOOL_CORRUPT));
    buf_free(&file);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

static void strangers_are_skipped(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = test_spool(&q, SPOOL_WRITER), *r = test_spool(&q, SPOOL_READER);
    struct queue_id id;
    char path[128];
    assert_null(test_message(w, q.arena, 10, 1, SPOOL_INCOMING, &id));
    assert_null(spool_move(r, &id, SPOOL_INCOMING, SPOOL_DEFERRED));
    static const char *const names[] = { "deferred/.x", "deferred/A", "deferred/long-name", "deferred/A/x.y",
                                         "deferred/ZZZ" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", q.dir, names[i]);
        if (i == 1)
            mkdir(path, 0700);
        else
            close(open(path, O_CREAT | O_WRONLY, 0700));
    }
    snprintf(path, sizeof path, "%s/deferred/A/0LINK", q.dir);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof path, "%s/deferred/A/0DIR", q.dir);
    mkdir(path, 0700);
    assert_int_equal(test_count(r, SPOOL_DEFERRED), 1);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

static int little_space(int fd, struct statvfs *st) {
    int rc = fstatvfs(fd, st);
    st->f_bavail = 1000;
    st->f_frsize = 1024;
    return rc;
}

static void no_room_is_said_before_writing(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct sys full = sys_real;
    full.fstatvfs = little_space;
    static const struct {
        uint64_t min_free, size_limit;
        bool refused;
    } cases[] = { { 0, 0, false },
                  { UINT64_C(1000) * 1024, 0, false },
                  { UINT64_C(1001) * 1024, 0, true },
                  { 0, UINT64_C(600) * 1024, false },
                  { 0, UINT64_C(700) * 1024, true },
                  { 0, UINT64_MAX, true },
                  { 100, UINT64_C(600) * 1024, false } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct spool_options o = { .queue_directory = str_c(q.dir),
                                   .access = SPOOL_WRITER,
                                   .min_free = cases[i].min_free,
                                   .size_limit = cases[i].size_limit };
        struct spool *w;
        struct spool_new *m;
        assert_null(spool_open(&o, q.arena, &w));
        sys = &full;
        error e = spool_create(w, &m);
        sys = &sys_real;
        if (cases[i].refused) {
            assert_non_null(e);
            assert_int_equal(e->sys, ENOSPC);
        } else {
            assert_null(e);
            spool_abort(m);
        }
        spool_close(w);
    }
    test_queue_free(&q);
}

static void long_names(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool_options o = { .queue_directory = str_c(q.dir),
                               .access = SPOOL_WRITER,
                               .long_queue_ids = true,
                               .hash_names = STR("incoming,deferred defer"),
                               .hash_depth = 2 };
    struct spool *w, *r;
    assert_null(spool_open(&o, q.arena, &w));
    o.access = SPOOL_READER;
    assert_null(spool_open(&o, q.arena, &r));
    for (int i = 0; i < 50; i++) {
        struct queue_id id = { 0 };
        struct envelope e;
        assert_null(test_message(w, q.arena, 10, 1, SPOOL_INCOMING, &id));
        assert_true(strlen(id.text) > 11 && id.text[10] == 'z');
        if (i % 2 == 0) {
            assert_null(spool_move(r, &id, SPOOL_INCOMING, SPOOL_DEFERRED));
            assert_null(spool_load(r, &id, SPOOL_DEFERRED, q.arena, &e, NULL));
        }
    }
    assert_int_equal(test_count(r, SPOOL_INCOMING), 25);
    assert_int_equal(test_count(r, SPOOL_DEFERRED), 25);
    spool_close(w);
    spool_close(r);
    test_queue_free(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(large_ones_are_written_behind),
        cmocka_unit_test(begun_anew),
        cmocka_unit_test(states_and_marks),
        cmocka_unit_test(one_reader_delivers),
        cmocka_unit_test(one_reader_is_in_office),
        cmocka_unit_test(a_move_runs_over_nobody),
        cmocka_unit_test(unfinished_is_not_there),
        cmocka_unit_test(the_unfinished_of_the_dead_goes),
        cmocka_unit_test(logs),
        cmocka_unit_test(a_torn_log_loses_only_what_is_torn),
        cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(strangers_are_skipped),
        cmocka_unit_test(no_room_is_said_before_writing),
        cmocka_unit_test(long_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
