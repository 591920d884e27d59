/* What is refused is refused: each case runs in a child, since none of it can be undone. */
#include "run/worker.h"

#include "test/test.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_FAILED = 99 /* an expectation inside the child; 0: all well */ };
enum { OTHER_UID = 65534, OTHER_GID = 65534 };

/* The wait status of `fn(arg)` run in a child. */
static int in_child(void (*fn)(const void *arg), const void *arg) {
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        fn(arg);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}
static void expect_at(bool ok, int line) {
    if (ok)
        return;
    fprintf(stderr, "worker_test.c:%d: not so (errno %d)\n", line, errno);
    _exit(CHILD_FAILED);
}
#define expect(condition) expect_at((condition), __LINE__)

/* A filter that silently is not there must not pass for one that works: only a sanitizer build, or a kernel that says
 * it has none, may be without. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
static bool kernel_has_seccomp(void) {
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}
static bool kernel_has_landlock(void) {
    return syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* the version */) > 0;
}

static struct confined confine(unsigned flags, const char *const *writable, const char *chroot_dir) {
    struct confine c = { .chroot_dir = chroot_dir,
                         .uid = geteuid() == 0 ? OTHER_UID : geteuid(),
                         .gid = geteuid() == 0 ? OTHER_GID : getegid(),
                         .flags = flags,
                         .writable = writable };
    struct confined got;
    bool filtered = !SANITIZED && !(flags & CONFINE_EXEC);
    bool seccomp = filtered && kernel_has_seccomp(), landlock = filtered && kernel_has_landlock();
    error e = worker_confine(&c, &got);
    expect(!e);
    expect(got.seccomp == seccomp && got.landlock == landlock && got.no_new_privs == filtered);
    return got;
}

static void child_no_files(const void *arg) {
    (void)arg;
    int sv[2];
    struct confined got = confine(CONFINE_NO_FILES, NULL, NULL);
    if (!got.seccomp)
        _exit(77);
    expect(got.no_new_privs);
    expect(open("/etc/passwd", O_RDONLY) < 0);
    expect(access("/", F_OK) < 0);
    struct stat st;
    expect(stat("/", &st) < 0);
    expect(fstat(0, &st) == 0);
    expect(socket(AF_UNIX, SOCK_STREAM, 0) < 0);
    expect(socket(AF_NETLINK, SOCK_RAW, 0) < 0);
    expect(socket(AF_INET, SOCK_RAW, 0) < 0);
    int net = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect(net >= 0);
    close(net);
    expect(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
    void *memory = malloc(1 << 20);
    expect(memory != NULL);
    free(memory);
}
static void child_no_network(const void *arg) {
    (void)arg;
    if (!confine(CONFINE_NO_FILES | CONFINE_NO_NETWORK, NULL, NULL).seccomp)
        _exit(77);
    expect(socket(AF_INET, SOCK_STREAM, 0) < 0);
    expect(socket(AF_INET6, SOCK_DGRAM, 0) < 0);
    struct sockaddr_in to = { .sin_family = AF_INET };
    expect(connect(0, (struct sockaddr *)&to, sizeof to) < 0);
}
static void child_read_files(const void *arg) {
    const char *dir = arg;
    if (!confine(CONFINE_READ_FILES, NULL, NULL).seccomp)
        _exit(77);
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    expect(fd >= 0);
    char path[200];
    snprintf(path, sizeof path, "%s/new", dir);
    expect(open(path, O_WRONLY | O_CREAT, 0600) < 0);
    expect(open("/dev/null", O_RDWR) < 0);
    expect(open("/dev/null", O_WRONLY) < 0);
    expect(open("/dev/null", O_RDONLY | O_TRUNC) < 0); /* the filter alone sees to this one */
    struct stat st;
    expect(stat("/etc/passwd", &st) == 0);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    expect(local >= 0);
}
static void child_truncate(const void *arg) {
    (void)arg;
    if (!confine(CONFINE_READ_FILES, NULL, NULL).seccomp)
        _exit(77);
    if (truncate("/dev/null", 0))
        _exit(CHILD_FAILED);
}
static void child_write_files(const void *arg) {
    const char *dir = arg;
    const char *const writable[] = { dir, NULL };
    struct confined got = confine(CONFINE_WRITE_FILES | CONFINE_NO_NETWORK, writable, NULL);
    if (!got.seccomp)
        _exit(77);
    char path[200], other[200];
    snprintf(path, sizeof path, "%s/new", dir);
    snprintf(other, sizeof other, "%s.not", dir);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    expect(fd >= 0 && write(fd, "x", 1) == 1);
    expect(unlink(path) == 0);
    /* our own priority, and nobody else's */
    int nice = getpriority(PRIO_PROCESS, 0);
    expect(nice == 19 || setpriority(PRIO_PROCESS, 0, nice + 1) == 0);
    expect(setpriority(PRIO_PROCESS, (id_t)getppid(), nice) < 0);
    if (got.landlock) {
        expect(open(other, O_WRONLY | O_CREAT, 0600) < 0);
        expect(mkdir(other, 0700) < 0);
    }
}
/* Maildir's move from tmp/ to new/: a Landlock ruleset forbids it unless a rule says otherwise. */
static void child_link_between(const void *arg) {
    const struct {
        const char *dir;
        bool anywhere;
    } *how = arg;
    const char *const writable[] = { how->dir, NULL };
    char from[220], to[220], tmp[200], new[200];
    snprintf(tmp, sizeof tmp, "%s/tmp", how->dir);
    snprintf(new, sizeof new, "%s/new", how->dir);
    snprintf(from, sizeof from, "%s/1", tmp);
    snprintf(to, sizeof to, "%s/1", new);
    struct confined got = confine(CONFINE_WRITE_FILES | CONFINE_NO_NETWORK, how->anywhere ? NULL : writable, NULL);
    if (!got.seccomp)
        _exit(77);
    expect(mkdir(tmp, 0700) == 0 && mkdir(new, 0700) == 0);
    int fd = open(from, O_WRONLY | O_CREAT, 0600);
    expect(fd >= 0);
    expect(link(from, to) == 0);
    expect(unlink(to) == 0);
    expect(rename(from, to) == 0);
    expect(unlink(to) == 0 && rmdir(tmp) == 0 && rmdir(new) == 0);
}
static void *thread_main(void *arg) {
    *(int *)arg = 1;
    return NULL;
}
static void child_thread(const void *arg) {
    (void)arg;
    confine(CONFINE_NO_FILES, NULL, NULL);
    pthread_t t;
    int ran = 0;
    expect(pthread_create(&t, NULL, thread_main, &ran) == 0);
    expect(pthread_join(t, NULL) == 0 && ran);
}
static void child_exec(const void *arg) {
    const unsigned *flags = arg;
    if (!confine(*flags, NULL, NULL).seccomp)
        _exit(77);
    char *argv[] = { (char[]){ "true" }, NULL };
    execve("/bin/true", argv, NULL);
    _exit(CHILD_FAILED);
}
static void child_fork(const void *arg) {
    const unsigned *flags = arg;
    if (!confine(*flags, NULL, NULL).seccomp)
        _exit(77);
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    int status;
    _exit(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : CHILD_FAILED);
}
static void child_act_as(const void *arg) {
    const unsigned *flags = arg;
    if (!confine(*flags, NULL, NULL).seccomp)
        _exit(77);
    uid_t own = getuid();
    _exit(syscall(SYS_setresuid, own, own, own) == 0 ? 0 : CHILD_FAILED);
}
static void child_call(const void *arg) {
    const long *call = arg;
    if (!confine(CONFINE_WRITE_FILES, NULL, NULL).seccomp)
        _exit(77);
    syscall(*call, 0, 0, 0, 0, 0, 0);
    _exit(CHILD_FAILED);
}
static void child_uid(const void *arg) {
    (void)arg;
    struct confined got = confine(CONFINE_EXEC, NULL, NULL);
    expect(got.uid && !got.no_new_privs && !got.seccomp);
    /* CM-03: the ids in force, not those asked for */
    uid_t r, e, s;
    expect(getresuid(&r, &e, &s) == 0 && r == OTHER_UID && e == OTHER_UID && s == OTHER_UID);
    gid_t groups[4];
    expect(getgroups(4, groups) == 1 && groups[0] == OTHER_GID && getegid() == OTHER_GID);
    expect(setuid(0) < 0);
    expect(open("/etc/shadow", O_RDONLY) < 0);
}
static void child_chroot(const void *arg) {
    struct confined got = confine(CONFINE_READ_FILES, NULL, arg);
    expect(got.chroot && got.uid);
    expect(access("/etc/passwd", F_OK) < 0);
    expect(access("/", F_OK) == 0);
}

static bool skipped(int status) {
    return WIFEXITED(status) && WEXITSTATUS(status) == 77;
}
static void run_clean(void (*fn)(const void *), const void *arg) {
    int status = in_child(fn, arg);
    if (skipped(status))
        skip(); /* a sanitizer build, or a kernel without */
    assert_int_equal(status, 0);
}

static char *temp_dir(void) {
    char *dir = strdup("/tmp/confine.XXXXXX");
    assert_non_null(dir);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0777), 0);
    return dir;
}

static void test_no_files(void **state) {
    (void)state;
    run_clean(child_no_files, NULL);
}
static void test_no_network(void **state) {
    (void)state;
    run_clean(child_no_network, NULL);
}
static void test_read_files(void **state) {
    (void)state;
    char *dir = temp_dir();
    int status = in_child(child_read_files, dir);
    rmdir(dir);
    free(dir);
    if (skipped(status))
        skip();
    assert_int_equal(status, 0);
}
/* As with O_TRUNC: Landlock is not asked. */
static void test_read_files_truncates_none(void **state) {
    (void)state;
    int status = in_child(child_truncate, NULL);
    if (skipped(status))
        skip();
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}
static void test_write_files(void **state) {
    (void)state;
    char *dir = temp_dir();
    int status = in_child(child_write_files, dir);
    rmdir(dir);
    free(dir);
    if (skipped(status))
        skip();
    assert_int_equal(status, 0);
}
static void test_link_between_directories(void **state) {
    (void)state;
    char dir[] = "/tmp/angarium-worker-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0777), 0); /* the child is somebody else */
    for (int anywhere = 0; anywhere < 2; anywhere++) {
        struct {
            const char *dir;
            bool anywhere;
        } how = { dir, anywhere };
        int status = in_child(child_link_between, &how);
        if (skipped(status))
            break;
        assert_int_equal(status, 0);
    }
    assert_int_equal(rmdir(dir), 0);
}
static void test_threads_still_start(void **state) {
    (void)state;
    assert_int_equal(in_child(child_thread, NULL), 0);
}
static void test_exec_and_fork(void **state) {
    (void)state;
    const unsigned classes[] = { CONFINE_NO_FILES, CONFINE_READ_FILES, CONFINE_WRITE_FILES,
                                 CONFINE_WRITE_FILES | CONFINE_ACT_AS };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        int status = in_child(child_exec, &classes[i]);
        if (skipped(status))
            skip();
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
        status = in_child(child_fork, &classes[i]);
        /* refused as a probe: fork() returned -1 */
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == CHILD_FAILED);
        status = in_child(child_act_as, &classes[i]);
        if (classes[i] & CONFINE_ACT_AS)
            assert_int_equal(status, 0);
        else
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    }
}
static void test_calls_that_kill(void **state) {
    (void)state;
    const long calls[] = {
        SYS_ptrace, SYS_mount, SYS_setuid, SYS_bpf, SYS_kexec_load, SYS_chroot, SYS_process_vm_readv
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        int status = in_child(child_call, &calls[i]);
        if (skipped(status))
            skip();
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    }
}
static void test_uid(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    run_clean(child_uid, NULL);
}
static void test_chroot(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    char *dir = temp_dir();
    int status = in_child(child_chroot, dir);
    rmdir(dir);
    free(dir);
    assert_int_equal(status, 0);
}

/* --- worker_start --- */
static int exit_of(pid_t pid) {
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
static void test_start_fixed_descriptors(void **state) {
    (void)state;
    int control[2], a[2], b[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, control), 0);
    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    /* a descriptor that must not get through, and an order that needs moving: listeners low, control high */
    int stray = fcntl(0, F_DUPFD, 40);
    int listeners[2] = { a[1], b[1] };
    char *argv[] = { (char[]){ "sh" }, (char[]){ "-c" },
                     (char[]){ "echo control >&3; echo first >&4; echo second >&5; echo \"$X\" >&4;"
                               "for f in 6 7 8 9; do if (: >&$f) 2>/dev/null; then exit 9; fi; done; pwd >&5; exit 7" },
                     NULL };
    char *envp[] = { (char[]){ "X=value" }, NULL };
    struct worker_start w = { .path = "/bin/sh",
                              .argv = argv,
                              .envp = envp,
                              .control_fd = control[1],
                              .listen_fds = listeners,
                              .listen_count = 2,
                              .stdin_fd = -1,
                              .stdout_fd = -1,
                              .stderr_fd = -1,
                              .directory = "/usr" };
    pid_t pid = 0;
    assert_null(worker_start(&w, &pid));
    assert_int_equal(exit_of(pid), 7);
    char buf[100];
    ssize_t n = read(control[0], buf, sizeof buf);
    assert_str(str_n(buf, (size_t)n), "control\n");
    n = read(a[0], buf, sizeof buf);
    assert_str(str_n(buf, (size_t)n), "first\nvalue\n");
    n = read(b[0], buf, sizeof buf);
    assert_str(str_n(buf, (size_t)n), "second\n/usr\n");
    int fds[] = { control[0], control[1], a[0], a[1], b[0], b[1], stray };
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
}
static void test_start_no_program(void **state) {
    (void)state;
    char *argv[] = { (char[]){ "none" }, NULL }, *envp[] = { NULL };
    struct worker_start w = { .path = "/nonexistent/none",
                              .argv = argv,
                              .envp = envp,
                              .control_fd = -1,
                              .stdin_fd = -1,
                              .stdout_fd = -1,
                              .stderr_fd = -1 };
    pid_t pid = 0;
    error e = worker_start(&w, &pid);
    assert_non_null(e);
    assert_int_equal(e->sys, ENOENT);
    assert_int_equal(pid, 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing left to reap */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_files),         cmocka_unit_test(test_no_network),
        cmocka_unit_test(test_read_files),       cmocka_unit_test(test_read_files_truncates_none),
        cmocka_unit_test(test_write_files),      cmocka_unit_test(test_link_between_directories),
        cmocka_unit_test(test_exec_and_fork),    cmocka_unit_test(test_threads_still_start),
        cmocka_unit_test(test_calls_that_kill),  cmocka_unit_test(test_uid),
        cmocka_unit_test(test_chroot),           cmocka_unit_test(test_start_fixed_descriptors),
        cmocka_unit_test(test_start_no_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
