/* Segments in a bad state: whatever was done to them, mail whose bytes are whole is delivered, what is not is kept for
 * the administrator and said once, and nothing is followed, written over or waited for. */
#include "queue/log_test_util.h"

#include "base/log.h"
#include "test/fake_sys.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { MESSAGES = 20, ROUNDS = 150, CONTENT = 200 };

static struct buf said;
static int failed;
#define CHECK_COUNT failed
#include "test/check.h"

static void keep_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag;
    buf_add(&said, text);
    buf_byte(&said, '\n');
}

static size_t logged(const char *what) {
    size_t n = 0;
    struct str rest = buf_str(&said), line;
    while (str_next(&rest, STR("\n"), &line))
        n += str_contains(line, str_c(what));
    return n;
}

static int set_up(void **state) {
    (void)state;
    fake_sys_install();
    log_set_sink(keep_log, NULL);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    log_set_sink(NULL, NULL);
    buf_free(&said);
    fake_sys_remove();
    return 0;
}

static struct spool *in_office(struct test_queue *q) {
    struct spool *s = test_spool(q, SPOOL_READER);
    assert_true(spool_take_over(s));
    return s;
}

/* What the reader gives, and whether it can be loaded: a bit for each of the messages "A00", "A01", ... */
struct seen {
    uint64_t given, loaded;
};
static struct seen read_all(struct test_queue *q, struct spool *s) {
    struct seen seen = { 0 };
    struct spool_entry e;
    for (unsigned n = 0; spool_log_next(s, &e); n++) {
        assert_true(n < 4 * MESSAGES);
        struct envelope env;
        struct spool_content c = { .fd = -1 };
        unsigned i = (unsigned)strtoul(e.id.text + 1, NULL, 16);
        if (e.id.text[0] != 'A' || i >= 64) /* the damage has made another name: not that of a record that passes */
            fail_msg("gave %s", e.id.text);
        if (seen.given & UINT64_C(1) << i)
            fail_msg("gave %s twice", e.id.text);
        seen.given |= UINT64_C(1) << i;
        error err = spool_load(s, &e.id, SPOOL_ACTIVE, q->arena, &env, &c);
        if (!err)
            seen.loaded |= UINT64_C(1) << i;
        else
            assert_int_equal(err->kind, ERR_SYNTAX);
        spool_content_close(&c);
    }
    return seen;
}

/* MESSAGES messages; where each record is, and where it ends. */
static struct written fill(struct test_queue *q, uint64_t number, uint64_t at[MESSAGES + 1]) {
    struct written w = segment_new(q, number, 7);
    for (unsigned i = 0; i < MESSAGES; i++) {
        char id[20];
        snprintf(id, sizeof id, "A%02X", i);
        at[i] = put(q, &w, id, CONTENT + i, 1 + i % 3, i % 5 == 4 ? SEGMENT_HOLD : SEGMENT_INCOMING);
    }
    at[MESSAGES] = w.at;
    return w;
}

static bool is_held(unsigned i) {
    return i % 5 == 4;
}

static void flip(int fd, uint64_t at, unsigned bit) {
    char c;
    assert_int_equal(pread(fd, &c, 1, (off_t)at), 1);
    c = (char)(c ^ (1 << bit));
    assert_int_equal(pwrite(fd, &c, 1, (off_t)at), 1);
}

static unsigned random_next(unsigned *state) {
    *state = *state * 1103515245 + 12345;
    return *state >> 8;
}

/* Bits of records and marks at random: what they are not part of comes, once, and can be loaded. */
static void flipped_bits(void **state) {
    (void)state;
    unsigned seed = 20261121;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct test_queue q = test_queue_new();
        uint64_t at[MESSAGES + 1], untouched = (UINT64_C(1) << MESSAGES) - 1;
        struct written w = fill(&q, 0xd1, at);
        for (unsigned n = 1 + random_next(&seed) % 6; n > 0; n--) {
            bool mark = random_next(&seed) % 4 == 0;
            uint64_t where = mark ? SEGMENT_MARKS_AT + random_next(&seed) % w.mark
                                  : at[0] + random_next(&seed) % (at[MESSAGES] - at[0]);
            flip(w.fd, where, random_next(&seed) % 8);
            for (unsigned i = 0; !mark && i < MESSAGES; i++)
                if (where >= at[i] && where < at[i + 1])
                    untouched &= ~(UINT64_C(1) << i);
        }
        close(w.fd);
        struct spool *s = in_office(&q);
        struct seen seen = read_all(&q, s);
        for (unsigned i = 0; i < MESSAGES; i++) {
            bool whole = untouched & UINT64_C(1) << i;
            if (whole && !is_held(i) && !(seen.loaded & UINT64_C(1) << i))
                fail_msg("round %u: message %u is lost\n%.*s", round, i, STR_ARG(buf_str(&said)));
        }
        spool_close(s);
        buf_clear(&said);
        test_queue_free(&q);
    }
}

/* Each bit of a segment's head: the second one serves all of it. */
static void one_wrong_bit_in_a_head(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    uint64_t at[MESSAGES + 1], all = 0;
    struct written w = fill(&q, 0xd1, at);
    for (unsigned i = 0; i < MESSAGES; i++)
        all |= is_held(i) ? 0 : UINT64_C(1) << i;
    for (unsigned bit = 0; bit < 2 * 8 * SEGMENT_HEAD_SIZE; bit++) {
        bool first = bit < 8 * SEGMENT_HEAD_SIZE;
        uint64_t byte = first ? bit / 8 : SEGMENT_HEAD_2_AT + bit / 8 - SEGMENT_HEAD_SIZE;
        flip(w.fd, byte, bit % 8);
        struct spool *s = in_office(&q);
        uint64_t loaded = read_all(&q, s).loaded;
        if (loaded != all || logged("log/00000000000000d1: damaged head -- the second one is used") != first)
            fail_msg("bit %u: %llx of %llx\n%.*s", bit, (unsigned long long)loaded, (unsigned long long)all,
                     STR_ARG(buf_str(&said)));
        spool_close(s);
        buf_clear(&said);
        flip(w.fd, byte, bit % 8);
    }
    close(w.fd);
    test_queue_free(&q);
}

/* Each byte of both heads of a segment: it is kept whole in corrupt/, and other segments are read. */
static void damaged_heads(void **state) {
    (void)state;
    for (unsigned byte = 0; byte < SEGMENT_HEAD_SIZE; byte++) {
        struct test_queue q = test_queue_new();
        uint64_t at[MESSAGES + 1];
        struct written w = fill(&q, 0xd1, at);
        flip(w.fd, byte, byte % 8);
        flip(w.fd, SEGMENT_HEAD_2_AT + byte, byte % 8);
        close(w.fd);
        w = segment_new(&q, 0xd2, 9);
        put(&q, &w, "A3F", 100, 1, SEGMENT_INCOMING);
        close(w.fd);
        struct spool *s = in_office(&q);
        assert_true(read_all(&q, s).loaded == UINT64_C(1) << 0x3f);
        assert_true(exists(&q, "corrupt/log.00000000000000d1"));
        assert_int_equal(logged("log/00000000000000d1: not a segment, or damaged -- saved as corrupt/log."), 1);
        for (int i = 0; i < 3; i++)
            spool_log_look(s);
        assert_int_equal(logged("log/00000000000000d1"), 1);
        spool_close(s);
        buf_clear(&said);
        test_queue_free(&q);
    }
}

/* A file that was cut, or has grown: whole pages of it may be missing, so it is for the administrator. */
static void cut_segments(void **state) {
    (void)state;
    static const off_t sizes[] = {
        0, 1, 47, 48, 2095, 2096, 4095, 4096, 40000, SEGMENT_SIZE_MIN - 1, SEGMENT_SIZE_MIN + 1, INT64_C(1) << 40
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct test_queue q = test_queue_new();
        uint64_t at[MESSAGES + 1];
        struct written w = fill(&q, 0xd1, at);
        assert_int_equal(ftruncate(w.fd, sizes[i]), 0);
        close(w.fd);
        w = segment_new(&q, 0xd2, 9);
        put(&q, &w, "A3F", 100, 1, SEGMENT_INCOMING);
        close(w.fd);
        struct spool *s = in_office(&q);
        assert_true(read_all(&q, s).loaded == UINT64_C(1) << 0x3f);
        assert_true(exists(&q, "corrupt/log.00000000000000d1"));
        spool_close(s);
        test_queue_free(&q);
    }
}

/* Another version's is left where it is, for that version, and said once however often we look. */
static void another_version(void **state) {
    (void)state;
    static const uint32_t versions[] = { 2, 99, UINT32_MAX };
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        struct test_queue q = test_queue_new();
        struct written w = segment_new(&q, 0xd1, 7);
        put(&q, &w, "A01", 100, 1, SEGMENT_INCOMING);
        set_version(&w, versions[i]);
        close(w.fd);
        w = segment_new(&q, 0xd2, 9);
        put(&q, &w, "A3F", 100, 1, SEGMENT_INCOMING);
        close(w.fd);
        struct spool *s = in_office(&q);
        assert_true(read_all(&q, s).loaded == UINT64_C(1) << 0x3f);
        for (int k = 0; k < 5; k++) {
            spool_log_look(s);
            assert_true(read_all(&q, s).given == 0);
        }
        assert_true(exists(&q, "log/00000000000000d1"));
        assert_int_equal(logged("log/00000000000000d1: a segment of another version -- left as it is"), 1);
        spool_close(s);
        buf_clear(&said);
        test_queue_free(&q);
    }
}

static void at_name(struct test_queue *q, const char *name, char ret[200]) {
    snprintf(ret, 200, "%s/log/%s", q->dir, name);
}

/* Things of other kinds, under names of segments and others. */
static void foreign_files(void **state) {
    (void)state;
    static const char *const prefixes[] = { "", "free.", "new." };
    static const char *const names[] = { "README",
                                         "0000000000000000",
                                         "00000000000000D9",
                                         "00000000000000d90",
                                         "0000000000000d9",
                                         "free.",
                                         "new.x",
                                         "free.00000000000000g1",
                                         ".x" };
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xf0, 9);
    put(&q, &w, "A3F", 100, 1, SEGMENT_INCOMING);
    close(w.fd);
    char path[200], name[40], victim[128];
    snprintf(victim, sizeof victim, "%s/victim", q.dir);
    int fd = open(victim, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "precious", 8), 8);
    close(fd);
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s00000000000000d1", prefixes[i]);
        at_name(&q, name, path);
        assert_int_equal(mkdir(path, 0700), 0);
        snprintf(name, sizeof name, "%s00000000000000d2", prefixes[i]);
        at_name(&q, name, path);
        assert_int_equal(symlink(victim, path), 0);
        snprintf(name, sizeof name, "%s00000000000000d3", prefixes[i]);
        at_name(&q, name, path);
        assert_int_equal(mkfifo(path, 0600), 0);
        snprintf(name, sizeof name, "%s00000000000000d4", prefixes[i]);
        at_name(&q, name, path);
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        assert_true(strlen(path) < sizeof un.sun_path);
        memcpy(un.sun_path, path, strlen(path) + 1);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (const struct sockaddr *)&un, sizeof un), 0);
        close(fd);
        snprintf(name, sizeof name, "%s00000000000000d5", prefixes[i]);
        at_name(&q, name, path);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0);
        close(fd);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        at_name(&q, names[i], path);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, "hello", 5), 5);
        close(fd);
    }
    struct spool *s = in_office(&q);
    assert_true(read_all(&q, s).loaded == UINT64_C(1) << 0x3f);
    size_t once = said.n;
    for (int i = 0; i < 5; i++) {
        spool_log_look(s);
        assert_true(read_all(&q, s).given == 0);
    }
    if (said.n != once)
        fail_msg("said again:\n%.*s", STR_ARG(buf_str(&said)));
    assert_true(once > 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        at_name(&q, names[i], path);
        assert_int_equal(access(path, F_OK), 0);
    }
    struct buf b = { 0 };
    assert_true(buf_read_file(&b, victim, 100) && str_eq(buf_str(&b), STR("precious")));
    buf_free(&b);
    spool_close(s);
    test_queue_free(&q);
}

/* What cannot be opened or read now is read later. */
static void unreadable_now(void **state) {
    (void)state;
    static const struct {
        const char *call;
        int errnum;
    } faults[] = { { "openat", EMFILE }, { "openat", EIO }, { "pread", EIO }, { "fstatat", EIO } };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        for (unsigned n = 1; n <= 6; n++) {
            struct test_queue q = test_queue_new();
            uint64_t at[MESSAGES + 1], all = 0;
            struct written w = fill(&q, 0xd1, at);
            close(w.fd);
            for (unsigned k = 0; k < MESSAGES; k++)
                all |= is_held(k) ? 0 : UINT64_C(1) << k;
            struct spool *s = in_office(&q);
            fake_sys_fail(faults[i].call, n, faults[i].errnum);
            struct spool_entry e;
            uint64_t given = 0;
            for (unsigned tries = 0; tries < 5; tries++) {
                while (spool_log_next(s, &e))
                    given |= UINT64_C(1) << strtoul(e.id.text + 1, NULL, 16);
                if (tries == 1)
                    fake_sys_clear_faults();
                spool_log_look(s);
            }
            if (given != all)
                fail_msg("%s %u: gave %llx of %llx\n%.*s", faults[i].call, n, (unsigned long long)given,
                         (unsigned long long)all, STR_ARG(buf_str(&said)));
            spool_close(s);
            buf_clear(&said);
            test_queue_free(&q);
        }
}

/* --- a segment's end --- */
static struct spool *running;
static struct coro *tending;
static void (*script)(void);

static void tend_log(void *arg) {
    (void)arg;
    spool_log_run(running);
}
static void script_run(void *arg) {
    (void)arg;
    tending = coro_spawn(tend_log, NULL, "log");
    script();
    coro_cancel(tending);
    wait_until(deadline_in(1));
    loop_stop();
}
static void play(struct test_queue *q, void (*fn)(void)) {
    running = in_office(q);
    script = fn;
    failed = 0;
    assert_null(loop_init());
    assert_non_null(coro_spawn(script_run, NULL, "script"));
    assert_null(loop_run());
    loop_free();
    spool_close(running);
    if (failed)
        fail_msg("%.*s", STR_ARG(buf_str(&said)));
    assert_int_equal(failed, 0);
}

static unsigned take_and_remove(void) {
    struct spool_entry e;
    unsigned n = 0;
    for (; spool_log_next(running, &e); n++)
        CHECK(!spool_remove(running, &e.id, SPOOL_ACTIVE));
    wait_until(deadline_in(5));
    return n;
}

/* One that was damaged is not used again with what cannot be read in it: it is kept. */
static struct test_queue queue;
static void damaged_script(void) {
    CHECK(take_and_remove() == 2);
    CHECK(exists(&queue, "corrupt/log.00000000000000d1") && !exists(&queue, "log/00000000000000d1"));
    CHECK(!exists(&queue, "log/free.00000000000000d1"));
    CHECK(logged("log/00000000000000d1: damaged in part -- saved as corrupt/log.00000000000000d1") == 1);
}
static void damaged_is_kept(void **state) {
    (void)state;
    queue = test_queue_new();
    struct written w = segment_new(&queue, 0xd1, 7);
    put(&queue, &w, "A01", 100, 1, SEGMENT_INCOMING);
    uint64_t at = put(&queue, &w, "A02", 100, 1, SEGMENT_INCOMING);
    put(&queue, &w, "A03", 100, 1, SEGMENT_INCOMING);
    flip(w.fd, at + 20, 3);
    close(w.fd);
    play(&queue, damaged_script);
    test_queue_free(&queue);
}

/* One that could not be read to its end is not given back before it was; then it is. */
static void unread_script(void) {
    fake_sys_fail("pread", 2, EIO); /* the head has been read; the records in one piece, */
    fake_sys_fail("pread", 3, EIO); /* and by themselves */
    CHECK(take_and_remove() == 0);
    CHECK(fake_sys_clear_faults() == 0);
    CHECK(exists(&queue, "log/00000000000000d1") && !exists(&queue, "log/free.00000000000000d1"));
    CHECK(logged("log/00000000000000d1: cannot be read from 36864 on: what is there waits") == 1);
    spool_log_look(running);
    CHECK(take_and_remove() == 3);
    CHECK(!exists(&queue, "log/00000000000000d1") && exists(&queue, "log/free.00000000000000d1"));
}
static void unread_is_not_given_back(void **state) {
    (void)state;
    queue = test_queue_new();
    struct written w = segment_new(&queue, 0xd1, 7);
    put(&queue, &w, "A01", 100, 1, SEGMENT_INCOMING);
    put(&queue, &w, "A02", 100, 1, SEGMENT_INCOMING);
    put(&queue, &w, "A03", 100, 1, SEGMENT_INCOMING);
    close(w.fd);
    play(&queue, unread_script);
    test_queue_free(&queue);
}

/* After a reload the old qmgr defers what it was delivering: the new one leaves that file alone until the old one has
 * let go of the record, or the message would be delivered from both. */
static void deferred_by_the_old_one(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct written w = segment_new(&q, 0xd1, 7);
    put(&q, &w, "A01", 100, 1, SEGMENT_INCOMING);
    close(w.fd);
    struct spool *old = in_office(&q);
    struct spool_entry e;
    assert_true(spool_log_next(old, &e));
    spool_hand_over(old);
    struct spool *new = in_office(&q);
    assert_false(spool_log_next(new, &e));
    struct queue_id id;
    assert_true(queue_id_from(STR("A01"), &id));
    assert_null(spool_move(old, &id, SPOOL_ACTIVE, SPOOL_DEFERRED));
    struct envelope env;
    struct spool_content c = { .fd = -1 };
    error err = spool_load(new, &id, SPOOL_DEFERRED, q.arena, &env, &c);
    assert_true(err && err->sys == EWOULDBLOCK);
    assert_null(spool_load(new, &id, SPOOL_DEFERRED, q.arena, &env, NULL)); /* looking is allowed */
    spool_close(old);
    for (int i = 0; i < 5; i++) {
        fake_sys_advance(2 * US_PER_S);
        assert_false(spool_log_next(new, &e));
    }
    assert_null(spool_load(new, &id, SPOOL_DEFERRED, q.arena, &env, &c));
    spool_content_close(&c);
    assert_null(spool_remove(new, &id, SPOOL_DEFERRED));
    spool_close(new);
    new = in_office(&q);
    assert_false(spool_log_next(new, &e));
    spool_close(new);
    test_queue_free(&q);
}

#define HOSTILE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(flipped_bits),
        HOSTILE_TEST(one_wrong_bit_in_a_head),
        HOSTILE_TEST(damaged_heads),
        HOSTILE_TEST(cut_segments),
        HOSTILE_TEST(another_version),
        HOSTILE_TEST(foreign_files),
        HOSTILE_TEST(unreadable_now),
        HOSTILE_TEST(damaged_is_kept),
        HOSTILE_TEST(unread_is_not_given_back),
        HOSTILE_TEST(deferred_by_the_old_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
