/* Deferred messages of the log on their way into files, in the background. */
#include "queue/spool_test_util.h"

#include "queue/log.h"
#include "run/coro.h"
#include "run/loop.h"
#include <errno.h>

enum { MESSAGES = 150 };

static struct {
    struct test_queue q;
    struct spool *w, *r;
    struct queue_id ids[MESSAGES];
    size_t stranger; /* a file of that message's name is there; 0: none */
    int failed;
} place;

/* cmocka's assertions jump off the stack, which a coroutine must not: count, and say where */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_error("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                \
            place.failed++;                                                                                            \
        }                                                                                                              \
    } while (0)

static struct spool *open_with(enum spool_access access) {
    struct spool *s = NULL;
    struct spool_options o = { .queue_directory = str_c(place.q.dir), .access = access, .log = true };
    assert_null(spool_open(&o, place.q.arena, &s));
    return s;
}

static char *path_of(size_t i, unsigned dir) {
    char path[SPOOL_PATH_MAX];
    spool_path(place.r, dir, &place.ids[i], path);
    return arena_cstr(place.q.arena, arena_printf(place.q.arena, "%s/%s", place.q.dir, path));
}

static bool is_there(size_t i) {
    return access(path_of(i, SPOOL_DEFERRED), F_OK) == 0;
}

static void make_stranger(size_t i) {
    CHECK(!spool_make_parents(place.r, path_of(i, SPOOL_DEFERRED) + strlen(place.q.dir) + 1));
    int fd = open(path_of(i, SPOOL_DEFERRED), O_CREAT | O_WRONLY, 0700);
    CHECK(fd >= 0 && write(fd, "mine", 4) == 4);
    close(fd);
}

/* All of them are deferred; each with its reason and every third with a recipient that is done. */
static void defer_all(void) {
    struct spool_entry e;
    for (size_t i = 0; i < MESSAGES; i++) {
        CHECK(spool_log_next(place.r, &e) && str_eq(queue_id_str(&e.id), queue_id_str(&place.ids[i])));
        if (i % 3 == 0)
            CHECK(!spool_mark_done(place.r, &e.id, SPOOL_ACTIVE, 1));
        CHECK(!test_reason(place.r, &e.id, SPOOL_ACTIVE, 0, STR("busy"), false));
        if (i > 0 && i == place.stranger)
            make_stranger(i);
        CHECK(!spool_defer(place.r, &e.id, INT64_C(1900000000000000) + (int64_t)i));
    }
}

static void check_file(size_t i) {
    struct envelope env;
    struct spool_content c = { .fd = -1 };
    struct spool_failure *f;
    size_t n;
    struct stat st;
    const struct queue_id *id = &place.ids[i];
    CHECK(!spool_load(place.r, id, SPOOL_DEFERRED, place.q.arena, &env, &c));
    CHECK(c.fd >= 0 && env.rcpt_count == 2 && env.size == 100 + i);
    CHECK(env.rcpts[0].state == RCPT_TODO && env.rcpts[1].state == (i % 3 == 0 ? RCPT_DONE : RCPT_TODO));
    spool_content_close(&c);
    CHECK(!spool_reasons_read(place.r, id, SPOOL_DEFERRED, place.q.arena, &f, &n) && n == 1 &&
          str_eq(f[0].reason, STR("busy")));
    CHECK(stat(path_of(i, SPOOL_DEFERRED), &st) == 0 && st.st_mtim.tv_sec == 1900000000 &&
          st.st_mtim.tv_nsec == (long)i * 1000 && (st.st_mode & 07777) == 0700);
}

static size_t files_now(void) {
    size_t n = 0;
    for (size_t i = 0; i < MESSAGES; i++)
        n += is_there(i);
    return n;
}

/* Nothing asks for them: they get there by themselves, in bounded time. */
static void by_itself(void *arg) {
    (void)arg;
    defer_all();
    CHECK(files_now() == 0); /* no turn of the loop has gone by */
    for (int i = 0; i < 3000 && files_now() < MESSAGES; i++)
        wait_until(deadline_in_us(10000));
    CHECK(files_now() == MESSAGES);
    CHECK(!spool_settle(place.r));
    for (size_t i = 0; i < MESSAGES; i++)
        check_file(i);
}

/* More do not wait than may: what is above the limit is a file at once. All get there in the end. */
static void all_get_there(size_t at_once) {
    CHECK(files_now() == at_once);
    CHECK(!spool_settle(place.r));
    CHECK(test_count(place.r, SPOOL_DEFERRED) == MESSAGES && files_now() == MESSAGES);
    check_file(0);
    check_file(MESSAGES - 1);
}

static void so_many_wait(void *arg) {
    (void)arg;
    CHECK(place.r->log_reader->moving_max == LOG_MOVING_MAX);
    place.r->log_reader->moving_max = 100;
    defer_all();
    all_get_there(MESSAGES - 100);
}

static void so_much_waits(void *arg) {
    (void)arg;
    CHECK(place.r->log_reader->moving_bytes_max == LOG_MOVING_BYTES_MAX);
    place.r->log_reader->moving_bytes_max = 1; /* the first is above it, and those that come then are not let in */
    defer_all();
    all_get_there(MESSAGES - 1);
}

/* One that is asked for is there at once, the others need not be. */
static void asked_for(void *arg) {
    (void)arg;
    enum spool_state where;
    defer_all();
    CHECK(spool_find(place.r, &place.ids[77], &where) && where == SPOOL_DEFERRED);
    check_file(77);
    CHECK(!spool_remove(place.r, &place.ids[100], SPOOL_DEFERRED));
    CHECK(!spool_move(place.r, &place.ids[101], SPOOL_DEFERRED, SPOOL_ACTIVE));
    CHECK(!spool_set_next_try(place.r, &place.ids[102], SPOOL_DEFERRED, 17));
    CHECK(test_count(place.r, SPOOL_DEFERRED) == MESSAGES - 2);
    CHECK(!is_there(100) && !is_there(101) && is_there(102));
    check_file(149);
}

static void found_by_a_scan(void *arg) {
    (void)arg;
    defer_all();
    CHECK(test_count(place.r, SPOOL_DEFERRED) == MESSAGES);
    CHECK(test_count(place.r, SPOOL_ACTIVE) == 0);
}

static void found_while_written(void *arg) {
    (void)arg;
    defer_all();
    coro_yield(); /* some are in the thread's hands */
    enum spool_state where;
    CHECK(spool_find(place.r, &place.ids[0], &where) && where == SPOOL_DEFERRED);
    check_file(0);
    CHECK(test_count(place.r, SPOOL_DEFERRED) == MESSAGES);
}

/* The next queue manager finds them as files, or, of those just being written, waits. */
static void handed_over(void *arg) {
    (void)arg;
    defer_all();
    spool_hand_over(place.r);
    CHECK(files_now() == MESSAGES);
    struct spool *next = open_with(SPOOL_READER);
    struct spool_entry e;
    CHECK(spool_take_over(next));
    CHECK(!spool_log_next(next, &e));
    CHECK(test_count(next, SPOOL_DEFERRED) == MESSAGES);
    spool_close(next);
}

static struct {
    struct sys sys;
    _Atomic int refuse, refused;
} disk;

static int refusing_openat(int dirfd, const char *path, int flags, mode_t mode) {
    if (disk.refuse && (flags & O_CREAT) && strncmp(path, "deferred/", 9) == 0) {
        disk.refused++;
        errno = ENOSPC;
        return -1;
    }
    return sys_real.openat(dirfd, path, flags, mode);
}

/* A full disk: the messages stay in the log until there is room. */
static void without_room(void *arg) {
    (void)arg;
    disk.sys = sys_real;
    disk.sys.openat = refusing_openat;
    disk.refuse = 1;
    sys = &disk.sys;
    defer_all();
    for (int i = 0; i < 3000 && disk.refused < 64; i++)
        wait_until(deadline_in_us(10000));
    CHECK(disk.refused >= 64);
    enum spool_state where;
    struct spool_entry e;
    CHECK(!spool_find(place.r, &place.ids[0], &where));
    CHECK(!spool_log_next(place.r, &e)); /* nor is it given out again */
    CHECK(files_now() == 0);
    disk.refuse = 0;
    CHECK(!spool_settle(place.r));
    CHECK(files_now() == MESSAGES);
    sys = &sys_real;
    check_file(149);
}

/* A stranger has its name: it is not run over, the message stays active. */
static void in_the_way(void *arg) {
    (void)arg;
    place.stranger = 5;
    defer_all();
    CHECK(!spool_settle(place.r));
    struct stat st;
    enum spool_state where;
    CHECK(stat(path_of(5, SPOOL_DEFERRED), &st) == 0 && st.st_size == 4);
    CHECK(spool_find(place.r, &place.ids[5], &where) && where == SPOOL_ACTIVE);
    check_file(4);
    check_file(6);
}

static void run(void (*what)(void *arg), bool in_loop) {
    memset(&place, 0, sizeof place);
    place.q = test_queue_new();
    place.w = open_with(SPOOL_WRITER);
    place.r = open_with(SPOOL_READER);
    assert_true(spool_take_over(place.r));
    for (size_t i = 0; i < MESSAGES; i++)
        assert_null(test_message(place.w, place.q.arena, 100 + i, 2, SPOOL_INCOMING, &place.ids[i]));
    spool_log_look(place.r);
    if (in_loop) {
        assert_null(loop_init());
        struct coro *story = coro_spawn(what, NULL, "story");
        assert_non_null(story);
        assert_null(loop_run());
        loop_free();
    } else {
        what(NULL);
    }
    spool_close(place.w);
    spool_close(place.r);
    test_queue_free(&place.q);
    assert_int_equal(place.failed, 0);
}

static void they_become_files(void **state) {
    (void)state;
    run(by_itself, true);
}
static void who_asks_finds_them(void **state) {
    (void)state;
    run(asked_for, true);
    run(found_by_a_scan, true);
    run(found_while_written, true);
}
static void memory_is_bounded(void **state) {
    (void)state;
    run(so_many_wait, true);
    run(so_much_waits, true);
}
static void the_next_reader_finds_them(void **state) {
    (void)state;
    run(handed_over, true);
}
static void trouble(void **state) {
    (void)state;
    run(in_the_way, true);
    run(without_room, true);
}

/* Without a loop (a command) there is no background. */
static void at_once(void *arg) {
    (void)arg;
    defer_all();
    assert_int_equal(files_now(), MESSAGES);
    check_file(0);
}
static void in_a_command(void **state) {
    (void)state;
    run(at_once, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_become_files), cmocka_unit_test(who_asks_finds_them),
        cmocka_unit_test(memory_is_bounded), cmocka_unit_test(the_next_reader_finds_them),
        cmocka_unit_test(trouble),           cmocka_unit_test(in_a_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
