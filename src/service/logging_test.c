/* The log on a socket of syslog's kind: the form of a line, and what happens when nobody reads or the reader goes. */
#include "service/logging.h"

#include "base/log.h"
#include "test/test.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct conf *load(struct arena *a, const struct conf_override *o, size_t n) {
    struct conf *c = NULL;
    struct conf_source source = {
        .config_directory = STR("/nonexistent"), .missing_is_empty = true, .overrides = o, .override_count = n
    };
    error e = conf_load(&source, a, &c);
    if (e)
        fail_msg("%.*s", STR_ARG(e->text));
    return c;
}

static void test_format(void **state) {
    (void)state;
    struct buf b = { 0 };
    setenv("TZ", "UTC", 1);
    logging_format(&b, 1793870447, STR("host"), STR("postfix/smtpd[12]"), STR("connect from x"));
    assert_str(buf_str(&b), "Nov  5 09:20:47 host postfix/smtpd[12]: connect from x");
    buf_free(&b);
}

static int lost;
static void count_lost(void *arg) {
    (void)arg;
    lost++;
}

static void test_syslog_lines(void **state) {
    (void)state;
    struct arena *a = arena_new();
    const struct conf_override o[] = { { STR("syslog_facility"), STR("local3") }, { STR("syslog_name"), STR("mx") } };
    struct conf *c = load(a, o, 2);
    assert_null(logging_start(c, STR("smtpd"), LOGGING_DAEMON, a));
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    logging_set_socket(pair[0]);
    char bytes[500], want[100];
    log_warn("disk %s", "full");
    ssize_t n = recv(pair[1], bytes, sizeof bytes, 0);
    assert_true(n > 20);
    /* local3 is 19, warning 4: 19 * 8 + 4; then 16 bytes of time */
    assert_memory_equal(bytes, "<156>", 5);
    snprintf(want, sizeof want, "mx/smtpd[%d]: warning: disk full", (int)getpid());
    assert_str(str_n(bytes + 5 + 16, (size_t)n - 5 - 16), want);
    /* the reader goes: told once, and a new socket is taken up */
    logging_on_lost(count_lost, NULL);
    lost = 0;
    close(pair[1]);
    log_info("nobody hears");
    log_info("this either");
    assert_int_equal(lost, 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    logging_set_socket(pair[0]);
    log_info("back");
    n = recv(pair[1], bytes, sizeof bytes, 0);
    assert_true(n > 0 && str_ends(str_n(bytes, (size_t)n), STR(": back")));
    /* a reader that does not read: lines are dropped, not waited for without end, and the gap is told */
    struct timeval quick = { .tv_usec = 1000 };
    setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &quick, sizeof quick);
    for (int i = 0; i < 20000; i++)
        log_info("line %d", i);
    assert_int_equal(lost, 1);
    size_t got = 0;
    while (recv(pair[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        got++;
    assert_true(got > 0 && got < 20000);
    log_info("taken again");
    n = recv(pair[1], bytes, sizeof bytes, MSG_DONTWAIT);
    assert_true(n > 0 && str_ends(str_n(bytes, (size_t)n), STR(": taken again")));
    n = recv(pair[1], bytes, sizeof bytes, MSG_DONTWAIT);
    assert_true(n > 0 && str_contains(str_n(bytes, (size_t)n), STR("warning: the log did not take ")));
    close(pair[1]);
    logging_on_lost(NULL, NULL);
    logging_end();
    conf_free(c);
    arena_free(a);
}

static void test_bad_settings(void **state) {
    (void)state;
    static const struct conf_override rows[][2] = {
        { { STR_INIT("syslog_facility"), STR_INIT("nosuch") }, { STR_INIT("syslog_name"), STR_INIT("x") } },
        { { STR_INIT("maillog_file"), STR_INIT("/etc/x") }, { STR_INIT("syslog_name"), STR_INIT("x") } },
        { { STR_INIT("maillog_file"), STR_INIT("/variable/x") }, { STR_INIT("syslog_name"), STR_INIT("x") } },
        { { STR_INIT("maillog_file"), STR_INIT("/var/x") },
          { STR_INIT("maillog_file_permissions"), STR_INIT("0900") } },
        { { STR_INIT("maillog_file"), STR_INIT("/var/x") },
          { STR_INIT("maillog_file_permissions"), STR_INIT("0400") } },
        { { STR_INIT("maillog_file"), STR_INIT("/var/x") },
          { STR_INIT("maillog_file_permissions"), STR_INIT("7777") } },
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf *c = load(a, rows[i], 2);
        error e = logging_start(c, STR("postlogd"), LOGGING_DIRECT, a);
        logging_end();
        if (!e || e->kind != ERR_CONFIG)
            fail_msg("row %zu", i);
        conf_free(c);
    }
    arena_free(a);
}

static void test_host(void **state) {
    (void)state;
    struct arena *a = arena_new();
    unsetenv("POSTLOG_HOSTNAME");
    const struct conf_override o[] = { { STR("myhostname"), STR("mail.example.org") } };
    struct conf *c = load(a, o, 1);
    assert_str(logging_host(c), "mail");
    conf_free(c);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_syslog_lines),
        cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
