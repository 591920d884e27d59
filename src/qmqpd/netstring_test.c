#include "qmqpd/netstring.h"

#include "test/check.h"
#include "test/fake_sys.h"
#include "test/script_peer.h"
#include "test/test.h"

/* What reading a package of two short strings gives: "first|second", or the kind of error and where it was. */
static struct {
    struct io *io;
    char got[100];
} t;

static void read_two(void *arg) {
    (void)arg;
    struct arena *a = arena_new();
    struct netstrings n = { .io = t.io, .deadline = deadline_in(10) };
    struct str first = STR(""), second = STR("");
    const char *where = "open";
    error e = netstring_open(&n, 1000);
    if (!e)
        where = "first", e = netstring_whole(&n, a, 20, &first);
    if (!e)
        where = "second", e = netstring_whole(&n, a, 20, &second);
    if (!e)
        where = "close", e = netstring_close(&n);
    if (e)
        snprintf(t.got, sizeof t.got, "%s: %s", where,
                 e->kind == ERR_SYNTAX  ? "malformed"
                 : e->kind == ERR_LIMIT ? "too long"
                 : e->kind == ERR_EOF   ? "end"
                                        : "other");
    else
        snprintf(t.got, sizeof t.got, "%.*s|%.*s", STR_ARG(first), STR_ARG(second));
    arena_free(a);
    io_close(t.io);
}

static void test_packages(void **state) {
    (void)state;
    static const struct {
        const char *sent, *want;
    } rows[] = {
        { "12:3:abc,2:de,,", "close: malformed" }, /* the outer one is longer than what is inside */
        { "11:3:abc,2:de,,", "abc|de" },
        { "6:0:,0:,,", "|" },
        { "10:3:abc,2:de,,", "second: malformed" },
        { "x", "open: malformed" },
        { ":", "open: malformed" },
        { "-1:", "open: malformed" },
        { "1001:", "open: too long" },
        { "9999999999999999999999:", "open: too long" },
        { "26:21:abcdefghijklmnopqrstu,0:,,", "first: too long" },
        { "9:9:abc,2:", "first: malformed" },
        { "11:3:abcd2:de,,", "first: malformed" },
        { "11:3:abc,2:de,.", "close: malformed" },
        { "14:3:abc,2:de,0:,,", "close: malformed" },
        { "11:3:ab", "first: end" },
        { "", "open: end" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char script[200];
        snprintf(script, sizeof script, ">| %s\nshut\n", rows[i].sent);
        fake_sys_install();
        assert_null(loop_init());
        t.io = io_new(script_peer_start(script));
        coro_spawn(read_two, NULL, "reader");
        assert_null(loop_run());
        loop_free();
        fake_sys_remove();
        assert_string_equal(t.got, rows[i].want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_packages) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
