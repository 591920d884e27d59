#include "deliver/mailbox.h"

#include "base/log.h"
#include "deliver/user_thread.h"
#include "mail/address.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    MAILBOX_TIME = 1000, /* seconds for one delivery, besides waiting for locks */
    CHUNK = 32 * 1024,
    PATH_ROOM = 4096,
};

struct str mailbox_head(struct agent_request *r, struct arena *a, struct str orig, struct str delivered_to) {
    return mailbox_head_of(r, a, r->req.env.sender, orig, delivered_to);
}

struct str mailbox_head_of(struct agent_request *r, struct arena *a, struct str sender, struct str orig,
                           struct str delivered_to) {
    struct buf b = { 0 };
    buf_printf(&b, "Return-Path: <%.*s>\n", STR_ARG(address_quote(a, sender)));
    if (orig.n && conf_bool(r->ctx->conf, PARAM_enable_original_recipient))
        buf_printf(&b, "X-Original-To: %.*s\n", STR_ARG(address_quote(a, orig)));
    if (delivered_to.n)
        buf_printf(&b, "Delivered-To: %.*s\n", STR_ARG(address_quote(a, delivered_to)));
    struct str head = arena_str(a, buf_str(&b));
    buf_free(&b);
    return head;
}

struct str mailbox_from_line(struct arena *a, struct str sender, int64_t when) {
    time_t t = (time_t)when;
    struct tm tm;
    char date[64];
    if (!localtime_r(&t, &tm) || strftime(date, sizeof(date), "%a %b %e %H:%M:%S %Y", &tm) == 0)
        memcpy(date, "Thu Jan  1 00:00:00 1970", 25);
    struct str from = sender.n ? address_quote(a, sender) : STR("MAILER-DAEMON");
    return arena_printf(a, "From %.*s  %s\n", STR_ARG(from), date);
}

/* --- in a thread --- */
struct failure {
    int code;        /* errno, or 0 when `dsn` says all */
    const char *dsn; /* NULL: from code */
    struct str why;  /* empty: success */
};
struct job { /* with copies of all it needs: it may live longer than the request */
    struct mailbox box;
    const struct mailbox *m; /* that */
    const char *path;        /* m->path */
    const char *host;        /* for Maildir names */
    unsigned long serial;    /* the same */
    struct str from_line;
    int64_t now_us;
    struct spool_content content;
    struct arena *arena;
    /* results */
    struct failure failure;
    uint64_t start; /* of the message in the mbox */
};

static const char *dsn_of(int code, const char *otherwise) {
    switch (code) {
    case EAGAIN:
    case ESTALE:
        return "4.2.0";
    case EDQUOT:
    case EFBIG:
        return "5.2.2";
    case ENOSPC:
    case EIO:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EROFS:
        return "4.3.0";
    default:
        return otherwise;
    }
}

static struct failure fail(struct arena *a, const char *what, int code) {
    return (struct failure){ code, NULL, arena_printf(a, "%s: %s", what, strerror(code)) };
}

static const struct failure success = { 0, NULL, STR_INIT("") };

/* One message to `fd` from offset `at` (-1: where the descriptor stands). */
struct writer {
    int fd;
    int64_t at;
    uint64_t size, limit; /* of the file, so far and at most */
    int code;
};

static void put(struct writer *w, struct str s) {
    if (w->code)
        return;
    if (w->limit && w->size + s.n > w->limit) {
        w->code = EFBIG;
        return;
    }
    while (s.n) {
        ssize_t n;
        if (w->at >= 0) {
            n = sys->pwrite(w->fd, s.p, s.n, (off_t)w->at);
        } else {
            struct iovec v = { (void *)(uintptr_t)s.p, s.n };
            n = sys->writev(w->fd, &v, 1);
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            w->code = n < 0 ? errno : EIO;
            return;
        }
        if (w->at >= 0)
            w->at += n;
        w->size += (uint64_t)n;
        s = str_from(s, (size_t)n);
    }
}

static struct failure copy_message(const struct job *j, struct writer *w, bool mbox) {
    char *in = arena_alloc(j->arena, CHUNK);
    struct buf out = { 0 };
    struct mbox_quote quote = { 0 };
    bool lf = true;
    put(w, mbox ? j->from_line : STR(""));
    put(w, j->m->head);
    struct str piece;
    for (uint64_t done = 0; done < j->content.size && !w->code; done += piece.n) {
        if (content_read(&j->content, done, in, CHUNK, &piece)) {
            buf_free(&out);
            return (struct failure){ 0, "4.3.0", STR("error reading message") };
        }
        lf = piece.p[piece.n - 1] == '\n';
        struct str quoted = piece;
        if (mbox) {
            buf_clear(&out);
            mbox_quote_add(&quote, &out, piece);
            quoted = buf_str(&out);
        }
        put(w, quoted);
    }
    if (mbox) {
        buf_clear(&out);
        mbox_quote_end(&quote, &out);
        buf_byte(&out, '\n');
        put(w, buf_str(&out));
    } else if (!lf) {
        put(w, STR("\n"));
    }
    buf_free(&out);
    return w->code ? fail(j->arena, "error writing message", w->code) : success;
}

static int sync_directory_of(const char *path) {
    char dir[PATH_ROOM];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    if (n == 0 || n >= sizeof(dir))
        return 0;
    memcpy(dir, path, n);
    dir[n] = 0;
    int fd = sys->openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return errno == EACCES ? 0 : -1; /* a spool that can be written but not listed */
    int result = sys->fsync(fd);
    sys->close(fd);
    return result;
}

/* --- locks --- */
static struct mbox_wait lock_wait(const struct mailbox *m) {
    return (struct mbox_wait){ .attempts = m->lock_attempts, .delay = m->lock_delay, .stale = m->stale_lock };
}

static struct failure dotlock_take(const struct job *j, const char *lock) {
    struct mbox_wait wait = lock_wait(j->m);
    int code = mbox_dotlock(lock, &wait);
    if (!code)
        return success;
    struct failure f = fail(j->arena, arena_printf(j->arena, "unable to create lock file %s", lock).p, code);
    if (code == EEXIST)
        f.dsn = "4.2.0";
    return f;
}

static struct failure lock_take(const struct job *j, int fd) {
    struct mbox_wait wait = lock_wait(j->m);
    int code = mbox_lock(fd, j->m->locks, &wait);
    return code ? fail(j->arena, "unable to lock for exclusive access", code) : success;
}

/* --- mbox --- */
static struct failure check_mbox(const struct job *j, const struct stat *st) {
    const struct mailbox *m = j->m;
    if (S_ISDIR(st->st_mode))
        return fail(j->arena, "cannot open file", EISDIR);
    if (!S_ISREG(st->st_mode)) {
        if (m->file && S_ISCHR(st->st_mode))
            return success;
        if (S_ISFIFO(st->st_mode)) /* as if it had been opened for writing only, with nobody there */
            return fail(j->arena, "cannot open file", ENXIO);
        return (struct failure){ 0, m->dsn, STR("not a regular file") };
    }
    if (st->st_nlink > 1)
        return (struct failure){ 0, m->dsn,
                                 arena_printf(j->arena, "file has %ju hard links", (uintmax_t)st->st_nlink) };
    if (m->strict_owner && st->st_uid != m->uid)
        return (struct failure){ 0, "4.2.0",
                                 arena_printf(j->arena, "destination %s is not owned by recipient", j->path) };
    return success;
}

/* A delivery that a crash cut off must not swallow the first line of the next one. */
static void mend_end(struct writer *w) {
    char last;
    if (w->at > 0 && sys->pread(w->fd, &last, 1, (off_t)(w->at - 1)) == 1 && last != '\n')
        put(w, STR("\n\n"));
}

static struct failure append_mbox(struct job *j, int fd, const struct stat *st) {
    bool regular = S_ISREG(st->st_mode);
    struct writer w = { .fd = fd, .at = -1, .limit = j->m->limit };
    if (regular) {
        struct stat now; /* it may have grown before we had the lock */
        if (fstat(fd, &now) != 0)
            return fail(j->arena, "cannot open file", errno);
        w.at = now.st_size;
        w.size = (uint64_t)now.st_size;
        mend_end(&w);
        j->start = w.size;
        struct failure f = copy_message(j, &w, true);
        if (!f.why.n && sys->fsync(fd) != 0)
            f = fail(j->arena, "error writing message", errno);
        if (f.why.n && (ftruncate(fd, now.st_size) != 0 || sys->fsync(fd) != 0))
            f.why = arena_printf(j->arena, "%.*s; cannot cut the file back to its old length: %s", STR_ARG(f.why),
                                 strerror(errno));
        return f;
    }
    return copy_message(j, &w, true);
}

static struct failure open_failure(const struct job *j, bool is_new, int code) {
    struct stat st;
    if (code == ELOOP && sys->fstatat(AT_FDCWD, j->path, &st, 0) == 0)
        return (struct failure){ 0, j->m->dsn, STR("file is a symbolic link") };
    if (code == ELOOP)
        code = errno;
    return fail(j->arena, is_new ? "cannot create file exclusively" : "cannot open file", code);
}

static struct failure deliver_mbox(struct job *j) {
    const struct mailbox *m = j->m;
    bool toggles = m->open == MAILBOX_AS_ROOT && getuid() == 0 && m->uid != 0;
    struct stat st;
    bool there = sys->fstatat(AT_FDCWD, j->path, &st, 0) == 0;
    bool dot = (m->locks & MAILBOX_DOTLOCK) && (!there || S_ISREG(st.st_mode));
    const char *lock = arena_printf(j->arena, "%s.lock", j->path).p;
    struct failure f = success, unlocked = success;
    if (dot) {
        f = dotlock_take(j, lock);
        dot = !f.why.n;
        if (f.code == EEXIST || (f.why.n && !m->file))
            return f;
        unlocked = f; /* what is wrong with the directory of a /file/name is said of the file */
    }
    bool is_new = false;
    int fd = mbox_open(j->path, &is_new);
    if (fd < 0)
        f = open_failure(j, is_new, errno);
    else if (unlocked.why.n)
        f = unlocked;
    else if (is_new && toggles && fchown(fd, m->uid, m->gid) != 0)
        f = fail(j->arena, "cannot change file ownership", errno);
    else if (fstat(fd, &st) != 0)
        f = fail(j->arena, "cannot open file", errno);
    else
        f = check_mbox(j, &st);
    if (!f.why.n && toggles && !user_thread_act_as(m->uid, m->gid))
        f = (struct failure){ 0, "4.3.0", STR("cannot act as the owner of the mailbox") };
    if (!f.why.n && S_ISREG(st.st_mode))
        f = lock_take(j, fd);
    if (!f.why.n)
        f = append_mbox(j, fd, &st);
    if (toggles && !user_thread_act_as(0, 0) && !f.why.n)
        f = (struct failure){ 0, "4.3.0", STR("cannot go back to root") };
    if (fd >= 0 && sys->close(fd) != 0 && !f.why.n && S_ISREG(st.st_mode))
        f = fail(j->arena, "error writing message", errno);
    if (!f.why.n && is_new && sync_directory_of(j->path) != 0)
        f = fail(j->arena, "error writing message", errno);
    if (dot)
        sys->unlinkat(AT_FDCWD, lock, 0);
    return f;
}

/* --- Maildir --- */

/* mkdir -p with mode 0700; what is made by root for the owner is given to the owner. */
static int make_directories(const struct mailbox *m, const char *path, bool give) {
    char part[PATH_ROOM];
    size_t n = strlen(path);
    if (n >= sizeof(part)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        struct stat st;
        if (sys->fstatat(AT_FDCWD, part, &st, 0) == 0) {
            if (S_ISDIR(st.st_mode))
                continue;
            errno = ENOTDIR;
            return -1;
        }
        if (sys->mkdirat(AT_FDCWD, part, 0700) != 0 && errno != EEXIST)
            return -1;
        if (give && fchownat(AT_FDCWD, part, m->uid, m->gid, AT_SYMLINK_NOFOLLOW) != 0)
            return -1;
        sync_directory_of(part);
    }
    return 0;
}

static int make_maildir(const struct job *j) {
    static const char *const parts[] = { "tmp", "new", "cur" };
    const struct mailbox *m = j->m;
    bool toggles = m->open == MAILBOX_AS_ROOT && getuid() == 0 && m->uid != 0;
    /* only the directory itself may need root's rights; below it is the owner's */
    if (toggles) {
        struct str base = str_n(j->path, strlen(j->path) - 1);
        if (!user_thread_act_as(0, 0))
            return -1;
        int made = make_directories(m, arena_cstr(j->arena, base), true);
        int code = errno;
        if (!user_thread_act_as(m->uid, m->gid))
            return -1;
        errno = code;
        if (made != 0)
            return -1;
    }
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        if (make_directories(m, arena_printf(j->arena, "%s%s", j->path, parts[i]).p, false) != 0)
            return -1;
    return 0;
}

static struct failure deliver_maildir(const struct job *j) {
    const struct mailbox *m = j->m;
    if (m->open == MAILBOX_AS_ROOT && getuid() == 0 && m->uid != 0 && !user_thread_act_as(m->uid, m->gid))
        return (struct failure){ 0, "4.3.0", STR("cannot act as the owner of the mailbox") };
    long long seconds = (long long)(j->now_us / US_PER_S), micro = (long long)(j->now_us % US_PER_S);
    const char *tmp =
        arena_printf(j->arena, "%stmp/%lld.P%ld.%lu.%s", j->path, seconds, (long)getpid(), j->serial, j->host).p;
    const int flags = O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
    int fd = sys->openat(AT_FDCWD, tmp, flags, 0600);
    if (fd < 0 && errno == EEXIST) {
        /* a process of our number left it behind when it died: nobody else uses that name */
        sys->unlinkat(AT_FDCWD, tmp, 0);
        fd = sys->openat(AT_FDCWD, tmp, flags, 0600);
    }
    if (fd < 0 && errno == ENOENT) {
        if (make_maildir(j) == 0)
            fd = sys->openat(AT_FDCWD, tmp, flags, 0600);
    }
    if (fd < 0)
        return fail(j->arena, arena_printf(j->arena, "create maildir file %s", tmp).p, errno);
    struct writer w = { .fd = fd, .at = 0, .limit = m->limit };
    struct failure f = copy_message(j, &w, false);
    struct stat st = { 0 };
    if (!f.why.n && (sys->fsync(fd) != 0 || fstat(fd, &st) != 0))
        f = fail(j->arena, "error writing message", errno);
    if (sys->close(fd) != 0 && !f.why.n)
        f = fail(j->arena, "error writing message", errno);
    if (!f.why.n) {
        /* the inode number makes the name unique while the file exists, the time afterwards */
        const char *name = arena_printf(j->arena, "%snew/%lld.V%llxI%llxM%lld.%s", j->path, seconds,
                                        (unsigned long long)st.st_dev, (unsigned long long)st.st_ino, micro, j->host)
                               .p;
        int result = sys->renameat(AT_FDCWD, tmp, AT_FDCWD, name);
        if (result != 0 && errno == ENOENT && make_maildir(j) == 0)
            result = sys->renameat(AT_FDCWD, tmp, AT_FDCWD, name);
        if (result != 0)
            f = fail(j->arena, arena_printf(j->arena, "create maildir file %s", name).p, errno);
        else if (sync_directory_of(name) != 0)
            return fail(j->arena, "error writing message", errno); /* it may have gone in: a duplicate, not a loss */
    }
    if (f.why.n)
        sys->unlinkat(AT_FDCWD, tmp, 0);
    return f;
}

static void deliver(void *arg) {
    struct job *j = arg;
    j->failure = str_ends(j->m->path, STR("/")) ? deliver_maildir(j) : deliver_mbox(j);
    content_release(&j->content);
}

/* --- in the loop --- */

/* Deliveries of this process to one mbox take turns here: the file locks would make the second one sleep for
 * deliver_lock_delay. */
struct turn {
    struct str path;
    struct turn *next;
};
static struct turn *turns;
static struct cond turn_over;

static bool is_taken(struct str path) {
    for (const struct turn *t = turns; t; t = t->next)
        if (str_eq(t->path, path))
            return true;
    return false;
}

static void turn_take(struct turn *t, struct str path, int64_t deadline) {
    while (is_taken(path))
        if (cond_wait(&turn_over, deadline))
            break; /* the locks of the file decide */
    *t = (struct turn){ path, turns };
    turns = t;
}

static void turn_give(const struct turn *t) {
    struct turn **at = &turns;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    cond_broadcast(&turn_over);
}

/* For Maildir names, without what must not be in them. */
static const char *host_name(struct arena *a) {
    char host[256];
    if (gethostname(host, sizeof(host)) != 0)
        host[0] = 0;
    host[sizeof(host) - 1] = 0;
    for (char *p = host; *p; p++)
        if (*p == '/' || *p == ':')
            *p = '_';
    return host[0] ? arena_cstr(a, str_c(host)) : "localhost";
}

/* NULL: no descriptor to be had. */
static struct job *make_job(struct arena *own, struct agent_request *r, const struct mailbox *m) {
    static unsigned long serial;
    struct job *j = ARENA_NEW(own, struct job);
    *j = (struct job){
        .box = *m, .arena = own, .host = host_name(own), .serial = serial++, .now_us = sys->wall_us(), .m = &j->box
    };
    j->box.path = arena_str(own, m->path);
    j->box.head = arena_str(own, m->head);
    j->path = j->box.path.p;
    j->from_line = mailbox_from_line(own, m->sender ? *m->sender : r->req.env.sender, j->now_us / US_PER_S);
    j->content = r->req.content;
    if (j->content.fd < 0)
        j->content.bytes = arena_str(own, r->req.content.bytes);
    else if ((j->content.fd = fcntl(r->req.content.fd, F_DUPFD_CLOEXEC, 0)) < 0)
        return NULL;
    return j;
}

static void broken(struct mailbox_result *ret, struct str why) {
    *ret = (struct mailbox_result){ .dsn = STR("4.3.0"), .why = why };
}

static void run_job(struct agent_request *r, const struct mailbox *m, struct mailbox_result *ret) {
    struct arena *own = arena_new();
    struct job *j = make_job(own, r, m);
    if (!j) {
        broken(ret, arena_printf(r->arena, "cannot start the delivery: %s", strerror(errno)));
        arena_free(own);
        return;
    }
    bool root = m->open == MAILBOX_AS_ROOT && geteuid() == 0;
    int64_t lock_time = (int64_t)m->lock_attempts * m->lock_delay * 3;
    int fd = j->content.fd;
    enum user_thread_result done =
        user_thread_run(own, root ? 0 : m->uid, root ? 0 : m->gid, deadline_in(MAILBOX_TIME + lock_time), deliver, j);
    switch (done) {
    case USER_THREAD_DONE:
        ret->ok = !j->failure.why.n;
        ret->denied = j->failure.code == EACCES;
        ret->dsn = ret->ok ? STR("2.0.0") : str_c(j->failure.dsn ? j->failure.dsn : dsn_of(j->failure.code, m->dsn));
        ret->why = arena_str(r->arena, j->failure.why);
        ret->start = j->start;
        arena_free(own);
        return;
    case USER_THREAD_TIMED_OUT:
        broken(ret, STR("delivery timed out"));
        return;
    case USER_THREAD_NO_RIGHTS:
        broken(ret, arena_printf(r->arena, "cannot act as user id %ld", (long)m->uid));
        break;
    case USER_THREAD_STUCK:
        broken(ret, arena_printf(r->arena, "an earlier delivery as user id %ld has not ended", (long)m->uid));
        break;
    }
    if (fd >= 0) /* nothing was done */
        sys->close(fd);
}

void mailbox_deliver(struct agent_request *r, const struct mailbox *m, struct mailbox_result *ret) {
    *ret = (struct mailbox_result){ 0 };
    if (m->path.n >= PATH_ROOM - 300 || memchr(m->path.p, 0, m->path.n)) {
        broken(ret, STR("bad mailbox path"));
        return;
    }
    struct turn turn;
    bool mbox = !str_ends(m->path, STR("/"));
    if (mbox)
        turn_take(&turn, m->path, deadline_in(MAILBOX_TIME));
    run_job(r, m, ret);
    if (mbox)
        turn_give(&turn);
}
