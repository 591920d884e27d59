/* The writer of the log: group commit, segments used again, ids, disks that fail. */
#include "queue/spool_test_util.h"

#include "queue/log.h"
#include "test/fake_sys.h"
#include <errno.h>
#include <sys/file.h>
#include <sys/wait.h>

enum { SESSIONS = 50, EACH = 20, IDS_MAX = 40000 };

static struct spool *writer_of(struct test_queue *q, uint64_t segment_size) {
    struct spool *s = NULL;
    struct spool_options o = {
        .queue_directory = str_c(q->dir), .access = SPOOL_WRITER, .log = true, .segment_size = segment_size
    };
    assert_null(spool_open(&o, q->arena, &s));
    return s;
}

static struct spool *writer(struct test_queue *q) {
    return writer_of(q, SEGMENT_SIZE_MIN);
}

static struct queue_id put(struct spool *s, struct test_queue *q, size_t size) {
    struct queue_id id;
    assert_null(test_message(s, q->arena, size, 1, SPOOL_INCOMING, &id));
    return id;
}

/* Is it there, whole, with `size` bytes? */
static bool is_there(struct test_queue *q, const struct queue_id *id, size_t size) {
    struct spool *s = test_spool(q, SPOOL_LISTER);
    struct arena *a = arena_new();
    struct envelope e;
    struct spool_content c;
    bool good = false;
    if (!spool_load(s, id, SPOOL_INCOMING, a, &e, &c)) {
        good = c.size == size && e.size == size && e.rcpt_count > 0;
        char *p = arena_alloc(a, size);
        if (c.bytes.p)
            memcpy(p, c.bytes.p, size);
        else
            good = good && pread(c.fd, p, size, (off_t)c.offset) == (ssize_t)size;
        for (size_t i = 0; i < size && good; i++)
            good = p[i] == test_content(i, size);
        spool_content_close(&c);
    }
    arena_free(a);
    spool_close(s);
    return good;
}

static size_t count_names(struct test_queue *q, const char *prefix, uint64_t *ret_last) {
    struct spool *s = test_spool(q, SPOOL_LISTER);
    size_t n;
    uint64_t *numbers = log_numbers(s, prefix, &n);
    if (n && ret_last)
        *ret_last = numbers[n - 1];
    free(numbers);
    spool_close(s);
    return n;
}

/* As the reader does when all messages of it are done. */
static void give_back(struct test_queue *q, uint64_t number) {
    char name[LOG_NAME_MAX], from[128], to[128];
    log_name("", number, name);
    snprintf(from, sizeof from, "%s/%s", q->dir, name);
    log_name("free.", number, name);
    snprintf(to, sizeof to, "%s/%s", q->dir, name);
    assert_int_equal(rename(from, to), 0);
}

static struct segment_head head_of(struct test_queue *q, const char *prefix, uint64_t number, ino_t *ret_inode) {
    char name[LOG_NAME_MAX], path[128];
    log_name(prefix, number, name);
    snprintf(path, sizeof path, "%s/%s", q->dir, name);
    int fd = open(path, O_RDONLY);
    struct stat st;
    struct segment_head h;
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    assert_int_equal(log_read_front(fd, &h), SEGMENT_OURS);
    close(fd);
    *ret_inode = st.st_ino;
    return h;
}

/* --- ids seen by a test: no two the same --- */

static struct {
    struct queue_id ids[IDS_MAX];
    size_t n;
} seen;

static void see(const struct queue_id *id) {
    assert_true(seen.n < IDS_MAX);
    seen.ids[seen.n++] = *id;
}

static int compare_ids(const void *a, const void *b) {
    return memcmp(a, b, sizeof(struct queue_id));
}

static void expect_unique(void) {
    qsort(seen.ids, seen.n, sizeof seen.ids[0], compare_ids);
    for (size_t i = 1; i < seen.n; i++)
        if (memcmp(&seen.ids[i - 1], &seen.ids[i], sizeof seen.ids[0]) == 0)
            fail_msg("%s was given twice", seen.ids[i].text);
}

/* --- what goes where --- */

static void plain_calls(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = writer(&q);
    assert_false(spool_create_is_free(w)); /* there is no segment yet */
    struct queue_id id = put(w, &q, 100), empty = put(w, &q, 0), full = put(w, &q, SEGMENT_CONTENT_MAX);
    assert_true(spool_create_is_free(w));
    assert_true(is_there(&q, &id, 100) && is_there(&q, &empty, 0) && is_there(&q, &full, SEGMENT_CONTENT_MAX));
    assert_int_equal(count_names(&q, "", NULL), 1);
    spool_close(w);
    test_queue_free(&q);
}

static size_t files_in(struct test_queue *q, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", q->dir, name);
    size_t n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static struct spool_news last_news;
static size_t news_count;
static void heard(void *ctx, const struct spool_news *news) {
    (void)ctx;
    last_news = *news;
    news_count++;
}

static void large_ones_are_files(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct spool *w = writer(&q);
    news_count = 0;
    spool_on_news(w, heard, NULL);
    struct queue_id id = put(w, &q, SEGMENT_CONTENT_MAX + 1);
    assert_int_equal(files_in(&q, "incoming"), 1);
    assert_true(news_count == 1 && last_news.position.segment == 0 && compare_ids(&last_news.id, &id) == 0);
    assert_true(is_there(&q, &id, SEGMENT_CONTENT_MAX + 1));
    /* small content, and very many recipients */
    assert_null(test_message(w, q.arena, 10, SEGMENT_RCPTS_MAX + 1, SPOOL_INCOMING, &id));
    assert_int_equal(files_in(&q, "incoming"), 2);
    assert_true(is_there(&q, &id, 10));
    assert_null(test_message(w, q.arena, 10, SEGMENT_RCPTS_MAX, SPOOL_INCOMING, &id));
    assert_int_equal(files_in(&q, "incoming"), 2);
    assert_true(is_there(&q, &id, 10) && news_count == 3);
    assert_int_not_equal(last_news.position.segment, 0);
    /* a large one on hold is nobody's business; one that is given up leaves nothing */
    assert_null(test_message(w, q.arena, SEGMENT_CONTENT_MAX * 2, 1, SPOOL_HOLD, &id));
    assert_int_equal(news_count, 3);
    struct spool_new *m;
    assert_null(spool_create(w, &m));
    char *p = arena_alloc(q.arena, SEGMENT_CONTENT_MAX * 2);
    memset(p, 'x', SEGMENT_CONTENT_MAX * 2);
    spool_write(m, str_n(p, SEGMENT_CONTENT_MAX * 2));
    assert_int_equal(files_in(&q, "incoming"), 3);
    spool_abort(m);
    assert_int_equal(files_in(&q, "incoming"), 2);
    spool_close(w);
    test_queue_free(&q);
}

static void abort_costs_nothing(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fake_sys_install();
    struct spool *w = writer(&q);
    put(w, &q, 10);
    static const char *const calls[] = { "openat", "pwrite", "fdatasync", "fsync", "renameat", "unlinkat", "fstatat" };
    unsigned before = 0, after = 0;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        before += fake_sys_calls(calls[i]);
    struct spool_new *m;
    assert_null(spool_create(w, &m));
    spool_write(m, STR("some bytes\n"));
    spool_abort(m);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        after += fake_sys_calls(calls[i]);
    assert_int_equal(before, after);
    spool_close(w);
    fake_sys_remove();
    test_queue_free(&q);
}

/* The syncs of those who wait do not stand behind all of a segment that is being made. */
static void filled_piece_by_piece(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fake_sys_install();
    fake_sys_fail("sync_file_range", 2, EIO); /* the sync at the end counts */
    struct spool *w = writer_of(&q, 4 * SEGMENT_SIZE_MIN);
    struct queue_id id = put(w, &q, 10);
    assert_int_equal(fake_sys_calls("sync_file_range"), 4);
    put(w, &q, 10);
    assert_int_equal(fake_sys_calls("sync_file_range"), 4);
    assert_true(is_there(&q, &id, 10));
    spool_close(w);
    fake_sys_remove();
    test_queue_free(&q);
}

static void room_is_looked_at_once_a_second(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fake_sys_install();
    struct spool *w = NULL;
    struct spool_options o = { .queue_directory = str_c(q.dir), .access = SPOOL_WRITER, .log = true, .min_free = 1 };
    assert_null(spool_open(&o, q.arena, &w));
    for (int i = 0; i < 100; i++)
        put(w, &q, 10);
    unsigned at_first = fake_sys_calls("fstatvfs"); /* and once for the segment */
    assert_int_equal(at_first, 2);
    fake_sys_advance(US_PER_S);
    put(w, &q, 10);
    assert_int_equal(fake_sys_calls("fstatvfs"), at_first + 1);
    spool_close(w);
    o.min_free = UINT64_MAX / 2;
    assert_null(spool_open(&o, q.arena, &w));
    struct spool_new *m;
    error e = spool_create(w, &m);
    assert_true(e && e->sys == ENOSPC);
    spool_close(w);
    fake_sys_remove();
    test_queue_free(&q);
}

static uint64_t disk_free;
static int small_disk(int fd, struct statvfs *ret) {
    (void)fd;
    *ret = (struct statvfs){ .f_bsize = 4096, .f_frsize = 4096, .f_bavail = disk_free / 4096 };
    return 0;
}

/* What free segments hold is room: a disk with little else takes mail, and gets some of it back for that. */
static void free_segments_are_room(void **state) {
    (void)state;
    enum { MIB = 1024 * 1024, FREE = 4 };
    static const struct {
        uint64_t disk, min_free;
        bool refused;
        size_t left;
    } rows[] = {
        { 3 * MIB, 3 * MIB, false, 4 }, { 2 * MIB, 2 * MIB + 4096, false, 3 },
        { 4096, 3 * MIB, false, 1 },    { 4096, 4 * MIB, false, 0 },
        { 4096, 5 * MIB, true, 4 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct test_queue q = test_queue_new();
        struct spool *w[FREE];
        for (size_t k = 0; k < FREE; k++) {
            w[k] = writer(&q);
            put(w[k], &q, 10);
        }
        for (size_t k = 0; k < FREE; k++)
            spool_close(w[k]);
        uint64_t number = 0, lowest, highest = 0;
        count_names(&q, "", &highest);
        while (count_names(&q, "", &number) > 0)
            give_back(&q, number);
        struct sys small = *sys;
        small.fstatvfs = small_disk;
        sys = &small;
        disk_free = rows[i].disk;
        struct spool *s = NULL;
        struct spool_options o = { .queue_directory = str_c(q.dir), .access = SPOOL_WRITER };
        o.min_free = rows[i].min_free;
        assert_null(spool_open(&o, q.arena, &s));
        struct spool_new *m = NULL;
        error e = spool_create(s, &m);
        sys = &sys_real;
        if ((e != NULL) != rows[i].refused || (e && e->sys != ENOSPC))
            fail_msg("row %zu: %s", i, e ? "refused" : "taken");
        size_t left = count_names(&q, "free.", &lowest);
        if (left != rows[i].left || (left && lowest != highest))
            fail_msg("row %zu: %zu are left", i, left);
        if (!e)
            spool_abort(m);
        spool_close(s);
        test_queue_free(&q);
    }
}

/* --- many sessions --- */

static struct {
    struct test_queue *q;
    struct spool *w[3];
    size_t size, refused;
    uint64_t last_end, last_segment;
    size_t batches;
    struct queue_id acked[SESSIONS * EACH];
    size_t acked_count;
    size_t largest_write;
} load;

static void batch_done(void *ctx, const struct spool_news *news) {
    (void)ctx;
    load.batches++;
    if (news->position.segment == load.last_segment)
        assert_true(news->position.end > load.last_end);
    load.last_segment = news->position.segment;
    load.last_end = news->position.end;
}

static void session(void *arg) {
    struct spool *w = arg;
    struct arena *a = arena_new();
    for (int i = 0; i < EACH; i++) {
        struct queue_id id;
        if (test_message(w, a, load.size, 1, SPOOL_INCOMING, &id))
            load.refused++;
        else
            load.acked[load.acked_count++] = id;
        see(&id);
    }
    arena_free(a);
}

static void run_load(struct test_queue *q, size_t writers, size_t sessions, size_t size) {
    load = (typeof(load)){ .q = q, .size = size };
    seen.n = 0;
    for (size_t i = 0; i < writers; i++) {
        load.w[i] = writer(q);
        if (writers == 1)
            spool_on_news(load.w[i], batch_done, NULL);
    }
    assert_null(loop_init());
    for (size_t i = 0; i < sessions; i++)
        assert_non_null(coro_spawn(session, load.w[i % writers], "session"));
    assert_null(loop_run());
    loop_free();
    for (size_t i = 0; i < writers; i++)
        spool_close(load.w[i]);
}

static size_t count_whole(struct test_queue *q, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < load.acked_count; i++)
        n += is_there(q, &load.acked[i], size);
    return n;
}

static void sessions_share_a_sync(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fake_sys_install();
    run_load(&q, 1, SESSIONS, 300);
    assert_int_equal(load.acked_count, SESSIONS * EACH);
    /* Who is ready when a batch is closed is in it, and while it is written all others gather in the next: as few
     * batches as messages a session, and some for those that fell out of step. */
    assert_true(load.batches <= EACH + EACH / 2);
    assert_true(fake_sys_calls("fdatasync") < SESSIONS * EACH / 4);
    fake_sys_remove();
    expect_unique();
    assert_int_equal(count_whole(&q, 300), SESSIONS * EACH);
    test_queue_free(&q);
}

static void watch_writes(void *arg, const struct fake_call *call) {
    (void)arg;
    if (strcmp(call->name, "pwrite") == 0 && call->n > load.largest_write)
        load.largest_write = call->n;
}

/* 6 MB of messages at a time, and segments of 1 MiB: what waits for its turn waits with its session. */
static void memory_and_segments_are_bounded(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fake_sys_install();
    fake_sys_watch(watch_writes, NULL);
    run_load(&q, 1, 8, 120000);
    fake_sys_watch(NULL, NULL);
    fake_sys_remove();
    assert_int_equal(load.acked_count, 8 * EACH);
    assert_true(load.largest_write <= SEGMENT_SIZE_MIN);
    assert_true(count_names(&q, "", NULL) > 8 * EACH * 120000 / SEGMENT_SIZE_MIN);
    assert_int_equal(count_names(&q, "new.", NULL), 0);
    expect_unique();
    assert_int_equal(count_whole(&q, 120000), 8 * EACH);
    test_queue_free(&q);
}

static void several_writers(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    /* free segments they will all want */
    struct spool *w[4];
    for (size_t i = 0; i < 4; i++) {
        w[i] = writer(&q);
        put(w[i], &q, 10);
    }
    for (size_t i = 0; i < 4; i++)
        spool_close(w[i]);
    uint64_t number = 0;
    while (count_names(&q, "", &number) > 0)
        give_back(&q, number);
    run_load(&q, 3, SESSIONS, 20000);
    assert_int_equal(load.acked_count, SESSIONS * EACH);
    assert_int_equal(count_names(&q, "free.", NULL), 0);
    expect_unique();
    assert_int_equal(count_whole(&q, 20000), SESSIONS * EACH);
    test_queue_free(&q);
}

/* --- used again --- */

static void segments_are_used_again(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    uint64_t first = 0, second = 0;
    ino_t old, new;
    struct spool *w = writer(&q);
    struct queue_id gone = put(w, &q, 100);
    put(w, &q, 100);
    spool_close(w);
    assert_int_equal(count_names(&q, "", &first), 1);
    struct segment_head before = head_of(&q, "", first, &old);
    give_back(&q, first);
    char mark[64], path[128], name[LOG_NAME_MAX];
    log_name("free.", first, name);
    snprintf(path, sizeof path, "%s/%s", q.dir, name);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    memset(mark, SEGMENT_MARK_DONE, sizeof mark);
    assert_int_equal(pwrite(fd, mark, sizeof mark, SEGMENT_MARKS_AT), sizeof mark);

    w = writer(&q);
    struct queue_id id = put(w, &q, 50);
    assert_int_equal(count_names(&q, "free.", NULL), 0);
    assert_int_equal(count_names(&q, "", &second), 1);
    struct segment_head after = head_of(&q, "", second, &new);
    assert_true(second > first && after.generation > before.generation && old == new);
    assert_true(is_there(&q, &id, 50));
    assert_false(is_there(&q, &gone, 100)); /* the second record of the earlier use lies behind, and is none */
    assert_int_equal(pread(fd, mark, sizeof mark, SEGMENT_MARKS_AT), sizeof mark);
    for (size_t i = 0; i < sizeof mark; i++)
        assert_int_equal(mark[i], 0);
    /* in use: nobody else may have it */
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
    spool_close(w);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    close(fd);
    /* another size was asked for since */
    give_back(&q, second);
    w = writer_of(&q, 2 * SEGMENT_SIZE_MIN + 5);
    put(w, &q, 50);
    spool_close(w);
    assert_int_equal(count_names(&q, "free.", NULL), 0);
    assert_int_equal(count_names(&q, "", &first), 1);
    assert_int_equal(head_of(&q, "", first, &new).size, 2 * SEGMENT_SIZE_MIN);
    test_queue_free(&q);
}

static void strange_free_segments(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    char path[128];
    snprintf(path, sizeof path, "%s/log", q.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/log/free.0000000000000001", q.dir); /* cut */
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    snprintf(path, sizeof path, "%s/log/free.0000000000000002", q.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/log/free.0000000000000003", q.dir);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    struct spool *w = writer(&q);
    struct queue_id id = put(w, &q, 50);
    assert_true(is_there(&q, &id, 50));
    assert_int_equal(count_names(&q, "free.", NULL), 3); /* nobody's but the administrator's */
    spool_close(w);
    test_queue_free(&q);
}

/* --- ids --- */

static void take_ids(struct spool *w, struct test_queue *q, size_t n, bool commit) {
    for (size_t i = 0; i < n; i++) {
        struct spool_new *m;
        assert_null(spool_create(w, &m));
        see(spool_new_id(m));
        spool_abort(m);
    }
    if (commit) {
        struct queue_id id = put(w, q, 10);
        see(&id);
    }
}

static void give_all_back(struct test_queue *q) {
    uint64_t number = 0;
    while (count_names(q, "", &number) > 0)
        give_back(q, number);
}

/* The clock stands still, and goes back; the segment is used again and again by processes that end as they should. */
static void ids_with_the_clock_set_back(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    seen.n = 0;
    fake_sys_install();
    for (int i = 0; i < 20; i++) {
        struct spool *w = writer(&q);
        take_ids(w, &q, 100, i % 2);
        if (i % 5 == 0)
            fake_sys_step_wall(-3600 * US_PER_S);
        take_ids(w, &q, 100, false);
        spool_close(w);
        give_all_back(&q);
        fake_sys_step_wall(i % 3 ? -50 : 10);
    }
    fake_sys_remove();
    expect_unique();
    test_queue_free(&q);
}

/* Ids that were given out by a process which died: those of acknowledged messages must not come again. */
static void ids_after_a_death(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    seen.n = 0;
    fake_sys_install();
    for (int i = 0; i < 10; i++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct spool *w = writer(&q);
            for (int n = 0; n < 50; n++) {
                struct spool_new *m;
                if (spool_create(w, &m))
                    _exit(1);
                spool_abort(m); /* ids go by */
                fake_sys_advance(n * 100);
                struct queue_id id = put(w, &q, n % 7 == 0 ? SEGMENT_CONTENT_MAX + 1 : 10);
                if (write(fds[1], &id, sizeof id) != sizeof id)
                    _exit(1);
            }
            _exit(0); /* no seal, no farewell */
        }
        close(fds[1]);
        struct queue_id id;
        size_t n = 0;
        while (read(fds[0], &id, sizeof id) == sizeof id) {
            see(&id);
            n++;
        }
        close(fds[0]);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(n == 50 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        if (i % 3 == 2) { /* one is removed, and its inode given to the next new file */
            char path[128], name[LOG_NAME_MAX];
            uint64_t number = 0;
            assert_true(count_names(&q, "", &number) > 0);
            struct spool *w = writer(&q); /* another that lives knows of its ids */
            put(w, &q, 10);
            log_name("", number, name);
            snprintf(path, sizeof path, "%s/%s", q.dir, name);
            assert_int_equal(unlink(path), 0);
            spool_close(w);
        }
        give_all_back(&q);
        fake_sys_step_wall(-20000); /* the time of the child was its own: this is before its last ids */
    }
    fake_sys_remove();
    expect_unique();
    test_queue_free(&q);
}

/* --- disks that fail --- */

static void one_batch_fails(const char *call, int errnum) {
    struct test_queue q = test_queue_new();
    fake_sys_install();
    struct spool *w = writer(&q);
    struct queue_id before = put(w, &q, 100), failed, after;
    uint64_t first = 0;
    assert_int_equal(count_names(&q, "", &first), 1);
    size_t descriptors = test_open_files();
    fake_sys_fail(call, 1, errnum);
    error e = test_message(w, q.arena, 200, 1, SPOOL_INCOMING, &failed);
    assert_true(e && e->kind == ERR_SYS && e->sys == errnum);
    assert_int_equal(fake_sys_clear_faults(), 0);
    after = put(w, &q, 300);
    assert_int_equal(count_names(&q, "", NULL), 2); /* not in the condemned one */
    assert_int_equal(test_open_files(), descriptors);
    spool_close(w);
    fake_sys_remove();
    assert_true(is_there(&q, &before, 100) && is_there(&q, &after, 300));
    assert_false(is_there(&q, &failed, 200));
    struct spool *r = test_spool(&q, SPOOL_READER); /* and not from a segment read to its end */
    assert_true(spool_take_over(r));
    size_t n = 0;
    for (struct spool_entry entry; spool_log_next(r, &entry); n++)
        assert_int_not_equal(compare_ids(&entry.id, &failed), 0);
    assert_int_equal(n, 2);
    spool_close(r);
    test_queue_free(&q);
}

static void failed_batches(void **state) {
    (void)state;
    one_batch_fails("pwrite", EIO);
    one_batch_fails("fdatasync", EIO);
}

/* No room for a segment: small files as long as there is room for one, and then ENOSPC (452) for each. */
static void full_disk(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fake_sys_install();
    struct spool *w = writer(&q);
    struct queue_id id;
    fake_sys_disk_room(10);
    for (int i = 0; i < 3; i++) {
        error e = test_message(w, q.arena, 100, 1, SPOOL_INCOMING, &id);
        assert_true(e && e->sys == ENOSPC);
        assert_int_equal(count_names(&q, "", NULL) + count_names(&q, "new.", NULL), 0);
    }
    fake_sys_disk_room(SIZE_MAX);
    id = put(w, &q, 100);
    assert_true(is_there(&q, &id, 100));
    /* the next segment does not fit: what fits into this one still goes */
    size_t taken = 0, refused = 0;
    fake_sys_disk_room(SEGMENT_SIZE_MIN);
    for (int i = 0; i < 20; i++) {
        error e = test_message(w, q.arena, 100000, 1, SPOOL_INCOMING, &id);
        assert_true(!e || e->sys == ENOSPC);
        taken += !e;
        refused += e != NULL;
    }
    assert_true(taken > 5 && refused > 0);
    fake_sys_disk_room(SIZE_MAX);
    id = put(w, &q, 100000);
    assert_true(is_there(&q, &id, 100000));
    spool_close(w);
    fake_sys_remove();
    test_queue_free(&q);
}

static bool one_makes(struct test_queue *q) {
    size_t n = fake_sys_calls("fstatvfs"); /* one for each segment that is tried */
    struct spool *w = writer(q);
    fake_sys_disk_room(100);
    load = (typeof(load)){ .q = q, .size = 10 };
    seen.n = 0;
    assert_null(loop_init());
    for (size_t i = 0; i < SESSIONS; i++)
        assert_non_null(coro_spawn(session, w, "session"));
    assert_null(loop_run());
    loop_free();
    spool_close(w);
    fake_sys_disk_room(SIZE_MAX);
    assert_int_equal(load.refused, SESSIONS * EACH);
    return fake_sys_calls("fstatvfs") - n <= 4 * EACH; /* not one try for each session */
}

static void a_full_disk_is_met_once_for_all_who_wait(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    fake_sys_install();
    assert_true(one_makes(&q));
    fake_sys_remove();
    test_queue_free(&q);
}

/* pwrite() that is interrupted, and that stores little at a time. */
static ssize_t little_pwrite(int fd, const void *p, size_t n, off_t at) {
    static unsigned calls;
    if (++calls % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return pwrite(fd, p, n < 1000 ? n : 1000, at);
}

static void short_writes(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct sys little = sys_real;
    little.pwrite = little_pwrite;
    sys = &little;
    struct spool *w = writer(&q);
    struct queue_id a = put(w, &q, 5000), b = put(w, &q, SEGMENT_CONTENT_MAX + 5000);
    spool_close(w);
    sys = &sys_real;
    assert_true(is_there(&q, &a, 5000) && is_there(&q, &b, SEGMENT_CONTENT_MAX + 5000));
    test_queue_free(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_calls),
        cmocka_unit_test(large_ones_are_files),
        cmocka_unit_test(abort_costs_nothing),
        cmocka_unit_test(filled_piece_by_piece),
        cmocka_unit_test(room_is_looked_at_once_a_second),
        cmocka_unit_test(free_segments_are_room),
        cmocka_unit_test(sessions_share_a_sync),
        cmocka_unit_test(memory_and_segments_are_bounded),
        cmocka_unit_test(several_writers),
        cmocka_unit_test(segments_are_used_again),
        cmocka_unit_test(strange_free_segments),
        cmocka_unit_test(ids_with_the_clock_set_back),
        cmocka_unit_test(ids_after_a_death),
        cmocka_unit_test(failed_batches),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(a_full_disk_is_met_once_for_all_who_wait),
        cmocka_unit_test(short_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
