#include "test/test.h"

#include "deliver/user_thread.h"
#include "run/coro.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SOMEBODY = 12345, HIS_GROUP = 12346, OTHER = 12347 };

struct seen { /* in the thread */
    uid_t real, effective, saved;
    gid_t group, groups[4];
    int group_count;
    bool shadow; /* a file of root's could be opened */
    int created; /* owner of a new file, or -1 */
};
static char dir[] = "/tmp/user_thread_XXXXXX";

static void look(void *arg) {
    struct seen *s = arg;
    getresuid(&s->real, &s->effective, &s->saved);
    s->group = getegid();
    s->group_count = getgroups(4, s->groups);
    int fd = open("/etc/shadow", O_RDONLY | O_CLOEXEC);
    s->shadow = fd >= 0;
    if (fd >= 0)
        close(fd);
    char path[100];
    snprintf(path, sizeof(path), "%s/file", dir);
    struct stat st;
    fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    s->created = fd >= 0 && fstat(fd, &st) == 0 ? (int)st.st_uid : -1;
    if (fd >= 0)
        close(fd);
    unlink(path);
}

static void in_loop(void (*fn)(void *arg), void *arg) {
    assert_null(loop_init());
    assert_non_null(coro_spawn(fn, arg, "test"));
    assert_null(loop_run());
    loop_free();
}

struct call {
    uid_t uid;
    gid_t gid;
    enum user_thread_result result;
    struct seen seen;
};
static void run_look(void *arg) {
    struct call *c = arg;
    struct arena *own = arena_new();
    struct seen *s = ARENA_NEW(own, struct seen);
    c->result = user_thread_run(own, c->uid, c->gid, deadline_in(600), look, s);
    if (c->result != USER_THREAD_DONE)
        return;
    c->seen = *s;
    arena_free(own);
}

/* CM-03: a user's rights and no others, and in that thread alone. */
static void test_rights(void **state) {
    (void)state;
    if (geteuid() != 0)
        return; /* only one of the two kinds of users can see this */
    struct call c = { .uid = SOMEBODY, .gid = HIS_GROUP };
    in_loop(run_look, &c);
    assert_int_equal(c.result, USER_THREAD_DONE);
    assert_int_equal(c.seen.effective, SOMEBODY);
    assert_int_equal(c.seen.real, 0);  /* nobody's process may send it signals, */
    assert_int_equal(c.seen.saved, 0); /* and it can go back */
    assert_int_equal(c.seen.group, HIS_GROUP);
    assert_int_equal(c.seen.group_count, 1);
    assert_int_equal(c.seen.groups[0], HIS_GROUP);
    assert_false(c.seen.shadow);
    assert_int_equal(c.seen.created, SOMEBODY);
    assert_int_equal(geteuid(), 0);
    assert_int_equal(getegid(), 0);
}

/* Two at a time, and root beside them: threads do not change one another. */
struct both {
    int ready[2], go[2]; /* pipes */
    struct group group;
    uid_t before[2], after[2];
    uid_t loop;
    size_t next;
};
struct one {
    struct both *both;
    size_t i;
};
static void meet(void *arg) {
    struct one *o = arg;
    char byte = 0;
    o->both->before[o->i] = geteuid();
    assert_int_equal(write(o->both->ready[1], &byte, 1), 1);
    assert_int_equal(read(o->both->go[0], &byte, 1), 1);
    o->both->after[o->i] = geteuid();
}
static void run_one(void *arg) {
    struct both *b = arg;
    struct arena *own = arena_new();
    struct one *o = ARENA_NEW(own, struct one);
    *o = (struct one){ b, b->next++ };
    uid_t uid = o->i ? OTHER : SOMEBODY;
    assert_int_equal(user_thread_run(own, uid, uid, deadline_in(600), meet, o), USER_THREAD_DONE);
    arena_free(own);
    group_leave(&b->group);
}
static void run_both(void *arg) {
    struct both *b = arg;
    char bytes[2];
    for (int i = 0; i < 2; i++) {
        group_enter(&b->group);
        coro_spawn(run_one, b, "one");
    }
    for (int got = 0; got < 2; got++) {
        assert_null(wait_readable(b->ready[0], DEADLINE_NEVER));
        assert_int_equal(read(b->ready[0], bytes, 1), 1);
    }
    b->loop = geteuid();
    assert_int_equal(write(b->go[1], bytes, 2), 2);
    group_wait(&b->group, DEADLINE_NEVER);
}
static void test_side_by_side(void **state) {
    (void)state;
    if (geteuid() != 0)
        return;
    struct both b = { 0 };
    assert_int_equal(pipe(b.ready), 0);
    assert_int_equal(pipe(b.go), 0);
    in_loop(run_both, &b);
    assert_int_equal(b.loop, 0);
    assert_int_equal(b.before[0], SOMEBODY);
    assert_int_equal(b.before[1], OTHER);
    assert_int_equal(b.after[0], SOMEBODY);
    assert_int_equal(b.after[1], OTHER);
    for (int i = 0; i < 2; i++) {
        close(b.ready[i]);
        close(b.go[i]);
    }
}

/* An ordinary user is himself or nobody. */
static void test_without_root(void **state) {
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && (setgid(HIS_GROUP) != 0 || setuid(SOMEBODY) != 0))
            _exit(1);
        struct call own = { .uid = geteuid(), .gid = getegid() }, other = { .uid = OTHER, .gid = OTHER }, root = { 0 };
        in_loop(run_look, &own);
        in_loop(run_look, &other);
        in_loop(run_look, &root);
        _exit(own.result != USER_THREAD_DONE          ? 2
              : own.seen.effective != geteuid()       ? 3
              : other.result != USER_THREAD_NO_RIGHTS ? 4
              : root.result != USER_THREAD_NO_RIGHTS  ? 5
                                                      : 0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* What hangs is given up in time; until it ends its user waits, and nobody else. */
static void hang(void *arg) {
    int fd = *(int *)arg;
    char byte;
    while (read(fd, &byte, 1) < 0)
        ;
}
static void run_hanging(void *arg) {
    int *ends = arg;
    uid_t uid = geteuid();
    gid_t gid = getegid();
    struct arena *own = arena_new();
    int *fd = ARENA_NEW(own, int);
    *fd = ends[0];
    assert_int_equal(user_thread_run(own, uid, gid, deadline_in_us(1000), hang, fd), USER_THREAD_TIMED_OUT);
    struct call c = { .uid = uid, .gid = gid };
    run_look(&c);
    assert_int_equal(c.result, USER_THREAD_STUCK);
    if (uid == 0) {
        struct call other = { .uid = OTHER, .gid = OTHER };
        run_look(&other);
        assert_int_equal(other.result, USER_THREAD_DONE);
    }
    assert_int_equal(write(ends[1], "", 1), 1);
    for (c.result = USER_THREAD_STUCK; c.result == USER_THREAD_STUCK; wait_until(deadline_in_us(1000)))
        run_look(&c);
    assert_int_equal(c.result, USER_THREAD_DONE);
}
static void test_hangs(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    in_loop(run_hanging, ends);
    close(ends[0]);
    close(ends[1]);
}

static int start(void **state) {
    (void)state;
    return mkdtemp(dir) && chmod(dir, 0777) == 0 ? 0 : -1; /* NOLINT: for whoever */
}
static int end(void **state) {
    (void)state;
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_side_by_side),
        cmocka_unit_test(test_without_root),
        cmocka_unit_test(test_hangs),
    };
    return cmocka_run_group_tests(tests, start, end);
}
