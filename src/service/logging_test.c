/* The log on a socket of syslog's kind: the form of a line, and what happens when nobody reads or the reader goes. */
#include "service/logging.h"

#include "base/die.h"
#include "base/log.h"
#include "run/coro.h"
#include "service/log_datagram.h"
#include "service/log_send.h"
#include "test/test.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
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

/* --- gathering --- */

/* A process that logs to `maillog_file` or to syslog, and the reader's end of its socket. */
struct log {
    struct arena *a;
    struct conf *c;
    int writer, reader;
    struct str thread_sent;
};

static struct log log_begin(bool file) {
    struct log l = { .a = arena_new() };
    const struct conf_override o[] = { { STR("maillog_file"), STR("/var/log/x") },
                                       { STR("queue_directory"), STR("/nonexistent") },
                                       { STR("myhostname"), STR("mail.example") } };
    l.c = load(l.a, o + !file, file ? 3 : 2);
    assert_null(logging_start(l.c, STR("smtpd"), LOGGING_DAEMON, l.a));
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
    struct timeval quick = { .tv_usec = 1000 }; /* who waits drops lines, and the test fails */
    setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &quick, sizeof quick);
    logging_set_socket(pair[0]);
    l.writer = pair[0]; /* not ours any more */
    l.reader = pair[1];
    assert_null(loop_init());
    return l;
}

static void log_end(struct log *l) {
    loop_free();
    close(l->reader);
    logging_end();
    conf_free(l->c);
    arena_free(l->a);
}

/* What comes after the tag, of all lines there are: "one;two;" and where each datagram ends a "|". Times must rise. */
static struct str read_all(int fd, struct arena *a, bool *ret_urgent) {
    static char bytes[LOG_GATHER_MAX];
    struct str all = STR("");
    int64_t last_us = 0, made_us;
    *ret_urgent = false;
    for (;;) {
        ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0)
            return all;
        struct unpack u;
        struct str line = str_n(bytes, (size_t)n);
        bool urgent;
        if (!log_datagram_open(line, &u, &urgent)) {
            ptrdiff_t at = str_index(line, ']');
            assert_true(line.p[0] == '<' && at > 0);
            all = arena_printf(a, "%.*s%.*s;|", STR_ARG(all), STR_ARG(str_from(line, (size_t)at + 3)));
            continue;
        }
        *ret_urgent |= urgent;
        while (log_datagram_next(&u, &made_us, &line)) {
            ptrdiff_t at = str_index(line, ']');
            assert_true(at > 0 && str_contains(line, STR(" mail postfix/smtpd[")));
            assert_true(made_us >= last_us);
            last_us = made_us;
            all = arena_printf(a, "%.*s%.*s;", STR_ARG(all), STR_ARG(str_from(line, (size_t)at + 3)));
        }
        assert_true(!u.bad);
        all = arena_printf(a, "%.*s|", STR_ARG(all));
    }
}

#define CHECK_LOG(l, want, want_urgent)                                                                                \
    do {                                                                                                               \
        bool urgent_;                                                                                                  \
        assert_str(read_all((l)->reader, (l)->a, &urgent_), want);                                                     \
        assert_int_equal(urgent_, want_urgent);                                                                        \
    } while (0)

static void run_gathering(void (*fn)(void *arg), struct log *l) {
    assert_non_null(coro_spawn(fn, l, "test"));
    logging_gather_start();
    assert_null(loop_run());
    logging_gather_end();
}

static void gather_rounds(void *arg) {
    struct log *l = arg;
    wait_until(deadline_in_us(2 * LOG_GATHER_US));
    log_info("one");
    log_info("two");
    CHECK_LOG(l, "", false);
    wait_until(deadline_in_us(1000)); /* to sleep: nothing was sent for long, so they go at once */
    CHECK_LOG(l, "one;two;|", false);
    log_info("three");
    wait_until(deadline_in_us(2 * LOG_GATHER_US)); /* the loop wakes for it, however soon after the last */
    CHECK_LOG(l, "three;|", false);
    log_info("four");
    log_warn("five");
    CHECK_LOG(l, "four;warning: five;|", true);
    log_info("six"); /* goes at the end */
}

static void test_gather(void **state) {
    (void)state;
    struct log l = log_begin(true);
    run_gathering(gather_rounds, &l);
    CHECK_LOG(&l, "six;|", false);
    log_info("seven"); /* no loop, no gathering */
    log_info("eight");
    CHECK_LOG(&l, "seven;|eight;|", false);
    log_end(&l);
}

static void gather_to_syslog(void *arg) {
    struct log *l = arg;
    log_info("one");
    log_info("two");
    CHECK_LOG(l, "", false);
    wait_until(deadline_in_us(1000));
    CHECK_LOG(l, "one;|two;|", false);
    log_info("three");
    log_warn("four");
    CHECK_LOG(l, "three;|warning: four;|", false);
}

static void test_gather_syslog(void **state) {
    (void)state;
    struct log l = log_begin(false);
    run_gathering(gather_to_syslog, &l);
    log_end(&l);
}

/* Reads until line number `n` - 1 has been seen, `seen` before: none may be lost, out of order or split. */
static void read_numbers(struct log *l, int seen, int n) {
    for (int64_t end = deadline_in(20); seen < n && sys->mono_us() < end; wait_until(deadline_in_us(1000))) {
        bool urgent;
        struct str all = read_all(l->reader, l->a, &urgent), line;
        while (str_next(&all, STR(";|"), &line)) {
            if (str_starts(line, STR("warning: ")))
                line = str_from(line, strlen("warning: "));
            if (line.n)
                assert_int_equal(strtol(line.p, NULL, 10), seen++);
        }
    }
    assert_int_equal(seen, n);
}

/* More than one datagram, and more than one call, has room for. */
static void gather_many(void *arg) {
    char text[LOG_LINE_MAX];
    int n = 0;
    memset(text, 'x', sizeof text);
    for (int round = 0; round < 20; round++) {
        int before = n;
        for (int i = 0; i < 100; i++)
            log_info("%d %.*s", n++, i % 10 ? 30 : 1900, text);
        read_numbers(arg, before, n);
    }
}

static void test_gather_many(void **state) {
    (void)state;
    for (int file = 0; file < 2; file++) {
        struct log l = log_begin(file);
        run_gathering(gather_many, &l);
        log_end(&l);
    }
}

/* A reader that is behind gets everything later; the process does not wait for it. */
static void gather_behind(void *arg) {
    int n = 0;
    for (int round = 0; round < 350; round++) { /* twice what the socket keeps, and more */
        log_info("%d", n++);
        log_warn("%d", n++);
        if (round == 150)
            wait_until(deadline_in_us(LOG_GATHER_US)); /* the loop tries again, and sleeps */
    }
    read_numbers(arg, 0, n);
}

static void test_gather_behind(void **state) {
    (void)state;
    for (int file = 0; file < 2; file++) {
        struct log l = log_begin(file);
        run_gathering(gather_behind, &l);
        log_end(&l);
    }
}

/* --- the ends of a process --- */

static void by_abort(void *arg) {
    (void)arg;
    log_info("last");
    abort();
}
static void by_die(void *arg) {
    (void)arg;
    log_info("last");
    die("that is it");
}
static void by_fatal(void *arg) {
    (void)arg;
    log_info("last");
    log_fatal("that is it");
}
static void by_exit(void *arg) {
    (void)arg;
    log_info("last");
    exit(0);
}
static void by_segv(void *arg) {
    (void)arg;
    log_info("last");
    raise(SIGSEGV);
}
static volatile int depth;
static void by_overflow(void *arg) { /* NOLINT(misc-no-recursion): it is to run out of stack */
    volatile char room[4096];
    room[0] = 1;
    if (arg)
        log_info("last");
    if (++depth < 1000000)
        by_overflow(NULL);
    room[1] = room[0];
}

static void test_ends(void **state) {
    (void)state;
    static const struct {
        void (*fn)(void *arg);
        int signo;
        const char *log;
        bool sanitizer_takes_it;
    } rows[] = {
        { by_abort, SIGABRT, "last;|", false },
        { by_die, SIGABRT, "last;panic: that is it;|", false },
        { by_fatal, 0, "last;fatal: that is it;|", false },
        { by_exit, 0, "last;|", true }, /* its leak check does not see the stack that main() left */
        { by_segv, SIGSEGV, "last;|", true },
        { by_overflow, SIGSEGV, "last;|", true },
    };
#if defined(__SANITIZE_ADDRESS__)
    const bool sanitized = true;
#else
    const bool sanitized = false;
#endif
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (sanitized && rows[i].sanitizer_takes_it)
            continue;
        struct log l = log_begin(true);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            if (!sanitized)
                signal(SIGSEGV, SIG_DFL); /* cmocka's */
            coro_spawn(rows[i].fn, &l, "end");
            logging_gather_start();
            loop_run();
            _exit(99);
        }
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFSIGNALED(status) ? WTERMSIG(status) != rows[i].signo : rows[i].signo || WEXITSTATUS(status) == 99)
            fail_msg("row %zu: status %x", i, (unsigned)status);
        bool urgent;
        assert_str(read_all(l.reader, l.a, &urgent), rows[i].log);
        log_end(&l);
    }
}

static void fatal_behind(void *arg) {
    (void)arg;
    for (int i = 0; i < 100; i++) /* more than any socket keeps */
        log_warn("%d", i);
    log_fatal("that is it");
}

/* The last words wait for a reader that is behind. */
static void test_fatal_behind(void **state) {
    (void)state;
    struct log l = log_begin(false);
    struct timeval patient = { .tv_sec = 60 };
    setsockopt(l.writer, SOL_SOCKET, SO_SNDTIMEO, &patient, sizeof patient);
    pid_t pid = fork();
    if (pid == 0) {
        coro_spawn(fatal_behind, NULL, "end");
        logging_gather_start();
        loop_run();
        _exit(99);
    }
    struct str all = STR("");
    for (int done = 0, status; done >= 0;) {
        bool urgent;
        done = waitpid(pid, &status, WNOHANG) == pid ? -1 : 0;
        struct str more = read_all(l.reader, l.a, &urgent);
        if (more.n)
            all = arena_cat(l.a, all, more);
    }
    assert_true(str_ends(all, STR("warning: 98;|warning: 99;|fatal: that is it;|")));
    log_end(&l);
}

/* What was gathered is sent once, by who gathered it; a child's own lines have its own process id. */
static void fork_and_log(void *arg) {
    struct log *l = arg;
    log_info("of the parent");
    pid_t pid = fork();
    if (pid == 0) {
        log_info("of the child");
        exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    char bytes[500], want[32];
    ssize_t n = recv(l->reader, bytes, sizeof bytes, MSG_DONTWAIT);
    assert_true(n > 0);
    snprintf(want, sizeof want, "[%d]: of the child", (int)pid);
    assert_true(str_contains(str_n(bytes, (size_t)n), str_c(want)));
    assert_false(str_contains(str_n(bytes, (size_t)n), STR("parent")));
    CHECK_LOG(l, "", false);
}

static void test_fork(void **state) {
    (void)state;
    struct log l = log_begin(true);
    run_gathering(fork_and_log, &l);
    CHECK_LOG(&l, "of the parent;|", false);
    log_end(&l);
}

/* Other threads' lines go at once: the loop may sleep for long. */
static void log_of_thread(void *arg) {
    bool urgent;
    struct log *l = arg;
    log_info("of a thread");
    l->thread_sent = read_all(l->reader, l->a, &urgent); /* the loop has had no turn since */
}
static void thread_main(void *arg) {
    struct log *l = arg;
    log_info("of the loop");
    offload(log_of_thread, arg);
    /* the loop's own may have gone before, while it waits for the thread */
    if (!str_eq(l->thread_sent, STR("of the loop;|of a thread;|")))
        assert_str(l->thread_sent, "of the loop;of a thread;|");
}

static void test_threads(void **state) {
    (void)state;
    struct log l = log_begin(true);
    run_gathering(thread_main, &l);
    log_end(&l);
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
        cmocka_unit_test(test_format),        cmocka_unit_test(test_syslog_lines), cmocka_unit_test(test_gather),
        cmocka_unit_test(test_gather_syslog), cmocka_unit_test(test_gather_many),  cmocka_unit_test(test_gather_behind),
        cmocka_unit_test(test_ends),          cmocka_unit_test(test_fatal_behind), cmocka_unit_test(test_fork),
        cmocka_unit_test(test_threads),       cmocka_unit_test(test_bad_settings), cmocka_unit_test(test_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
