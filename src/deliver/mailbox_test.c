#include "test/test.h"

#include "deliver/agent_fake.h"
#include "deliver/child.h"
#include "deliver/mailbox.h"
#include "test/fake_sys.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/mailbox_test_XXXXXX";

static void test_quote(void **state) {
    (void)state;
    static const struct {
        const char *in, *want;
    } rows[] = {
        { "", "" },
        { "a\n", "a\n" },
        { "a", "a\n" },
        { "From x\n", ">From x\n" },
        { "From x", ">From x\n" },
        { "From", "From\n" },
        { "From\n", "From\n" },
        { "From \n", ">From \n" },
        { ">From x\n", ">From x\n" },
        { "from x\nFrom y\nxFrom z\nFFrom \n", "from x\n>From y\nxFrom z\nFFrom \n" },
        { "\n\nFrom a\n\n", "\n\n>From a\n\n" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        for (size_t piece = 1; piece < 9; piece++) {
            struct buf out = { 0 };
            struct mbox_quote q = { 0 };
            struct str in = str_c(rows[i].in);
            for (size_t at = 0; at < in.n; at += piece) {
                struct str part = str_sub(in, at, piece);
                char *alone = malloc(part.n);
                memcpy(alone, part.p, part.n);
                mbox_quote_add(&q, &out, str_n(alone, part.n));
                free(alone);
            }
            mbox_quote_end(&q, &out);
            assert_str(buf_str(&out), rows[i].want);
            buf_free(&out);
        }
}

static void test_locks_parameter(void **state) {
    (void)state;
    unsigned locks;
    assert_true(mailbox_locks_parse(STR("fcntl, dotlock"), &locks));
    assert_int_equal(locks, MAILBOX_FCNTL | MAILBOX_DOTLOCK);
    assert_true(mailbox_locks_parse(STR("flock"), &locks));
    assert_int_equal(locks, MAILBOX_FLOCK);
    assert_false(mailbox_locks_parse(STR("fcntl lockf"), &locks));
}

/* --- deliveries --- */
static struct mailbox box;
static struct mailbox_result result;

static void deliver_box(struct agent_request *r) {
    mailbox_deliver(r, &box, &result);
    static char why[1000], dsn[20]; /* they outlive the request */
    snprintf(why, sizeof(why), "%.*s", STR_ARG(result.why));
    snprintf(dsn, sizeof(dsn), "%.*s", STR_ARG(result.dsn));
    result.why = str_c(why);
    result.dsn = str_c(dsn);
    struct agent_status s = { .relay = STR("local"), .dsn = STR("2.0.0"), .reason = STR("done") };
    agent_sent(r, 0, &s);
}

static char *path_of(const char *name) {
    static char path[700];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void put_file(const char *name, const char *text, mode_t mode) {
    int fd = open(path_of(name), O_CREAT | O_WRONLY | O_TRUNC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void has_file(const char *name, const char *want) {
    struct buf b = { 0 };
    assert_true(buf_read_file(&b, path_of(name), 1 << 20));
    struct str got = buf_str(&b);
    /* the date of From_ lines is not compared */
    struct buf plain = { 0 };
    struct str line;
    while (got.n && str_next(&got, STR("\n"), &line)) {
        if (str_starts(line, STR("From sender")) && line.n > 40)
            line = str_sub(line, 0, line.n - 24);
        buf_add(&plain, line);
        buf_byte(&plain, '\n');
    }
    assert_str(buf_str(&plain), want);
    buf_free(&plain);
    buf_free(&b);
}

static void deliver_content(const char *name, struct str content) {
    struct fake_qmgr f;
    fake_start(&f, STR("local"), deliver_box, NULL, 0);
    fake_rcpt(&f, STR("a@x.example"), STR(""));
    f.content = content;
    box.path = str_c(strdup(path_of(name)));
    box.uid = getuid();
    box.gid = getgid();
    box.dsn = "5.2.0";
    box.head = STR("Return-Path: <s@x>\n");
    if (!box.lock_attempts)
        box.lock_attempts = 1;
    if (!box.stale_lock)
        box.stale_lock = 500;
    fake_run(&f);
    assert_int_equal(f.result_count, 1);
    fake_end(&f);
    free((void *)(uintptr_t)box.path.p);
}

static void deliver_to(const char *name) {
    deliver_content(name, STR("Subject: x\n\nFrom me\nlast"));
}

static void failed(const char *dsn, const char *why) {
    assert_false(result.ok);
    assert_str(result.dsn, dsn);
    if (!str_contains(result.why, str_c(why)))
        print_error("\"%.*s\" has no \"%s\"\n", STR_ARG(result.why), why);
    assert_true(str_contains(result.why, str_c(why)));
}

#define MESSAGE "From sender@there.example  \nReturn-Path: <s@x>\nSubject: x\n\n>From me\nlast\n\n"

static int fresh(void **state) {
    (void)state;
    box = (struct mailbox){ .locks = MAILBOX_FCNTL | MAILBOX_DOTLOCK };
    return 0;
}
static int clean(void **state) {
    (void)state;
    sys = &sys_real;
    result = (struct mailbox_result){ 0 };
    char command[100];
    snprintf(command, sizeof(command), "rm -rf %s/*", dir);
    return system(command) == 0 ? 0 : -1;
}

static int fresh_in_frame(void **state) {
    fake_frame_on(state);
    return fresh(state);
}
static int clean_in_frame(void **state) {
    fake_frame_off(state);
    return clean(state);
}

static void test_mbox(void **state) {
    (void)state;
    deliver_to("box");
    assert_true(result.ok);
    has_file("box", MESSAGE);
    struct stat st;
    assert_int_equal(stat(path_of("box"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(access(path_of("box.lock"), F_OK), -1);
    clean(NULL);
    put_file("box", MESSAGE, 0600);
    deliver_to("box");
    has_file("box", MESSAGE MESSAGE);
    assert_int_equal(result.start, strlen(MESSAGE));
}

/* A delivery that a crash cut off does not swallow the next one. */
static void test_mbox_torn(void **state) {
    (void)state;
    put_file("box", "From sender@there.example  \nhalf a li", 0600);
    deliver_to("box");
    struct buf b = { 0 };
    assert_true(buf_read_file(&b, path_of("box"), 1 << 20));
    assert_true(str_contains(buf_str(&b), STR("half a li\n\nFrom sender@there")));
    buf_free(&b);
}

static void test_mbox_limit(void **state) {
    (void)state;
    put_file("box", "old\n", 0600);
    box.limit = 60;
    deliver_to("box");
    failed("5.2.2", "error writing message: File too large");
    has_file("box", "old\n");
    assert_int_equal(access(path_of("box.lock"), F_OK), -1);
}

static int writes;
static ssize_t full_pwrite(int fd, const void *p, size_t n, off_t at) {
    if (++writes > 2) {
        errno = ENOSPC;
        return -1;
    }
    return sys_real.pwrite(fd, p, n, at);
}
static int bad_fsync(int fd) {
    (void)fd;
    errno = EIO;
    return -1;
}

/* Disk full in the middle, fsync that fails: the old length, and not a word of success. */
static void test_mbox_faults(void **state) {
    (void)state;
    struct sys faulty = sys_real;
    put_file("box", "old\n", 0600);
    faulty.pwrite = full_pwrite;
    writes = 0;
    sys = &faulty;
    deliver_to("box");
    failed("4.3.0", "error writing message: No space left on device");
    has_file("box", "old\n");
    clean(NULL);
    put_file("box", "old\n", 0600);
    faulty = sys_real;
    faulty.fsync = bad_fsync;
    sys = &faulty;
    deliver_to("box");
    failed("4.3.0", "error writing message: Input/output error");
    has_file("box", "old\n");
}

static int old_lock(int dirfd, const char *path, struct stat *st, int flags) {
    int result_of_stat = sys_real.fstatat(dirfd, path, st, flags);
    if (str_ends(str_c(path), STR(".lock")))
        st->st_ctime = 1000;
    return result_of_stat;
}

static void test_dotlock(void **state) {
    (void)state;
    put_file("box.lock", "", 0600);
    deliver_to("box");
    failed("4.2.0", "unable to create lock file");
    assert_int_equal(access(path_of("box.lock"), F_OK), 0);
    clean(NULL);
    /* a stale one is removed */
    put_file("box.lock", "", 0600);
    struct sys later = sys_real;
    later.fstatat = old_lock;
    sys = &later;
    box.lock_attempts = 2;
    deliver_to("box");
    assert_true(result.ok);
    has_file("box", MESSAGE);
    clean(NULL);
    /* the time that counts is the one nobody can set */
    put_file("box.lock", "", 0600);
    const struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
    assert_int_equal(utimensat(AT_FDCWD, path_of("box.lock"), old, 0), 0);
    box.lock_attempts = 2;
    deliver_to("box");
    failed("4.2.0", "unable to create lock file");
}

/* Locks of another process are respected: fcntl() and flock(). */
static void locked_by_other(unsigned kind) {
    put_file("box", "", 0600);
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path_of("box"), O_RDWR);
        struct flock l = { .l_type = F_WRLCK };
        int failure = kind == MAILBOX_FCNTL ? fcntl(fd, F_SETLK, &l) : sys_real.flock(fd, 2 /* LOCK_EX */);
        char byte = failure ? 'n' : 'y';
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    char byte = 0;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    box.locks = kind;
    deliver_to("box");
    failed("4.2.0", "unable to lock for exclusive access");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    struct stat st;
    assert_int_equal(stat(path_of("box"), &st), 0);
    assert_int_equal(st.st_size, 0);
}
static void test_other_locks(void **state) {
    (void)state;
    locked_by_other(MAILBOX_FCNTL);
    clean(NULL);
    locked_by_other(MAILBOX_FLOCK);
}

static void test_mbox_odd_files(void **state) {
    (void)state;
    put_file("other", "keep\n", 0600);
    char linked[700];
    snprintf(linked, sizeof(linked), "%s/linked", dir);
    assert_int_equal(link(path_of("other"), linked), 0);
    deliver_to("linked");
    failed("5.2.0", "file has 2 hard links");
    has_file("other", "keep\n");
    clean(NULL);
    /* a link that others could have made is not followed: the directory is everybody's */
    put_file("other", "keep\n", 0600);
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(symlink("other", path_of("link")), 0);
    deliver_to("link");
    failed("5.2.0", "file is a symbolic link");
    has_file("other", "keep\n");
    assert_int_equal(symlink("nothing", path_of("dangling")), 0);
    deliver_to("dangling");
    failed("5.2.0", "cannot open file: No such file or directory");
    assert_int_equal(access(path_of("nothing"), F_OK), -1);
    assert_int_equal(chmod(dir, 0700), 0);
    clean(NULL);
    assert_int_equal(mkdir(path_of("box"), 0700), 0);
    deliver_to("box");
    failed("5.2.0", "cannot open file: Is a directory");
    clean(NULL);
    assert_int_equal(mkfifo(path_of("box"), 0600), 0);
    deliver_to("box");
    failed("5.2.0", "cannot open file: No such device or address");
    clean(NULL);
    deliver_to("no/box");
    failed("5.2.0", "unable to create lock file");
    /* of a /file/name what is wrong is said of the file, not of its lock */
    box.file = true;
    deliver_to("no/box");
    failed("5.2.0", "cannot create file exclusively: No such file or directory");
}

static void test_not_owner(void **state) {
    (void)state;
    if (getuid() != 0)
        return; /* only one of the two kinds of users can see this */
    put_file("box", "keep\n", 0666);
    assert_int_equal(chown(path_of("box"), 12345, 12345), 0);
    box.strict_owner = true;
    deliver_to("box");
    failed("4.2.0", "is not owned by recipient");
    has_file("box", "keep\n");
}

static void test_device(void **state) {
    (void)state;
    char saved[sizeof(dir)];
    memcpy(saved, dir, sizeof(dir));
    memcpy(dir, "/dev", 5);
    box.file = true;
    deliver_to("null");
    memcpy(dir, saved, sizeof(dir));
    assert_true(result.ok);
    assert_int_equal(access("/dev/null.lock", F_OK), -1);
}

static size_t entries(const char *name, char *ret_first) {
    DIR *d = opendir(path_of(name));
    assert_non_null(d);
    size_t n = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            snprintf(ret_first, 300, "%s/%s", name, e->d_name);
            n++;
        }
    closedir(d);
    return n;
}

static void test_maildir(void **state) {
    (void)state;
    char first[300];
    deliver_to("a/b/md/");
    assert_true(result.ok);
    assert_int_equal(entries("a/b/md/tmp", first), 0);
    assert_int_equal(entries("a/b/md/cur", first), 0);
    assert_int_equal(entries("a/b/md/new", first), 1);
    has_file(first, "Return-Path: <s@x>\nSubject: x\n\nFrom me\nlast\n");
    /* TIME.V<device>I<inode>M<microseconds>.<host> */
    const char *name = strrchr(first, '/') + 1;
    unsigned long long when, device, inode, micro;
    assert_int_equal(sscanf(name, "%llu.V%llxI%llxM%llu.", &when, &device, &inode, &micro), 4);
    struct stat st;
    assert_int_equal(stat(path_of(first), &st), 0);
    assert_int_equal(st.st_ino, inode);
    assert_int_equal(st.st_dev, device);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(path_of("a/b/md/new"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (int i = 0; i < 5; i++)
        deliver_to("a/b/md/");
    assert_int_equal(entries("a/b/md/new", first), 6);
}

/* What is answered is on stable storage: the calls, in their order, and the answer behind all of them. */
static struct buf calls;
static const char *short_name(const char *path) {
    return strstr(path, "md/tmp/") ? "tmp" : strstr(path, "md/new/") ? "new" : "box";
}
static void note_call(void *arg, const struct fake_call *call) {
    (void)arg;
    static const char *const noted[] = { "pwrite", "fsync", "renameat" };
    for (size_t i = 0; i < sizeof noted / sizeof *noted; i++)
        if (strcmp(call->name, noted[i]) == 0)
            buf_printf(&calls, "%s ", call->name);
    if (strcmp(call->name, "openat") == 0)
        buf_printf(&calls, "open-%s ", short_name(call->path));
    else if (strcmp(call->name, "sendmsg") == 0 && str_ends(buf_str(&calls), STR("fsync ")))
        buf_printf(&calls, "answer");
}
static void test_stable(void **state) {
    (void)state;
    static const struct {
        const char *box, *want;
    } rows[] = {
        { "md/", "open-tmp pwrite pwrite pwrite fsync renameat open-new fsync answer" },
        { "box", "open-box open-box pwrite pwrite pwrite pwrite fsync answer" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        deliver_to(rows[i].box); /* makes it */
        fake_sys_install();
        fake_sys_watch(note_call, NULL);
        buf_clear(&calls);
        deliver_to(rows[i].box);
        fake_sys_remove();
        assert_true(result.ok);
        assert_str(buf_str(&calls), rows[i].want);
    }
    buf_free(&calls);
}

static void test_maildir_faults(void **state) {
    (void)state;
    char first[300];
    deliver_to("md/");
    struct sys faulty = sys_real;
    faulty.pwrite = full_pwrite;
    writes = 0;
    sys = &faulty;
    deliver_content("md/", STR("Subject: x\n\nno newline"));
    failed("4.3.0", "error writing message: No space left on device");
    faulty = sys_real;
    faulty.fsync = bad_fsync;
    deliver_to("md/");
    failed("4.3.0", "error writing message");
    sys = &sys_real;
    assert_int_equal(entries("md/tmp", first), 0);
    assert_int_equal(entries("md/new", first), 1);
    box.limit = 20;
    deliver_to("md/");
    failed("5.2.2", "File too large");
    assert_int_equal(entries("md/new", first), 1);
}

static void test_big(void **state) {
    (void)state;
    enum { N = 3 * 1000 * 1000 };
    char *big = malloc(N);
    memset(big, 'x', N);
    for (size_t i = 79; i < N; i += 80)
        big[i] = '\n';
    deliver_content("md/", str_n(big, N));
    assert_true(result.ok);
    char first[300];
    entries("md/new", first);
    struct stat st;
    assert_int_equal(stat(path_of(first), &st), 0);
    assert_int_equal(st.st_size, N + (off_t)strlen("Return-Path: <s@x>\n"));
    free(big);
}

/* --- children --- */
static struct child kid;
static struct child_result kid_result;
static error kid_error;

static void run_kid(void *arg) {
    kid_error = child_run(&kid, arg, &kid_result);
}
static struct arena *run_child(int (*run)(void *, int), int64_t seconds) {
    struct arena *a = arena_new();
    kid =
        (struct child){ .uid = getuid(), .gid = getgid(), .keep_fd = -1, .deadline = deadline_in(seconds), .run = run };
    assert_null(loop_init());
    assert_non_null(coro_spawn(run_kid, a, "child"));
    assert_null(loop_run());
    loop_free();
    assert_null(kid_error);
    return a;
}
static int say_ids(void *arg, int out_fd) {
    (void)arg;
    uid_t r, e, s;
    gid_t groups[10];
    getresuid(&r, &e, &s);
    dprintf(out_fd, "%ld %ld %ld %d %d", (long)r, (long)e, (long)s, getgroups(10, groups), setuid(0));
    return 7;
}
static int hang(void *arg, int out_fd) {
    (void)arg;
    dprintf(out_fd, "%ld", (long)getpid());
    if (fork() == 0) { /* a grandchild that keeps the pipe open */
        pause();
        _exit(0);
    }
    pause();
    return 0;
}
static int crash(void *arg, int out_fd) {
    (void)arg;
    (void)out_fd;
    raise(SIGSEGV);
    return 0;
}
static int flood(void *arg, int out_fd) {
    (void)arg;
    char bytes[1000] = { 0 };
    for (int i = 0; i < 1000; i++)
        if (write(out_fd, bytes, sizeof(bytes)) < 0)
            return 1;
    return 0;
}
static int open_fds(void *arg, int out_fd) {
    (void)arg;
    int n = 0;
    for (int fd = 3; fd < 200; fd++)
        n += fcntl(fd, F_GETFD) >= 0 && fd != out_fd;
    return n;
}

static void test_child(void **state) {
    (void)state;
    struct arena *a = run_child(say_ids, 60);
    assert_int_equal(kid_result.status, 7);
    arena_free(a);
    a = run_child(crash, 60);
    assert_int_equal(kid_result.signal, SIGSEGV);
    arena_free(a);
    a = run_child(flood, 60);
    assert_int_equal(kid_result.status, 0);
    assert_int_equal(kid_result.output.n, CHILD_OUTPUT_MAX);
    arena_free(a);
    a = run_child(open_fds, 60);
    assert_int_equal(kid_result.status, 0);
    arena_free(a);
}

/* CM-05: over its time, the whole process group is gone. */
static void test_child_hangs(void **state) {
    (void)state;
    struct arena *a = run_child(hang, 1);
    assert_true(kid_result.timed_out);
    long pid = atol(kid_result.output.p);
    assert_true(pid > 1);
    bool gone = false;
    for (int i = 0; i < 500 && !gone; i++) { /* the grandchild is init's to reap */
        gone = kill((pid_t)-pid, 0) != 0;
        usleep(10000);
    }
    assert_true(gone);
    arena_free(a);
}

/* A program that does not get as far as running (its directory does not answer) is killed in time, too. */
static _Atomic pid_t stopped;
static int hang_before_exec(void *arg, int out_fd) {
    (void)arg;
    (void)out_fd;
    stopped = getpid(); /* our memory is the test's */
    while (pause() < 0)
        continue;
    return 0;
}
static void test_start_hangs(void **state) {
    (void)state;
    struct arena *a = arena_new();
    kid = (struct child){ .uid = getuid(),
                          .gid = getgid(),
                          .keep_fd = -1,
                          .deadline = deadline_in_us(100000),
                          .run = hang_before_exec,
                          .execs = true };
    assert_null(loop_init());
    assert_non_null(coro_spawn(run_kid, a, "child"));
    assert_null(loop_run());
    loop_free();
    assert_null(kid_error);
    assert_true(kid_result.timed_out);
    assert_true(stopped == 0 || kill(stopped, 0) != 0); /* and waited for */
    arena_free(a);
}

/* CM-03: the ids at work are those asked for, and there is no way back. */
static void test_child_ids(void **state) {
    (void)state;
    if (getuid() != 0)
        return; /* only one of the two kinds of users can see this */
    struct arena *a = arena_new();
    kid = (struct child){ .uid = 12345, .gid = 12346, .keep_fd = -1, .deadline = deadline_in(60), .run = say_ids };
    assert_null(loop_init());
    assert_non_null(coro_spawn(run_kid, a, "child"));
    assert_null(loop_run());
    loop_free();
    assert_str(kid_result.output, "12345 12345 12345 1 -1");
    arena_free(a);
}

static int start(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}
static int end(void **state) {
    (void)state;
    return rmdir(dir);
}

#define BOX(test) cmocka_unit_test_setup_teardown(test, fresh, clean)
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quote),
        cmocka_unit_test(test_locks_parameter),
        BOX(test_mbox),
        BOX(test_mbox_torn),
        BOX(test_mbox_limit),
        BOX(test_mbox_faults),
        BOX(test_dotlock),
        BOX(test_other_locks),
        BOX(test_mbox_odd_files),
        BOX(test_not_owner),
        BOX(test_device),
        BOX(test_maildir),
        BOX(test_maildir_faults),
        BOX(test_stable),
        BOX(test_big),
        cmocka_unit_test(test_child),
        cmocka_unit_test(test_child_hangs),
        cmocka_unit_test(test_start_hangs),
        cmocka_unit_test(test_child_ids),
        { "test_mbox (content in the frame)", test_mbox, fresh_in_frame, clean_in_frame, NULL },
        { "test_maildir (content in the frame)", test_maildir, fresh_in_frame, clean_in_frame, NULL },
    };
    return cmocka_run_group_tests(tests, start, end);
}
