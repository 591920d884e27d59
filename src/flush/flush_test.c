/* The logs and the service over a directory of their own, with a queue manager made up for the purpose that writes down
 * which messages it was to try. */
#include "test/test.h"

#include "base/log.h"
#include "flush/flush.h"
#include "proto/notice.h"
#include "test/fake_sys.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct {
    char dir[64];
    struct arena *a;
    struct conf *c;
    struct flush f;
    struct group work;
    bool draining;
    void (*script)(void);
    int failed;
    struct buf log;
    /* the queue manager */
    struct buf told; /* "F" or "R" and the id, for each */
    size_t told_count;
    unsigned connections;
    bool down;
    size_t hang_up_after; /* ids; 0: never */
    struct cond release;
    bool deaf; /* it reads nothing until released */
} t;

#define CHECK_COUNT t.failed
#include "test/check.h"

enum { DAY = 24 * 3600, ROUNDS = 20000 };

/* --- the world --- */
static void qmgr_run(void *arg) {
    struct ipc *ipc = arg;
    struct ipc_msg m = { .fd = -1 };
    struct notice notice;
    while (t.deaf)
        cond_wait(&t.release, DEADLINE_NEVER);
    for (size_t n = 0; !ipc_recv(ipc, DEADLINE_NEVER, &m); n++) {
        if (t.hang_up_after && n == t.hang_up_after)
            break;
        CHECK(notice_unpack(&m, &notice));
        CHECK(m.type == NOTICE_FLUSH_ID || m.type == NOTICE_RETRY_ID);
        t.told_count++;
        if (t.told.n < 1000)
            buf_printf(&t.told, "%s%s ", m.type == NOTICE_FLUSH_ID ? "F" : "R", notice.id.text);
    }
    ipc_msg_drop(&m);
    ipc_close(ipc);
}

static error connect_qmgr(void *ctx, struct ipc **ret) {
    (void)ctx;
    if (t.down)
        return err_errno(ECONNREFUSED);
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    t.connections++;
    *ret = ipc_new(fds[0]);
    CHECK(coro_spawn(qmgr_run, ipc_new(fds[1]), "qmgr"));
    return NULL;
}

static void keep_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag;
    buf_add(&t.log, text);
    buf_byte(&t.log, '\n');
}

static size_t logged(const char *what) {
    size_t n = 0;
    struct str rest = buf_str(&t.log), line;
    while (str_next(&rest, STR("\n"), &line))
        n += str_contains(line, str_c(what));
    return n;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static void run_main(void *arg) {
    (void)arg;
    t.script();
    group_wait(&t.work, DEADLINE_NEVER);
}

static void play(void (*script)(void), const char *eligible) {
    memset(&t, 0, sizeof t);
    t.a = arena_new();
    t.script = script;
    strcpy(t.dir, "/tmp/angarium-flush.XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    int back = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(chdir(t.dir), 0);
    fake_sys_install();
    fake_sys_step_wall(time(NULL) * US_PER_S - sys->wall_us()); /* files have the system's times */
    const struct conf_override o[] = { { STR("fast_flush_domains"), str_c(eligible) } };
    struct conf_source source = {
        .config_directory = STR("/nonexistent"), .overrides = o, .override_count = 1, .missing_is_empty = true
    };
    assert_null(conf_load(&source, t.a, &t.c));
    assert_null(flush_open(&t.f, t.c, t.a));
    t.f.work = &t.work;
    t.f.draining = &t.draining;
    t.f.connect = connect_qmgr;
    log_set_sink(keep_log, NULL);
    assert_null(loop_init());
    assert_non_null(coro_spawn(run_main, NULL, "main"));
    assert_null(loop_run());
    loop_free();
    log_set_sink(NULL, NULL);
    flush_close(&t.f);
    fake_sys_remove();
    conf_free(t.c);
    int failed = t.failed;
    if (failed)
        print_error("told: %.*s\nlog:\n%.*s", STR_ARG(buf_str(&t.told)), STR_ARG(buf_str(&t.log)));
    buf_free(&t.log);
    buf_free(&t.told);
    arena_free(t.a);
    assert_int_equal(fchdir(back), 0);
    close(back);
    nftw(t.dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    assert_int_equal(failed, 0);
}

/* Until nothing is under way. */
static void settle(void) {
    group_wait(&t.work, DEADLINE_NEVER);
    for (int i = 0; i < 50; i++) /* the queue manager reads what is in its socket */
        coro_yield();
    wait_until(deadline_in_us(1000));
}

static bool told(const char *what) {
    bool same = str_eq(buf_str(&t.told), str_c(what));
    if (!same)
        print_error("told \"%.*s\", not \"%s\"\n", STR_ARG(buf_str(&t.told)), what);
    buf_clear(&t.told);
    t.told_count = 0;
    return same;
}

static void add(const char *site, const char *ids) {
    struct buf b = { 0 };
    struct str rest = str_c(ids), word;
    uint32_t n = 0;
    for (; str_word(&rest, STR(" "), &word); n++)
        pack_str(&b, word);
    struct flush_request r = {
        .type = FLUSH_MSG_ADD, .site = str_c(site), .count = n, .ids = unpack_from(buf_str(&b))
    };
    flush_add_ids(&t.f, &r);
    buf_free(&b);
}

static enum flush_status send_site(const char *site) {
    enum flush_status s = flush_site(&t.f, str_c(site));
    settle();
    return s;
}

static void refresh(bool all) {
    flush_refresh(&t.f, all);
    settle();
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static bool holds(const char *path, const char *text) {
    struct buf b = { 0 };
    bool same = buf_read_file(&b, path, 100000) && str_eq(buf_str(&b), str_c(text));
    buf_free(&b);
    return same;
}

/* Set the times of a log: the last send, the last id; seconds from now. */
static void age(const char *path, int64_t read_s, int64_t write_s) {
    int64_t now = sys->wall_us() / US_PER_S;
    struct timespec times[2] = { { .tv_sec = now + read_s }, { .tv_sec = now + write_s } };
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
}

/* --- add and send --- */
static void add_and_send_script(void) {
    CHECK(send_site("relay.example") == FLUSH_OK && told(""));
    CHECK(access("flush/relay.example", F_OK) < 0); /* asking makes no log */
    add("relay.example", "AAAA1 AAAA2");
    add("RELAY.example", "AAAA1");
    add("sub.relay.example", "BBBB1");
    CHECK(holds("flush/relay.example", "AAAA1\nAAAA2\nAAAA1\n"));
    CHECK(send_site("Relay.Example") == FLUSH_OK && told("FAAAA1 FAAAA2 "));
    CHECK(holds("flush/relay.example", ""));
    CHECK(access("flush/+relay.example", F_OK) < 0);
    unsigned connections =
        t.connections; /* an empty log costs the queue manager nothing, however often it is asked for */
    for (int i = 0; i < 10; i++)
        CHECK(send_site("relay.example") == FLUSH_OK && told(""));
    CHECK(t.connections == connections);
    CHECK(send_site("sub.relay.example") == FLUSH_OK && told("FBBBB1 "));
    add("relay.example", "AAAA3");
    CHECK(send_site("relay.example") == FLUSH_OK && told("FAAAA3 "));
}
static void add_and_send(void **state) {
    (void)state;
    play(add_and_send_script, "relay.example");
}

static void who_is_eligible_script(void) {
    static const char *const denied[] = { "example", "other.example", "xrelay.example", "[127.0.0.1]" };
    static const char *const bad[] = { "",
                                       ".",
                                       "..",
                                       "../relay.example",
                                       "relay.example.",
                                       ".relay.example",
                                       "+",
                                       "a b",
                                       "/etc/passwd",
                                       "+relay.example",
                                       "127.0.0.1",
                                       "[127.0.0.1",
                                       "*",
                                       "a\nb.relay.example" };
    for (size_t i = 0; i < sizeof denied / sizeof *denied; i++) {
        add(denied[i], "AAAA1");
        CHECK(send_site(denied[i]) == FLUSH_DENIED);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        add(bad[i], "AAAA1");
        CHECK(send_site(bad[i]) == FLUSH_BAD);
    }
    char label[] = "0123456789012345678901234567890123456789012345678901234567890.", name[300] = "";
    for (int i = 0; i < 4; i++)
        strcat(name, label);
    strcpy(name + FLUSH_SITE_MAX - 13, "relay.example");
    CHECK(strlen(name) == FLUSH_SITE_MAX);
    name[FLUSH_SITE_MAX - 14] = '.';
    add(name, "CCCC1");
    CHECK(send_site(name) == FLUSH_OK && told("FCCCC1 "));
    memmove(name + 1, name, FLUSH_SITE_MAX + 1);
    CHECK(send_site(name) == FLUSH_BAD);
    CHECK(told(""));
    struct arena *a = arena_new();
    struct site_entry e;
    DIR *d = site_logs_walk(&t.f.logs);
    CHECK(d && site_logs_next(&t.f.logs, d, a, &e) && e.site.n == FLUSH_SITE_MAX &&
          !site_logs_next(&t.f.logs, d, a, &e));
    closedir(d);
    arena_free(a);
}
static void who_is_eligible(void **state) {
    (void)state;
    play(who_is_eligible_script, "relay.example");
}

/* One log for a name in both its forms (RFC 5891); an address literal has one, too. */
static void other_forms_script(void) {
    add("b\xc3\xbc"
        "cher.example",
        "AAAA1");
    CHECK(holds("flush/xn--bcher-kva.example", "AAAA1\n"));
    CHECK(send_site("XN--bcher-kva.example") == FLUSH_OK && told("FAAAA1 "));
    CHECK(send_site("b\xc3\x28"
                    "cher.example") == FLUSH_BAD);
    add("[127.0.0.1]", "AAAA2");
    CHECK(send_site("[127.0.0.1]") == FLUSH_OK && told("FAAAA2 "));
}
static void other_forms(void **state) {
    (void)state;
    play(other_forms_script, "b\xc3\xbc"
                             "cher.example xn--bcher-kva.example [127.0.0.1]");
}

static void failing_table_script(void) {
    add("relay.example", "AAAA1");
    CHECK(send_site("relay.example") == FLUSH_FAIL && told(""));
    CHECK(logged("fast_flush_domains: ") > 0);
}
static void failing_table(void **state) {
    (void)state;
    play(failing_table_script, "hash:/nonexistent/angarium/table");
}

/* --- a queue manager that is not there, goes away, or is slow --- */
static void no_queue_manager_script(void) {
    add("relay.example", "AAAA1");
    t.down = true;
    CHECK(send_site("relay.example") == FLUSH_FAIL);
    add("relay.example", "AAAA2");
    CHECK(logged("connect to the queue manager: Connection refused") == 1);
    refresh(true);
    t.down = false;
    CHECK(send_site("relay.example") == FLUSH_OK && told("FAAAA1 FAAAA2 "));
}
static void no_queue_manager(void **state) {
    (void)state;
    play(no_queue_manager_script, "relay.example");
}

enum { MANY = 50000 };

static void add_many(const char *path) {
    struct buf b = { 0 };
    for (int i = 0; i < MANY; i++)
        buf_printf(&b, "%X\n", 0x100000 + i);
    put(path, b.p);
    buf_free(&b);
}

static void hangs_up_script(void) {
    add_many("flush/relay.example");
    t.hang_up_after = 1000;
    CHECK(send_site("relay.example") == FLUSH_OK);
    CHECK(t.told_count == 1000 && logged("send mail for relay.example: ") == 1);
    add("relay.example", "AAAA1");
    t.hang_up_after = 0;
    t.told_count = 0;
    refresh(false); /* what was left behind is old enough, whatever its times */
    CHECK(t.told_count == MANY + 1);
    CHECK(holds("flush/relay.example", "") && access("flush/+relay.example", F_OK) < 0);
}
static void hangs_up(void **state) {
    (void)state;
    play(hangs_up_script, "relay.example");
}

/* It takes its time: who asks is answered at once, and a second request for the site is the same one. */
static void slow_script(void) {
    add_many("flush/relay.example");
    t.deaf = true;
    CHECK(flush_site(&t.f, STR("relay.example")) == FLUSH_OK);
    wait_until(deadline_in(10));
    CHECK(t.work.running == 1 && t.told_count == 0);
    CHECK(flush_site(&t.f, STR("relay.example")) == FLUSH_OK && t.connections == 1);
    add("relay.example", "AAAA1");
    add("sub.relay.example", "BBBB1");
    t.deaf = false;
    cond_broadcast(&t.release);
    settle();
    CHECK(t.told_count == MANY);
    buf_clear(&t.told);
    CHECK(send_site("relay.example") == FLUSH_OK && told("FAAAA1 "));
}
static void slow(void **state) {
    (void)state;
    play(slow_script, "relay.example");
}

/* --- refresh --- */
static void refresh_script(void) {
    add("new.relay.example", "AAAA1");
    add("old.relay.example", "BBBB1");
    add("ahead.relay.example", "CCCC1");
    put("flush/empty.relay.example", "");
    put("flush/gone.relay.example", "");
    put("flush/behind.relay.example", "");
    age("flush/new.relay.example", -12 * 3600 + 60, -2 * DAY);
    age("flush/old.relay.example", -12 * 3600, 0);
    age("flush/ahead.relay.example", 12 * 3600, 0); /* the clock was set back */
    age("flush/empty.relay.example", -30 * DAY, -7 * DAY + 60);
    age("flush/gone.relay.example", 0, -7 * DAY);
    age("flush/behind.relay.example", 0, 7 * DAY);
    refresh(false);
    CHECK(str_contains(buf_str(&t.told), STR("RBBBB1 ")) && str_contains(buf_str(&t.told), STR("RCCCC1 ")));
    CHECK(t.told_count == 2);
    CHECK(holds("flush/new.relay.example", "AAAA1\n") && holds("flush/old.relay.example", ""));
    CHECK(access("flush/empty.relay.example", F_OK) == 0);
    CHECK(access("flush/gone.relay.example", F_OK) < 0 && access("flush/behind.relay.example", F_OK) < 0);
    /* the time of the send counts from now on */
    buf_clear(&t.told);
    t.told_count = 0;
    add("old.relay.example", "BBBB2");
    refresh(false);
    CHECK(told(""));
    refresh(true);
    CHECK(str_contains(buf_str(&t.told), STR("RBBBB2 ")) && str_contains(buf_str(&t.told), STR("RAAAA1 ")));
}
static void refreshing(void **state) {
    (void)state;
    play(refresh_script, "relay.example");
}

/* --- what does not belong there --- */
static void make_foreign(const char *prefix) {
    char path[100];
    snprintf(path, sizeof path, "%sdir.relay.example", prefix);
    CHECK(mkdir(path, 0700) == 0);
    snprintf(path, sizeof path, "%slink.relay.example", prefix);
    CHECK(symlink("/etc/passwd", path) == 0);
    snprintf(path, sizeof path, "%spipe.relay.example", prefix);
    CHECK(mkfifo(path, 0600) == 0);
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    snprintf(un.sun_path, sizeof un.sun_path, "%ssocket.relay.example", prefix);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(fd, (const struct sockaddr *)&un, sizeof un) == 0);
    close(fd);
}

static void foreign_script(void) {
    make_foreign("flush/");
    make_foreign("flush/+");
    put("flush/Upper.relay.example", "AAAA1\n");
    put("flush/relay_example", "AAAA1\n"); /* of Postfix: a name with one label */
    put("flush/-x", "AAAA1\n");
    put("flush/a\nb", "AAAA1\n");
    put("flush/.hidden", "AAAA1\n");
    static const char *const sites[] = { "dir.relay.example", "link.relay.example", "pipe.relay.example",
                                         "socket.relay.example" };
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
        add(sites[i], "BBBB1");
        CHECK(send_site(sites[i]) == FLUSH_FAIL);
    }
    CHECK(logged("open fast flush logfile") == 4 && logged("write fast flush logfile dir.relay.example: ") == 1);
    add("relay.example", "AAAA1");
    put("flush/lines.relay.example", "hello\n../../etc/passwd\n\nAAAA2\nDEADBEEF1 x\nAAAA3");
    for (int i = 0; i < 3; i++)
        refresh(true);
    CHECK(t.told_count == 5); /* with that of relay_example, and "hello", which could be one */
    CHECK(str_contains(buf_str(&t.told), STR("RAAAA2 RAAAA3 ")));
    CHECK(logged("bad queue id \"") == 2);
    CHECK(logged("bad queue id \"../../etc/passwd...\" in fast flush logfile lines.relay.example") == 1);
    CHECK(logged("no logfile of this service") == 11);
    CHECK(logged("flush/dir.relay.example is no logfile") == 1);
    CHECK(holds("flush/.hidden", "AAAA1\n") && holds("flush/Upper.relay.example", "AAAA1\n"));
    struct stat st;
    CHECK(lstat("flush/dir.relay.example", &st) == 0 && S_ISDIR(st.st_mode));
}
static void foreign(void **state) {
    (void)state;
    play(foreign_script, "relay.example");
}

/* Of a terabyte of nothing a bounded part is read, and of bad lines a bounded number reported. */
static void huge_script(void) {
    put("flush/relay.example", "AAAA1\n");
    CHECK(truncate("flush/relay.example", INT64_C(1) << 40) == 0);
    CHECK(send_site("relay.example") == FLUSH_OK && told("FAAAA1 "));
    CHECK(logged("is over 67108864 bytes: the rest is left out") == 1);
    struct buf b = { 0 };
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "!%d\n", i);
    put("flush/relay.example", b.p);
    buf_free(&b);
    CHECK(send_site("relay.example") == FLUSH_OK && told(""));
    CHECK(logged("bad queue id \"!") == 10 &&
          logged("990 more bad queue ids in fast flush logfile relay.example") == 1);
}
static void huge(void **state) {
    (void)state;
    play(huge_script, "relay.example");
}

/* --- trouble with the disk --- */
static void disk_script(void) {
    add("relay.example", "AAAA1");
    static const struct {
        const char *call;
        int errnum;
    } faults[] = { { "openat", EMFILE }, { "openat", ENOSPC }, { "openat", EROFS },
                   { "writev", ENOSPC }, { "writev", EIO },    { "fstatat", EIO } };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        fake_sys_fail(faults[i].call, 1, faults[i].errnum);
        add("relay.example", "AAAA2");
        CHECK(fake_sys_clear_faults() == 0);
        fake_sys_advance(61 * US_PER_S);
    }
    CHECK(logged("write fast flush logfile relay.example: ") == 6);
    static const char *const sends[] = { "openat", "renameat", "pread", "unlinkat" };
    for (size_t i = 0; i < sizeof sends / sizeof *sends; i++) {
        fake_sys_fail(sends[i], 1, EIO);
        send_site("relay.example");
        CHECK(fake_sys_clear_faults() == 0);
    }
    buf_clear(&t.told);
    t.told_count = 0;
    CHECK(send_site("relay.example") == FLUSH_OK && told("FAAAA1 "));
    fake_sys_write_max(3); /* in small portions */
    add("relay.example", "AAAA4 AAAA5");
    fake_sys_write_max(0);
    CHECK(send_site("relay.example") == FLUSH_OK && told("FAAAA4 FAAAA5 "));
}
static void disk(void **state) {
    (void)state;
    play(disk_script, "relay.example");
}

/* --- frames --- */
static void serve_run(void *arg) {
    struct ipc *ipc = arg;
    flush_serve(&t.f, ipc);
    ipc_close(ipc);
}

static struct ipc *client(void) {
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    CHECK(coro_spawn(serve_run, ipc_new(fds[1]), "serve"));
    return ipc_new(fds[0]);
}

static void frames_script(void) {
    struct buf ids = { 0 };
    enum flush_status status = FLUSH_BAD;
    struct ipc *ipc = client();
    flush_hello(ipc);
    pack_str(&ids, STR("AAAA1"));
    pack_str(&ids, STR("AAAA2"));
    flush_add(ipc, STR("relay.example"), 2, buf_str(&ids));
    CHECK(!flush_send_site(ipc, STR("relay.example"), deadline_in(10), &status) && status == FLUSH_OK);
    settle();
    CHECK(told("FAAAA1 FAAAA2 "));
    CHECK(!flush_send_site(ipc, STR("other.example"), deadline_in(10), &status) && status == FLUSH_DENIED);
    CHECK(!flush_send_site(ipc, STR("a..b"), deadline_in(10), &status) && status == FLUSH_BAD);
    /* one id too few, one too many, no id, no frame of ours: the conversation is over, nothing is kept */
    static const struct str bad[] = { STR_INIT("\x05\0\0\0AAAA1"), STR_INIT("../x"), STR_INIT("") };
    for (size_t i = 0; i < 6; i++) {
        struct buf frame = { 0 };
        if (i < 5) {
            pack_str(&frame, STR("relay.example"));
            pack_u32(&frame, i == 0 ? 2 : i == 1 ? 0 : i == 2 ? 1 : FLUSH_ADD_MAX + 1);
            buf_add(&frame, bad[i < 2 ? 0 : i == 2 ? 1 : 2]);
        }
        ipc_send(ipc, i < 4 ? FLUSH_MSG_ADD : i == 4 ? FLUSH_MSG_SEND_SITE : 77, buf_str(&frame), -1);
        buf_free(&frame);
        CHECK(flush_send_site(ipc, STR("relay.example"), deadline_in(10), &status) != NULL);
        ipc_close(ipc);
        ipc = client();
    }
    CHECK(logged("malformed request of type") == 6);
    CHECK(!flush_send_site(ipc, STR("relay.example"), deadline_in(10), &status) && status == FLUSH_OK);
    settle();
    CHECK(told(""));
    ipc_close(ipc);
    buf_free(&ids);
    coro_yield();
}
static void frames(void **state) {
    (void)state;
    play(frames_script, "relay.example");
}

/* The end that asks does not trust the answer. */
static void answers_run(void *arg) {
    struct ipc *ipc = arg;
    struct ipc_msg m = { .fd = -1 };
    static const char byte = 17;
    ipc_recv(ipc, DEADLINE_NEVER, &m);
    ipc_send(ipc, FLUSH_MSG_STATUS, str_n(&byte, 1), -1);
    ipc_flush(ipc, deadline_in(10));
    ipc_msg_drop(&m);
    ipc_close(ipc);
}
static void answers_script(void) {
    int fds[2];
    enum flush_status status = FLUSH_BAD;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    CHECK(coro_spawn(answers_run, ipc_new(fds[1]), "answers"));
    struct ipc *ipc = ipc_new(fds[0]);
    error e = flush_send_site(ipc, STR("relay.example"), deadline_in(10), &status);
    CHECK(e && e->kind == ERR_SYNTAX && status == FLUSH_BAD);
    ipc_close(ipc);
}
static void answers(void **state) {
    (void)state;
    play(answers_script, "relay.example");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(add_and_send),
        cmocka_unit_test(who_is_eligible),
        cmocka_unit_test(other_forms),
        cmocka_unit_test(failing_table),
        cmocka_unit_test(no_queue_manager),
        cmocka_unit_test(hangs_up),
        cmocka_unit_test(slow),
        cmocka_unit_test(refreshing),
        cmocka_unit_test(foreign),
        cmocka_unit_test(huge),
        cmocka_unit_test(disk),
        cmocka_unit_test(frames),
        cmocka_unit_test(answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
