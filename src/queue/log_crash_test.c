/* What a crash leaves of the log. A run of writer and reader is recorded, file call by file call; then the queue
 * directory is built again as it may be had the machine stopped after each of them, and read by a new reader.
 *
 * - kill: every call up to there has happened (kill -9: the kernel keeps what it was given).
 * - power: what was synced is there. Of all else each 512-byte sector of a write, each mode and, file by file in their
 *   order, each name may have reached the disk or not: none of it, all of it, or a choice made by chance.
 *
 * And the same run with each single file call failing, one after the other.
 *
 * The invariant: a message whose commit returned NULL is there, whole, with every recipient that was not served; what
 * is there is a message somebody wrote; a recipient who was served comes again only where log.h says so: with kill,
 * when his mark was not written yet; with power, when it was not synced yet; one who bounced has his record.
 *
 * ANGARIUM_CRASH_CHOICES: how many choices by chance for each place (default 3); ANGARIUM_CRASH_SEED: which. */
#include "queue/spool_test_util.h"

#include "queue/log.h"
#include "test/fake_sys.h"
#include <errno.h>
#include <pthread.h>
#include <sys/file.h>

enum {
    OPS_MAX = 8000,
    FILES_MAX = 512,
    PATH_ROOM = 64,
    FDS = 1024,
    MESSAGES_MAX = 200,
    RCPTS_MAX = 3,
    SECTOR = 512,
    CHOICES = 3,
};

enum op_kind {
    OP_CREATE,
    OP_WRITE,
    OP_CHMOD,
    OP_RENAME,
    OP_UNLINK,
    OP_MKDIR,
    OP_SYNC_FILE,
    OP_SYNC_DIR,
    OP_SYNC_ALL,
    /* notes of the test itself: `message`, and `at` for a recipient */
    OP_ACKED,
    OP_SERVED,
    OP_SERVED_FILE, /* the same, of a message in a file of its own */
    OP_BOUNCED,
    OP_FLUSHED, /* all marks made so far have been written */
};
struct op {
    enum op_kind kind;
    int file; /* number of the file, for those on descriptors */
    char path[PATH_ROOM], to[PATH_ROOM];
    uint64_t at;
    char *data;
    size_t n;
    mode_t mode;
    int message;
};

static struct op ops[OPS_MAX];
static size_t op_count;
static int fd_file[FDS]; /* descriptor -> file number + 1; -1: a directory, whose path is in fd_path */
static char fd_path[FDS][PATH_ROOM];
static int file_count;
static ino_t file_inode[FILES_MAX];
static size_t calls, fail_at;
static int fail_errno;
static bool cut_short;         /* the call that fails is a write that stores half of it */
static bool then_fails;        /* and the next write fails */
static bool is_write[OPS_MAX]; /* of the latest run */
static bool sync_failed;
static bool recording;
static struct sys under; /* what is below the recorder: fake clocks, real files */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* --- the recorder: calls come from the loop and from its threads --- */

static _Thread_local bool looking; /* the test itself: it changes nothing, and does not fail */

static bool is_turn(bool writes) {
    pthread_mutex_lock(&lock);
    bool counts = recording && !looking && calls + 1 < OPS_MAX;
    bool yes = counts && ++calls == fail_at;
    if (counts)
        is_write[calls] = writes;
    pthread_mutex_unlock(&lock);
    return yes;
}

static bool fails(void) {
    bool yes = is_turn(false) && !cut_short;
    if (yes)
        errno = fail_errno;
    return yes;
}
static bool sync_fails(void) {
    bool yes = fails();
    sync_failed = sync_failed || yes;
    return yes;
}

/* With the lock held. */
static struct op *add(enum op_kind kind) {
    if (op_count == OPS_MAX)
        fail_msg("too many calls");
    struct op *o = &ops[op_count++];
    *o = (struct op){ .kind = kind, .file = -1, .message = -1 };
    return o;
}

static void note(enum op_kind kind, int message, uint64_t at) {
    pthread_mutex_lock(&lock);
    struct op *o = add(kind);
    o->message = message;
    o->at = at;
    pthread_mutex_unlock(&lock);
}

static int rec_openat(int dirfd, const char *path, int flags, mode_t mode) {
    if (fails())
        return -1;
    struct stat st;
    pthread_mutex_lock(&lock);
    bool is_new = (flags & O_CREAT) && fstatat(dirfd, path, &st, 0) < 0;
    int fd = openat(dirfd, path, flags, mode);
    if (fd >= 0 && fd < FDS && fstat(fd, &st) == 0) {
        fd_file[fd] = -1;
        if (S_ISDIR(st.st_mode)) {
            snprintf(fd_path[fd], PATH_ROOM, "%s", dirfd == AT_FDCWD ? "" : path);
        } else {
            int file = 0;
            while (file < file_count && file_inode[file] != st.st_ino)
                file++;
            if (is_new && file < file_count) { /* of a file that has gone */
                file_inode[file] = 0;
                file = file_count;
            }
            if (file == file_count) {
                if (file_count == FILES_MAX)
                    fail_msg("too many files");
                file_inode[file_count++] = st.st_ino;
            }
            fd_file[fd] = file + 1;
            if (is_new) {
                struct op *o = add(OP_CREATE);
                o->file = file;
                o->mode = mode;
                snprintf(o->path, sizeof o->path, "%s", path);
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return fd;
}
static ssize_t rec_pwrite(int fd, const void *p, size_t n, off_t at) {
    bool mine = is_turn(true);
    pthread_mutex_lock(&lock);
    if (mine ? !cut_short : then_fails) {
        then_fails = false;
        pthread_mutex_unlock(&lock);
        errno = fail_errno;
        return -1;
    }
    if (mine) {
        n = (n + 1) / 2;
        then_fails = fail_errno != 0;
    }
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
    pthread_mutex_unlock(&lock);
    return done;
}
static ssize_t rec_pread(int fd, void *p, size_t n, off_t at) {
    return fails() ? -1 : pread(fd, p, n, at);
}
static int rec_fsync(int fd) {
    if (sync_fails())
        return -1;
    pthread_mutex_lock(&lock);
    struct op *o = add(fd_file[fd] < 0 ? OP_SYNC_DIR : OP_SYNC_FILE);
    if (fd_file[fd] < 0)
        snprintf(o->path, sizeof o->path, "%s", fd_path[fd]);
    else
        o->file = fd_file[fd] - 1;
    pthread_mutex_unlock(&lock);
    return 0; /* the test has no use for the disk */
}
static int rec_syncfs(int fd) {
    (void)fd;
    if (sync_fails())
        return -1;
    pthread_mutex_lock(&lock);
    add(OP_SYNC_ALL);
    pthread_mutex_unlock(&lock);
    return 0;
}
static int rec_fchmod(int fd, mode_t mode) {
    if (fails())
        return -1;
    pthread_mutex_lock(&lock);
    struct op *o = add(OP_CHMOD);
    o->file = fd_file[fd] - 1;
    o->mode = mode;
    pthread_mutex_unlock(&lock);
    return fchmod(fd, mode);
}
static int rec_fstatat(int dirfd, const char *path, struct stat *st, int flags) {
    return fails() ? -1 : fstatat(dirfd, path, st, flags);
}
static int rec_renameat(int from_dirfd, const char *from, int to_dirfd, const char *to) {
    if (fails())
        return -1;
    pthread_mutex_lock(&lock);
    int rc = renameat(from_dirfd, from, to_dirfd, to);
    if (rc == 0) {
        struct op *o = add(OP_RENAME);
        snprintf(o->path, sizeof o->path, "%s", from);
        snprintf(o->to, sizeof o->to, "%s", to);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}
static int rec_unlinkat(int dirfd, const char *path, int flags) {
    if (fails())
        return -1;
    pthread_mutex_lock(&lock);
    int rc = unlinkat(dirfd, path, flags);
    if (rc == 0)
        snprintf(add(OP_UNLINK)->path, PATH_ROOM, "%s", path);
    pthread_mutex_unlock(&lock);
    return rc;
}
static int rec_mkdirat(int dirfd, const char *path, mode_t mode) {
    if (fails())
        return -1;
    pthread_mutex_lock(&lock);
    int rc = mkdirat(dirfd, path, mode);
    if (rc == 0)
        snprintf(add(OP_MKDIR)->path, PATH_ROOM, "%s", path);
    pthread_mutex_unlock(&lock);
    return rc;
}
static int rec_utimensat(int dirfd, const char *path, const struct timespec times[2], int flags) {
    return fails() ? -1 : utimensat(dirfd, path, times, flags);
}
static int rec_flock(int fd, int operation) {
    return fails() ? -1 : flock(fd, operation);
}

static struct sys recorder(void) {
    fake_sys_install();
    under = *sys;
    struct sys r = under;
    r.openat = rec_openat;
    r.close = close;
    r.pwrite = rec_pwrite;
    r.pread = rec_pread;
    r.fsync = r.fdatasync = rec_fsync;
    r.syncfs = rec_syncfs;
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
    then_fails = sync_failed = false;
    file_count = 0;
    memset(fd_file, 0, sizeof fd_file);
}

/* --- the run --- */

struct message {
    struct queue_id id;
    size_t size, rcpts;
    enum spool_state state;
    bool named, acked, refused;
    int file; /* the segment that has its record; -1: none */
    char segment[PATH_ROOM];
};
static struct message messages[MESSAGES_MAX];
static int message_count;

static struct {
    struct test_queue *q;
    struct spool *w, *r;
    struct group sessions;
    bool heard;
} world;

static int message_of(const struct queue_id *id) {
    for (int i = 0; i < message_count; i++)
        if (messages[i].named && memcmp(&messages[i].id, id, sizeof *id) == 0)
            return i;
    return -1;
}

static int file_at(const char *path) {
    struct stat st;
    char full[256];
    snprintf(full, sizeof full, "%s/%s", world.q->dir, path);
    if (stat(full, &st) < 0)
        return -1;
    for (int i = 0; i < file_count; i++)
        if (file_inode[i] == st.st_ino)
            return i;
    return -1;
}

/* The segment that has the message just committed. */
static void find_segment(struct message *m) {
    looking = true; /* and not sys_real for a while: threads are writing */
    struct arena *a = arena_new();
    struct spool *s = NULL;
    struct spool_options o = { .queue_directory = str_c(world.q->dir), .access = SPOOL_LISTER };
    if (!spool_open(&o, a, &s)) {
        struct log_walk *w = log_walk_new(s);
        struct log_walk_entry found;
        char name[LOG_NAME_MAX];
        if (log_walk_find(w, &m->id, &found)) {
            log_name("", found.segment, name);
            m->file = file_at(name);
            snprintf(m->segment, sizeof m->segment, "%s", name);
        }
        log_walk_free(w);
        spool_close(s);
    }
    arena_free(a);
    looking = false;
}

struct order {
    size_t size, rcpts, count;
    enum spool_state state;
};

static void send_one(const struct order *o) {
    assert_true(message_count < MESSAGES_MAX);
    int i = message_count++;
    struct message *m = &messages[i];
    *m = (struct message){ .size = o->size, .rcpts = o->rcpts, .state = o->state, .file = -1 };
    struct arena *a = arena_new();
    error e = test_message(world.w, a, o->size, o->rcpts, o->state, &m->id);
    m->named = m->id.text[0] != 0;
    if (!e) {
        m->acked = true;
        note(OP_ACKED, i, 0);
        find_segment(m);
    } else {
        m->refused = true;
    }
    arena_free(a);
}

static void session(void *arg) {
    const struct order *o = arg;
    for (size_t i = 0; i < o->count; i++)
        send_one(o);
    group_leave(&world.sessions);
}

/* All at once, as smtpd's sessions do. */
static void send_all(struct order *orders, size_t n) {
    for (size_t i = 0; i < n; i++) {
        group_enter(&world.sessions);
        assert_non_null(coro_spawn(session, &orders[i], "session"));
    }
    group_wait(&world.sessions, DEADLINE_NEVER);
}

static void heard(void *ctx, const struct spool_news *news) {
    (void)ctx;
    if (news->position.segment)
        spool_log_committed(world.r, news->position);
}

static void run_log(void *arg) {
    (void)arg;
    spool_log_run(world.r);
    group_leave(&world.sessions);
}

static void flush(void) {
    spool_log_flush(world.r);
    note(OP_FLUSHED, -1, 0);
}

/* As qmgr does it, more or less: whatever fails, the message is left for a later try. */
static void deliver(const struct queue_id *id, enum spool_state state) {
    int i = message_of(id);
    if (i < 0)
        fail_msg("%s was never sent", id->text);
    struct message *m = &messages[i];
    struct arena *a = arena_new();
    struct envelope e;
    struct spool_content c = { .fd = -1 };
    if (!spool_load(world.r, id, state, a, &e, &c)) {
        size_t todo = 0;
        for (size_t k = 0; k < e.rcpt_count; k++) {
            if (e.rcpts[k].state == RCPT_DONE)
                continue;
            if (i % 4 == 1 && k == 1 && state != SPOOL_DEFERRED) { /* this one is told to wait */
                test_reason(world.r, id, state, k, STR("busy"), i % 8 == 1);
                todo++;
            } else if (i % 4 == 1 && k == 2) { /* this one is refused */
                struct spool_failure f = test_failure(k, STR("no such user"));
                if (!spool_log_add(world.r, id, SPOOL_LOG_BOUNCE, &f) &&
                    !spool_log_sync(world.r, id, SPOOL_LOG_BOUNCE)) {
                    note(OP_BOUNCED, i, k);
                    spool_mark_done(world.r, id, state, k);
                } else {
                    todo++;
                }
            } else {
                note(OP_SERVED, i, k);
                spool_mark_done(world.r, id, state, k);
            }
        }
        spool_content_close(&c);
        if (todo) {
            if (state == SPOOL_ACTIVE && i % 8 == 1) { /* by the thread */
                spool_defer(world.r, id, 1900000000000000);
            } else {
                spool_set_next_try(world.r, id, state, 1900000000000000);
                spool_move(world.r, id, state, SPOOL_DEFERRED);
            }
        } else if (m->rcpts < 3 || i % 4 != 1) { /* the notices of others are still to be sent */
            spool_remove(world.r, id, state);
        }
    }
    arena_free(a);
}

static size_t deliver_new(size_t most) {
    struct spool_entry e;
    size_t n = 0;
    while (n < most && spool_log_next(world.r, &e)) {
        deliver(&e.id, SPOOL_ACTIVE);
        n++;
    }
    return n;
}

static void deliver_files(enum spool_state from) {
    struct spool_scan scan = { .files_only = true };
    struct spool_entry e;
    struct queue_id found[MESSAGES_MAX];
    size_t n = 0;
    while (n < MESSAGES_MAX && spool_scan_next(world.r, &scan, from, &e))
        found[n++] = e.id;
    for (size_t i = 0; i < n; i++) {
        if (spool_move(world.r, &found[i], from, SPOOL_ACTIVE))
            continue;
        int m = message_of(&found[i]);
        if (m < 0)
            fail_msg("%s was never sent", found[i].text);
        struct arena *a = arena_new();
        struct envelope env;
        if (!spool_load(world.r, &found[i], SPOOL_ACTIVE, a, &env, NULL)) {
            for (size_t k = 0; k < env.rcpt_count; k++)
                if (env.rcpts[k].state != RCPT_DONE) {
                    note(OP_SERVED_FILE, m, k);
                    spool_mark_done(world.r, &found[i], SPOOL_ACTIVE, k);
                }
            if (messages[m].rcpts < 3)
                spool_remove(world.r, &found[i], SPOOL_ACTIVE);
        }
        arena_free(a);
    }
}

/* What each of its calls may do to it; no time goes by. */
static void short_story(void *arg) {
    (void)arg;
    static struct order small[] = { { 100, 1, 2, SPOOL_INCOMING },
                                    { 700, 3, 2, SPOOL_INCOMING },
                                    { 50, 1, 1, SPOOL_HOLD } };
    static struct order big[] = { { 130000, 1, 4, SPOOL_INCOMING }, { 130000, 2, 5, SPOOL_INCOMING } };
    static struct order file[] = { { SEGMENT_CONTENT_MAX + 1000, 2, 1, SPOOL_INCOMING } };
    send_all(small, sizeof small / sizeof small[0]);
    deliver_new(SIZE_MAX);
    flush();
    send_all(big, sizeof big / sizeof big[0]);
    send_all(file, 1);
    deliver_files(SPOOL_INCOMING);
    deliver_new(3);
    spool_settle(world.r);
    deliver_files(SPOOL_DEFERRED);
    send_all(small, 1);
    flush();
}

static bool a_segment_is_free(void) {
    char path[128];
    snprintf(path, sizeof path, "%s/log", world.q->dir);
    DIR *d = opendir(path);
    bool found = false;
    for (struct dirent *e; d && (e = readdir(d));)
        found = found || strncmp(e->d_name, "free.", 5) == 0;
    if (d)
        closedir(d);
    return found;
}

/* The clock is not real, the threads that sync are: as long as it takes, in bounds. */
static void wait_for_a_free_segment(void) {
    for (int i = 0; i < 200 && !a_segment_is_free(); i++)
        wait_until(deadline_in(1));
}

static struct coro *run_reader(void) {
    group_enter(&world.sessions);
    struct coro *log = coro_spawn(run_log, NULL, "log");
    assert_non_null(log);
    world.sessions.running--; /* it is not one of those that are waited for */
    return log;
}

static void end_reader(struct coro *log) {
    world.sessions.running++;
    coro_cancel(log);
    group_wait(&world.sessions, DEADLINE_NEVER);
}

/* A segment is filled, sealed, used up, given back and filled again, all within the second between two syncs of marks:
 * only those of the writer and the one of giving back are left to keep the marks. */
static void sealed_and_used_again(void *arg) {
    (void)arg;
    static struct order big[] = { { 130000, 1, 4, SPOOL_INCOMING }, { 120000, 1, 5, SPOOL_INCOMING } };
    static struct order small[] = { { 100, 1, 1, SPOOL_INCOMING } };
    struct coro *log = run_reader();
    wait_until(deadline_in_us(1));
    send_all(big, sizeof big / sizeof big[0]); /* over the end */
    deliver_new(SIZE_MAX);
    flush();
    for (int i = 0; i < 20 && !a_segment_is_free(); i++) {
        send_all(small, 1); /* of which the reader hears */
        deliver_new(SIZE_MAX);
        wait_until(deadline_in_us(1));
    }
    send_all(big, sizeof big / sizeof big[0]); /* over the end of the second, into the first */
    deliver_new(6);
    flush();
    end_reader(log);
}

static void story(void *arg) {
    (void)arg;
    static struct order small[] = {
        { 100, 1, 2, SPOOL_INCOMING }, { 700, 2, 2, SPOOL_INCOMING }, { 3000, 3, 3, SPOOL_INCOMING },
        { 50, 1, 1, SPOOL_HOLD },      { 0, 1, 1, SPOOL_INCOMING },
    };
    static struct order big[] = { { 120000, 2, 4, SPOOL_INCOMING },
                                  { 90000, 1, 4, SPOOL_INCOMING },
                                  { 130000, 3, 3, SPOOL_INCOMING } };
    static struct order file[] = { { SEGMENT_CONTENT_MAX + 1000, 2, 1, SPOOL_INCOMING } };
    struct coro *log = run_reader();

    send_all(small, sizeof small / sizeof small[0]);
    deliver_new(4);
    flush();
    send_all(small, 3);
    deliver_new(3);
    coro_yield();
    send_all(big, sizeof big / sizeof big[0]); /* over the end of the segment */
    deliver_new(SIZE_MAX);
    flush();
    send_all(file, 1);
    deliver_files(SPOOL_INCOMING);
    wait_until(deadline_in(2)); /* the first segment is sealed and used up, but for what was deferred */
    spool_settle(world.r);
    deliver_files(SPOOL_DEFERRED);
    send_all(small, 2);
    deliver_new(SIZE_MAX);
    wait_until(deadline_in(15)); /* what is held becomes a file, */
    wait_for_a_free_segment();   /* and the segment is free */
    send_all(big, 2);            /* over the end of this one, into the one that was used before */
    deliver_new(SIZE_MAX);
    wait_until(deadline_in(3));
    send_all(small, sizeof small / sizeof small[0]);
    deliver_new(2);
    flush();
    end_reader(log);
}

static void run(struct test_queue *q, void (*what)(void *arg)) {
    world = (typeof(world)){ .q = q };
    message_count = 0;
    struct spool_options o = { .queue_directory = str_c(q->dir), .access = SPOOL_WRITER, .log = true };
    o.segment_size = SEGMENT_SIZE_MIN;
    if (spool_open(&o, q->arena, &world.w))
        return;
    o.access = SPOOL_READER;
    if (!spool_open(&o, q->arena, &world.r)) {
        spool_on_news(world.w, heard, NULL);
        if (spool_take_over(world.r)) {
            assert_null(loop_init());
            assert_non_null(coro_spawn(what, NULL, "story"));
            assert_null(loop_run());
            loop_free();
        }
        spool_close(world.r);
    }
    spool_close(world.w);
}

/* --- the disk as a model: what is there, and of that what is on stable storage --- */

enum { PENDING_MAX = 600, NAMES_MAX = 16 };

struct name_change {
    char name[PATH_ROOM]; /* empty: gone */
    size_t op;
};
struct model_file {
    bool used;
    char *data, *synced;
    size_t size, synced_size, room;
    mode_t mode, synced_mode;
    size_t writes[PENDING_MAX]; /* since the last sync */
    size_t write_count;
    struct name_change names[NAMES_MAX]; /* [0] is on stable storage, the last is now */
    size_t name_count;
};
static struct model_file model[FILES_MAX];

static void model_free(void) {
    for (int i = 0; i < FILES_MAX; i++) {
        free(model[i].data);
        free(model[i].synced);
        model[i] = (struct model_file){ 0 };
    }
}

static const char *name_now(const struct model_file *f) {
    return f->used ? f->names[f->name_count - 1].name : "";
}

static void rename_to(struct model_file *f, const char *name, size_t op) {
    if (f->name_count == NAMES_MAX)
        fail_msg("too many names");
    snprintf(f->names[f->name_count].name, PATH_ROOM, "%s", name);
    f->names[f->name_count++].op = op;
}

static struct model_file *model_at(const char *name) {
    for (int i = 0; i < file_count; i++)
        if (*name && strcmp(name_now(&model[i]), name) == 0)
            return &model[i];
    return NULL;
}

static bool is_in(const char *name, const char *dir) {
    size_t n = strlen(dir);
    return strncmp(name, dir, n) == 0 && name[n] == '/' && !strchr(name + n + 1, '/');
}

/* `dir` NULL: all names. */
static void names_synced(struct model_file *f, const char *dir) {
    size_t last = 0;
    for (size_t i = 1; i < f->name_count; i++)
        if (!dir || is_in(f->names[i].name, dir) || is_in(f->names[i - 1].name, dir))
            last = i;
    memmove(f->names, f->names + last, (f->name_count - last) * sizeof f->names[0]);
    f->name_count -= last;
}

static void data_synced(struct model_file *f) {
    f->synced = realloc(f->synced, f->size ? f->size : 1);
    assert_non_null(f->synced);
    if (f->size)
        memcpy(f->synced, f->data, f->size);
    f->synced_size = f->size;
    f->synced_mode = f->mode;
    f->write_count = 0;
}

static void grow(struct model_file *f, size_t end) {
    if (end <= f->size)
        return;
    if (end > f->room) {
        f->room = end * 2;
        f->data = realloc(f->data, f->room);
        assert_non_null(f->data);
    }
    memset(f->data + f->size, 0, end - f->size);
    f->size = end;
}

static void apply(size_t at) {
    const struct op *o = &ops[at];
    struct model_file *f = o->file >= 0 ? &model[o->file] : NULL;
    switch (o->kind) {
    case OP_CREATE:
        f->used = true;
        f->mode = f->synced_mode = o->mode;
        f->name_count = 1; /* not there */
        rename_to(f, o->path, at);
        break;
    case OP_WRITE:
        grow(f, (size_t)o->at + o->n);
        memcpy(f->data + o->at, o->data, o->n);
        if (f->write_count == PENDING_MAX)
            fail_msg("too many writes without a sync");
        f->writes[f->write_count++] = at;
        break;
    case OP_CHMOD:
        f->mode = o->mode;
        break;
    case OP_SYNC_FILE:
        data_synced(f);
        break;
    case OP_RENAME:
        if ((f = model_at(o->to)))
            rename_to(f, "", at);
        if ((f = model_at(o->path)))
            rename_to(f, o->to, at);
        break;
    case OP_UNLINK:
        if ((f = model_at(o->path)))
            rename_to(f, "", at);
        break;
    case OP_SYNC_DIR:
    case OP_SYNC_ALL:
        for (int i = 0; i < file_count; i++) {
            if (!model[i].used)
                continue;
            names_synced(&model[i], o->kind == OP_SYNC_ALL ? NULL : o->path);
            if (o->kind == OP_SYNC_ALL)
                data_synced(&model[i]);
        }
        break;
    default:
        break;
    }
}

/* --- the queue after a stop --- */

enum stop {
    STOP_KILL,
    STOP_KILL_IN_WRITE, /* half of the last write was done */
    STOP_NOTHING,       /* power: only what was synced */
    STOP_DATA,          /* and all data, but names as synced */
    STOP_NAMES,         /* and all names, but data as synced */
    STOP_NO_FRONTS,     /* of each write all but its first sector; names as synced */
    STOP_NO_FRONTS_NOW, /* the same with all names */
    STOP_FRONTS,        /* of each write only its first sector; all names */
    STOP_CHANCE,        /* and up */
};

static uint64_t chance;
static unsigned random_below(unsigned n) {
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (unsigned)(chance >> 11) % n;
}

static const struct name_change *name_after(const struct model_file *f, unsigned stop) {
    if (stop <= STOP_KILL_IN_WRITE || stop == STOP_NAMES || stop == STOP_NO_FRONTS_NOW || stop == STOP_FRONTS)
        return &f->names[f->name_count - 1];
    if (stop < STOP_CHANCE)
        return &f->names[0];
    return &f->names[random_below((unsigned)f->name_count)];
}

/* The bytes of a file after the stop, in `b`. */
static void data_after(const struct model_file *f, unsigned stop, size_t last_op, struct buf *b) {
    buf_clear(b);
    if (stop == STOP_KILL || stop == STOP_DATA || stop == STOP_KILL_IN_WRITE)
        buf_add(b, str_n(f->data ? f->data : "", f->size));
    else
        buf_add(b, str_n(f->synced ? f->synced : "", f->synced_size));
    if (stop == STOP_KILL_IN_WRITE && f->write_count > 0 && f->writes[f->write_count - 1] == last_op) {
        const struct op *o = &ops[last_op];
        memset(b->p + o->at + o->n / 2, 0, o->n - o->n / 2);
    }
    if (stop < STOP_NO_FRONTS)
        return;
    unsigned of_8 = random_below(3) * 3 + 1; /* 1, 4 or 7 sectors of 8 */
    bool whole_writes = random_below(3) == 0;
    for (size_t i = 0; i < f->write_count; i++) {
        const struct op *o = &ops[f->writes[i]];
        bool kept = random_below(8) < of_8;
        for (uint64_t at = o->at; at < o->at + o->n;) {
            uint64_t end = (at / SECTOR + 1) * SECTOR;
            if (end > o->at + o->n)
                end = o->at + o->n;
            bool front = at == o->at, take = whole_writes ? kept : random_below(8) < of_8;
            if (stop < STOP_CHANCE)
                take = (stop == STOP_FRONTS) == front;
            if (take) {
                if (end > b->n) {
                    memset(buf_reserve(b, end - b->n), 0, end - b->n);
                    b->n = end;
                }
                memcpy(b->p + at, o->data + (at - o->at), end - at);
            }
            at = end;
        }
    }
}

static void build_file(const char *dir, const char *name, mode_t mode, const struct buf *b) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, mode);
    if (fd < 0)
        fail_msg("%s: %s", path, strerror(errno));
    size_t used = b->n;
    while (used > 0 && b->p[used - 1] == 0)
        used--;
    assert_int_equal(pwrite(fd, b->p ? b->p : "", used, 0), (ssize_t)used);
    assert_int_equal(ftruncate(fd, (off_t)b->n), 0);
    close(fd);
}

static void build(const char *dir, size_t upto, unsigned stop) {
    static struct buf b;
    char path[256];
    for (size_t i = 0; i < upto; i++) {
        if (ops[i].kind != OP_MKDIR)
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, ops[i].path);
        mkdir(path, 0700);
    }
    const struct name_change *names[FILES_MAX];
    for (int i = 0; i < file_count; i++)
        names[i] = model[i].used ? name_after(&model[i], stop) : NULL;
    for (int i = 0; i < file_count; i++) {
        bool replaced = !names[i] || !*names[i]->name;
        for (int k = 0; k < file_count && !replaced; k++) /* two of one name: the later change wins */
            replaced = k != i && names[k] && strcmp(names[k]->name, names[i]->name) == 0 && names[k]->op > names[i]->op;
        if (replaced)
            continue;
        const struct model_file *f = &model[i];
        data_after(f, stop, upto - 1, &b);
        bool new_mode = stop <= STOP_KILL_IN_WRITE || stop == STOP_DATA || (stop >= STOP_CHANCE && random_below(2));
        build_file(dir, names[i]->name, new_mode ? f->mode : f->synced_mode, &b);
    }
    buf_free(&b);
}

/* --- what has to be there --- */

struct fate {
    bool acked, found;
    unsigned served, bounced; /* bits of recipients */
    unsigned kept;            /* of those: whose marks must be there after this kind of stop */
    unsigned todo;
};
static struct fate fates[MESSAGES_MAX];

static bool gives_back(const struct op *o) {
    return o->kind == OP_RENAME && strncmp(o->to, "log/free.", 9) == 0;
}

/* What had been said and done up to there. */
static void tell_fates(size_t upto, bool power) {
    memset(fates, 0, sizeof fates);
    static unsigned flushed[MESSAGES_MAX];
    static unsigned in_log[MESSAGES_MAX]; /* whose marks are in the segment */
    memset(flushed, 0, sizeof flushed);
    memset(in_log, 0, sizeof in_log);
    for (size_t i = 0; i < upto; i++) {
        const struct op *o = &ops[i];
        if (o->kind == OP_ACKED)
            fates[o->message].acked = true;
        if (o->kind == OP_SERVED || o->kind == OP_SERVED_FILE)
            fates[o->message].served |= 1U << o->at;
        if (o->kind == OP_SERVED)
            in_log[o->message] |= 1U << o->at;
        if (o->kind == OP_BOUNCED)
            fates[o->message].bounced |= 1U << o->at;
        if (o->kind == OP_FLUSHED)
            for (int m = 0; m < message_count; m++)
                flushed[m] = fates[m].served;
        if (o->kind == OP_SYNC_FILE)
            for (int m = 0; m < message_count; m++)
                if (messages[m].file == o->file)
                    fates[m].kept = flushed[m] & in_log[m];
        if (gives_back(o)) /* a segment is free: nothing comes again */
            for (int m = 0; m < message_count; m++)
                if (strcmp(messages[m].segment, o->path) == 0)
                    fates[m].kept = fates[m].served & in_log[m];
    }
    for (int m = 0; m < message_count; m++)
        if (!power)
            fates[m].kept = flushed[m];
}

/* The content of a message of that size. */
static const char *expected(size_t size) {
    static char *all;
    static size_t made;
    if (made < size + 1) {
        all = realloc(all, size + 1);
        assert_non_null(all);
        for (size_t i = made = 0; i <= size; i++)
            all[i] = test_content(i, SIZE_MAX);
        made = size + 1;
    }
    static char *one;
    one = realloc(one, size + 1);
    assert_non_null(one);
    memcpy(one, all, size);
    if (size > 0)
        one[size - 1] = test_content(size - 1, size);
    return one;
}

static void found_one(struct spool *r, struct arena *a, const struct queue_id *id, enum spool_state state,
                      const char *what) {
    int i = message_of(id);
    if (i < 0)
        fail_msg("%s: %s is in the queue, and nobody wrote it", what, id->text);
    const struct message *m = &messages[i];
    struct fate *f = &fates[i];
    struct envelope e;
    struct spool_content c = { .fd = -1 };
    error bad = spool_load(r, id, state, a, &e, &c);
    if (bad) {
        if (f->acked || bad->kind != ERR_SYNTAX)
            fail_msg("%s: accepted message %s: %.*s", what, id->text, STR_ARG(bad->text));
        return;
    }
    if (f->found)
        fail_msg("%s: %s is there twice", what, id->text);
    f->found = true;
    if (m->refused)
        fail_msg("%s: %s was refused and is there", what, id->text);
    if (e.rcpt_count != m->rcpts || c.size != m->size)
        fail_msg("%s: %s has changed", what, id->text);
    char *own = NULL;
    const char *p = c.bytes.p;
    if (c.fd >= 0) {
        p = own = malloc(m->size + 1);
        assert_non_null(own);
        assert_int_equal(pread(c.fd, own, m->size, (off_t)c.offset), (ssize_t)m->size);
    }
    if (memcmp(p, expected(m->size), m->size) != 0)
        fail_msg("%s: the content of %s has changed", what, id->text);
    free(own);
    spool_content_close(&c);
    struct spool_failure *failures;
    size_t count;
    assert_null(spool_log_read(r, id, SPOOL_LOG_BOUNCE, a, &failures, &count));
    for (size_t k = 0; k < e.rcpt_count; k++) {
        if (e.rcpts[k].state != RCPT_DONE)
            f->todo |= 1U << k;
        else if (!((f->served | f->bounced) >> k & 1))
            fail_msg("%s: recipient %zu of %s is marked and was not served", what, k, id->text);
        else if ((f->bounced >> k & 1) && (count == 0 || failures[0].rcpt_index != k))
            fail_msg("%s: recipient %zu of %s bounced without a record", what, k, id->text);
    }
}

static struct spool *reader_of(const char *dir, struct arena *a) {
    struct spool *r = NULL;
    struct spool_options o = { .queue_directory = str_c(dir), .access = SPOOL_READER };
    assert_null(spool_open(&o, a, &r));
    assert_true(spool_take_over(r));
    return r;
}

static void find_all(const char *dir, const char *what) {
    struct arena *a = arena_new();
    struct spool *r = reader_of(dir, a);
    struct spool_entry e;
    while (spool_log_next(r, &e))
        found_one(r, a, &e.id, SPOOL_ACTIVE, what);
    for (enum spool_state st = 0; st < SPOOL_CORRUPT; st++) {
        struct spool_scan scan = { .files_only = true };
        while (spool_scan_next(r, &scan, st, &e))
            found_one(r, a, &e.id, st, what);
    }
    for (int i = 0; i < message_count; i++) {
        enum spool_state st;
        if (messages[i].named && !fates[i].found && messages[i].state == SPOOL_HOLD &&
            spool_find(r, &messages[i].id, &st) && st == SPOOL_HOLD)
            found_one(r, a, &messages[i].id, SPOOL_HOLD, what);
    }
    spool_close(r);
    arena_free(a);
}

/* `marks`: those that were written must be there. */
static void check(const char *dir, size_t upto, bool power, bool marks, const char *what) {
    tell_fates(upto, power);
    find_all(dir, what);
    for (int i = 0; i < message_count; i++) {
        const struct message *m = &messages[i];
        const struct fate *f = &fates[i];
        unsigned all = (1U << m->rcpts) - 1;
        if (f->acked && ((f->todo | f->served | f->bounced) & all) != all)
            fail_msg("%s: accepted message %s is lost for recipients %x", what, m->id.text,
                     all & ~(f->todo | f->served | f->bounced));
        if (f->bounced && !f->found)
            fail_msg("%s: %s bounced and nobody was told", what, m->id.text);
        if (marks && (f->todo & f->kept))
            fail_msg("%s: recipients %x of %s are served again", what, f->todo & f->kept, m->id.text);
    }
}

/* The start after the crash was itself ended by kill -9: nothing has changed. Then mail comes in again. */
static void check_again(const char *dir, const char *what) {
    static struct fate before[MESSAGES_MAX];
    memcpy(before, fates, sizeof before);
    for (int i = 0; i < message_count; i++)
        fates[i] = (struct fate){ .served = before[i].served, .bounced = before[i].bounced, .acked = before[i].acked };
    find_all(dir, what);
    for (int i = 0; i < message_count; i++)
        if (fates[i].todo != before[i].todo)
            fail_msg("%s: recipients of %s: %x at the first start, %x at the second", what, messages[i].id.text,
                     before[i].todo, fates[i].todo);
    struct arena *a = arena_new();
    struct spool *w = NULL;
    struct spool_options o = { .queue_directory = str_c(dir), .access = SPOOL_WRITER, .log = true };
    o.segment_size = SEGMENT_SIZE_MIN;
    fake_sys_install(); /* the clock is set back: all times of the run come again */
    assert_null(spool_open(&o, a, &w));
    assert_true(message_count < MESSAGES_MAX);
    struct message *m = &messages[message_count];
    *m = (struct message){ .size = 60, .rcpts = 1, .file = -1 };
    assert_null(test_message(w, a, m->size, m->rcpts, SPOOL_INCOMING, &m->id));
    spool_close(w);
    fake_sys_remove();
    arena_free(a);
    int other = message_of(&m->id);
    if (other >= 0 && (before[other].acked || before[other].found))
        fail_msg("%s: the id %s is given again", what, m->id.text);
    if (other >= 0) /* nothing of that one has ever been written */
        messages[other].named = false;
    m->named = true;
    memset(fates, 0, sizeof fates);
    for (int i = 0; i < message_count; i++)
        fates[i] = (struct fate){ .served = before[i].served, .bounced = before[i].bounced, .acked = before[i].acked };
    fates[message_count].acked = true;
    message_count++;
    find_all(dir, what);
    message_count--;
    m->named = false;
    if (other >= 0)
        messages[other].named = true;
    for (int i = 0; i < message_count; i++)
        if (fates[i].todo != before[i].todo)
            fail_msg("%s: %s is lost when new mail comes", what, messages[i].id.text);
    if (!fates[message_count].found)
        fail_msg("%s: a new message is lost", what);
}

static unsigned env_number(const char *name, unsigned otherwise) {
    const char *v = getenv(name);
    uint32_t n;
    return v && str_to_u32(str_c(v), 1000000, &n) ? n : otherwise;
}

/* Where files are made by the ten thousand: in memory, if there is such a place. */
static struct test_queue queue_in_memory(void) {
    struct test_queue q = { .dir = "/dev/shm/angarium-crash.XXXXXX", .arena = arena_new() };
    if (mkdtemp(q.dir))
        return q;
    arena_free(q.arena);
    return test_queue_new();
}

static void record(struct test_queue *q, void (*what)(void *arg)) {
    struct sys rec = recorder();
    forget_ops();
    sys = &rec;
    recording = true;
    run(q, what);
    recording = false;
    fake_sys_remove();
}

/* Does this call make no difference to what such a stop leaves, or to what has to be there? */
static bool same_as_before(const struct op *o, unsigned stop) {
    bool sync = o->kind == OP_SYNC_FILE || o->kind == OP_SYNC_DIR || o->kind == OP_SYNC_ALL;
    if (stop == STOP_KILL)
        return sync;
    if (stop == STOP_KILL_IN_WRITE)
        return o->kind != OP_WRITE;
    if (stop == STOP_NOTHING)
        return !sync && o->kind != OP_ACKED;
    return false;
}

static void every_stop_of(void (*what_happens)(void *arg)) {
    struct test_queue q = queue_in_memory();
    unsigned choices = env_number("ANGARIUM_CRASH_CHOICES", CHOICES), seed = env_number("ANGARIUM_CRASH_SEED", 1);
    fail_at = 0;
    record(&q, what_happens);
    size_t acked = 0, segments = 0, again = 0, stops = 0;
    for (int i = 0; i < message_count; i++)
        acked += messages[i].acked;
    for (size_t i = 0; i < op_count; i++) {
        segments += ops[i].kind == OP_RENAME && strncmp(ops[i].path, "log/new.", 8) == 0;
        again += ops[i].kind == OP_RENAME && strncmp(ops[i].path, "log/free.", 9) == 0;
    }
    assert_int_equal(acked, message_count);
    assert_true(segments >= 3 && again >= 1);
    for (size_t upto = 0; upto <= op_count; upto++) {
        if (upto > 0)
            apply(upto - 1);
        if (upto > 0 && ops[upto - 1].kind >= OP_ACKED && ops[upto - 1].kind != OP_ACKED)
            continue; /* nothing has changed on the disk */
        for (unsigned stop = 0; stop < STOP_CHANCE + choices; stop++) {
            if (upto > 0 && same_as_before(&ops[upto - 1], stop))
                continue;
            chance = ((uint64_t)seed << 40) + ((uint64_t)upto << 16) + stop + 1;
            struct test_queue after = queue_in_memory();
            char what[96];
            snprintf(what, sizeof what, "stop %u after %zu of %zu calls, seed %u", stop, upto, op_count, seed);
            build(after.dir, upto, stop);
            check(after.dir, upto, stop > STOP_KILL_IN_WRITE, true, what);
            if ((upto + stop) % 4 == 0)
                check_again(after.dir, what);
            test_queue_free(&after);
            stops++;
        }
    }
    print_message("%zu messages, %zu calls, %zu stops\n", acked, op_count, stops);
    model_free();
    forget_ops();
    test_queue_free(&q);
}

static void every_stop(void **state) {
    (void)state;
    every_stop_of(story);
}

static void every_stop_of_a_segment_used_again(void **state) {
    (void)state;
    every_stop_of(sealed_and_used_again);
}

/* After a run with a failure the power fails, at its end and whenever a segment was given back: only what was synced is
 * there. */
static void power_fails_too(bool marks, const char *what) {
    char also[128];
    for (size_t i = 0; i < op_count; i++) {
        apply(i);
        if (i + 1 < op_count && !gives_back(&ops[i]))
            continue;
        snprintf(also, sizeof also, "%s, then the power after %zu", what, i + 1);
        struct test_queue after = queue_in_memory();
        build(after.dir, i + 1, STOP_NOTHING);
        check(after.dir, i + 1, true, marks, also);
        test_queue_free(&after);
    }
    model_free();
}

/* `share`: each call fails with every how manieth of the errors, unless more was asked for. */
static void each_call_of(void (*what_happens)(void *arg), unsigned share) {
    /* the last two are of writes: half of it is stored, and that is all, or the next one fails */
    static const int errors[] = { EIO, ENOSPC, EMFILE, ENOMEM, 0, ENOSPC };
    enum { SHORT = 4 };
    bool all = env_number("ANGARIUM_CRASH_CHOICES", CHOICES) > CHOICES;
    static bool writes[OPS_MAX];
    size_t total = 0, most_refused = 0; /* calls of a run without a failure, counted first */
    for (size_t at = 0; at <= total; at++) {
        for (size_t kind = 0; kind < (at ? sizeof errors / sizeof errors[0] : 1); kind++) {
            if (kind < SHORT ? at > 0 && !all && kind % share != at % share : !writes[at])
                continue;
            struct test_queue q = queue_in_memory();
            size_t descriptors = test_open_files();
            fail_at = at;
            fail_errno = errors[kind];
            cut_short = kind >= SHORT;
            record(&q, what_happens);
            if (at == 0) {
                total = calls;
                memcpy(writes, is_write, sizeof writes);
            }
            char what[64];
            snprintf(what, sizeof what, "call %zu fails with %d%s", at, errors[kind], cut_short ? ", half done" : "");
            check(q.dir, op_count, false, at == 0, what);
            if (all || at == 0 || sync_failed || cut_short)
                power_fails_too(at == 0 || sync_failed, what); /* of writes, marks were perhaps not written */
            size_t refused = 0;
            for (int i = 0; i < message_count; i++)
                refused += messages[i].refused;
            if (refused > most_refused)
                most_refused = refused;
            if (refused > 3) /* the sessions that shared a batch, not all that come after */
                fail_msg("%s: %zu of %d messages are refused", what, refused, message_count);
            if (message_count > 0 && messages[message_count - 1].refused && at < total / 2)
                fail_msg("%s: and mail is still refused much later", what);
            if (test_open_files() != descriptors)
                fail_msg("%s: a descriptor leaks", what);
            forget_ops();
            test_queue_free(&q);
        }
    }
    cut_short = false;
    print_message("%zu calls\n", total);
    assert_true(total > 100 && total < OPS_MAX && most_refused > 1);
}

static void each_call_fails_once(void **state) {
    (void)state;
    each_call_of(short_story, 2);
}

static void each_call_fails_when_a_segment_is_used_again(void **state) {
    (void)state;
    each_call_of(sealed_and_used_again, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stop),
        cmocka_unit_test(every_stop_of_a_segment_used_again),
        cmocka_unit_test(each_call_fails_once),
        cmocka_unit_test(each_call_fails_when_a_segment_is_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
