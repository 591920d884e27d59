/* The test helpers themselves: src/test/fake_sys.h and src/test/script_peer.h. A helper that lets everything pass would
 * make every test that uses it worthless. */
#include "test/test.h"

#include "base/buf.h"
#include "run/coro.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int set_up(void **state) {
    (void)state;
    fake_sys_install();
    return loop_init() != NULL;
}

static int tear_down(void **state) {
    (void)state;
    loop_free();
    fake_sys_remove();
    return 0;
}

#define SEAM_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* --- faults --- */

static void test_faults(void **state) {
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    fake_sys_fail("fsync", 2, EIO);
    fake_sys_fail("fsync", 4, ENOSPC);
    fake_sys_fail("fdatasync", 1, EIO);
    int results[5], errors[5];
    for (int i = 0; i < 5; i++) {
        errno = 0;
        results[i] = sys->fsync(fd);
        errors[i] = errno;
    }
    assert_int_equal(results[1], -1);
    assert_int_equal(errors[1], EIO);
    assert_int_equal(errors[3], ENOSPC);
    assert_int_not_equal(errors[0], EIO);
    assert_int_not_equal(errors[2], EIO);
    assert_int_equal(fake_sys_calls("fsync"), 5);
    assert_int_equal(fake_sys_calls("fdatasync"), 0);
    assert_int_equal(fake_sys_clear_faults(), 1); /* the fdatasync never came */
    fake_sys_fail("fsync", 1, EDQUOT);            /* counts from now */
    assert_int_equal(sys->fsync(fd), -1);
    assert_int_equal(errno, EDQUOT);
    fake_sys_fail_from("pread", 2, EIO);
    char byte;
    assert_int_equal(sys->pread(fd, &byte, 1, 0), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sys->pread(fd, &byte, 1, 0), -1);
    fake_sys_fail("close", 1, EIO);
    assert_int_equal(sys->close(fd), -1); /* an error, and closed all the same */
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void note_call(void *arg, const struct fake_call *c) {
    buf_printf(arg, "%s(%s,%zu) ", c->name, c->path ? c->path : "", c->n);
}

static void test_disk_room_and_watch(void **state) {
    (void)state;
    int fd = (int)open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    struct buf calls = { 0 };
    fake_sys_watch(note_call, &calls);
    fake_sys_disk_room(7);
    assert_int_equal(sys->pwrite(fd, "12345", 5, 0), 5);
    assert_int_equal(sys->pwrite(fd, "6789a", 5, 5), 2);
    assert_int_equal(sys->pwrite(fd, "89a", 3, 7), -1);
    assert_int_equal(errno, ENOSPC);
    fake_sys_disk_room(SIZE_MAX);
    assert_int_equal(sys->pwrite(fd, "89a", 3, 7), 3);
    struct stat st;
    fake_sys_fail("fstatat", 1, EIO); /* what fails never reaches the system */
    assert_int_equal(sys->fstatat(AT_FDCWD, "/x", &st, 0), -1);
    assert_int_equal(sys->fstatat(AT_FDCWD, "/", &st, 0), 0);
    fake_sys_watch(NULL, NULL);
    assert_str(buf_str(&calls), "pwrite(,5) pwrite(,5) pwrite(,3) pwrite(,3) fstatat(/,0) ");
    buf_free(&calls);
    sys->close(fd);
}

/* --- scripts that must fail --- */

struct subject {
    int fd;
    const char *says;
};

static void subject_main(void *arg) {
    struct subject *s = arg;
    struct io *io = io_new(s->fd);
    io_write(io, str_c(s->says));
    io_flush(io, deadline_in(10));
    struct str line;
    while (!io_line(io, 1000, deadline_in(3600), &line))
        ;
    io_close(io);
}

static void test_scripts(void **state) {
    (void)state;
    static const struct {
        const char *script, *says, *failure; /* failure: a part of the message; NULL: none */
    } rows[] = {
        { "< 220 *\nclose\n", "220 x ready\r\n", NULL },
        { "< 220 * ESMTP\n", "220 x ESMTP Angarium\r\n", NULL },
        { "< *a*b*c\n", "xxabxbxc\r\n", NULL },
        { "< *a*b*c\n", "xxabxb\r\n", "line 1 of the script (< *a*b*c): got \"xxabxb\"" },
        { "< 220\n", "221\r\n", "got \"221\"" },
        { "\n# nothing\n   < 220\n< 250\n", "220\r\n25\r\n", "line 4 of the script (< 250): got \"25\"" },
        { "< 220\n", "220\n", "got \"220\\x0a\"" },
        { "lf\n< 220\n", "220\n", NULL },
        { "< 220\n", "", "timeout" },
        { "<< 250 HELP\n", "250-one\r\n250-two\r\n250 HELP\r\n", NULL },
        { "<< 250\n", "250\r\n", NULL },
        { "<< 250 HELP\n", "250-one\r\n250 TWO\r\n", "got \"250 TWO\"" },
        { "<< 250\n", "250-one\r\n550 two\r\n", "got \"550 two\"" },
        { "<| a\\0b\\x41\n", "a", "timeout after \"a\"" },
        { "<| ab\n", "ax", "got \"ax\"" },
        { "skip 250\n< 251\n", "1\r\n2\r\n250\r\n251\r\n", NULL },
        { "skip 250\n", "1\r\n2\r\n", "timeout" },
        { "eof\n", "x", "got \"x\"" },
        { "eof\n", "", "timeout" },
        { "quiet 5\n", "", NULL },
        { "wait 1\nquiet 5\n", "x", "got \"x\"" },
        { "wait 0.25\n", "", NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct subject s = { .fd = script_peer_start(rows[i].script), .says = rows[i].says };
        coro_spawn(subject_main, &s, "subject");
        assert_null(loop_run());
        const char *failure = script_peer_failure();
        if (!rows[i].failure && failure)
            fail_msg("row %zu: %s", i, failure);
        if (rows[i].failure && (!failure || !str_contains(str_c(failure), str_c(rows[i].failure))))
            fail_msg("row %zu: got %s, want ...%s...", i, failure ? failure : "no failure", rows[i].failure);
        script_peer_forget();
    }
}

static void test_script_not_reached(void **state) {
    (void)state;
    struct endpoint at, to;
    static const char *const scripts[] = { "eof\n" };
    assert_true(endpoint_ip(STR("127.0.0.1"), 0, &at));
    script_peer_listen(&at, scripts, 1, &to);
    assert_true(endpoint_port(&to) > 0);
    assert_null(loop_run());
    assert_non_null(script_peer_failure());
    script_peer_forget();
    assert_null(script_peer_failure());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        SEAM_TEST(test_faults),
        SEAM_TEST(test_disk_room_and_watch),
        SEAM_TEST(test_scripts),
        SEAM_TEST(test_script_not_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
