#include "cmd/map_tool.h"

#include "base/log.h"
#include "cmd/lookup_child.h"
#include "service/logging.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct map_target map_target(struct arena *a, const struct conf *c, struct str spec) {
    struct map_target t;
    if (str_index(spec, ':') < 0)
        spec = arena_printf(a, "%.*s:%.*s", STR_ARG(conf_str(c, PARAM_default_database_type)), STR_ARG(spec));
    t.spec = arena_str(a, spec);
    size_t colon = (size_t)str_index(t.spec, ':');
    t.type = str_sub(t.spec, 0, colon);
    t.name = str_from(t.spec, colon + 1);
    t.kind = index_kind_of(t.type);
    t.index = index_path(a, t.kind, t.name);
    t.source = arena_cstr(a, t.name);
    return t;
}

/* --- standard input --- */

enum { PIECE = 64 * 1024 };

/* False at the end. */
static bool read_piece(struct buf *b) {
    char *at = buf_reserve(b, PIECE);
    ssize_t n;
    do
        n = read(STDIN_FILENO, at, PIECE);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        log_fatal("read standard input: %s", strerror(errno));
    b->n += (size_t)n;
    if (b->n > MAP_INPUT_MAX)
        log_fatal("standard input is longer than %d bytes", MAP_INPUT_MAX);
    return n > 0;
}

void map_read_stdin(struct buf *b) {
    while (read_piece(b))
        ;
}

bool map_next_line(struct map_lines *l, struct str *ret) {
    size_t looked_at = 0;
    for (;;) {
        struct str rest = str_from(buf_str(&l->bytes), l->at);
        ptrdiff_t eol = str_index(str_from(rest, looked_at), '\n');
        if (eol >= 0 || (l->end && rest.n)) {
            *ret = eol < 0 ? rest : str_sub(rest, 0, looked_at + (size_t)eol);
            l->at += ret->n + (eol >= 0);
            return true;
        }
        if (l->end)
            return false;
        looked_at = rest.n;
        buf_consume(&l->bytes, l->at);
        l->at = 0;
        l->waits(l->ctx);
        l->end = !read_piece(&l->bytes);
    }
}

size_t map_lines_ahead(const struct map_lines *l, struct str *ret, size_t room) {
    struct str rest = str_from(buf_str(&l->bytes), l->at);
    size_t n = 0;
    ptrdiff_t eol;
    while (n < room && (eol = str_index(rest, '\n')) >= 0) {
        ret[n++] = str_sub(rest, 0, (size_t)eol);
        rest = str_from(rest, (size_t)eol + 1);
    }
    return n;
}

/* --- options --- */

static _Noreturn void usage(const struct map_tool *tool) {
    log_fatal("usage: %s %s [-c config_dir] [-d key] [-q key] [map_type:]file...", tool->name, tool->options);
}

static void add_option(struct map_options *o, int opt, int *verbose, int *asked) {
    switch (opt) {
    case 'b':
        o->body = true;
        break;
    case 'd':
        o->remove = optarg;
        ++*asked;
        break;
    case 'f':
        o->no_fold = true;
        break;
    case 'F':
        o->files = true;
        break;
    case 'h':
        o->header = true;
        break;
    case 'i':
        o->incremental = true;
        break;
    case 'j':
        o->json = true;
        break;
    case 'm':
        o->mime = true;
        break;
    case 'n':
        o->no_nul = true;
        o->nul = false;
        break;
    case 'N':
        o->nul = true;
        o->no_nul = false;
        break;
    case 'o':
        o->keep_root = true;
        break;
    case 'p':
        o->no_permissions = true;
        break;
    case 'q':
        o->query = optarg;
        ++*asked;
        break;
    case 'r':
        o->replace = true;
        break;
    case 's':
        o->list = true;
        ++*asked;
        break;
    case 'u':
        o->any_bytes = true;
        break;
    case 'U':
        o->force_utf8 = true;
        break;
    case 'v':
        log_set_verbose(++*verbose);
        break;
    case 'w':
        o->quiet = true;
        break;
    }
}

static int read_options(int argc, char **argv, const struct map_tool *tool, struct map_options *o,
                        struct str *ret_config) {
    int verbose = 0, asked = 0, opt;
    while ((opt = getopt(argc, argv, tool->getopt)) != -1) {
        if (opt == '?')
            usage(tool);
        if (opt == 'c')
            *ret_config = str_c(optarg);
        else
            add_option(o, opt, &verbose, &asked);
    }
    if (asked > 1)
        log_fatal("specify only one of -s -q or -d");
    bool stdin_queries = o->query && strcmp(o->query, "-") == 0;
    if ((o->body || o->header || o->mime) && !stdin_queries)
        log_fatal("specify -b -h or -m only with \"-q -\"");
    if (o->mime && !o->body && !o->header)
        log_warn("ignoring -m option without -b or -h");
    if (o->json && !o->query && !o->list)
        log_fatal("specify -j only with -q or -s");
    if (optind == argc)
        usage(tool);
    return optind;
}

/* -d - reads its keys once, for all tables. */
static int remove_from_all(const struct map_job *j, char **specs, size_t count) {
    struct buf text = { 0 };
    struct str keys = str_c(j->o->remove);
    if (str_eq(keys, STR("-"))) {
        map_read_stdin(&text);
        keys = buf_str(&text);
    }
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found = map_remove_keys(j, str_c(specs[i]), keys) || found;
    buf_free(&text);
    return found ? 0 : 1;
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
    const struct map_job job = { tool, &o, c };
    int status = 0;
    if (o.query)
        status = map_query(&job, argv + first, count);
    else if (o.remove)
        status = remove_from_all(&job, argv + first, count);
    else if (o.list) /* one table, whatever else is named, as with Postfix */
        map_list(&job, str_c(argv[first]));
    for (int i = first; i < argc && !o.query && !o.remove && !o.list; i++) {
        if (o.incremental)
            map_add(&job, str_c(argv[i]));
        else
            map_build(&job, str_c(argv[i]));
    }
    if (fflush(stdout) != 0)
        log_fatal("write standard output: %s", strerror(errno));
    lookup_child_end();
    logging_end();
    conf_free(c);
    arena_free(a);
    return status;
}
