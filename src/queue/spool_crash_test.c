/* What a crash leaves. A run of the spool is recorded, file call by file call; then the queue directory is built again
 * as it would be had the machine stopped after each of them, and read as a new start would read it.
 *
 * - kill: every call up to there has happened (kill -9: the kernel keeps what it was given).
 * - power: names, modes and sizes as far as the last sync before it (a journal keeps them in order); of file data, what
 *   that file's own last sync covered, the rest zero, or missing; and again with the marks written early.
 *
 * And: the same run with each single call failing, one after the other.
 *
 * The invariant: a message whose commit returned NULL is in the queue, whole, until spool_remove() was called for it;
 * what is in the queue is a message somebody committed; a recipient marked done because it bounced has its record. */
#include "queue/spool_test_util.h"

#include <errno.h>

enum { OPS_MAX = 2000, FILES_MAX = 64, PATH_ROOM = 64, IDS_MAX = 16 };

enum op_kind {
    OP_CREATE,
    OP_WRITE,
    OP_CHMOD,
    OP_RENAME,
    OP_UNLINK,
    OP_MKDIR,
    OP_SYNC_FILE,
    OP_SYNC_DIR,
    /* notes of the test itself */
    OP_ACKED,
    OP_REMOVING,
    OP_BOUNCING, /* mark of recipient `at` is going to be set, its record is synced */
    OP_MARKING,  /* mark_done of `at` was called */
};
struct op {
    enum op_kind kind;
    int file; /* number of the file, for those on descriptors */
    char path[PATH_ROOM], to[PATH_ROOM];
    uint64_t at;
    char *data;
    size_t n;
    mode_t mode;
    struct queue_id id;
};

static struct op ops[OPS_MAX];
static size_t op_count;
static int fd_file[1024]; /* descriptor -> file number + 1, -1 for a directory */
static int file_count;
static ino_t file_inode[FILES_MAX];
static size_t calls, fail_at;
static int fail_errno;

static bool fails(void) {
    if (++calls != fail_at)
        return false;
    errno = fail_errno;
    return true;
}

static struct op *add(enum op_kind kind) {
    assert_true(op_count < OPS_MAX);
    struct op *o = &ops[op_count++];
    *o = (struct op){ .kind = kind };
    return o;
}

static void note(enum op_kind kind, const struct queue_id *id, uint64_t at) {
    struct op *o = add(kind);
    o->id = *id;
    o->at = at;
}

static int file_number(int fd) {
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    if (S_ISDIR(st.st_mode))
        return -1;
    for (int i = 0; i < file_count; i++)
        if (file_inode[i] == st.st_ino)
            return i;
    assert_true(file_count < FILES_MAX);
    file_inode[file_count] = st.st_ino;
    return file_count++;
}

static int rec_openat(int dirfd, const char *path, int flags, mode_t mode) {
    if (fails())
        return -1;
    struct stat st;
    bool is_new = (flags & O_CREAT) && fstatat(dirfd, path, &st, 0) < 0;
    int fd = openat(dirfd, path, flags, mode);
    if (fd >= 0 && fd < 1024 && dirfd != AT_FDCWD) {
        int file = file_number(fd);
        fd_file[fd] = file < 0 ? -1 : file + 1;
        if (is_new) {
            struct op *o = add(OP_CREATE);
            o->file = file;
            o->mode = mode;
            snprintf(o->path, sizeof o->path, "%s", path);
        }
    }
    return fd;
}
static int rec_close(int fd) {
    /* the last name may be gone, and the inode used again by the next file */
    struct stat st;
    if (fd_file[fd] > 0 && fstat(fd, &st) == 0 && st.st_nlink == 0)
        file_inode[fd_file[fd] - 1] = 0;
    fd_file[fd] = 0;
    return close(fd);
}
static ssize_t rec_pwrite(int fd, const void *p, size_t n, off_t at) {
    if (fails())
        return -1;
    ssize_t done = pwrite(fd, p, n, at);
    if (done > 0) {
        struct op *o = add(OP_WRITE);
        o->file = fd_file[fd] - 1;
        o->at = (uint64_t)at;
        o->n = (size_t)done;
        o->data = malloc(o->n);
        assert_non_null(o->data);
        memcpy(o->data, p, o->n);
    }
    return done;
}
static ssize_t rec_pread(int fd, void *p, size_t n, off_t at) {
    return fails() ? -1 : pread(fd, p, n, at);
}
static int rec_fsync(int fd) {
    if (fails())
        return -1;
    struct op *o = add(fd_file[fd] < 0 ? OP_SYNC_DIR : OP_SYNC_FILE);
    o->file = fd_file[fd] - 1;
    return 0; /* the test has no use for the disk */
}
static int rec_fchmod(int fd, mode_t mode) {
    if (fails())
        return -1;
    struct op *o = add(OP_CHMOD);
    o->file = fd_file[fd] - 1;
    o->mode = mode;
    return fchmod(fd, mode);
}
static int rec_fstatat(int dirfd, const char *path, struct stat *st, int flags) {
    return fails() ? -1 : fstatat(dirfd, path, st, flags);
}
static int rec_renameat(int from_dirfd, const char *from, int to_dirfd, const char *to) {
    if (fails())
        return -1;
    int rc = renameat(from_dirfd, from, to_dirfd, to);
    if (rc == 0) {
        struct op *o = add(OP_RENAME);
        snprintf(o->path, sizeof o->path, "%s", from);
        snprintf(o->to, sizeof o->to, "%s", to);
    }
    return rc;
}
static int rec_unlinkat(int dirfd, const char *path, int flags) {
    if (fails())
        return -1;
    int rc = unlinkat(dirfd, path, flags);
    if (rc == 0)
        snprintf(add(OP_UNLINK)->path, PATH_ROOM, "%s", path);
    return rc;
}
static int rec_mkdirat(int dirfd, const char *path, mode_t mode) {
    if (fails())
        return -1;
    int rc = mkdirat(dirfd, path, mode);
    if (rc == 0)
        snprintf(add(OP_MKDIR)->path, PATH_ROOM, "%s", path);
    return rc;
}
static int rec_utimensat(int dirfd, const char *path, const struct timespec times[2], int flags) {
    return fails() ? -1 : utimensat(dirfd, path, times, flags);
}
static int rec_flock(int fd, int operation) {
    (void)fd;
    (void)operation;
    return fails() ? -1 : 0;
}

static struct sys recorder(void) {
    struct sys r = sys_real;
    r.openat = rec_openat;
    r.close = rec_close;
    r.pwrite = rec_pwrite;
    r.pread = rec_pread;
    r.fsync = r.fdatasync = rec_fsync;
    r.fchmod = rec_fchmod;
    r.fstatat = rec_fstatat;
    r.renameat = rec_renameat;
    r.unlinkat = rec_unlinkat;
    r.mkdirat = rec_mkdirat;
    r.utimensat = rec_utimensat;
    r.flock = rec_flock;
    return r;
}

static void forget_ops(void) {
    for (size_t i = 0; i < op_count; i++)
        free(ops[i].data);
    op_count = calls = 0;
    file_count = 0;
    memset(fd_file, 0, sizeof fd_file);
}

/* --- the run --- */

enum { SMALL = 100, LARGE = 150000 };

static bool put(struct spool *w, struct arena *a, size_t size, size_t rcpts, enum spool_state st, struct queue_id *id) {
    memset(id, 0, sizeof *id);
    if (test_message(w, a, size, rcpts, st, id))
        return false;
    note(OP_ACKED, id, size);
    return true;
}

static void take_away(struct spool *r, const struct queue_id *id, enum spool_state state) {
    note(OP_REMOVING, id, 0);
    spool_remove(r, id, state);
}

/* As qmgr does it: whatever fails, the message is left for a later try. */
static void run(struct test_queue *q) {
    struct spool *w = NULL, *r = NULL;
    struct spool_options o = { .queue_directory = str_c(q->dir), .access = SPOOL_WRITER };
    struct queue_id a, b, c, d;
    if (spool_open(&o, q->arena, &w))
        return;
    o.access = SPOOL_READER;
    if (spool_open(&o, q->arena, &r)) {
        spool_close(w);
        return;
    }
    bool got_a = put(w, q->arena, SMALL, 3, SPOOL_INCOMING, &a);
    struct spool_new *m;
    if (!spool_create(w, &m)) {
        spool_write(m, STR("never finished\n"));
        spool_abort(m);
    }
    bool got_b = put(w, q->arena, LARGE, 1, SPOOL_INCOMING, &b);
    put(w, q->arena, SMALL, 1, SPOOL_HOLD, &c);
    bool got_d = put(w, q->arena, SMALL, 2, SPOOL_INCOMING, &d);
    if (got_b && !spool_move(r, &b, SPOOL_INCOMING, SPOOL_ACTIVE))
        take_away(r, &b, SPOOL_ACTIVE);
    if (got_a && !spool_move(r, &a, SPOOL_INCOMING, SPOOL_ACTIVE)) {
        test_reason(r, &a, SPOOL_ACTIVE, 0, STR("busy"), false);
        note(OP_MARKING, &a, 1);
        spool_mark_done(r, &a, SPOOL_ACTIVE, 1);
        spool_set_next_try(r, &a, SPOOL_ACTIVE, 1790000000000000);
        spool_move(r, &a, SPOOL_ACTIVE, SPOOL_DEFERRED);
    }
    if (got_d && !spool_move(r, &d, SPOOL_INCOMING, SPOOL_ACTIVE)) {
        struct spool_failure f = test_failure(1, STR("no such user"));
        if (!spool_log_add(r, &d, SPOOL_LOG_BOUNCE, &f) && !spool_log_sync(r, &d, SPOOL_LOG_BOUNCE)) {
            note(OP_BOUNCING, &d, 1);
            spool_mark_done(r, &d, SPOOL_ACTIVE, 1);
        }
        spool_move(r, &d, SPOOL_ACTIVE, SPOOL_DEFERRED);
    }
    spool_close(w);
    spool_close(r);
}

/* --- the queue after a stop --- */

struct model_file {
    bool exists;
    char path[PATH_ROOM];
    mode_t mode;
    char *data, *synced;
    size_t size, synced_size;
};
static struct model_file files[FILES_MAX];
static int files_by_number[FILES_MAX]; /* file numbers are used again with inodes: the latest CREATE */

static void model_write(struct model_file *f, const struct op *o) {
    size_t end = (size_t)o->at + o->n;
    if (end > f->size) {
        f->data = realloc(f->data, end);
        assert_non_null(f->data);
        memset(f->data + f->size, 0, end - f->size);
        f->size = end;
    }
    memcpy(f->data + o->at, o->data, o->n);
}

static struct model_file *model_at(const char *path, int n) {
    for (int i = 0; i < n; i++)
        if (files[i].exists && strcmp(files[i].path, path) == 0)
            return &files[i];
    return NULL;
}

enum stop { STOP_KILL, STOP_POWER_ZEROS, STOP_POWER_EMPTY, STOP_POWER_MARKS /* single bytes did get there */, STOPS };

/* Builds in `dir` what is there when the run stopped after `upto` calls. */
static void rebuild(const char *dir, size_t upto, enum stop stop) {
    size_t names = upto; /* up to where names, modes and sizes have reached the disk */
    if (stop != STOP_KILL) {
        while (names > 0 && ops[names - 1].kind != OP_SYNC_FILE && ops[names - 1].kind != OP_SYNC_DIR)
            names--;
    }
    int n = 0;
    char path[256];
    memset(files, 0, sizeof files);
    for (size_t i = 0; i < upto; i++) {
        const struct op *o = &ops[i];
        if (i >= names && !(stop == STOP_POWER_MARKS && o->kind == OP_WRITE && o->n == 1))
            continue;
        struct model_file *f = o->file >= 0 && o->file < FILES_MAX ? &files[files_by_number[o->file]] : NULL;
        switch (o->kind) {
        case OP_CREATE:
            assert_true(n < FILES_MAX);
            files_by_number[o->file] = n;
            f = &files[n++];
            f->exists = true;
            f->mode = o->mode;
            snprintf(f->path, sizeof f->path, "%s", o->path);
            break;
        case OP_WRITE:
            model_write(f, o);
            if (stop == STOP_POWER_MARKS && o->n == 1 && o->at < f->synced_size)
                f->synced[o->at] = o->data[0];
            break;
        case OP_CHMOD:
            f->mode = o->mode;
            break;
        case OP_SYNC_FILE:
            free(f->synced);
            f->synced = malloc(f->size ? f->size : 1);
            assert_non_null(f->synced);
            if (f->size)
                memcpy(f->synced, f->data, f->size);
            f->synced_size = f->size;
            break;
        case OP_RENAME:
            if ((f = model_at(o->path, n)))
                snprintf(f->path, sizeof f->path, "%s", o->to);
            break;
        case OP_UNLINK:
            if ((f = model_at(o->path, n)))
                f->exists = false;
            break;
        case OP_MKDIR:
            snprintf(path, sizeof path, "%s/%s", dir, o->path);
            mkdir(path, 0700);
            break;
        default:
            break;
        }
    }
    for (int i = 0; i < n; i++) {
        struct model_file *f = &files[i];
        if (f->exists) {
            if (stop != STOP_KILL) {
                size_t size = stop == STOP_POWER_EMPTY ? f->synced_size : f->size;
                char *data = calloc(1, size ? size : 1);
                assert_non_null(data);
                if (f->synced)
                    memcpy(data, f->synced, f->synced_size < size ? f->synced_size : size);
                free(f->data);
                f->data = data;
                f->size = size;
            }
            snprintf(path, sizeof path, "%s/%s", dir, f->path);
            int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, f->mode);
            assert_true(fd >= 0);
            assert_int_equal(pwrite(fd, f->data ? f->data : "", f->size, 0), (ssize_t)f->size);
            close(fd);
        }
        free(f->data);
        free(f->synced);
    }
}

struct fate {
    struct queue_id id;
    bool removing;
    uint64_t marked, bounced; /* bits of recipients */
    size_t size;
};

static size_t fates(size_t upto, struct fate *ret) {
    size_t n = 0;
    for (size_t i = 0; i < upto; i++) {
        const struct op *o = &ops[i];
        if (o->kind < OP_ACKED)
            continue;
        size_t at = 0;
        while (at < n && strcmp(ret[at].id.text, o->id.text) != 0)
            at++;
        if (at == n) {
            assert_true(n < IDS_MAX);
            ret[n++] = (struct fate){ .id = o->id };
        }
        if (o->kind == OP_ACKED)
            ret[at].size = (size_t)o->at;
        if (o->kind == OP_REMOVING)
            ret[at].removing = true;
        if (o->kind == OP_MARKING || o->kind == OP_BOUNCING)
            ret[at].marked |= UINT64_C(1) << o->at;
        if (o->kind == OP_BOUNCING)
            ret[at].bounced |= UINT64_C(1) << o->at;
    }
    return n;
}

static void check(const char *dir, size_t upto, const char *what) {
    struct fate f[IDS_MAX];
    size_t n = fates(upto, f);
    struct arena *a = arena_new();
    struct spool *r;
    struct spool_options o = { .queue_directory = str_c(dir), .access = SPOOL_READER };
    assert_null(spool_open(&o, a, &r));
    for (size_t i = 0; i < n; i++) {
        struct envelope e;
        enum spool_state st = test_find(r, &f[i].id, a, &e);
        if (st == SPOOL_STATES) {
            if (!f[i].removing)
                fail_msg("%s: accepted message %s is lost", what, f[i].id.text);
            continue;
        }
        assert_int_equal(e.size, f[i].size);
        struct spool_failure *failures;
        size_t count;
        assert_null(spool_log_read(r, &f[i].id, SPOOL_LOG_BOUNCE, a, &failures, &count));
        for (size_t k = 0; k < e.rcpt_count; k++) {
            if (e.rcpts[k].state != RCPT_DONE)
                continue;
            if (!(f[i].marked >> k & 1))
                fail_msg("%s: recipient %zu of %s is marked and was not done", what, k, f[i].id.text);
            if ((f[i].bounced >> k & 1) && (count != 1 || failures[0].rcpt_index != k))
                fail_msg("%s: recipient %zu of %s bounced without a record", what, k, f[i].id.text);
        }
    }
    spool_close(r);
    arena_free(a);
}

static void every_stop(void **state) {
    (void)state;
    struct test_queue q = test_queue_new();
    struct sys rec = recorder();
    forget_ops();
    fail_at = 0;
    sys = &rec;
    run(&q);
    sys = &sys_real;
    size_t acked = 0;
    for (size_t i = 0; i < op_count; i++)
        acked += ops[i].kind == OP_ACKED;
    assert_int_equal(acked, 4);
    for (size_t upto = 0; upto <= op_count; upto++) {
        for (enum stop stop = 0; stop < STOPS; stop++) {
            struct test_queue after = test_queue_new();
            char what[64];
            snprintf(what, sizeof what, "stop %d after %zu of %zu calls", (int)stop, upto, op_count);
            rebuild(after.dir, upto, stop);
            check(after.dir, upto, what);
            test_queue_free(&after);
        }
    }
    forget_ops();
    test_queue_free(&q);
}

static void each_call_fails_once(void **state) {
    (void)state;
    static const int errors[] = { EIO, ENOSPC, EMFILE };
    struct sys rec = recorder();
    size_t total = 0; /* calls of a run without a failure, counted first */
    for (size_t kind = 0; kind < 3; kind++) {
        for (size_t at = 0; at <= total; at++) {
            struct test_queue q = test_queue_new();
            size_t descriptors = test_open_files();
            forget_ops();
            fail_at = at;
            fail_errno = errors[kind];
            sys = &rec;
            run(&q);
            sys = &sys_real;
            if (calls > total)
                total = calls;
            char what[64];
            snprintf(what, sizeof what, "call %zu fails with %d", at, errors[kind]);
            check(q.dir, op_count, what);
            /* nothing is there that was not acknowledged */
            struct fate f[IDS_MAX];
            size_t n = fates(op_count, f);
            struct spool *r = test_spool(&q, SPOOL_READER);
            for (enum spool_state st = 0; st < SPOOL_STATES; st++) {
                struct spool_scan scan = { 0 };
                struct spool_entry e;
                while (spool_scan_next(r, &scan, st, &e)) {
                    size_t i = 0;
                    while (i < n && strcmp(f[i].id.text, e.id.text) != 0)
                        i++;
                    if (i == n)
                        fail_msg("%s: %s is in the queue and was refused", what, e.id.text);
                }
            }
            spool_close(r);
            if (test_open_files() != descriptors)
                fail_msg("%s: a descriptor leaks", what);
            test_queue_free(&q);
        }
    }
    assert_true(total > 50);
    forget_ops();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stop),
        cmocka_unit_test(each_call_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
