#include "queue/queue_repair.h"

#include "queue/queue_file.h"
#include "queue/spool_private.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    PATH_ROOM = SPOOL_PATH_MAX + NAME_MAX + 2,
    STALE_S = 60,              /* an unlocked unfinished file younger than this may be just being created */
    DROP_STALE_S = 24 * 3600,  /* in maildrop/, where no locks are held */
    MAILDROP_DIR = SPOOL_DIRS, /* beside those of the spool */
};

struct repair {
    struct spool *s;
    unsigned dir, what;
    queue_repair_report *report;
    void *ctx;
};

static void say(const struct repair *r, enum queue_repaired what, const char *path, struct str other) {
    r->report(r->ctx, what, str_c(path), other);
}

static void failed(const struct repair *r, const char *path) {
    say(r, REPAIR_FAILED, path, err_errno(errno)->text);
}

static bool holds_messages(const struct repair *r) {
    return r->dir < SPOOL_STATES;
}

/* --- unfinished files --- */

static bool is_whole(int fd) {
    struct arena *a = arena_new();
    struct queue_file f;
    bool whole = !queue_file_read(fd, a, &f) && !queue_file_check_content(fd, &f);
    arena_free(a);
    return whole;
}

/* A message without the mode of a finished one. Its writer is alive when it is locked. */
static void unfinished_message(const struct repair *r, const char *path) {
    struct stat st;
    int fd = sys->openat(r->s->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0) {
        if (errno != ENOENT)
            failed(r, path);
        return;
    }
    if (sys->flock(fd, LOCK_EX | LOCK_NB) < 0 || sys->fstatat(fd, "", &st, AT_EMPTY_PATH) < 0 ||
        (st.st_mode & S_IXUSR)) { /* alive, or finished in the meantime */
        sys->close(fd);
        return;
    }
    /* A backup may have lost the mode. When it was a crash instead, the client has no answer and sends again: twice is
     * better than not at all. */
    bool whole = is_whole(fd);
    if (whole && (r->what & QUEUE_REPAIR_STRUCTURE)) {
        if (sys->fchmod(fd, SPOOL_MODE_READY) < 0)
            failed(r, path);
        else
            say(r, REPAIRED_FINISHED, path, STR(""));
    } else if (!whole && (r->what & QUEUE_REPAIR_PURGE)) {
        if (sys->unlinkat(r->s->fd, path, 0) < 0)
            failed(r, path);
        else
            say(r, REPAIRED_PURGED, path, STR(""));
    }
    sys->close(fd);
}

static void unfinished(const struct repair *r, const char *path, const struct stat *st) {
    int64_t age = sys->wall_us() / US_PER_S - st->st_mtim.tv_sec;
    if (r->dir == MAILDROP_DIR) {
        if (age < DROP_STALE_S || !(r->what & QUEUE_REPAIR_PURGE))
            return;
        if (sys->unlinkat(r->s->fd, path, 0) < 0)
            failed(r, path);
        else
            say(r, REPAIRED_PURGED, path, STR(""));
    } else if (age >= STALE_S) {
        unfinished_message(r, path);
    }
}

/* --- places --- */

/* Where the file belongs; true when it is there now. */
static bool in_place(const struct repair *r, const char *path, const struct queue_id *id, char wanted[SPOOL_PATH_MAX]) {
    if (r->dir == MAILDROP_DIR)
        return true;
    spool_path(r->s, r->dir, id, wanted);
    return strcmp(path, wanted) == 0;
}

static void file(const struct repair *r, const char *path, const char *name, const struct stat *st) {
    struct queue_id id;
    char wanted[SPOOL_PATH_MAX];
    struct stat other;
    bool temporary = r->dir == SPOOL_INCOMING && str_starts(str_c(name), STR("tmp."));
    if (!temporary && !queue_id_from(str_c(name), &id)) {
        say(r, REPAIR_BOGUS, path, STR(""));
        return;
    }
    if (!temporary && (r->what & QUEUE_REPAIR_STRUCTURE) && !in_place(r, path, &id, wanted)) {
        /* Nobody makes files there: the queue's own ways lead to names that are not taken. */
        if (sys->fstatat(r->s->fd, wanted, &other, AT_SYMLINK_NOFOLLOW) == 0) {
            say(r, REPAIR_IN_THE_WAY, path, str_c(wanted));
            return;
        }
        error e = spool_make_parents(r->s, wanted);
        if (e || sys->renameat(r->s->fd, path, r->s->fd, wanted) < 0) {
            say(r, REPAIR_FAILED, path, e ? e->text : err_errno(errno)->text);
            return;
        }
        say(r, REPAIRED_MOVED, path, str_c(wanted));
        path = wanted;
    }
    if (!(st->st_mode & S_IXUSR) && (holds_messages(r) || r->dir == MAILDROP_DIR))
        unfinished(r, path, st);
}

/* Levels of hash directories below it that are in use. */
static unsigned levels(const struct repair *r) {
    return r->dir < SPOOL_DIRS && r->s->hashed[r->dir] ? r->s->hash_depth : 0;
}

/* A stack of open directories instead of calls inside each other: the depth is bounded by SPOOL_HASH_DEPTH_MAX. */
struct level {
    DIR *d;
    size_t path_n;
};

static bool enter(const struct repair *r, struct level *l, const char *path) {
    int fd = sys->openat(r->s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    l->d = fd < 0 ? NULL : fdopendir(fd);
    l->path_n = strlen(path);
    if (l->d)
        return true;
    if (errno != ENOENT)
        failed(r, path);
    if (fd >= 0)
        sys->close(fd);
    return false;
}

static void leave(const struct repair *r, struct level *l, unsigned depth, const char *path) {
    closedir(l->d);
    if (depth == 0 || depth <= levels(r) || !(r->what & QUEUE_REPAIR_STRUCTURE))
        return;
    if (sys->unlinkat(r->s->fd, path, AT_REMOVEDIR) == 0)
        say(r, REPAIRED_DIRECTORY, path, STR(""));
    else if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT)
        failed(r, path);
}

static void entry(const struct repair *r, struct level *stack, unsigned *inout_depth, char *path, const char *name) {
    struct level *l = &stack[*inout_depth];
    struct stat st;
    if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])))
        return;
    snprintf(path + l->path_n, PATH_ROOM - l->path_n, "/%s", name);
    if (sys->fstatat(r->s->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return; /* gone */
    if (S_ISREG(st.st_mode)) {
        file(r, path, name, &st);
    } else if (S_ISDIR(st.st_mode) && byte_is_alnum(name[0]) && !name[1] && r->dir != MAILDROP_DIR &&
               *inout_depth < SPOOL_HASH_DEPTH_MAX) {
        if (enter(r, &stack[*inout_depth + 1], path))
            ++*inout_depth;
    } else {
        say(r, REPAIR_BOGUS, path, STR(""));
    }
}

static unsigned dir_of(struct str name) {
    for (unsigned i = 0; i < SPOOL_DIRS; i++)
        if (i != SPOOL_CORRUPT && str_eq(name, spool_dir_name(i)))
            return i;
    return str_eq(name, STR("maildrop")) ? MAILDROP_DIR : SPOOL_CORRUPT;
}

bool queue_repair_knows(struct str directory) {
    return dir_of(directory) != SPOOL_CORRUPT;
}

void queue_repair(struct spool *s, struct str directory, unsigned what, queue_repair_report *report, void *ctx) {
    struct repair r = { s, dir_of(directory), what, report, ctx };
    struct level stack[SPOOL_HASH_DEPTH_MAX + 1];
    char path[PATH_ROOM];
    unsigned depth = 0;
    snprintf(path, sizeof path, "%.*s", STR_ARG(directory));
    if (r.dir == SPOOL_CORRUPT || !enter(&r, &stack[0], path))
        return;
    for (;;) {
        struct dirent *e = readdir(stack[depth].d);
        if (e) {
            entry(&r, stack, &depth, path, e->d_name);
            continue;
        }
        path[stack[depth].path_n] = 0;
        leave(&r, &stack[depth], depth, path);
        if (depth-- == 0)
            return;
    }
}
