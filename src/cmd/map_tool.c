#include "cmd/map_tool.h"

#include "base/log.h"
#include "base/utf8.h"
#include "cmd/lookup_child.h"
#include "service/logging.h"
#include "table/build.h"
#include "table/fold.h"
#include "table/table.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SOURCE_MAX = 512 * 1024 * 1024, /* bytes of a text file, or of standard input */
    READ_AGAIN_MAX = 5,             /* times, when the source changes while it is read */
};

/* --- entries being put together --- */

struct entries {
    struct arena *arena;
    struct str spec; /* for warnings */
    const struct map_options *o;
    VEC(struct index_entry) list;
    struct map positions; /* key -> index in `list` + 1; grows with the list, so not a pointer into it */
};

static void add_entry(struct entries *e, struct str key, struct str value) {
    uintptr_t at = (uintptr_t)map_get(&e->positions, key);
    if (at == 0) {
        *vec_add(e->arena, &e->list) = (struct index_entry){ key, value, 0 };
        map_put(&e->positions, key, (void *)(uintptr_t)e->list.n); /* the list's own count, not a pointer */
    } else if (e->o->replace) {
        e->list.at[at - 1].value = value;
    } else if (!e->o->quiet) {
        log_warn("%.*s: duplicate entry: \"%.*s\"", STR_ARG(e->spec), STR_ARG(key));
    }
}

static void add_text(struct entries *e, const struct map_tool *tool, struct str file, struct str text) {
    struct text_reader r = {
        .file = file,
        .lines = { .rest = text },
        .flags = (tool->aliases ? TEXT_ALIASES : 0u) | (e->o->no_fold ? 0u : TEXT_FOLD) |
                 (e->o->any_bytes ? TEXT_ANY_BYTES | TEXT_ASCII : 0u),
        .ignoring = "",
    };
    struct buf scratch = { 0 };
    struct text_entry entry;
    while (text_next_entry(&r, e->arena, &scratch, &entry)) {
        if (entry.key.n > INDEX_KEY_MAX)
            log_warn("%.*s, line %zu: key is longer than %d bytes -- ignoring this line", STR_ARG(file), entry.line,
                     INDEX_KEY_MAX);
        else
            add_entry(e, entry.key, entry.value);
    }
    buf_free(&scratch);
}

/* What sendmail and NIS look for in an alias database: an entry that says the table is whole, when it was made, where.
 */
static void add_alias_marks(struct entries *e, const struct conf *c) {
    add_entry(e, STR("@"), STR("@"));
    add_entry(e, STR("YP_LAST_MODIFIED"), arena_printf(e->arena, "%010lld", (long long)time(NULL)));
    add_entry(e, STR("YP_MASTER_NAME"), conf_str(c, PARAM_myhostname));
}

static void read_stdin(struct buf *b) {
    for (;;) {
        char *at = buf_reserve(b, 64 * 1024);
        ssize_t n = read(STDIN_FILENO, at, 64 * 1024);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            log_fatal("read standard input: %s", strerror(errno));
        if (n == 0)
            return;
        b->n += (size_t)n;
        if (b->n > SOURCE_MAX)
            log_fatal("standard input is longer than %d bytes", SOURCE_MAX);
    }
}

/* --- files --- */

struct target {
    struct str spec, type, name, index;
    const char *source;
};

static struct target split_spec(struct arena *a, const struct conf *c, struct str spec) {
    struct target t;
    if (str_index(spec, ':') < 0)
        spec = arena_printf(a, "%.*s:%.*s", STR_ARG(conf_str(c, PARAM_default_database_type)), STR_ARG(spec));
    t.spec = arena_str(a, spec);
    size_t colon = (size_t)str_index(t.spec, ':');
    t.type = str_sub(t.spec, 0, colon);
    t.name = str_from(t.spec, colon + 1);
    t.index = index_path(a, t.name);
    t.source = arena_cstr(a, t.name);
    return t;
}

static void need_index_type(struct target *t) {
    if (index_type_known(t->type))
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
    if (setegid(st->st_gid) != 0 || seteuid(st->st_uid) != 0)
        log_fatal("set user id %ld, group id %ld: %s", (long)st->st_uid, (long)st->st_gid, strerror(errno));
}

static void become_root_again(void) {
    if (getuid() == 0 && (seteuid(0) != 0 || setegid(getgid()) != 0))
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
        if (stat(path, ret_stat) != 0 || !buf_read_file(ret, path, SOURCE_MAX) || stat(path, &after) != 0)
            log_fatal("open %s: %s", path, strerror(errno));
        if (same_file(ret_stat, &after))
            return;
    }
    log_fatal("open %s: the file is being changed", path);
}

/* --- what the options ask for --- */

static void write_index(struct entries *e, struct target *t, const struct conf *c, const struct map_options *o,
                        mode_t mode, struct timespec mtime) {
    struct index_options io = { .map_size = conf_int(c, PARAM_lmdb_map_size),
                                .no_nul = o->no_nul,
                                .mode = mode,
                                .mtime = mtime,
                                .arena = e->arena };
    error failed = index_write(t->index, (struct index_entries){ e->list.at, e->list.n }, &io);
    if (failed)
        log_fatal("%.*s", STR_ARG(failed->text));
}

static mode_t mode_without_source(void) {
    mode_t mask = umask(022);
    umask(mask);
    return 0644 & ~mask;
}

static struct timespec later(struct timespec a, struct timespec b) {
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec) ? a : b;
}

void map_tool_build(const struct map_tool *tool, const struct map_options *o, const struct conf *c, struct str spec) {
    struct arena *a = arena_new();
    struct target t = split_spec(a, c, spec);
    need_index_type(&t);
    struct stat st;
    if (stat(t.source, &st) != 0)
        log_fatal("open %s: %s", t.source, strerror(errno));
    become_owner(&st, o);
    int lock = lock_folder(a, t.index);
    /* The index gets the time from before the source was read, so an edit made while it is written is newer. */
    struct timespec start;
    clock_gettime(CLOCK_REALTIME_COARSE, &start);
    struct buf text = { 0 };
    read_source(t.source, &text, &st);
    struct entries e = { .arena = a, .spec = t.spec, .o = o };
    add_text(&e, tool, t.name, buf_str(&text));
    if (tool->aliases)
        add_alias_marks(&e, c);
    write_index(&e, &t, c, o, o->no_permissions ? mode_without_source() : st.st_mode & 0777, later(start, st.st_mtim));
    unlock_folder(lock);
    become_root_again();
    map_free(&e.positions);
    buf_free(&text);
    arena_free(a);
}

/* The entries an index has now; none when there is no index yet. Its mode goes on. */
static void load_index(struct entries *e, struct target *t, mode_t *ret_mode) {
    struct stat st;
    *ret_mode = mode_without_source();
    if (stat(t->index.p, &st) != 0) {
        if (errno != ENOENT)
            log_fatal("open database %.*s: %s", STR_ARG(t->index), strerror(errno));
        if (!e->o->no_permissions && stat(t->source, &st) == 0)
            *ret_mode = st.st_mode & 0777;
        return;
    }
    *ret_mode = st.st_mode & 0777;
    struct index_entries old;
    error failed = index_read(t->index, e->arena, &old);
    if (failed)
        log_fatal("%.*s", STR_ARG(failed->text));
    for (size_t i = 0; i < old.n; i++)
        add_entry(e, old.at[i].key, old.at[i].value);
}

static void add_from_stdin(const struct map_tool *tool, const struct map_options *o, const struct conf *c,
                           struct str spec) {
    struct arena *a = arena_new();
    struct target t = split_spec(a, c, spec);
    need_index_type(&t);
    struct buf text = { 0 };
    read_stdin(&text);
    int lock = lock_folder(a, t.index);
    struct entries e = { .arena = a, .spec = t.spec, .o = o };
    mode_t mode;
    load_index(&e, &t, &mode);
    add_text(&e, tool, STR("stdin"), buf_str(&text));
    write_index(&e, &t, c, o, mode, (struct timespec){ 0 });
    unlock_folder(lock);
    map_free(&e.positions);
    buf_free(&text);
    arena_free(a);
}

/* The next key of "-q -" and "-d -". */
static bool next_key(struct str *rest, struct str *ret) {
    if (rest->n == 0)
        return false;
    ptrdiff_t eol = str_index(*rest, '\n');
    *ret = eol < 0 ? *rest : str_sub(*rest, 0, (size_t)eol);
    *rest = str_from(*rest, ret->n + 1);
    return true;
}

static bool remove_key(struct entries *e, struct str key) {
    if (!e->o->no_fold)
        key = arena_fold(e->arena, key, !e->o->any_bytes);
    uintptr_t at = (uintptr_t)map_remove(&e->positions, key);
    if (at)
        e->list.at[at - 1].key = STR("");
    return at != 0;
}

static int remove_keys(const struct map_options *o, const struct conf *c, struct str spec) {
    struct arena *a = arena_new();
    struct target t = split_spec(a, c, spec);
    if (!index_type_known(t.type))
        log_fatal("table %.*s: delete operation is not supported", STR_ARG(t.spec));
    struct buf text = { 0 };
    struct str key, rest = str_c(o->remove);
    bool many = str_eq(rest, STR("-"));
    if (many) {
        read_stdin(&text);
        rest = buf_str(&text);
    }
    int lock = lock_folder(a, t.index);
    if (access(t.index.p, F_OK) != 0)
        log_fatal("open database %.*s: %s", STR_ARG(t.index), strerror(errno));
    struct entries e = { .arena = a, .spec = t.spec, .o = o };
    mode_t mode;
    load_index(&e, &t, &mode);
    size_t removed = 0;
    if (many)
        while (next_key(&rest, &key))
            removed += remove_key(&e, key);
    else
        removed += remove_key(&e, rest);
    size_t kept = 0;
    for (size_t i = 0; i < e.list.n; i++)
        if (e.list.at[i].key.n)
            e.list.at[kept++] = e.list.at[i];
    e.list.n = kept;
    if (removed)
        write_index(&e, &t, c, o, mode, (struct timespec){ 0 });
    unlock_folder(lock);
    map_free(&e.positions);
    buf_free(&text);
    arena_free(a);
    return removed ? 0 : 1;
}

static bool query_tables(struct table **tables, size_t n, const struct map_options *o, struct str key, struct arena *a,
                         struct str *ret_value) {
    for (size_t i = 0; i < n; i++) {
        struct str name = table_name(tables[i]);
        if (key.n == 0 && !table_is_pattern(tables[i])) {
            log_warn("table %.*s: empty lookup key value is not allowed", STR_ARG(name));
            continue;
        }
        if (!o->any_bytes && !utf8_valid(key)) {
            log_warn("%.*s: non-UTF-8 key \"%.*s\": malformed UTF-8 or invalid codepoint", STR_ARG(name), STR_ARG(key));
            continue;
        }
        enum table_result r = table_get(tables[i], key, a, ret_value);
        if (r == TABLE_ERROR) {
            error e = table_error(tables[i]);
            log_fatal("table %.*s: query error: %.*s", STR_ARG(name), STR_ARG(e->text));
        }
        if (r == TABLE_NOT_FOUND)
            continue;
        if (ret_value->n == 0) {
            log_warn("table %.*s: key %.*s: empty string result is not allowed", STR_ARG(name), STR_ARG(key));
            log_warn("table %.*s should return NO RESULT in case of NOT FOUND", STR_ARG(name));
        }
        return true;
    }
    return false;
}

static int query(const struct map_tool *tool, const struct map_options *o, const struct conf *c, char **specs,
                 size_t count) {
    struct arena *a = arena_new();
    struct table **tables = arena_array(a, count, sizeof(struct table *));
    for (size_t i = 0; i < count; i++) {
        tables[i] = table_open(c, str_c(specs[i]),
                               (o->no_fold ? 0u : TABLE_FOLD) | (o->any_bytes ? TABLE_ASCII : 0u) |
                                   (tool->aliases ? TABLE_ALIASES : 0u));
        if (table_error(tables[i]))
            log_fatal("%.*s", STR_ARG(table_error(tables[i])->text));
    }
    struct str value;
    bool found = false;
    if (strcmp(o->query, "-") != 0) {
        found = query_tables(tables, count, o, str_c(o->query), a, &value);
        if (found)
            printf("%.*s\n", STR_ARG(value));
    } else {
        struct buf text = { 0 };
        read_stdin(&text);
        struct str rest = buf_str(&text), key;
        struct arena *round = arena_new();
        while (next_key(&rest, &key)) {
            arena_reset(round);
            if (query_tables(tables, count, o, key, round, &value)) {
                found = true;
                printf("%.*s\t%.*s\n", STR_ARG(key), STR_ARG(value));
            }
        }
        arena_free(round);
        buf_free(&text);
    }
    for (size_t i = 0; i < count; i++)
        table_close(tables[i]);
    arena_free(a);
    return found ? 0 : 1;
}

static int compare_keys(const void *a, const void *b) {
    const struct index_entry *x = a, *y = b;
    return str_cmp(x->key, y->key);
}

/* The index, or the text where that is what look-ups would use. */
static void list(const struct map_tool *tool, const struct map_options *o, const struct conf *c, struct str spec) {
    struct arena *a = arena_new();
    struct target t = split_spec(a, c, spec);
    bool texthash = str_eq(t.type, STR("texthash"));
    if (!texthash && !index_type_known(t.type))
        log_fatal("table %.*s: sequence operation is not supported", STR_ARG(t.spec));
    struct index_entries all = { 0 };
    struct entries e = { .arena = a, .spec = t.spec, .o = o };
    struct buf text = { 0 };
    if (!texthash && index_is_current(t.index, t.name)) {
        error failed = index_read(t.index, a, &all);
        if (failed)
            log_fatal("%.*s", STR_ARG(failed->text));
    } else {
        struct stat st;
        if (stat(t.source, &st) != 0)
            log_fatal("open database %s: %s", texthash ? t.source : t.index.p, strerror(errno));
        read_source(t.source, &text, &st);
        add_text(&e, tool, t.name, buf_str(&text));
        all = (struct index_entries){ e.list.at, e.list.n };
        if (all.n)
            qsort(all.at, all.n, sizeof *all.at, compare_keys);
    }
    for (size_t i = 0; i < all.n; i++)
        printf("%.*s%s\t%.*s\n", STR_ARG(all.at[i].key), tool->aliases ? ":" : "", STR_ARG(all.at[i].value));
    map_free(&e.positions);
    buf_free(&text);
    arena_free(a);
}

/* --- options --- */

static _Noreturn void usage(const struct map_tool *tool) {
    log_fatal("usage: %s %s [-c config_dir] [-d key] [-q key] [map_type:]file...", tool->name, tool->usage);
}

static int read_options(int argc, char **argv, const struct map_tool *tool, struct map_options *o,
                        struct str *ret_config) {
    int verbose = 0, asked = 0, opt;
    while ((opt = getopt(argc, argv, tool->aliases ? "Nc:d:fijnopq:rsuvw" : "FNUbc:d:fhijmnopq:rsuvw")) != -1) {
        switch (opt) {
        case 'N':
            o->no_nul = false;
            break;
        case 'c':
            *ret_config = str_c(optarg);
            break;
        case 'd':
            o->remove = optarg;
            asked++;
            break;
        case 'f':
            o->no_fold = true;
            break;
        case 'i':
            o->incremental = true;
            break;
        case 'n':
            o->no_nul = true;
            break;
        case 'o':
            o->keep_root = true;
            break;
        case 'p':
            o->no_permissions = true;
            break;
        case 'q':
            o->query = optarg;
            asked++;
            break;
        case 'r':
            o->replace = true;
            break;
        case 's':
            o->list = true;
            asked++;
            break;
        case 'u':
            o->any_bytes = true;
            break;
        case 'v':
            log_set_verbose(++verbose);
            break;
        case 'w':
            o->quiet = true;
            break;
        case '?':
            usage(tool);
        default:
            log_fatal("option -%c is not supported", opt);
        }
    }
    if (asked > 1)
        log_fatal("specify only one of -s -q or -d");
    if (optind == argc)
        usage(tool);
    return optind;
}

int map_tool_main(int argc, char **argv, const struct map_tool *tool) {
    logging_start_early(str_c(tool->name), LOGGING_COMMAND);
    struct map_options o = { 0 };
    struct conf_source source = { .config_directory = STR(""), .process_name = str_c(tool->name) };
    int first = read_options(argc, argv, tool, &o, &source.config_directory);
    size_t count = (size_t)(argc - first);
    struct arena *a = arena_new();
    struct conf *c;
    error e = conf_load(&source, a, &c);
    if (!e)
        e = logging_start(c, str_c(tool->name), LOGGING_COMMAND, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    o.any_bytes = o.any_bytes || !conf_bool(c, PARAM_smtputf8_enable);
    lookup_child_use(c);
    int status = 0;
    if (o.query) {
        status = query(tool, &o, c, argv + first, count);
    } else if (o.remove) {
        status = 1;
        for (int i = first; i < argc; i++)
            if (remove_keys(&o, c, str_c(argv[i])) == 0)
                status = 0;
    } else if (o.list) {
        for (int i = first; i < argc; i++)
            list(tool, &o, c, str_c(argv[i]));
    } else if (o.incremental) {
        add_from_stdin(tool, &o, c, str_c(argv[first]));
    } else {
        for (int i = first; i < argc; i++)
            map_tool_build(tool, &o, c, str_c(argv[i]));
    }
    if (fflush(stdout) != 0)
        log_fatal("write standard output: %s", strerror(errno));
    logging_end();
    conf_free(c);
    arena_free(a);
    return status;
}
