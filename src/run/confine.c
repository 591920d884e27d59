#include "run/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* --- Landlock (Linux Documentation/userspace-api/landlock.rst): raw system calls, the C library has none. The numbers
 * are here because a build host's header may know fewer rights than the kernel we run on. --- */
enum {
    LL_EXECUTE = 1 << 0,
    LL_WRITE_FILE = 1 << 1,
    LL_READ_FILE = 1 << 2,
    LL_READ_DIR = 1 << 3,
    LL_REMOVE_DIR = 1 << 4,
    LL_REMOVE_FILE = 1 << 5,
    LL_MAKE_CHAR = 1 << 6,
    LL_MAKE_DIR = 1 << 7,
    LL_MAKE_REG = 1 << 8,
    LL_MAKE_SOCK = 1 << 9,
    LL_MAKE_FIFO = 1 << 10,
    LL_MAKE_BLOCK = 1 << 11,
    LL_MAKE_SYM = 1 << 12,
    LL_REFER = 1 << 13,    /* ABI 2 */
    LL_TRUNCATE = 1 << 14, /* ABI 3 */
    LL_WRITING = LL_WRITE_FILE | LL_REMOVE_DIR | LL_REMOVE_FILE | LL_MAKE_CHAR | LL_MAKE_DIR | LL_MAKE_REG |
                 LL_MAKE_SOCK | LL_MAKE_FIFO | LL_MAKE_BLOCK | LL_MAKE_SYM | LL_REFER | LL_TRUNCATE,
    LL_NET_BIND_TCP = 1 << 0, /* ABI 4 */
    LL_NET_CONNECT_TCP = 1 << 1,
    LL_SCOPE_ABSTRACT_UNIX = 1 << 0, /* ABI 6 */
    LL_SCOPE_SIGNAL = 1 << 1,
    LL_RULE_PATH_BENEATH = 1,
    LL_CREATE_RULESET_VERSION = 1,
};
struct ll_ruleset {
    uint64_t fs, net, scoped;
};
struct ll_path_beneath {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

/* A ruleset for `c`, or -1: the kernel has none. Made before chroot, while the directories still have their names. */
static error landlock_rules(const struct confine *c, int *ret_fd) {
    *ret_fd = -1;
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LL_CREATE_RULESET_VERSION);
    if (abi < 1)
        return NULL;
    struct ll_ruleset rules = { 0 };
    uint64_t writing = LL_WRITING;
    if (abi < 2)
        writing &= ~(uint64_t)LL_REFER;
    /* Who only reads has no call that truncates by name: the filter sees to it (O_TRUNC, too). With this right in the
     * ruleset each open() for reading would be followed up to the root. */
    if (abi < 3 || c->flags & CONFINE_READ_FILES)
        writing &= ~(uint64_t)LL_TRUNCATE;
    rules.fs = LL_EXECUTE;
    bool by_path = c->flags & CONFINE_WRITE_FILES;
    bool anywhere = by_path && !c->writable;
    if (anywhere && abi < 2)
        return NULL; /* every ruleset of that age forbids rename(2) and link(2) between directories: Maildir needs them
                      */
    rules.fs |= anywhere ? LL_REFER : writing;
    if (c->flags & CONFINE_NO_FILES)
        rules.fs |= LL_READ_FILE | LL_READ_DIR;
    if (abi >= 4 && (c->flags & CONFINE_NO_NETWORK))
        rules.net = LL_NET_BIND_TCP | LL_NET_CONNECT_TCP;
    if (abi >= 6)
        rules.scoped = LL_SCOPE_ABSTRACT_UNIX | LL_SCOPE_SIGNAL;
    size_t size = abi >= 6 ? sizeof rules : abi >= 4 ? offsetof(struct ll_ruleset, scoped) : sizeof rules.fs;
    long fd = syscall(SYS_landlock_create_ruleset, &rules, size, 0);
    if (fd < 0)
        return err_errno(errno);
    /* LL_REFER is refused where no rule grants it, even by a ruleset that does not name it */
    static const char *const root[] = { "/", NULL };
    uint64_t allowed = anywhere ? LL_REFER : writing;
    for (const char *const *dir = anywhere ? root : c->writable; by_path && *dir; dir++) {
        struct ll_path_beneath rule = { .allowed = allowed, .parent_fd = open(*dir, O_PATH | O_CLOEXEC) };
        int why = errno;
        long failed = rule.parent_fd < 0 ? -1 : syscall(SYS_landlock_add_rule, fd, LL_RULE_PATH_BENEATH, &rule, 0);
        if (rule.parent_fd >= 0) {
            why = errno;
            close(rule.parent_fd);
        }
        if (failed) {
            close((int)fd);
            return err_errno(why);
        }
    }
    *ret_fd = (int)fd;
    return NULL;
}

/* --- seccomp --- */
#define CALL(name) SCMP_SYS(name)

/* What any of our daemons does all day: descriptors it already has, memory, time, its own threads and signals. */
static const int calls_always[] = {
    CALL(read),
    CALL(readv),
    CALL(pread64),
    CALL(preadv),
    CALL(preadv2),
    CALL(write),
    CALL(writev),
    CALL(pwrite64),
    CALL(pwritev),
    CALL(pwritev2),
    CALL(recvfrom),
    CALL(recvmsg),
    CALL(recvmmsg),
    CALL(sendto),
    CALL(sendmsg),
    CALL(sendmmsg),
    CALL(sendfile),
    CALL(splice),
    CALL(copy_file_range),
    CALL(close),
    CALL(close_range),
    CALL(shutdown),
    CALL(lseek),
    CALL(fstat),
    CALL(fstatfs),
    CALL(fsync),
    CALL(fdatasync),
    CALL(syncfs),
    CALL(sync_file_range),
    CALL(ftruncate),
    CALL(fallocate),
    CALL(fadvise64),
    CALL(flock),
    CALL(fcntl),
    CALL(dup),
    CALL(dup2),
    CALL(dup3),
    CALL(pipe),
    CALL(pipe2),
    CALL(socketpair),
    CALL(accept),
    CALL(accept4),
    CALL(listen),
    CALL(getsockname),
    CALL(getpeername),
    CALL(getsockopt),
    CALL(setsockopt),
    CALL(epoll_create),
    CALL(epoll_create1),
    CALL(epoll_ctl),
    CALL(epoll_wait),
    CALL(epoll_pwait),
    CALL(epoll_pwait2),
    CALL(poll),
    CALL(ppoll),
    CALL(select),
    CALL(pselect6),
    CALL(eventfd),
    CALL(eventfd2),
    CALL(signalfd),
    CALL(signalfd4),
    CALL(timerfd_create),
    CALL(timerfd_settime),
    CALL(timerfd_gettime),
    CALL(mmap),
    CALL(munmap),
    CALL(mprotect),
    CALL(mremap),
    CALL(madvise),
    CALL(msync),
    CALL(mincore),
    CALL(mlock),
    CALL(munlock),
    CALL(brk),
    CALL(memfd_create),
    CALL(futex),
    CALL(set_robust_list),
    CALL(rseq),
    CALL(membarrier),
    CALL(set_tid_address),
    CALL(sched_yield),
    CALL(sched_getaffinity),
    CALL(gettid),
    CALL(getpid),
    CALL(getppid),
    CALL(getpgrp),
    CALL(getuid),
    CALL(geteuid),
    CALL(getgid),
    CALL(getegid),
    CALL(getresuid),
    CALL(getresgid),
    CALL(getgroups),
    CALL(getrlimit),
    CALL(getrusage),
    CALL(times),
    CALL(uname),
    CALL(sysinfo),
    CALL(umask),
    CALL(clock_gettime),
    CALL(clock_getres),
    CALL(clock_nanosleep),
    CALL(nanosleep),
    CALL(gettimeofday),
    CALL(time),
    CALL(getcpu),
    CALL(getrandom),
    CALL(rt_sigaction),
    CALL(rt_sigprocmask),
    CALL(rt_sigreturn),
    CALL(rt_sigpending),
    CALL(rt_sigtimedwait),
    CALL(sigaltstack),
    CALL(alarm),
    CALL(setitimer),
    CALL(restart_syscall),
    CALL(exit),
    CALL(exit_group),
    CALL(arch_prctl),
};
/* Looking at files by name. */
static const int calls_look[] = {
    CALL(stat),
    CALL(lstat),
    CALL(newfstatat),
    CALL(statx),
    CALL(access),
    CALL(faccessat),
    CALL(faccessat2),
    CALL(readlink),
    CALL(readlinkat),
    CALL(getdents),
    CALL(getdents64),
    CALL(statfs),
    CALL(getcwd),
    CALL(chdir),
    CALL(fchdir),
    CALL(inotify_init),
    CALL(inotify_init1),
    CALL(inotify_add_watch),
    CALL(inotify_rm_watch),
};
/* Changing them. Who owns a file is changed only by daemons that stay root. */
static const int calls_change[] = {
    CALL(open),      CALL(openat),   CALL(creat),    CALL(mkdir),     CALL(mkdirat),   CALL(rmdir),    CALL(unlink),
    CALL(unlinkat),  CALL(rename),   CALL(renameat), CALL(renameat2), CALL(link),      CALL(linkat),   CALL(symlink),
    CALL(symlinkat), CALL(chmod),    CALL(fchmod),   CALL(fchmodat),  CALL(utimensat), CALL(utime),    CALL(utimes),
    CALL(futimesat), CALL(truncate), CALL(chown),    CALL(lchown),    CALL(fchown),    CALL(fchownat),
};
static const int calls_act_as[] = { CALL(setresuid), CALL(setresgid), CALL(setgroups) };
/* What the C library tries on its own account and lives without: these fail with an error and do no harm. Paths: the
 * time zone, locales, /proc/sys/vm/overcommit_memory, nsswitch. Sockets: nscd, netlink for getaddrinfo(). */
enum { PROBED_ERRNO = EACCES };
static const int calls_probed[] = {
    CALL(open),
    CALL(openat),
    CALL(stat),
    CALL(lstat),
    CALL(newfstatat),
    CALL(statx),
    CALL(access),
    CALL(faccessat),
    CALL(faccessat2),
    CALL(readlink),
    CALL(readlinkat),
    CALL(getcwd),
    CALL(statfs),
    CALL(socket),
    CALL(connect),
    CALL(bind),
    CALL(ioctl),
    CALL(prctl),
    CALL(prlimit64),
    CALL(clone),
    CALL(tgkill),
    CALL(sched_setaffinity),
    CALL(sched_getparam),
    CALL(sched_getscheduler),
    CALL(sched_setscheduler),
    CALL(getpriority),
    CALL(setpriority),
    CALL(fchmod),
    CALL(fchown),
    CALL(getsid),
    CALL(getpgid),
};
/* The same, where the library looks at the error and takes another way. */
static const int calls_missing[] = {
    CALL(clone3), CALL(openat2), CALL(io_uring_setup), CALL(get_mempolicy), CALL(mbind), CALL(inotify_init1),
};

/* Two filters, because the kernel takes the sternest answer of all and one filter cannot both refuse a call for some
 * arguments and end the process for an unknown call: `refuse` answers with an error unless a rule allows the call with
 * these arguments, `kill` ends the process unless the call is known at all. */
struct filters {
    scmp_filter_ctx refuse, kill;
    int failed; /* the first failure, negative errno */
};

/* A call the architecture does not have is not an error: it cannot be made either. */
static void rule(struct filters *f, scmp_filter_ctx ctx, uint32_t action, int call, unsigned count,
                 const struct scmp_arg_cmp *args) {
    int result = seccomp_rule_add_array(ctx, action, call, count, args);
    if (result < 0 && result != -EEXIST && result != -EDOM && result != -EINVAL && !f->failed)
        f->failed = result;
}
static void allow_with(struct filters *f, int call, unsigned count, const struct scmp_arg_cmp *args) {
    rule(f, f->refuse, SCMP_ACT_ALLOW, call, count, args);
    rule(f, f->kill, SCMP_ACT_ALLOW, call, 0, NULL);
}
static void allow(struct filters *f, int call) {
    allow_with(f, call, 0, NULL);
}
static void allow_all(struct filters *f, const int *calls, size_t n) {
    for (size_t i = 0; i < n; i++)
        allow(f, calls[i]);
}
#define COUNT(list) (sizeof(list) / sizeof *(list))
#define ALLOW_ALL(f, list) allow_all((f), (list), COUNT(list))
#define MASKED(arg, mask, value)                                                                                       \
    { (arg), SCMP_CMP_MASKED_EQ, (mask), (value) }
#define EQUAL(arg, value)                                                                                              \
    { (arg), SCMP_CMP_EQ, (scmp_datum_t)(value), 0 }

static void allow_sockets(struct filters *f, unsigned flags) {
    /* Which unix socket connect() goes to cannot be seen by a filter, so without files there are none to be had. */
    if (!(flags & CONFINE_NO_FILES)) {
        const struct scmp_arg_cmp local[] = { EQUAL(0, AF_UNIX) };
        allow_with(f, CALL(socket), 1, local);
    }
    if (!(flags & CONFINE_NO_NETWORK)) {
        const int families[] = { AF_INET, AF_INET6 }, types[] = { SOCK_STREAM, SOCK_DGRAM };
        for (int i = 0; i < 4; i++) {
            const struct scmp_arg_cmp inet[] = { EQUAL(0, families[i & 1]),
                                                 MASKED(1, 0xf, (scmp_datum_t)types[i >> 1]) };
            allow_with(f, CALL(socket), 2, inet);
        }
    }
    if (!(flags & CONFINE_NO_FILES) || !(flags & CONFINE_NO_NETWORK)) {
        allow(f, CALL(connect));
        allow(f, CALL(bind));
    }
}

static void allow_files(struct filters *f, unsigned flags) {
    if (flags & CONFINE_NO_FILES) {
        /* fstat() of new C libraries */
        const struct scmp_arg_cmp by_fd[] = { MASKED(3, AT_EMPTY_PATH, AT_EMPTY_PATH) };
        allow_with(f, CALL(newfstatat), 1, by_fd);
        return;
    }
    ALLOW_ALL(f, calls_look);
    if (flags & CONFINE_WRITE_FILES) {
        ALLOW_ALL(f, calls_change);
        return;
    }
    const scmp_datum_t writing = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    const struct scmp_arg_cmp open_read[] = { MASKED(1, writing, O_RDONLY) };
    const struct scmp_arg_cmp openat_read[] = { MASKED(2, writing, O_RDONLY) };
    allow_with(f, CALL(open), 1, open_read);
    allow_with(f, CALL(openat), 1, openat_read);
}

static void allow_processes(struct filters *f, unsigned flags) {
    if (flags & CONFINE_ACT_AS)
        ALLOW_ALL(f, calls_act_as);
    const struct scmp_arg_cmp thread[] = { MASKED(0, CLONE_THREAD, CLONE_THREAD) };
    allow_with(f, CALL(clone), 1, thread);
    /* read the limits, set none */
    const struct scmp_arg_cmp reading[] = { EQUAL(2, 0) };
    allow_with(f, CALL(prlimit64), 1, reading);
    const int harmless[] = { PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE };
    for (size_t i = 0; i < COUNT(harmless); i++) {
        const struct scmp_arg_cmp option[] = { EQUAL(0, harmless[i]) };
        allow_with(f, CALL(prctl), 1, option);
    }
    /* abort() and raise(): signals to ourselves */
    const struct scmp_arg_cmp self[] = { EQUAL(0, getpid()) };
    allow_with(f, CALL(tgkill), 1, self);
}

static error seccomp_confine(const struct confine *c, bool *ret) {
    struct filters f = { .refuse = seccomp_init(SCMP_ACT_ERRNO(PROBED_ERRNO)),
                         .kill = seccomp_init(SCMP_ACT_KILL_PROCESS) };
    if (!f.refuse || !f.kill) { /* the kernel or the library cannot */
        seccomp_release(f.refuse);
        seccomp_release(f.kill);
        return NULL;
    }
    ALLOW_ALL(&f, calls_always);
    allow_files(&f, c->flags);
    allow_sockets(&f, c->flags);
    allow_processes(&f, c->flags);
    /* our own priority, which without privileges can only be lowered (offload_low()) */
    const struct scmp_arg_cmp own_priority[] = { EQUAL(0, PRIO_PROCESS), EQUAL(1, 0) };
    allow_with(&f, CALL(getpriority), 2, own_priority);
    allow_with(&f, CALL(setpriority), 2, own_priority);
    /* FIONREAD, FIONBIO, SIOCOUTQ */
    const scmp_datum_t requests[] = { 0x541B, 0x5421, 0x5411 };
    for (size_t i = 0; i < COUNT(requests); i++) {
        const struct scmp_arg_cmp request[] = { EQUAL(1, requests[i]) };
        allow_with(&f, CALL(ioctl), 1, request);
    }
    for (size_t i = 0; i < COUNT(calls_probed); i++)
        rule(&f, f.kill, SCMP_ACT_ALLOW, calls_probed[i], 0, NULL);
    for (size_t i = 0; i < COUNT(calls_missing); i++) {
        if (calls_missing[i] == CALL(inotify_init1) && !(c->flags & CONFINE_NO_FILES))
            continue;
        rule(&f, f.kill, SCMP_ACT_ALLOW, calls_missing[i], 0, NULL);
        rule(&f, f.refuse, SCMP_ACT_ERRNO(ENOSYS), calls_missing[i], 0, NULL);
    }
    /* The second filter is loaded under the first; a further filter can only take away. */
    rule(&f, f.refuse, SCMP_ACT_ALLOW, CALL(seccomp), 0, NULL);
    seccomp_attr_set(f.kill, SCMP_FLTATR_CTL_NNP, 0);
    /* a binary tree instead of a list (libseccomp 2.5); without it only slower */
    seccomp_attr_set(f.refuse, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    seccomp_attr_set(f.kill, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    int result = f.failed ? f.failed : seccomp_load(f.refuse);
    bool none = result == -ENOSYS || result == -EINVAL || result == -ECANCELED; /* a kernel without seccomp */
    if (result == 0)
        result = seccomp_load(f.kill);
    seccomp_release(f.refuse);
    seccomp_release(f.kill);
    if (result < 0)
        return none ? NULL : err_errno(-result);
    *ret = true;
    return NULL;
}

/* --- */
error worker_confine(const struct confine *c, struct confined *ret) {
    *ret = (struct confined){ 0 };
    error e;
    bool filtered = !(c->flags & CONFINE_EXEC) && !SANITIZED;
    int rules = -1;
    tzset(); /* reads its file now or never */
    if (filtered && (e = landlock_rules(c, &rules)))
        return e;
    if (c->chroot_dir && geteuid() == 0) {
        if (chroot(c->chroot_dir) < 0 || chdir("/") < 0)
            return err_errno(errno);
        ret->chroot = true;
    }
    if (c->uid != 0 && geteuid() == 0) {
        if ((c->user ? initgroups(c->user, c->gid) : setgroups(1, &c->gid)) < 0 ||
            setresgid(c->gid, c->gid, c->gid) < 0 || setresuid(c->uid, c->uid, c->uid) < 0)
            return err_errno(errno);
        /* The one thing that must not have silently failed. */
        if (geteuid() != c->uid || getegid() != c->gid || setuid(0) == 0)
            return err_errno(EPERM);
        ret->uid = true;
    }
    if (!filtered)
        return NULL;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        ret->no_new_privs = true;
    if (rules >= 0) {
        if (syscall(SYS_landlock_restrict_self, rules, 0) < 0) {
            e = err_errno(errno);
            close(rules);
            return e;
        }
        close(rules);
        ret->landlock = true;
    }
    return seccomp_confine(c, &ret->seccomp);
}
