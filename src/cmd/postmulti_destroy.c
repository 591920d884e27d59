/* postmulti -e destroy: what the mail system has made goes, what else lies there stays. As root in folders that belong
 * to mail_owner: every step is relative to an open folder and follows no link. */
#include "base/log.h"
#include "cmd/postmulti.h"
#include "cmd/running.h"
#include "conf/settings.h"
#include "queue/spool.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 8 };

static const char *const mail_queues[] = { "maildrop", "incoming", "active", "deferred", "hold", "corrupt", "saved" };
static const char *const other_queues[] = { "bounce", "defer", "flush", "log", "trace", "private", "public", "pid" };
static const char *const config_files[] = { "main.cf", "master.cf" };

static int open_folder(int at, const char *name) {
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

typedef bool visit(int at, const char *name, const struct stat *st, int depth);

/* `fn` for each entry of `fd`, which is closed; false as soon as it says so. */
static bool each_entry(int fd, int depth, visit *fn) {
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    bool go_on = true;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return true;
    }
    for (const struct dirent *e; go_on && (e = readdir(d));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        go_on = fn(dirfd(d), e->d_name, &st, depth);
    }
    closedir(d);
    return go_on;
}

static bool is_no_file(int at, const char *name, const struct stat *st, int depth) {
    if (S_ISDIR(st->st_mode))
        return depth == DEPTH_MAX || each_entry(open_folder(at, name), depth + 1, is_no_file);
    return !S_ISREG(st->st_mode);
}

static bool remove_entry(int at, const char *name, const struct stat *st, int depth) {
    if (S_ISDIR(st->st_mode) && depth < DEPTH_MAX)
        each_entry(open_folder(at, name), depth + 1, remove_entry);
    unlinkat(at, name, S_ISDIR(st->st_mode) ? AT_REMOVEDIR : 0); /* what stays is seen in the end */
    return true;
}

/* Caches and locks: the names that our daemons give. */
static bool remove_data(int at, const char *name, const struct stat *st, int depth) {
    struct str n = str_c(name);
    (void)depth;
    if (S_ISREG(st->st_mode) && (str_ends(n, STR(".lmdb")) || str_ends(n, STR(".lmdb-lock")) ||
                                 str_eq(n, STR("master.lock")) || str_eq(n, STR("prng_exch"))))
        unlinkat(at, name, 0);
    return true;
}

static void remove_folder(struct str path) {
    if (rmdir(path.p) < 0 && errno != ENOENT)
        log_warn("%.*s is not removed: %s", STR_ARG(path), strerror(errno));
}

static struct str pid_directory(const struct postmulti *m, const struct instance *i) {
    struct conf_source source = { .config_directory = i->config_directory };
    struct conf *c;
    struct str ret = STR("pid");
    if (!conf_open(&source, m->arena, &c)) {
        conf_lookup(c, STR("process_id_directory"), m->arena, &ret);
        conf_free(c);
    }
    return ret;
}

/* Segments are kept for their next use: is there mail in one? */
static bool log_has_mail(struct str queue_directory) {
    struct spool_options o = { .queue_directory = queue_directory, .access = SPOOL_LISTER };
    static const enum spool_state states[] = { SPOOL_INCOMING, SPOOL_ACTIVE, SPOOL_HOLD };
    struct arena *a = arena_new();
    struct spool *s;
    bool found = false;
    if (!spool_open(&o, a, &s)) {
        for (size_t i = 0; !found && i < sizeof states / sizeof *states; i++) {
            struct spool_scan scan = { 0 };
            struct spool_entry e;
            found = spool_scan_next(s, &scan, states[i], &e);
            spool_scan_end(s, &scan);
        }
        spool_close(s);
    }
    arena_free(a);
    return found;
}

void postmulti_destroy(const struct postmulti *m, const struct instance *i) {
    if (master_pid(i->queue_directory, pid_directory(m, i)))
        log_fatal("instance %.*s is running: first postmulti -i %s -p stop", STR_ARG(i->config_directory),
                  m->choice.name);
    int queue = open_folder(AT_FDCWD, i->queue_directory.p);
    for (size_t k = 0; queue >= 0 && k < sizeof mail_queues / sizeof *mail_queues; k++)
        if (!each_entry(open_folder(queue, mail_queues[k]), 0, is_no_file))
            log_fatal("instance %.*s has mail in %.*s/%s", STR_ARG(i->config_directory), STR_ARG(i->queue_directory),
                      mail_queues[k]);
    if (log_has_mail(i->queue_directory))
        log_fatal("instance %.*s has mail in %.*s/log", STR_ARG(i->config_directory), STR_ARG(i->queue_directory));
    for (size_t k = 0; queue >= 0 && k < sizeof mail_queues / sizeof *mail_queues; k++) {
        each_entry(open_folder(queue, mail_queues[k]), 0, remove_entry);
        unlinkat(queue, mail_queues[k], AT_REMOVEDIR);
    }
    for (size_t k = 0; queue >= 0 && k < sizeof other_queues / sizeof *other_queues; k++) {
        each_entry(open_folder(queue, other_queues[k]), 0, remove_entry);
        unlinkat(queue, other_queues[k], AT_REMOVEDIR);
    }
    if (queue >= 0)
        close(queue);
    remove_folder(i->queue_directory);
    each_entry(open_folder(AT_FDCWD, i->data_directory.p), 0, remove_data);
    remove_folder(i->data_directory);
    int config = open_folder(AT_FDCWD, i->config_directory.p);
    for (size_t k = 0; config >= 0 && k < sizeof config_files / sizeof *config_files; k++)
        unlinkat(config, config_files[k], 0);
    if (config >= 0)
        close(config);
    remove_folder(i->config_directory);
}
