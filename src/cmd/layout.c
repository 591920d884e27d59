#include "cmd/layout.h"

#include "base/buf.h"
#include "base/log.h"
#include "conf/master_cf.h"
#include "conf/review.h"
#include "service/owner.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* The queue directories (postfix-files): who owns them, and who else may do what. */
enum dir_owner { BY_ROOT, BY_MAIL_OWNER };
enum dir_group { NO_GROUP, SETGID_GROUP };
static const struct queue_dir {
    struct str name;
    enum dir_owner owner;
    enum dir_group group;
    mode_t mode;
} queue_dirs[] = {
    { STR_INIT("active"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("bounce"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("corrupt"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("defer"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("deferred"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("flush"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("hold"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("incoming"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("private"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("saved"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    { STR_INIT("trace"), BY_MAIL_OWNER, NO_GROUP, 0700 },
    /* postdrop, set-group-id, makes files there but cannot list them */
    { STR_INIT("maildrop"), BY_MAIL_OWNER, SETGID_GROUP, 0730 },
    { STR_INIT("public"), BY_MAIL_OWNER, SETGID_GROUP, 0710 },
    { STR_INIT("pid"), BY_ROOT, NO_GROUP, 0755 },
};
enum { QUEUE_DIRS = sizeof queue_dirs / sizeof *queue_dirs, WALK_DEPTH_MAX = 16 };

struct check {
    const struct conf *c;
    struct owner owner;
    struct arena *a;
    uid_t root_uid; /* who must own what root owns: we, when we are not root */
    struct str mail_owner, root_name;
    bool failed;
};

static void check_init(struct check *k, const struct conf *c, struct arena *a) {
    *k = (struct check){ .c = c, .a = a, .root_uid = geteuid(), .mail_owner = conf_str(c, PARAM_mail_owner) };
    error e = owner_lookup(c, a, &k->owner);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    k->root_name = STR("root");
    if (!k->owner.root) {
        k->root_name = arena_printf(a, "user %u", (unsigned)geteuid());
        k->mail_owner = k->root_name;
    }
}

static void fail(struct check *k, struct str text) {
    log_record(LOG_LEVEL_FATAL, text);
    k->failed = true;
}

/* Make `path` if it is not there. What is there is not changed: that is the administrator's decision (warnings below).
 */
static void make_dir(struct check *k, struct str path, enum dir_owner owner, enum dir_group group, mode_t mode) {
    if (mkdir(path.p, 0700) < 0) {
        if (errno != EEXIST)
            fail(k, arena_printf(k->a, "unable to create missing queue directory %.*s: %s", STR_ARG(path),
                                 strerror(errno)));
        return;
    }
    int fd = open(path.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    uid_t uid = owner == BY_MAIL_OWNER ? k->owner.mail_uid : k->root_uid;
    gid_t gid = group == SETGID_GROUP ? k->owner.setgid_gid : (gid_t)-1;
    if (fd < 0 || (k->owner.root && fchown(fd, uid, gid) < 0) || fchmod(fd, mode) < 0)
        fail(k,
             arena_printf(k->a, "unable to create missing queue directory %.*s: %s", STR_ARG(path), strerror(errno)));
    if (fd >= 0)
        close(fd);
}

static bool is_directory(struct str path) {
    struct stat st;
    return stat(path.p, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool load_services(struct check *k, struct master_cf *ret) {
    struct str path = arena_printf(k->a, "%.*s/master.cf", STR_ARG(conf_directory(k->c)));
    if (access(path.p, R_OK) < 0) {
        fail(k, arena_printf(k->a, "no %.*s file found", STR_ARG(path)));
        return false;
    }
    error e = master_cf_load(path, k->c, k->a, ret);
    if (e)
        fail(k, e->text);
    return !e;
}

bool layout_prepare(const struct conf *c) {
    struct arena *a = arena_new();
    struct check k;
    check_init(&k, c, a);
    struct str queue = conf_str(c, PARAM_queue_directory), data = conf_str(c, PARAM_data_directory);
    struct str commands = conf_str(c, PARAM_command_directory), daemons = conf_str(c, PARAM_daemon_directory);
    struct str program = arena_printf(a, "%.*s/master", STR_ARG(daemons));
    if (!is_directory(commands))
        fail(&k, arena_printf(a, "no Postfix command directory %.*s!", STR_ARG(commands)));
    if (!is_directory(daemons))
        fail(&k, arena_printf(a, "no Postfix daemon directory %.*s!", STR_ARG(daemons)));
    else if (access(program.p, X_OK) < 0)
        fail(&k, arena_printf(a, "no Postfix master program %.*s!", STR_ARG(program)));
    if (mkdir(queue.p, 0755) < 0 && errno != EEXIST) {
        fail(&k, arena_printf(a, "no Postfix queue directory %.*s!", STR_ARG(queue)));
    } else {
        for (size_t i = 0; i < QUEUE_DIRS && !k.failed; i++)
            make_dir(&k, arena_printf(a, "%.*s/%.*s", STR_ARG(queue), STR_ARG(queue_dirs[i].name)), queue_dirs[i].owner,
                     queue_dirs[i].group, queue_dirs[i].mode);
        if (!k.failed)
            make_dir(&k, data, BY_MAIL_OWNER, NO_GROUP, 0700);
    }
    struct master_cf services;
    if (load_services(&k, &services) && conf_str(c, PARAM_maillog_file).n) {
        bool found = false;
        for (size_t i = 0; i < services.count; i++)
            found = found || (services.entries[i].type == SERVICE_UNIX_DGRAM &&
                              str_eq(services.entries[i].name, conf_str(c, PARAM_postlog_service_name)));
        if (!found)
            fail(&k, STR("missing 'postlog' service in master.cf - run 'postfix upgrade-configuration'"));
    }
    arena_free(a);
    return !k.failed;
}

/* --- what is allowed but should not be --- */
static void check_writable(struct str path, const struct stat *st) {
    if (!S_ISLNK(st->st_mode) && (st->st_mode & (S_IWGRP | S_IWOTH)))
        log_warn("group or other writable: %.*s", STR_ARG(path));
}
static void check_owner(struct str path, const struct stat *st, uid_t uid, struct str name) {
    if (st->st_uid != uid)
        log_warn("not owned by %.*s: %.*s", STR_ARG(name), STR_ARG(path));
}

/* Files and folders below `path`, which root alone may change. Links are not followed. */
static void walk(struct check *k, struct str path, uid_t uid, struct str owner, int depth) {
    struct stat st;
    if (lstat(path.p, &st) < 0)
        return;
    check_owner(path, &st, uid, owner);
    check_writable(path, &st);
    if (!S_ISDIR(st.st_mode) || depth == WALK_DEPTH_MAX)
        return;
    DIR *dir = opendir(path.p);
    if (!dir)
        return;
    for (const struct dirent *d; (d = readdir(dir));)
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
            walk(k, arena_printf(k->a, "%.*s/%s", STR_ARG(path), d->d_name), uid, owner, depth + 1);
    closedir(dir);
}

static void review_queue(struct check *k) {
    struct str queue = conf_str(k->c, PARAM_queue_directory);
    struct stat st;
    if (stat(queue.p, &st) == 0) {
        check_owner(queue, &st, k->root_uid, k->root_name);
        check_writable(queue, &st);
    }
    for (size_t i = 0; i < QUEUE_DIRS; i++) {
        const struct queue_dir *d = &queue_dirs[i];
        struct str path = arena_printf(k->a, "%.*s/%.*s", STR_ARG(queue), STR_ARG(d->name));
        if (lstat(path.p, &st) < 0)
            continue;
        if (d->owner == BY_MAIL_OWNER)
            check_owner(path, &st, k->owner.mail_uid, k->mail_owner);
        else
            check_owner(path, &st, k->root_uid, k->root_name);
        if (d->group == SETGID_GROUP && st.st_gid != k->owner.setgid_gid && k->owner.root)
            log_warn("not owned by group %.*s: %.*s", STR_ARG(conf_str(k->c, PARAM_setgid_group)), STR_ARG(path));
        if (st.st_mode & (S_IWGRP | S_IWOTH) & ~d->mode)
            log_warn("group or other writable: %.*s", STR_ARG(path));
    }
    struct str corrupt = arena_printf(k->a, "%.*s/corrupt", STR_ARG(queue));
    DIR *dir = opendir(corrupt.p);
    if (!dir)
        return;
    for (const struct dirent *d; (d = readdir(dir));)
        if (d->d_name[0] != '.')
            log_warn("damaged message: corrupt/%s", d->d_name);
    closedir(dir);
}

/* The commands that everybody may run with the group's rights. */
static void review_setgid_commands(struct check *k) {
    static const char *const commands[] = { "postdrop", "postqueue", "postlog" };
    struct stat st;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct str path = arena_printf(k->a, "%.*s/%s", STR_ARG(conf_str(k->c, PARAM_command_directory)), commands[i]);
        if (stat(path.p, &st) < 0)
            continue;
        if (st.st_gid != k->owner.setgid_gid)
            log_warn("not owned by group %.*s: %.*s", STR_ARG(conf_str(k->c, PARAM_setgid_group)), STR_ARG(path));
        if ((st.st_mode & 02111) != 02111)
            log_warn("not set-gid or not owner+group+world executable: %.*s", STR_ARG(path));
    }
}

/* The daemons of Postfix that this version has not: a service of theirs is no mistake in master.cf. A daemon that has
 * come since is executable, so a row too many does no harm. */
static const struct str daemons_to_come[] = {
    STR_INIT("anvil"), STR_INIT("dnsblog"),    STR_INIT("flush"),    STR_INIT("lmtp"),
    STR_INIT("pipe"),  STR_INIT("postscreen"), STR_INIT("qmqpd"),    STR_INIT("scache"),
    STR_INIT("spawn"), STR_INIT("tlsmgr"),     STR_INIT("tlsproxy"), STR_INIT("verify"),
};

static bool is_to_come(struct str daemon) {
    for (size_t i = 0; i < sizeof daemons_to_come / sizeof *daemons_to_come; i++)
        if (str_eq(daemon, daemons_to_come[i]))
            return true;
    return false;
}

static void review_services(struct check *k, const struct master_cf *services) {
    struct buf absent = { 0 };
    for (size_t i = 0; i < services->count; i++) {
        const struct master_entry *e = &services->entries[i];
        struct str path =
            arena_printf(k->a, "%.*s/%.*s", STR_ARG(conf_str(k->c, PARAM_daemon_directory)), STR_ARG(e->command));
        if (access(path.p, X_OK) == 0)
            continue;
        if (errno == ENOENT && is_to_come(e->command))
            buf_printf(&absent, "%s%.*s", absent.n ? ", " : "", STR_ARG(e->name));
        else
            log_warn("%.*s/master.cf: line %zu: service %.*s: cannot execute %.*s: %s", STR_ARG(conf_directory(k->c)),
                     e->line, STR_ARG(e->name), STR_ARG(path), strerror(errno));
    }
    if (absent.n)
        log_warn("%.*s/master.cf: services that this version does not have yet: %.*s", STR_ARG(conf_directory(k->c)),
                 STR_ARG(buf_str(&absent)));
    buf_free(&absent);
}

void layout_review(const struct conf *c) {
    struct arena *a = arena_new();
    struct check k;
    struct master_cf services;
    check_init(&k, c, a);
    walk(&k, conf_directory(c), k.root_uid, k.root_name, 0);
    if (k.owner.root) {
        walk(&k, conf_str(c, PARAM_daemon_directory), 0, STR("root"), 0);
        review_setgid_commands(&k);
    }
    walk(&k, conf_str(c, PARAM_data_directory), k.owner.mail_uid, k.mail_owner, 0);
    review_queue(&k);
    struct str path = arena_printf(a, "%.*s/master.cf", STR_ARG(conf_directory(c)));
    if (!master_cf_load(path, c, a, &services)) {
        review_services(&k, &services);
        const struct finding *found;
        size_t n = conf_review(c, &services, a, &found);
        for (size_t i = 0; i < n; i++)
            log_warn("%.*s", STR_ARG(found[i].text));
    }
    arena_free(a);
}
