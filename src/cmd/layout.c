#include "cmd/layout.h"

#include "base/buf.h"
#include "base/log.h"
#include "cmd/files.h"
#include "conf/review.h"
#include "service/owner.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct check {
    const struct conf *c;
    struct arena *a;
    struct files files;
    bool failed;
};

static bool check_init(struct check *k, const struct conf *c, struct arena *a) {
    struct owner owner;
    *k = (struct check){ .c = c, .a = a };
    error e = owner_lookup(c, a, &owner);
    if (!e)
        e = files_load(c, a, &k->files);
    if (e)
        log_record(LOG_LEVEL_FATAL, e->text);
    return e == NULL;
}

void check_finding(struct str what, struct str mend) {
    log_warn("%.*s", STR_ARG(what));
    log_info("  to mend it: %.*s", STR_ARG(mend));
}

static void fail(struct check *k, struct str text) {
    log_record(LOG_LEVEL_FATAL, text);
    k->failed = true;
}

/* --- what must be there --- */

/* What is there is not changed: that is the administrator's decision (warnings below). */
static void make_dir(struct check *k, const struct file_row *row) {
    if (mkdir(row->path.p, 0700) < 0) {
        if (errno != EEXIST)
            fail(k, arena_printf(k->a, "unable to create missing queue directory %.*s: %s", STR_ARG(row->path),
                                 strerror(errno)));
        return;
    }
    int code = file_mend(AT_FDCWD, row->path.p, true, row->uid, row->gid, row->mode);
    if (code)
        fail(k, arena_printf(k->a, "unable to create missing queue directory %.*s: %s", STR_ARG(row->path),
                             strerror(code)));
}

static void make_dirs(struct check *k) {
    for (size_t i = 0; i < k->files.count && !k->failed; i++)
        if (k->files.rows[i].create)
            make_dir(k, &k->files.rows[i]);
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

static void need_log_service(struct check *k, const struct master_cf *services) {
    for (size_t i = 0; i < services->count; i++)
        if (services->entries[i].type == SERVICE_UNIX_DGRAM &&
            str_eq(services->entries[i].name, conf_str(k->c, PARAM_postlog_service_name)))
            return;
    fail(k, STR("missing 'postlog' service in master.cf - run 'postfix upgrade-configuration'"));
}

bool layout_prepare(const struct conf *c) {
    struct arena *a = arena_new();
    struct check k;
    if (!check_init(&k, c, a)) {
        arena_free(a);
        return false;
    }
    struct str commands = conf_str(c, PARAM_command_directory), daemons = conf_str(c, PARAM_daemon_directory);
    struct str program = arena_printf(a, "%.*s/master", STR_ARG(daemons));
    if (!is_directory(commands))
        fail(&k, arena_printf(a, "no Postfix command directory %.*s!", STR_ARG(commands)));
    if (!is_directory(daemons))
        fail(&k, arena_printf(a, "no Postfix daemon directory %.*s!", STR_ARG(daemons)));
    else if (access(program.p, X_OK) < 0)
        fail(&k, arena_printf(a, "no Postfix master program %.*s!", STR_ARG(program)));
    else if (access(arena_printf(a, "%.*s/postfix-script", STR_ARG(daemons)).p, F_OK) == 0)
        fail(&k, arena_printf(a,
                              "daemon_directory = %.*s has Postfix's daemons, not those of this mail system: correct "
                              "it, or take it out of main.cf (postconf -X daemon_directory)",
                              STR_ARG(daemons)));
    make_dirs(&k);
    struct master_cf services;
    if (load_services(&k, &services) && conf_str(c, PARAM_maillog_file).n)
        need_log_service(&k, &services);
    arena_free(a);
    return !k.failed;
}

/* --- owners and permissions --- */
static void say_faults(const struct check *k, const struct file_row *row, unsigned faults) {
    struct arena *a = k->a;
    if (faults & FAULT_TYPE)
        log_warn("not a %s: %.*s", row->directory ? "directory" : "file", STR_ARG(row->path));
    if (faults & FAULT_OWNER)
        check_finding(arena_printf(a, "not owned by %.*s: %.*s", STR_ARG(row->owner_name), STR_ARG(row->path)),
                      arena_printf(a, "chown %u %.*s", (unsigned)row->uid, STR_ARG(row->path)));
    if (faults & FAULT_GROUP)
        check_finding(arena_printf(a, "not owned by group %.*s: %.*s", STR_ARG(row->group_name), STR_ARG(row->path)),
                      arena_printf(a, "chgrp %.*s %.*s && chmod %o %.*s", STR_ARG(row->group_name), STR_ARG(row->path),
                                   (unsigned)row->mode, STR_ARG(row->path)));
    if (faults & FAULT_WRITABLE)
        check_finding(arena_printf(a, "group or other writable: %.*s", STR_ARG(row->path)),
                      arena_printf(a, "chmod %o %.*s", (unsigned)row->mode, STR_ARG(row->path)));
    if (faults & FAULT_SETGID) {
        log_warn("not set-gid or not owner+group+world executable: %.*s", STR_ARG(row->path));
        if (!(faults & FAULT_GROUP)) /* that says it already */
            log_info("  to mend it: chmod %o %.*s", (unsigned)row->mode, STR_ARG(row->path));
    }
}

/* Then it is looked at there. */
static bool has_row(const struct check *k, struct str path) {
    for (size_t i = 0; i < k->files.count; i++)
        if (str_eq(k->files.rows[i].path, path))
            return true;
    return false;
}

struct below { /* files and folders that only `like`'s owner may change */
    struct check *k;
    const struct file_row *like;
};

static bool review_below(void *ctx, int folder, const char *name, struct str path, const struct stat *st) {
    const struct below *b = ctx;
    (void)folder, (void)name;
    if (has_row(b->k, path))
        return false;
    struct file_row row = *b->like;
    row.path = path;
    row.directory = S_ISDIR(st->st_mode);
    row.mode = st->st_mode & 07755 & ~(mode_t)S_IWGRP;
    row.gid = (gid_t)NO_GROUP;
    say_faults(b->k, &row, file_faults(&row, st));
    return true;
}

/* Below these, too, only the owner may write, whatever lies there; in the queue that is a matter of each message. */
static bool is_reviewed_below(const struct check *k, const struct file_row *row) {
    return str_eq(row->path, conf_directory(k->c)) || str_eq(row->path, conf_str(k->c, PARAM_data_directory)) ||
           str_eq(row->path, conf_str(k->c, PARAM_daemon_directory));
}

static void review_files(struct check *k, bool shared) {
    for (size_t i = 0; i < k->files.count; i++) {
        const struct file_row *row = &k->files.rows[i];
        struct stat st;
        /* an ordinary user's mail system has its programs from somebody else */
        if ((row->shared && (!shared || geteuid() != 0)) || lstat(row->path.p, &st) < 0)
            continue;
        say_faults(k, row, file_faults(row, &st));
        if (row->directory && S_ISDIR(st.st_mode) && is_reviewed_below(k, row))
            files_walk(row->path, k->a, review_below, &(struct below){ k, row });
    }
}

/* --- mending --- */
static void mend(struct check *k, int folder, const char *name, struct str path, bool directory, uid_t uid, gid_t gid,
                 mode_t mode) {
    int code = file_mend(folder, name, directory, uid, gid, mode);
    if (!code || code == ENOENT)
        return;
    log_error("cannot set owner and permissions of %.*s: %s", STR_ARG(path), strerror(code));
    k->failed = true;
}

static bool mend_below(void *ctx, int folder, const char *name, struct str path, const struct stat *st) {
    const struct below *b = ctx;
    if (has_row(b->k, path))
        return false;
    if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))
        mend(b->k, folder, name, path, S_ISDIR(st->st_mode), b->like->uid, (gid_t)NO_GROUP, (mode_t)-1);
    return true;
}

bool layout_mend(const struct conf *c, bool shared) {
    struct arena *a = arena_new();
    struct check k;
    if (!check_init(&k, c, a)) {
        arena_free(a);
        return false;
    }
    make_dirs(&k);
    for (size_t i = 0; i < k.files.count; i++) {
        const struct file_row *row = &k.files.rows[i];
        struct stat st;
        if ((row->shared && (!shared || geteuid() != 0)) || lstat(row->path.p, &st) < 0 || S_ISLNK(st.st_mode))
            continue;
        mode_t mode = row->mode;
        if (!row->directory && !row->shared) /* a main.cf with a password in it stays as closed as it is */
            mode &= st.st_mode;
        mend(&k, AT_FDCWD, row->path.p, row->path, row->directory, row->uid, row->gid, mode);
        if (row->recursive)
            files_walk(row->path, a, mend_below, &(struct below){ &k, row });
    }
    arena_free(a);
    return !k.failed;
}

/* --- services --- */

/* Daemons whose work is done by the process that needs it: smtp keeps its sessions, postscreen asks DNS lists. Their
 * lines in master.cf are right, and idle. */
static const struct str daemons_without_work[] = { STR_INIT("dnsblog"), STR_INIT("scache"), STR_INIT("tlsproxy") };

static bool is_without_work(struct str daemon) {
    for (size_t i = 0; i < sizeof daemons_without_work / sizeof *daemons_without_work; i++)
        if (str_eq(daemon, daemons_without_work[i]))
            return true;
    return false;
}

static void review_services(struct check *k, const struct master_cf *services) {
    for (size_t i = 0; i < services->count; i++) {
        const struct master_entry *e = &services->entries[i];
        struct str path =
            arena_printf(k->a, "%.*s/%.*s", STR_ARG(conf_str(k->c, PARAM_daemon_directory)), STR_ARG(e->command));
        if (access(path.p, X_OK) == 0 || is_without_work(e->command))
            continue;
        log_warn("%.*s/master.cf: line %zu: service %.*s: cannot execute %.*s: %s", STR_ARG(conf_directory(k->c)),
                 e->line, STR_ARG(e->name), STR_ARG(path), strerror(errno));
    }
}

void layout_review(const struct conf *c, bool shared, bool messages) {
    struct arena *a = arena_new();
    struct check k;
    struct master_cf services;
    if (check_init(&k, c, a)) {
        review_files(&k, shared);
        check_queue(c, messages);
        struct str path = arena_printf(a, "%.*s/master.cf", STR_ARG(conf_directory(c)));
        bool loaded = !master_cf_load(path, c, a, &services);
        if (loaded) {
            review_services(&k, &services);
            const struct finding *found;
            size_t n = conf_review(c, &services, a, &found);
            for (size_t i = 0; i < n; i++)
                log_warn("%.*s", STR_ARG(found[i].text));
        }
        check_tables(c, loaded ? &services : NULL, false);
    }
    arena_free(a);
}
