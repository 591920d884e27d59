/* postfix check: the tables that main.cf and master.cf name, if they are files. A missing or malformed one makes mail
 * wait; better to hear of it here. */
#include "base/log.h"
#include "base/map.h"
#include "cmd/layout.h"
#include "conf/database_types.h"
#include "conf/settings.h"
#include "deliver/child.h"
#include "service/owner.h"
#include "table/index.h"
#include "table/table.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

struct table_check {
    const struct conf *c;
    struct arena *a;
    struct owner owner;
    struct map seen; /* table -> struct table_check *: once is enough */
};

/* Types whose name is a file's. */
static bool is_file_type(struct str type) {
    static const struct str types[] = {
        STR_INIT("btree"),  STR_INIT("cdb"),  STR_INIT("cidr"),     STR_INIT("dbm"),
        STR_INIT("hash"),   STR_INIT("lmdb"), STR_INIT("nis"),      STR_INIT("pcre"),
        STR_INIT("regexp"), STR_INIT("sdbm"), STR_INIT("texthash"),
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (str_eq(type, types[i]))
            return true;
    return false;
}

/* Files that a daemon makes for itself. */
static bool is_cache(struct str parameter) {
    return str_ends(parameter, STR("_cache_database")) || str_ends(parameter, STR("_cache_map")) ||
           str_ends(parameter, STR("_cache_name")) || str_eq(parameter, STR("address_verify_map"));
}

/* Tables with secrets are often root's alone. */
static bool is_secret(struct str parameter) {
    return str_ends(parameter, STR("_password_maps"));
}

/* Asked in a child, because giving up root is for good. */
static bool owner_can_read(const struct table_check *k, const char *path) {
    pid_t pid = fork();
    if (pid == 0) {
        bool can = child_become(k->owner.mail_uid, k->owner.mail_gid) && access(path, R_OK) == 0;
        _exit(can ? 0 : 1);
    }
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid < 0 || status == 0;
}

static void check_readable(const struct table_check *k, struct str where, struct str spec, struct str path) {
    struct str owner = conf_str(k->c, PARAM_mail_owner);
    if (!k->owner.root || access(path.p, F_OK) < 0 || owner_can_read(k, path.p))
        return;
    check_finding(
        arena_printf(k->a, "%.*s: table %.*s: user %.*s cannot read %.*s", STR_ARG(where), STR_ARG(spec),
                     STR_ARG(owner), STR_ARG(path)),
        arena_printf(k->a, "chgrp %.*s %.*s && chmod g+r %.*s", STR_ARG(owner), STR_ARG(path), STR_ARG(path)));
}

static void check_table(struct table_check *k, struct str where, struct str parameter, struct str spec) {
    ptrdiff_t colon = str_index(spec, ':');
    struct str type = str_sub(spec, 0, (size_t)colon), path = str_from(spec, (size_t)colon + 1);
    if (map_put(&k->seen, spec, k))
        return;
    struct table *t = table_open(k->c, spec, TABLE_FOLD); /* logs what it finds within the file, with line numbers */
    struct str unused;
    if (!table_error(t)) /* what it has to say of its index is said at the first look-up */
        table_get(t, STR("postfix-check"), k->a, &unused);
    error e = table_error(t);
    if (e) {
        bool indexed = str_eq(type, STR("hash")) || str_eq(type, STR("btree")) || str_eq(type, STR("lmdb"));
        const char *maker = str_starts(parameter, STR("alias_")) ? "postalias" : "postmap";
        check_finding(arena_printf(k->a, "%.*s: parameter %.*s: table %.*s: %.*s", STR_ARG(where), STR_ARG(parameter),
                                   STR_ARG(spec), STR_ARG(e->text)),
                      indexed ? arena_printf(k->a, "write %.*s, then: %s %.*s", STR_ARG(path), maker, STR_ARG(spec))
                              : arena_printf(k->a, "write or correct %.*s", STR_ARG(path)));
    } else if (!is_secret(parameter)) {
        check_readable(k, where, spec, path);
    }
    table_close(t);
}

/* A parameter that lists tables and nothing else. */
static bool lists_tables(struct str parameter) {
    return str_ends(parameter, STR("_maps")) || str_ends(parameter, STR("_checks")) ||
           str_eq(parameter, STR("alias_database"));
}

static bool type_is_known(struct str type) {
    const struct str *types;
    size_t n = table_types(&types);
    for (size_t i = 0; i < n; i++)
        if (str_eq(types[i], type))
            return true;
    return false;
}

static void check_types(struct table_check *k, struct str where, struct str parameter, struct str value) {
    struct str word;
    while (str_word_braced(&value, STR_COMMA_SPACE, &word)) {
        ptrdiff_t colon = str_index(word, ':');
        struct str type = str_sub(word, 0, colon > 0 ? (size_t)colon : 0);
        if (type.n == 0 || word.p[0] == '{' || is_file_type(type) || type_is_known(type))
            continue;
        check_finding(arena_printf(k->a, "%.*s: parameter %.*s: unsupported table type: %.*s", STR_ARG(where),
                                   STR_ARG(parameter), STR_ARG(word)),
                      STR("write one of those that \"postconf -m\" prints"));
    }
}

/* The configuration of a database table. */
static void check_database(struct table_check *k, struct str where, struct str parameter, struct str word) {
    struct str path;
    if (!database_split(word, &path) || path.p[0] != '/')
        return;
    path = arena_str(k->a, path);
    if (access(path.p, R_OK) == 0)
        return;
    check_finding(arena_printf(k->a, "%.*s: parameter %.*s: table %.*s: %s", STR_ARG(where), STR_ARG(parameter),
                               STR_ARG(word), strerror(errno)),
                  arena_printf(k->a, "write or correct %.*s", STR_ARG(path)));
}

static void check_value(struct table_check *k, struct str where, struct str parameter, struct str value) {
    struct str word;
    if (is_cache(parameter))
        return;
    if (lists_tables(parameter))
        check_types(k, where, parameter, value);
    while (str_word(&value, STR(", \t\r\n{}"), &word)) {
        while (str_starts(word, STR("proxy:")) || str_starts(word, STR("debug:")))
            word = str_from(word, 6);
        check_database(k, where, parameter, word);
        ptrdiff_t colon = str_index(word, ':');
        if (colon > 0 && is_file_type(str_sub(word, 0, (size_t)colon)) && (size_t)colon + 1 < word.n &&
            word.p[colon + 1] == '/')
            check_table(k, where, parameter, arena_str(k->a, word));
    }
}

static void check_parameter(struct table_check *k, struct str where, struct str name) {
    struct str value;
    if (conf_lookup(k->c, name, k->a, &value))
        check_value(k, where, name, value);
}

/* What tables without a type are: a type that this build cannot write would fail at the first newaliases, or where a
 * daemon keeps a cache. */
static void check_default_types(struct table_check *k, struct str where) {
    static const struct {
        enum param param;
        struct str name;
        bool cache; /* changed in place */
    } rows[] = {
        { PARAM_default_database_type, STR_INIT("default_database_type"), false },
        { PARAM_default_cache_db_type, STR_INIT("default_cache_db_type"), true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str type = conf_str(k->c, rows[i].param);
        enum index_kind kind = index_kind_of(type);
        if (kind == INDEX_LMDB || (kind == INDEX_CDB && !rows[i].cache))
            continue;
        check_finding(arena_printf(k->a, "%.*s: parameter %.*s: this build cannot write tables of type \"%.*s\"",
                                   STR_ARG(where), STR_ARG(rows[i].name), STR_ARG(type)),
                      arena_printf(k->a, "postconf %.*s=lmdb", STR_ARG(rows[i].name)));
    }
}

void check_tables(const struct conf *c, const struct master_cf *services, bool aliases_only) {
    struct arena *a = arena_new();
    struct table_check k = { .c = c, .a = a };
    if (owner_lookup(c, a, &k.owner)) { /* said elsewhere */
        arena_free(a);
        return;
    }
    struct str main_cf = arena_printf(a, "%.*s/main.cf", STR_ARG(conf_directory(c)));
    check_parameter(&k, main_cf, STR("alias_maps"));
    check_parameter(&k, main_cf, STR("alias_database"));
    if (!aliases_only) {
        check_default_types(&k, main_cf);
        const struct setting **list;
        size_t n = conf_settings(c, a, &list);
        for (size_t i = 0; i < n; i++)
            check_parameter(&k, main_cf, list[i]->name);
        struct str master_cf = arena_printf(a, "%.*s/master.cf", STR_ARG(conf_directory(c)));
        for (size_t i = 0; services && i < services->count; i++)
            for (size_t j = 0; j < services->entries[i].override_count; j++) {
                const struct conf_override *o = &services->entries[i].overrides[j];
                struct str value;
                if (!conf_expand(c, o->value, a, &value))
                    check_value(&k, master_cf, o->name, value);
            }
    }
    map_free(&k.seen);
    arena_free(a);
}
