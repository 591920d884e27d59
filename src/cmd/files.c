#include "cmd/files.h"

#include "base/buf.h"
#include "build_config.h"
#include "cmd/stock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20, COLUMNS = 6, EXTRA_FILES_MAX = 1000 };
enum column { COL_PATH, COL_TYPE, COL_OWNER, COL_GROUP, COL_MODE, COL_FLAGS };

struct loader {
    const struct conf *c;
    struct arena *a;
    bool root;
    VEC(struct file_row) rows;
    struct str file; /* for errors */
    size_t line;
};

static error bad_row(const struct loader *l, const char *what, struct str value) {
    return err_make(l->a, ERR_CONFIG, "%.*s, line %zu: %s: \"%.*s\"", STR_ARG(l->file), l->line, what, STR_ARG(value));
}

/* --- one row --- */
static error owner_of(const struct loader *l, struct str name, struct file_row *ret) {
    if (!l->root) {
        ret->owner_name = arena_printf(l->a, "user %u", (unsigned)geteuid());
        ret->uid = geteuid();
        return NULL;
    }
    const struct passwd *pw = getpwnam(name.p);
    if (!pw)
        return bad_row(l, "unknown user", name);
    ret->owner_name = name;
    ret->uid = pw->pw_uid;
    return NULL;
}

static error group_of(const struct loader *l, struct str name, struct file_row *ret) {
    ret->gid = (gid_t)NO_GROUP;
    if (str_eq(name, STR("-")) || !l->root)
        return NULL;
    const struct group *gr = getgrnam(name.p);
    if (!gr)
        return bad_row(l, "unknown group", name);
    ret->group_name = name;
    ret->gid = gr->gr_gid;
    return NULL;
}

static bool is_private(struct str path) {
    static const struct str names[] = { STR_INIT("$config_directory"), STR_INIT("$data_directory"),
                                        STR_INIT("$queue_directory") };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_starts(path, names[i]))
            return true;
    return false;
}

static void add_row(struct loader *l, const struct file_row *row) {
    if (str_index_any(row->path, STR("*?")) < 0) {
        *vec_add(l->a, &l->rows) = *row;
        return;
    }
    glob_t found = { 0 };
    if (glob(row->path.p, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++) {
            struct stat st;
            struct file_row *r;
            if (lstat(found.gl_pathv[i], &st) < 0 || S_ISDIR(st.st_mode) != row->directory)
                continue;
            r = vec_add(l->a, &l->rows);
            *r = *row;
            r->path = arena_str(l->a, str_c(found.gl_pathv[i]));
        }
    globfree(&found);
}

static error read_row(struct loader *l, struct str line) {
    struct str columns[COLUMNS] = { 0 }, piece;
    size_t n = 0;
    for (struct str rest = line; n < COLUMNS && str_next(&rest, STR(":"), &piece); n++)
        columns[n] = str_trim(piece);
    if (n < COLUMNS - 1)
        return bad_row(l, "need path:type:owner:group:mode:flags", line);
    struct file_row row = { .shared = !is_private(columns[COL_PATH]) };
    struct str owner, group;
    error e = conf_expand(l->c, columns[COL_PATH], l->a, &row.path);
    if (!e)
        e = conf_expand(l->c, columns[COL_OWNER], l->a, &owner);
    if (!e)
        e = conf_expand(l->c, columns[COL_GROUP], l->a, &group);
    if (e)
        return e;
    if (!str_starts(row.path, STR("/"))) /* "no", for what is not installed, is no path either */
        return NULL;
    if (!str_eq(columns[COL_TYPE], STR("d")) && !str_eq(columns[COL_TYPE], STR("f")))
        return bad_row(l, "bad type", columns[COL_TYPE]);
    row.directory = str_eq(columns[COL_TYPE], STR("d"));
    for (size_t i = 0; i < columns[COL_MODE].n; i++) {
        char digit = columns[COL_MODE].p[i];
        if (digit < '0' || digit > '7' || columns[COL_MODE].n > 4)
            return bad_row(l, "bad mode", columns[COL_MODE]);
        row.mode = row.mode * 8 + (mode_t)(digit - '0');
    }
    row.create = row.directory && str_index(columns[COL_FLAGS], 'c') >= 0;
    row.recursive = row.directory && str_index(columns[COL_FLAGS], 'r') >= 0;
    if ((e = owner_of(l, owner, &row)) || (e = group_of(l, group, &row)))
        return e;
    add_row(l, &row);
    return NULL;
}

static error read_rows(struct loader *l, struct str file, struct str text) {
    struct str line;
    l->file = file;
    l->line = 0;
    while (str_next(&text, STR("\n"), &line)) {
        l->line++;
        line = str_trim(line);
        if (line.n == 0 || line.p[0] == '#')
            continue;
        error e = read_row(l, line);
        if (e)
            return e;
    }
    return NULL;
}

/* Rows that an administrator or another package has added. */
static error read_extra(struct loader *l) {
    struct str dir = arena_printf(l->a, "%.*s/postfix-files.d", STR_ARG(conf_str(l->c, PARAM_meta_directory)));
    struct dirent **names;
    int n = scandir(dir.p, &names, NULL, alphasort);
    error e = NULL;
    for (int i = 0; i < n; i++) {
        struct str path = arena_printf(l->a, "%.*s/%s", STR_ARG(dir), names[i]->d_name);
        bool wanted = names[i]->d_name[0] != '.' && i < EXTRA_FILES_MAX;
        free(names[i]);
        struct buf text = { 0 };
        if (!wanted || e)
            continue;
        if (!buf_read_file(&text, path.p, FILE_MAX))
            e = errno == EISDIR ? NULL : err_make(l->a, ERR_CONFIG, "open %.*s: %s", STR_ARG(path), strerror(errno));
        else
            e = read_rows(l, path, buf_str(&text));
        buf_free(&text);
    }
    if (n >= 0)
        free(names);
    return e;
}

error files_load(const struct conf *c, struct arena *a, struct files *ret) {
    struct loader l = { .c = c, .a = a, .root = geteuid() == 0 };
    error e = read_rows(&l, STR("postfix-files"), stock_postfix_files);
    if (!e)
        e = read_extra(&l);
    ret->rows = l.rows.at;
    ret->count = l.rows.n;
    return e;
}

/* --- looking --- */
unsigned file_faults(const struct file_row *row, const struct stat *st) {
    unsigned faults = 0;
    if (S_ISLNK(st->st_mode)) /* where it leads is somebody else's row, if anybody's */
        return st->st_uid == row->uid || st->st_uid == 0 ? 0 : FAULT_OWNER;
    if (row->directory != S_ISDIR(st->st_mode))
        return FAULT_TYPE;
    if (st->st_uid != row->uid)
        faults |= FAULT_OWNER;
    if (row->gid != (gid_t)NO_GROUP && st->st_gid != row->gid)
        faults |= FAULT_GROUP;
    if (st->st_mode & (S_IWGRP | S_IWOTH) & ~row->mode)
        faults |= FAULT_WRITABLE;
    const mode_t run = S_ISGID | S_IXUSR | S_IXGRP | S_IXOTH;
    if (row->gid != (gid_t)NO_GROUP && (row->mode & S_ISGID) && (st->st_mode & run) != run)
        faults |= FAULT_SETGID;
    return faults;
}

bool files_is_secondary(const struct conf *c) {
    struct str own = conf_directory(c), word;
    if (str_eq(own, STR(BUILD_CONFIG_DIRECTORY)))
        return false;
    struct arena *a = arena_new();
    struct conf_source source = { .config_directory = STR(BUILD_CONFIG_DIRECTORY) };
    struct conf *primary;
    bool found = false;
    if (!conf_load(&source, a, &primary)) { /* no default instance: nobody's second */
        struct str list = conf_str(primary, PARAM_multi_instance_directories);
        while (str_word(&list, STR_COMMA_SPACE, &word))
            found = found || str_eq(word, own);
        conf_free(primary);
    }
    arena_free(a);
    return found;
}

/* --- going through --- */
struct files_walk {
    struct arena *a;
    file_visit *fn;
    void *ctx;
};

static void walk_folder(const struct files_walk *w, int parent, const char *name, struct str path, int depth) {
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (const struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        struct str below = arena_printf(w->a, "%.*s/%s", STR_ARG(path), e->d_name);
        if (w->fn(w->ctx, fd, e->d_name, below, &st) && S_ISDIR(st.st_mode) && depth < FILES_DEPTH)
            walk_folder(w, fd, e->d_name, below, depth + 1);
    }
    closedir(d);
}

void files_walk(struct str path, struct arena *a, file_visit *fn, void *ctx) {
    const struct files_walk w = { a, fn, ctx };
    walk_folder(&w, AT_FDCWD, arena_cstr(a, path), path, 1);
}

/* --- mending --- */
static int mend_fd(int fd, bool directory, uid_t uid, gid_t gid, mode_t mode) {
    struct stat st;
    if (fstat(fd, &st) < 0)
        return errno;
    if (directory ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode))
        return directory ? ENOTDIR : EINVAL;
    if (!directory && uid != 0 && st.st_nlink > 1) /* somebody else's file under a name of the owner's choice */
        return EMLINK;
    if (geteuid() == 0 && (st.st_uid != uid || (gid != (gid_t)NO_GROUP && st.st_gid != gid))) {
        /* a change of owner takes the set-gid bit away */
        if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 || fstat(fd, &st) < 0)
            return errno;
    }
    if (mode == (mode_t)-1 || (st.st_mode & 07777) == mode)
        return 0;
    char by_fd[64]; /* fchmod() does not take a descriptor that was opened with O_PATH */
    snprintf(by_fd, sizeof by_fd, "/proc/self/fd/%d", fd);
    return chmod(by_fd, mode) < 0 ? errno : 0;
}

int file_mend(int folder, const char *path, bool directory, uid_t uid, gid_t gid, mode_t mode) {
    int fd = openat(folder, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int code = mend_fd(fd, directory, uid, gid, mode);
    close(fd);
    return code;
}
