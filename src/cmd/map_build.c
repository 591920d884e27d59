/* Making and changing indexes: postmap without -q and -s. */
#include "cmd/map_tool.h"

#include "base/log.h"
#include "table/build.h"
#include "table/file_values.h"
#include "table/fold.h"
#include "table/table.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { READ_AGAIN_MAX = 5 /* times, when the source changes while it is read */ };

/* --- entries --- */

struct entries {
    struct arena *arena;
    VEC(struct index_entry) list;
    struct str file; /* for warnings */
    struct str spec;
};

static void add_entry(struct entries *e, struct str key, struct str value, size_t line) {
    if (e->list.n >= UINT32_MAX - 1)
        log_fatal("%.*s: more than %zu entries", STR_ARG(e->spec), e->list.n);
    *vec_add(e->arena, &e->list) = (struct index_entry){ .key = key, .value = value, .line = (uint32_t)line };
}

static void add_text(const struct map_job *j, struct entries *e, struct str text) {
    const struct map_options *o = j->o;
    struct text_reader r = {
        .file = e->file,
        .lines = { .rest = text },
        .flags = (j->tool->aliases ? TEXT_ALIASES : 0u) | (o->no_fold ? 0u : TEXT_FOLD) |
                 (o->any_bytes ? TEXT_ANY_BYTES | TEXT_ASCII : 0u),
        .ignoring = "",
    };
    struct buf scratch = { 0 };
    struct text_entry entry;
    while (text_next_entry(&r, e->arena, &scratch, &entry)) {
        if (o->files) {
            struct str content;
            error failed = file_value_read(entry.value, e->arena, &content);
            if (failed) {
                log_warn("%.*s, line %zu: %.*s: skipping this entry", STR_ARG(e->file), entry.line,
                         STR_ARG(failed->text));
                continue;
            }
            entry.value = base64_encode(e->arena, content);
        }
        add_entry(e, entry.key, entry.value, entry.line);
    }
    buf_free(&scratch);
}

static void warn_of_dropped(const struct map_job *j, const struct entries *e) {
    if (j->o->quiet || j->o->replace)
        return;
    for (size_t i = 0; i < e->list.n; i++) {
        const struct index_entry *at = &e->list.at[i];
        if (at->dropped && at->line)
            log_warn("%.*s, line %zu: duplicate entry: \"%.*s\"", STR_ARG(e->file), (size_t)at->line,
                     STR_ARG(str_sub(at->key, 0, 1000)));
    }
}

/* What sendmail and NIS look for in an alias database: an entry that says the table is whole, when it was made, where.
 */
static void add_alias_marks(struct entries *e, const struct conf *c) {
    add_entry(e, STR("@"), STR("@"), 0);
    add_entry(e, STR("YP_LAST_MODIFIED"), arena_printf(e->arena, "%010lld", (long long)time(NULL)), 0);
    add_entry(e, STR("YP_MASTER_NAME"), conf_str(c, PARAM_myhostname), 0);
}

/* --- files --- */

static void need_index(const struct map_target *t) {
    if (t->kind != INDEX_NONE)
        return;
    const struct str *types;
    size_t n = table_types(&types);
    for (size_t i = 0; i < n; i++)
        if (str_eq(types[i], t->type))
            log_fatal("unsupported dictionary type: %.*s does not support bulk-mode creation.", STR_ARG(t->type));
    log_fatal("unsupported dictionary type: %.*s", STR_ARG(t->type));
}

/* Two builders in one folder wait for each other. The lock goes with the descriptor given. */
static int lock_folder(struct arena *a, struct str path) {
    ptrdiff_t slash = str_rindex(path, '/');
    const char *folder = slash < 0 ? "." : slash == 0 ? "/" : arena_cstr(a, str_sub(path, 0, (size_t)slash));
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX) != 0)
        log_fatal("lock %s: %s", folder, strerror(errno));
    return fd;
}

static void unlock_folder(int fd) {
    if (fd >= 0)
        close(fd);
}

/* Work as the owner of the file, not as root: the folder may be the owner's too. */
static void become_owner(const struct stat *st, const struct map_options *o) {
    if (o->keep_root || geteuid() != 0 || st->st_uid == 0)
        return;
    if (setgroups(1, &st->st_gid) != 0 || setegid(st->st_gid) != 0 || seteuid(st->st_uid) != 0)
        log_fatal("set user id %ld, group id %ld: %s", (long)st->st_uid, (long)st->st_gid, strerror(errno));
}

static void become_root_again(void) {
    if (getuid() != 0 || geteuid() == 0)
        return;
    gid_t group = getgid();
    if (seteuid(0) != 0 || setegid(group) != 0 || setgroups(1, &group) != 0)
        log_fatal("back to root: %s", strerror(errno));
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* The text as it was at one moment. */
static void read_source(const char *path, struct buf *ret, struct stat *ret_stat) {
    struct stat after;
    for (int i = 0; i < READ_AGAIN_MAX; i++) {
        buf_clear(ret);
        if (stat(path, ret_stat) == 0 && !S_ISREG(ret_stat->st_mode))
            log_fatal("open %s: %s", path, S_ISDIR(ret_stat->st_mode) ? strerror(EISDIR) : "not a regular file");
        if (stat(path, ret_stat) != 0 || !buf_read_file(ret, path, MAP_INPUT_MAX) || stat(path, &after) != 0)
            log_fatal("open %s: %s", path, strerror(errno));
        if (same_file(ret_stat, &after))
            return;
    }
    log_fatal("open %s: the file is being changed", path);
}

static mode_t mode_without_source(void) {
    mode_t mask = umask(022);
    umask(mask);
    return 0644 & ~mask;
}

static struct timespec later(struct timespec a, struct timespec b) {
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec) ? a : b;
}

static struct index_options index_options(const struct map_job *j, const struct map_target *t, struct arena *a) {
    return (struct index_options){
        .kind = t->kind,
        .map_size = conf_int(j->c, PARAM_lmdb_map_size),
        .no_nul = j->o->no_nul && !j->o->nul,
        .nul = j->o->nul,
        .arena = a,
    };
}

static void write_index(const struct map_job *j, struct entries *e, const struct map_target *t,
                        const struct index_options *io) {
    struct index_entries all = { e->list.at, e->list.n };
    uint32_t *order = calloc(all.n + 1, sizeof *order);
    if (!order)
        log_fatal("out of memory for %zu entries", all.n);
    index_settle(all, j->o->replace, order);
    warn_of_dropped(j, e);
    error failed = index_write(t->index, all, order, io);
    free(order);
    if (failed)
        log_fatal("%.*s", STR_ARG(failed->text));
}

/* fail: exists to try how errors look: it is "written", and that fails. */
static bool is_fail_table(const struct map_target *t) {
    return str_eq(t->type, STR("fail"));
}

void map_build(const struct map_job *j, struct str spec) {
    struct arena *a = arena_new();
    struct map_target t = map_target(a, j->c, spec);
    if (!is_fail_table(&t))
        need_index(&t);
    struct stat st;
    if (stat(t.source, &st) != 0)
        log_fatal("open %s: %s", t.source, strerror(errno));
    become_owner(&st, j->o);
    int lock = lock_folder(a, t.index);
    /* The index gets the time from before the source was read, so an edit made while it is written is newer. */
    struct timespec start;
    clock_gettime(CLOCK_REALTIME_COARSE, &start);
    struct buf text = { 0 };
    read_source(t.source, &text, &st);
    struct entries e = { .arena = a, .file = t.name, .spec = t.spec };
    add_text(j, &e, buf_str(&text));
    buf_free(&text);
    if (j->tool->aliases)
        add_alias_marks(&e, j->c);
    if (is_fail_table(&t) && e.list.n)
        log_fatal("table %.*s: write error: Application error", STR_ARG(t.spec));
    if (!is_fail_table(&t)) {
        struct index_options io = index_options(j, &t, a);
        io.mode = j->o->no_permissions ? mode_without_source() : st.st_mode & 0777;
        io.mtime = later(start, st.st_mtim);
        write_index(j, &e, &t, &io);
        log_debug("%.*s: %zu entries of %s", STR_ARG(t.index), e.list.n, t.source);
    }
    unlock_folder(lock);
    become_root_again();
    arena_free(a);
}

/* --- changes --- */

static void need_lmdb(const struct map_target *t, const char *option, const char *what) {
    if (is_fail_table(t))
        log_fatal("table %.*s: %s error: Application error", STR_ARG(t->spec), what);
    if (t->kind == INDEX_CDB)
        log_fatal("table %.*s: a cdb file cannot be changed: %s is for lmdb, hash and btree", STR_ARG(t->spec), option);
    need_index(t);
}

static mode_t mode_of_new_index(const struct map_job *j, const struct map_target *t) {
    struct stat st;
    return !j->o->no_permissions && stat(t->source, &st) == 0 ? st.st_mode & 0777 : mode_without_source();
}

void map_add(const struct map_job *j, struct str spec) {
    struct arena *a = arena_new();
    struct map_target t = map_target(a, j->c, spec);
    need_lmdb(&t, "-i", "update");
    struct stat st;
    if (stat(t.source, &st) == 0)
        become_owner(&st, j->o);
    struct buf text = { 0 };
    map_read_stdin(&text);
    struct entries e = { .arena = a, .file = STR("stdin"), .spec = t.spec };
    add_text(j, &e, buf_str(&text));
    buf_free(&text);
    struct index_options io = index_options(j, &t, a);
    io.mode = mode_of_new_index(j, &t);
    int lock = lock_folder(a, t.index);
    if (access(t.index.p, F_OK) != 0) {
        write_index(j, &e, &t, &io); /* nobody sees it before it is whole */
    } else {
        struct lmdb_writer *w;
        error failed = lmdb_writer_open(t.index.p, &io, true, &w);
        if (!failed)
            failed = lmdb_writer_put(w, (struct index_entries){ e.list.at, e.list.n }, j->o->replace, a);
        if (failed)
            log_fatal("%.*s", STR_ARG(failed->text));
        lmdb_writer_close(w);
        warn_of_dropped(j, &e);
    }
    unlock_folder(lock);
    become_root_again();
    arena_free(a);
}

/* From a table that is no index of ours: internal:, memcache:, proxy:. */
static bool remove_from_table(const struct map_job *j, struct str spec, struct str keys) {
    unsigned flags = TABLE_WRITE | (j->o->no_fold ? 0u : TABLE_FOLD) | (j->o->any_bytes ? TABLE_ASCII : 0u);
    struct table *t = table_open(j->c, spec, flags);
    if (table_error(t))
        log_fatal("%.*s", STR_ARG(table_error(t)->text));
    if (!table_can_delete(t))
        log_fatal("table %.*s: delete operation is not supported", STR_ARG(spec));
    bool found = false;
    struct str key;
    while (str_next(&keys, STR("\n"), &key)) {
        enum table_result r = key.n ? table_delete(t, key) : TABLE_NOT_FOUND;
        if (r == TABLE_ERROR)
            log_fatal("table %.*s: delete error: %.*s", STR_ARG(spec), STR_ARG(table_error(t)->text));
        found = found || r == TABLE_FOUND;
    }
    table_close(t);
    return found;
}

bool map_remove_keys(const struct map_job *j, struct str spec, struct str keys) {
    struct arena *a = arena_new();
    struct map_target t = map_target(a, j->c, spec);
    if (t.kind == INDEX_NONE && !is_fail_table(&t)) {
        bool gone = remove_from_table(j, spec, keys);
        arena_free(a);
        return gone;
    }
    need_lmdb(&t, "-d", "delete");
    struct stat st;
    if (stat(t.index.p, &st) != 0)
        log_fatal("open database %.*s: %s", STR_ARG(t.index), strerror(errno));
    become_owner(&st, j->o);
    struct entries e = { .arena = a };
    struct str key;
    while (str_next(&keys, STR("\n"), &key)) {
        if (key.n)
            add_entry(&e, j->o->no_fold ? arena_str(a, key) : arena_fold(a, key, !j->o->any_bytes), STR(""), 0);
    }
    struct index_options io = index_options(j, &t, a);
    int lock = lock_folder(a, t.index);
    struct lmdb_writer *w;
    size_t found = 0;
    error failed = lmdb_writer_open(t.index.p, &io, true, &w);
    if (!failed)
        failed = lmdb_writer_delete(w, (struct index_entries){ e.list.at, e.list.n }, &found, a);
    if (failed)
        log_fatal("%.*s", STR_ARG(failed->text));
    lmdb_writer_close(w);
    unlock_folder(lock);
    become_root_again();
    arena_free(a);
    return found > 0;
}
