/* The file-per-message form of the spool.
 *
 * Where a message can be. Names are below queue_directory; "log" is defer/ID or bounce/ID.
 *
 *   state      where               mode  a crash (kill -9, or power with what was not synced) leaves
 *   ---------  ------------------  ----  --------------------------------------------------------------------------
 *   creating   incoming/tmp.*      0600  an empty file, or nothing. Removed by the READER's scan once it is unlocked
 *                                        and SPOOL_STALE_S old
 *   writing    incoming/ID         0600  part of the content. The client has no answer. Removed in the same way
 *   finished   incoming/ID         0700  everything written, not synced, no answer yet, still locked by the writer, so
 *              or hold/ID                not taken up. After a crash, complete: delivered (the client sends it again:
 *                                        a duplicate). Cut: its checks fail, goes to corrupt/
 *   accepted   the same            0700  the whole message, under its name: file and directory were synced before the
 *                                        250. Found by the scan of incoming when the notice to qmgr was lost
 *   active     active/ID           0700  the message, with the marks that reached the disk. All of active/ is taken up
 *                                        again when qmgr starts
 *   deferred   deferred/H/ID       0700  the message; the time of the next try is the file's modification time. A lost
 *                                        time means an earlier try
 *   held       hold/ID             0700  the message; nothing looks at it
 *   corrupt    corrupt/ID          0700  for the administrator
 *   moving     two of the above    0700  renameat: the message under one of the two names, never under none. With a
 *                                        power failure, perhaps under the old one
 *   done       its mark is D       0700  D, or not yet: one recipient is served twice
 *   reasons    end of the file     0700  why its recipients wait: whole records; a cut one is skipped when reading, the
 *                                        latest may be missing. They are only for mailq
 *   reasons    log in defer/H/     0600  the same, of a message in the log (log.h) whose delivery goes on for long. Not
 *                                        read when there is a file of the message
 *   bounced    log in bounce/      0600  synced before the mark is set, so there is no D without its record: a
 *                                        recipient is tried again, or is in the notice
 *   removing   logs, then file     0700  the logs go first: a message without its logs is tried again (its marks say
 *                                        what is left: mostly nothing), a log without its message could be taken
 *                                        for the log of a later message of the same name
 *   gone       -                         nothing
 *
 * Locks: the READER locks a message to deliver it. The lock belongs to the open file, which delivery agents get with
 * the content, so it outlives a qmgr that dies: its successor does not take up what an agent is still busy with. A
 * writer holds flock() on its file from creation to commit. The kernel drops it when the process dies, so an unlocked
 * file of mode 0600 has no living writer. A file is older than SPOOL_STALE_S before it is judged, because it cannot be
 * created and locked in one step.
 *
 * Names: microseconds and inode number. The inode is in use for as long as the file exists, in whatever directory, so
 * no two messages that began as files have the same name at the same time. Messages whose id was made for the log
 * (large ones become files after that, under the same name) are unique by their time alone (log_ids.c); where the other
 * kind has its inode they have the seconds, so the two meet only if an inode number is the very second of the other's
 * birth. A name that is taken is never run over. */
#include "queue/log.h"

#include "base/die.h"
#include "queue/crc32c.h"
#include "queue/spool_file.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    SPOOL_STALE_S = 60,          /* an unlocked unfinished file younger than this may be just being created */
    SCAN_SKIP_MAX = 64,          /* entries passed over before others get their turn */
    CONTENT_INLINE = 256 * 1024, /* content up to this is checked without a thread */
    CHECK_CHUNK = 256 * 1024,
};

#define DEFAULT_HASH_NAMES STR("deferred, defer")

struct str spool_dir_name(unsigned dir) {
    static const struct str names[SPOOL_DIRS] = {
        [SPOOL_INCOMING] = STR_INIT("incoming"), [SPOOL_ACTIVE] = STR_INIT("active"),
        [SPOOL_DEFERRED] = STR_INIT("deferred"), [SPOOL_HOLD] = STR_INIT("hold"),
        [SPOOL_CORRUPT] = STR_INIT("corrupt"),   [SPOOL_DIR_DEFER] = STR_INIT("defer"),
        [SPOOL_DIR_BOUNCE] = STR_INIT("bounce"), [SPOOL_DIR_TRACE] = STR_INIT("trace"),
    };
    return names[dir];
}

struct str spool_state_name(enum spool_state s) {
    return spool_dir_name(s);
}

struct spool_options spool_options_from(const struct conf *c, enum spool_access access) {
    int64_t depth = conf_int(c, PARAM_hash_queue_depth);
    int64_t min_free = conf_int(c, PARAM_queue_minfree), limit = conf_int(c, PARAM_message_size_limit);
    return (struct spool_options){
        .queue_directory = conf_str(c, PARAM_queue_directory),
        .access = access,
        .log = conf_bool(c, PARAM_queue_log),
        .segment_size = (uint64_t)conf_int(c, PARAM_queue_log_segment_size),
        .long_queue_ids = conf_bool(c, PARAM_enable_long_queue_ids),
        .min_free = min_free > 0 ? (uint64_t)min_free : 0,
        .size_limit = limit > 0 ? (uint64_t)limit : 0,
        .hash_names = conf_str(c, PARAM_hash_queue_names),
        .hash_depth = depth > 0 ? (unsigned)depth : 1,
    };
}

/* --- helpers shared with the other files --- */

void spool_path(const struct spool *s, unsigned dir, const struct queue_id *id, char ret[SPOOL_PATH_MAX]) {
    char hash[QUEUE_ID_HASH_MAX + 1];
    struct str name = spool_dir_name(dir);
    memcpy(ret, name.p, name.n);
    size_t n = name.n;
    ret[n++] = '/';
    if (s->hashed[dir]) {
        queue_id_hash(id, hash);
        for (unsigned i = 0; i < s->hash_depth; i++) {
            ret[n++] = hash[i];
            ret[n++] = '/';
        }
    }
    memcpy(ret + n, id->text, strlen(id->text) + 1);
}

_Static_assert(sizeof "incoming/" + (size_t)(2 * SPOOL_HASH_DEPTH_MAX) + QUEUE_ID_MAX <= SPOOL_PATH_MAX, "fits");

error spool_make_parents(const struct spool *s, const char *path) {
    char part[SPOOL_PATH_MAX];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (sys->mkdirat(s->fd, part, 0700) < 0 && errno != EEXIST)
            return err_errno(errno);
    }
    return NULL;
}

int spool_openat(const struct spool *s, unsigned dir, const struct queue_id *id, int flags, mode_t mode) {
    char path[SPOOL_PATH_MAX];
    spool_path(s, dir, id, path);
    flags |= O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    int fd = sys->openat(s->fd, path, flags, mode);
    if (fd < 0 && errno == ENOENT && (flags & O_CREAT) && !spool_make_parents(s, path))
        fd = sys->openat(s->fd, path, flags, mode);
    return fd;
}

error spool_unlink(const struct spool *s, unsigned dir, const struct queue_id *id) {
    char path[SPOOL_PATH_MAX];
    spool_path(s, dir, id, path);
    return sys->unlinkat(s->fd, path, 0) < 0 && errno != ENOENT ? err_errno(errno) : NULL;
}

void spool_offload(void (*fn)(void *arg), void *arg) {
    if (coro_self())
        offload(fn, arg);
    else
        fn(arg);
}

struct sync_job {
    int fd, error_number;
    int (*call)(int fd);
};

static void sync_run(void *arg) {
    struct sync_job *j = arg;
    j->error_number = j->call(j->fd) < 0 ? errno : 0;
}

error spool_sync(int fd, int (*call)(int fd)) {
    struct sync_job j = { .fd = fd, .call = call };
    spool_offload(sync_run, &j);
    return j.error_number ? err_errno(j.error_number) : NULL;
}

error spool_pwrite_all(int fd, struct str bytes, uint64_t at) {
    while (bytes.n > 0) {
        ssize_t n = sys->pwrite(fd, bytes.p, bytes.n, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(n < 0 ? errno : ENOSPC);
        bytes = str_from(bytes, (size_t)n);
        at += (uint64_t)n;
    }
    return NULL;
}

bool spool_pread_all(int fd, void *p, size_t n, uint64_t at) {
    char *to = p;
    while (n > 0) {
        ssize_t got = sys->pread(fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            if (got == 0)
                errno = EIO;
            return false;
        }
        to += got;
        n -= (size_t)got;
        at += (uint64_t)got;
    }
    return true;
}

/* --- one fsync of a directory for all who wait --- */

struct dir_sync_batch {
    int fd, error_number;
    bool done;
    unsigned refs;
};

static void dir_sync_run(void *arg) {
    struct dir_sync_batch *b = arg;
    b->error_number = sys->fsync(b->fd) < 0 ? errno : 0;
}

error spool_dir_sync(struct spool *s, unsigned dir, const struct queue_id *id) {
    char path[SPOOL_PATH_MAX];
    spool_path(s, dir, id, path);
    *strrchr(path, '/') = 0;
    int fd = sys->openat(s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(errno);
    struct dir_sync *d = &s->dir_sync[dir];
    int error_number;
    if (s->hashed[dir] || !coro_self()) { /* not one directory for all: nothing to share */
        struct dir_sync_batch own = { .fd = fd };
        spool_offload(dir_sync_run, &own);
        error_number = own.error_number;
    } else {
        struct dir_sync_batch *b = d->next;
        if (!b) {
            b = calloc(1, sizeof *b);
            if (!b)
                die_no_memory(sizeof *b);
            d->next = b;
        }
        b->refs++;
        b->fd = fd; /* any of theirs will do */
        int shield = coro_shield(1);
        while (!b->done) {
            if (d->running) {
                cond_wait(&d->idle, DEADLINE_NEVER);
                continue;
            }
            d->running = true;
            d->next = NULL; /* whoever comes from now on may have renamed after the call began */
            offload(dir_sync_run, b);
            b->done = true;
            d->running = false;
            cond_broadcast(&d->idle);
        }
        coro_shield(shield);
        error_number = b->error_number;
        if (--b->refs == 0)
            free(b);
    }
    sys->close(fd);
    return error_number ? err_errno(error_number) : NULL;
}

/* --- opening --- */

static error make_directories(struct spool *s) {
    if (sys->mkdirat(s->fd, "log", 0700) < 0 && errno != EEXIST)
        return err_errno(errno);
    for (unsigned i = 0; i < SPOOL_DIRS; i++)
        if (sys->mkdirat(s->fd, spool_dir_name(i).p, 0700) < 0 && errno != EEXIST)
            return err_errno(errno);
    return NULL;
}

error spool_open(const struct spool_options *o, struct arena *err_arena, struct spool **ret) {
    struct spool *s = calloc(1, sizeof *s);
    if (!s)
        die_no_memory(sizeof *s);
    s->access = o->access;
    s->reader_fd = -1;
    s->long_queue_ids = o->long_queue_ids;
    /* A message of the largest size must fit with room to spare (postconf(5), queue_minfree). */
    uint64_t wanted = o->size_limit > UINT64_MAX / 3 ? UINT64_MAX : o->size_limit * 3 / 2;
    s->min_free = o->min_free > wanted ? o->min_free : wanted;
    s->hash_depth = o->hash_depth ? o->hash_depth : 1;
    if (s->hash_depth > SPOOL_HASH_DEPTH_MAX)
        s->hash_depth = SPOOL_HASH_DEPTH_MAX;
    struct str list = o->hash_names.p ? o->hash_names : DEFAULT_HASH_NAMES, word;
    while (str_word(&list, STR_COMMA_SPACE, &word))
        for (unsigned i = 0; i < SPOOL_DIRS; i++)
            if (str_eq(word, spool_dir_name(i)))
                s->hashed[i] = true;

    char *path = arena_cstr(err_arena, o->queue_directory);
    s->fd = sys->openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    error e = s->fd < 0 ? err_errno(errno) : NULL;
    if (!e && o->access != SPOOL_LISTER)
        e = make_directories(s);
    if (!e && o->access == SPOOL_READER)
        s->log_reader = log_reader_new(s);
    if (e) {
        error told = err_make(err_arena, ERR_SYS, "open queue directory %s: %.*s", path, STR_ARG(e->text));
        spool_close(s);
        return told;
    }
    if (o->log && o->access == SPOOL_WRITER)
        s->log_writer = log_writer_new(s, o->segment_size);
    *ret = s;
    return NULL;
}

void spool_close(struct spool *s) {
    if (!s)
        return;
    spool_hand_over(s);
    log_reader_free(s->log_reader);
    log_writer_free(s->log_writer);
    if (s->fd >= 0)
        sys->close(s->fd);
    free(s);
}

bool spool_take_over(struct spool *s) {
    if (s->reader_fd >= 0)
        return true;
    int fd = sys->openat(s->fd, spool_state_name(SPOOL_ACTIVE).p, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    if (sys->flock(fd, LOCK_EX | LOCK_NB) < 0) {
        sys->close(fd);
        return false;
    }
    s->reader_fd = fd;
    log_take_over(s->log_reader);
    return true;
}

void spool_hand_over(struct spool *s) {
    if (s->reader_fd >= 0) {
        log_hand_over(s->log_reader);
        sys->close(s->reader_fd);
    }
    s->reader_fd = -1;
}

void spool_on_news(struct spool *s, void (*fn)(void *ctx, const struct spool_news *news), void *ctx) {
    s->news = fn;
    s->news_ctx = ctx;
}

/* --- scanning --- */

struct scan {
    enum spool_state state;
    bool names_only;
    struct log_walk *log; /* NULL: the files now */
    unsigned depth, top;  /* levels of hash directories wanted; index of the deepest open one */
    DIR *dirs[SPOOL_HASH_DEPTH_MAX + 1];
    char path[SPOOL_HASH_DEPTH_MAX + 1]; /* the hash characters of the open levels */
};

static DIR *open_directory(const struct spool *s, const char *path) {
    int fd = sys->openat(s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    DIR *d = fdopendir(fd);
    if (!d)
        sys->close(fd);
    return d;
}

/* "deferred", "deferred/A" ... for the first `levels` hash characters. */
static void scan_path(const struct scan *sc, unsigned levels, char ret[SPOOL_PATH_MAX]) {
    struct str name = spool_state_name(sc->state);
    size_t n = name.n;
    memcpy(ret, name.p, n);
    for (unsigned i = 0; i < levels; i++) {
        ret[n++] = '/';
        ret[n++] = sc->path[i];
    }
    ret[n] = 0;
}

static void log_end(struct spool *s, struct scan *sc) {
    if (s && s->log_walk == sc->log)
        s->log_walk = NULL;
    log_walk_free(sc->log);
    sc->log = NULL;
}

/* The READER goes by what it has in its hands, and takes what it has not read yet into them; a list by the marks. */
static bool log_entry(struct spool *s, struct scan *sc, struct spool_entry *ret) {
    struct log_walk_entry found;
    for (unsigned passed = 0; log_walk_next(sc->log, &found); passed++) {
        if (passed % SCAN_SKIP_MAX == SCAN_SKIP_MAX - 1 && coro_self())
            coro_yield();
        *ret = (struct spool_entry){ .id = found.record.id, .state = found.state };
        ret->size = (int64_t)segment_record_size(&found.record);
        if (s->access == SPOOL_READER) {
            log_adopt(s->log_reader, &found);
            if (log_find(s, &ret->id, sc->state)) {
                ret->state = sc->state;
                return true;
            }
        } else if (found.state == sc->state) {
            return true;
        }
    }
    log_end(s, sc);
    return false;
}

static void scan_free(struct spool *s, struct scan *sc) {
    log_end(s, sc);
    for (unsigned i = 0; i <= sc->depth; i++)
        if (sc->dirs[i])
            closedir(sc->dirs[i]);
    free(sc);
}

/* Is the writer of this unfinished file gone? Then so is the file. */
static void reap_unfinished(struct spool *s, const char *path, const struct stat *st) {
    int64_t age = sys->wall_us() / US_PER_S - st->st_mtim.tv_sec;
    if (age < SPOOL_STALE_S)
        return;
    int fd = sys->openat(s->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return;
    struct stat now;
    /* Locked means alive, however old: the clock may have been set forward, and what is removed here may be answered
     * with 250 in the next moment. With the lock held, look again: it may have been finished in the meantime. */
    if (sys->flock(fd, LOCK_EX | LOCK_NB) == 0 && sys->fstatat(fd, "", &now, AT_EMPTY_PATH) == 0 &&
        !(now.st_mode & S_IXUSR))
        sys->unlinkat(s->fd, path, 0);
    sys->close(fd);
}

/* One name of the deepest open directory; true when it is a message. */
static bool scan_entry(struct spool *s, struct scan *sc, const char *name, struct spool_entry *ret) {
    char dir[SPOOL_PATH_MAX], path[SPOOL_PATH_MAX];
    bool temporary = str_starts(str_c(name), STR("tmp."));
    if (strlen(name) >= QUEUE_ID_MAX || (!temporary && !queue_id_from(str_c(name), &ret->id)))
        return false;
    ret->state = sc->state;
    ret->next_try_us = ret->size = 0;
    if (sc->names_only && !temporary)
        return true;
    scan_path(sc, sc->top, dir);
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
        return false;
    struct stat st;
    if (sys->fstatat(s->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return false;
    if (temporary || !(st.st_mode & S_IXUSR)) {
        if (s->access == SPOOL_READER && sc->state == SPOOL_INCOMING)
            reap_unfinished(s, path, &st);
        return false;
    }
    ret->next_try_us = (int64_t)st.st_mtim.tv_sec * US_PER_S + st.st_mtim.tv_nsec / 1000;
    ret->size = st.st_size;
    return true;
}

bool spool_scan_next(struct spool *s, struct spool_scan *scan, enum spool_state state, struct spool_entry *ret) {
    struct scan *sc = scan->impl;
    char path[SPOOL_PATH_MAX];
    if (!sc) {
        sc = calloc(1, sizeof *sc);
        if (!sc)
            die_no_memory(sizeof *sc);
        scan->impl = sc;
        sc->state = state;
        sc->names_only = scan->names_only && s->access == SPOOL_LISTER;
        sc->depth = s->hashed[state] ? s->hash_depth : 0;
        if (state == SPOOL_DEFERRED && s->log_reader)
            log_move_all(s);
        scan_path(sc, 0, path);
        sc->dirs[0] = open_directory(s, path);
        if (!scan->files_only && (state == SPOOL_INCOMING || state == SPOOL_ACTIVE || state == SPOOL_HOLD)) {
            if (s->access == SPOOL_READER)
                spool_log_flush(s);
            sc->log = log_walk_new(s);
            if (s->access == SPOOL_LISTER)
                s->log_walk = sc->log;
        }
    }
    if (sc->log && log_entry(s, sc, ret))
        return true;
    for (unsigned skipped = 0;; skipped++) {
        if (skipped == SCAN_SKIP_MAX) {
            skipped = 0;
            if (coro_self())
                coro_yield();
        }
        if (!sc->dirs[sc->top]) {
            if (sc->top == 0)
                break;
            sc->top--;
            continue;
        }
        struct dirent *e = readdir(sc->dirs[sc->top]);
        if (!e) {
            closedir(sc->dirs[sc->top]);
            sc->dirs[sc->top] = NULL;
            continue;
        }
        /* A file above its hash directory (another hash_queue_depth at its time) is not found under its path by anyone:
         * postsuper's work, as in Postfix. */
        if (sc->top < sc->depth) {
            if (byte_is_alnum(e->d_name[0]) && e->d_name[1] == 0) {
                sc->path[sc->top] = e->d_name[0];
                scan_path(sc, sc->top + 1, path);
                sc->dirs[++sc->top] = open_directory(s, path);
            }
            continue;
        }
        if (scan_entry(s, sc, e->d_name, ret))
            return true;
    }
    spool_scan_end(s, scan);
    return false;
}

void spool_scan_end(struct spool *s, struct spool_scan *scan) {
    if (scan->impl)
        scan_free(s, scan->impl);
    scan->impl = NULL;
}

/* --- reading a message --- */

static const struct err err_damaged = { .kind = ERR_SYNTAX, .text = STR_INIT("damaged queue file") };

struct content_check {
    int fd;
    const struct spool_head *head;
    error e;
};

static void content_check_run(void *arg) {
    struct content_check *c = arg;
    uint64_t left = c->head->content_size, at = SPOOL_HEAD_SIZE;
    size_t room = left < CHECK_CHUNK ? (size_t)left : CHECK_CHUNK;
    char *chunk = malloc(room ? room : 1);
    if (!chunk)
        die_no_memory(room);
    uint32_t crc = 0;
    while (left > 0 && !c->e) {
        size_t n = left < room ? (size_t)left : room;
        if (!spool_pread_all(c->fd, chunk, n, at))
            c->e = err_errno(errno);
        else
            crc = crc32c(crc, str_n(chunk, n));
        left -= n;
        at += n;
    }
    free(chunk);
    if (!c->e && crc != c->head->content_crc)
        c->e = &err_damaged;
}

static error check_content(int fd, const struct spool_head *h) {
    struct content_check c = { .fd = fd, .head = h };
    if (h->content_size > CONTENT_INLINE)
        spool_offload(content_check_run, &c);
    else
        content_check_run(&c);
    return c.e;
}

error spool_read_head(int fd, struct spool_head *ret) {
    struct stat st;
    if (sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0)
        return err_errno(errno);
    if (!S_ISREG(st.st_mode))
        return &err_damaged;
    if (!(st.st_mode & S_IXUSR))
        return err_errno(EAGAIN); /* still being written */
    char bytes[SPOOL_HEAD_SIZE];
    if (st.st_size < SPOOL_HEAD_SIZE)
        return &err_damaged;
    if (!spool_pread_all(fd, bytes, sizeof bytes, 0))
        return err_errno(errno);
    return spool_head_unpack(str_n(bytes, sizeof bytes), (uint64_t)st.st_size, ret) ? NULL : &err_damaged;
}

/* Nobody else may deliver it: not an older qmgr that is ending, nor an agent that has outlived its qmgr. */
static error take_lock(const struct spool *s, int fd) {
    if (s->access != SPOOL_READER)
        return NULL;
    return sys->flock(fd, LOCK_EX | LOCK_NB) < 0 ? err_errno(errno) : NULL;
}

static error load_envelope(int fd, const struct spool_head *h, struct arena *a, struct envelope *ret) {
    size_t n = (size_t)(h->envelope_size + spool_mark_count(h));
    char *bytes = arena_alloc(a, n);
    if (!spool_pread_all(fd, bytes, n, h->envelope_at))
        return err_errno(errno);
    return spool_envelope_unpack(str_n(bytes, n), h, a, ret) ? NULL : &err_damaged;
}

static error load_from(int fd, struct arena *a, struct envelope *ret, struct spool_content *ret_content,
                       struct spool_rest *ret_rest) {
    struct spool_head h = { 0 };
    *ret = (struct envelope){ 0 };
    error e = spool_read_head(fd, &h);
    if (e)
        return e;
    if (ret_rest && h.rcpt_count > SPOOL_RCPTS_WHOLE)
        e = spool_front_unpack(fd, &h, a, ret, ret_rest);
    else
        e = load_envelope(fd, &h, a, ret);
    if (e)
        return e;
    if (ret_content) {
        if ((e = check_content(fd, &h)))
            return e;
        *ret_content = (struct spool_content){ .fd = fd, .offset = SPOOL_HEAD_SIZE, .size = h.content_size };
    }
    return NULL;
}

error spool_check_file(const struct spool *s, const struct queue_id *id, enum spool_state state,
                       struct spool_head *ret) {
    int fd = spool_openat(s, state, id, O_RDONLY, 0);
    if (fd < 0)
        return err_errno(errno);
    struct arena *a = arena_new();
    struct envelope env;
    struct spool_content content;
    struct spool_rest rest;
    error e = spool_read_head(fd, ret);
    if (!e)
        e = load_from(fd, a, &env, &content, &rest);
    arena_free(a);
    sys->close(fd);
    return e;
}

void spool_content_close(struct spool_content *c) {
    if (c->fd >= 0)
        sys->close(c->fd);
    free((char *)(uintptr_t)c->bytes.p);
    *c = (struct spool_content){ .fd = -1 };
}

/* What has no file may be in the log. */
static error list_load(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                       struct envelope *ret, struct spool_content *ret_content) {
    if (s->access != SPOOL_LISTER || (state != SPOOL_INCOMING && state != SPOOL_ACTIVE && state != SPOOL_HOLD))
        return err_errno(ENOENT);
    return log_list_load(s, id, a, ret, ret_content);
}

static error load(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                  struct envelope *ret, struct spool_content *ret_content, struct spool_rest *ret_rest) {
    struct log_message *m = log_find(s, id, state);
    if (m)
        return log_load(m, a, ret, ret_content);
    if (ret_content && log_is_busy(s, id))
        return err_errno(EWOULDBLOCK);
    int fd = spool_openat(s, state, id, O_RDONLY, 0);
    if (fd < 0)
        return errno == ENOENT ? list_load(s, id, state, a, ret, ret_content) : err_errno(errno);
    error e = ret_content ? take_lock(s, fd) : NULL;
    if (!e)
        e = load_from(fd, a, ret, ret_content, ret_rest);
    if (e || !ret_content)
        sys->close(fd);
    return e;
}

error spool_load(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                 struct envelope *ret, struct spool_content *ret_content) {
    return load(s, id, state, a, ret, ret_content, NULL);
}

error spool_load_front(struct spool *s, const struct queue_id *id, enum spool_state state, struct arena *a,
                       struct envelope *ret, struct spool_content *ret_content, struct spool_rest *ret_rest) {
    *ret_rest = (struct spool_rest){ 0 };
    return load(s, id, state, a, ret, ret_content, ret_rest);
}

error spool_content_open(struct spool *s, const struct queue_id *id, enum spool_state state,
                         struct spool_content *ret) {
    struct log_message *m = log_find(s, id, state);
    if (m)
        return log_content(m, ret);
    int fd = spool_openat(s, state, id, O_RDONLY, 0);
    if (fd < 0)
        return err_errno(errno);
    struct spool_head h = { 0 };
    error e = take_lock(s, fd);
    if (!e)
        e = spool_read_head(fd, &h);
    if (e) {
        sys->close(fd);
        return e;
    }
    *ret = (struct spool_content){ .fd = fd, .offset = SPOOL_HEAD_SIZE, .size = h.content_size };
    return NULL;
}

/* --- changing a message --- */

error spool_move(struct spool *s, const struct queue_id *id, enum spool_state from, enum spool_state to) {
    struct log_message *m = log_find(s, id, from);
    if (m)
        return log_move(s, m, to);
    char old[SPOOL_PATH_MAX], new[SPOOL_PATH_MAX];
    spool_path(s, from, id, old);
    spool_path(s, to, id, new);
    struct stat st;
    /* Only this process moves messages, so nothing can appear between the look and the rename. */
    if (sys->fstatat(s->fd, new, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return err_errno(EEXIST);
    if (errno != ENOENT)
        return err_errno(errno);
    if (sys->renameat(s->fd, old, s->fd, new) == 0)
        return NULL;
    if (errno != ENOENT)
        return err_errno(errno);
    error e = spool_make_parents(s, new);
    if (e)
        return e;
    return sys->renameat(s->fd, old, s->fd, new) < 0 ? err_errno(errno) : NULL;
}

error spool_defer(struct spool *s, const struct queue_id *id, int64_t next_try_us) {
    error e = spool_set_next_try(s, id, SPOOL_ACTIVE, next_try_us);
    struct log_message *m = e ? NULL : log_find(s, id, SPOOL_ACTIVE);
    if (e)
        return e;
    return m ? log_move_later(s, m) : spool_move(s, id, SPOOL_ACTIVE, SPOOL_DEFERRED);
}

error spool_set_next_try(struct spool *s, const struct queue_id *id, enum spool_state state, int64_t wall_us) {
    struct log_message *m = log_find(s, id, state);
    if (m) {
        m->next_try_us = wall_us; /* of the file that it becomes */
        return NULL;
    }
    char path[SPOOL_PATH_MAX];
    spool_path(s, state, id, path);
    struct timespec times[2] = {
        { .tv_nsec = UTIME_OMIT },
        { .tv_sec = wall_us / US_PER_S, .tv_nsec = wall_us % US_PER_S * 1000 },
    };
    return sys->utimensat(s->fd, path, times, AT_SYMLINK_NOFOLLOW) < 0 ? err_errno(errno) : NULL;
}

static error write_mark(int fd, const struct spool_head *h, uint64_t index) {
    char mark = SPOOL_MARK_DONE;
    return spool_pwrite_all(fd, str_n(&mark, 1), spool_marks_at(h) + index);
}

static error set_flag(struct spool *s, const struct queue_id *id, enum spool_state state, enum spool_flag flag) {
    int fd = spool_openat(s, state, id, O_RDWR, 0);
    if (fd < 0)
        return err_errno(errno);
    struct spool_head h = { 0 };
    char is = 0;
    error e = spool_read_head(fd, &h);
    if (!e && !spool_pread_all(fd, &is, 1, spool_marks_at(&h) + h.rcpt_count + flag))
        e = err_errno(errno);
    if (!e && is == SPOOL_MARK_DONE)
        e = err_errno(EEXIST);
    if (!e)
        e = write_mark(fd, &h, (uint64_t)h.rcpt_count + flag);
    sys->close(fd);
    return e;
}

error spool_mark_done(struct spool *s, const struct queue_id *id, enum spool_state state, size_t index) {
    struct log_message *m = log_find(s, id, state);
    if (m)
        return log_mark_done(s, m, index);
    int fd = spool_openat(s, state, id, O_RDWR, 0);
    if (fd < 0)
        return err_errno(errno);
    struct spool_head h = { 0 };
    error e = spool_read_head(fd, &h);
    if (!e)
        e = index < h.rcpt_count ? write_mark(fd, &h, index) : err_errno(EINVAL);
    sys->close(fd);
    return e;
}

error spool_mark_warned(struct spool *s, const struct queue_id *id, enum spool_state state) {
    struct log_message *m = log_find(s, id, state);
    if (m) {
        m->warned = true; /* of the file that it becomes */
        return NULL;
    }
    error e = set_flag(s, id, state, SPOOL_FLAG_WARNED);
    return e && e->sys == EEXIST ? NULL : e;
}

error spool_mark_expired(struct spool *s, const struct queue_id *id, enum spool_state state) {
    return set_flag(s, id, state, SPOOL_FLAG_EXPIRED);
}

error spool_remove(struct spool *s, const struct queue_id *id, enum spool_state state) {
    struct log_message *m = log_find(s, id, state);
    if (m)
        return log_remove(s, m);
    error e;
    if ((e = spool_unlink(s, SPOOL_DIR_DEFER, id)) || (e = spool_unlink(s, SPOOL_DIR_BOUNCE, id)) ||
        (e = spool_unlink(s, SPOOL_DIR_TRACE, id)))
        return e;
    return spool_unlink(s, state, id);
}

static bool find_in_log(struct spool *s, const struct queue_id *id, enum spool_state *ret) {
    static const enum spool_state places[] = { SPOOL_ACTIVE, SPOOL_HOLD, SPOOL_INCOMING };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (log_find(s, id, places[i])) {
            *ret = places[i];
            return true;
        }
    return false;
}

/* All that is still ahead comes into our hands, so that the next name asked for is found without a walk. */
static void adopt_all(struct spool *s) {
    struct log_walk *w = log_walk_new(s);
    struct log_walk_entry found;
    spool_log_flush(s);
    while (log_walk_next(w, &found))
        log_adopt(s->log_reader, &found);
    log_walk_free(w);
}

bool spool_find(struct spool *s, const struct queue_id *id, enum spool_state *ret) {
    log_find(s, id, SPOOL_DEFERRED); /* on its way there? It is there after this */
    if (find_in_log(s, id, ret))
        return true;
    for (enum spool_state state = 0; state < SPOOL_STATES; state++) {
        char path[SPOOL_PATH_MAX];
        struct stat st;
        spool_path(s, state, id, path);
        if (sys->fstatat(s->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
            *ret = state;
            return true;
        }
    }
    if (!s->log_reader)
        return false;
    adopt_all(s);
    return find_in_log(s, id, ret);
}
