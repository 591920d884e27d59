/* postfix(1): check, set-permissions, upgrade-configuration and the names under which packages ask for them. */
#include "base/buf.h"
#include "base/log.h"
#include "cmd/layout.h"
#include "cmd/postfix.h"
#include "cmd/settings_edit.h"
#include "cmd/stock.h"
#include "conf/edit.h"
#include "service/owner.h"
#include <stdio.h>

/* --- check --- */
int postfix_check_fatal(const struct postfix_command *m) {
    return layout_prepare(m->c) ? 0 : 1;
}

int postfix_check_warn(const struct postfix_command *m) {
    layout_review(m->c, m->shared, true);
    return 0;
}

int postfix_check(const struct postfix_command *m) {
    int status = postfix_check_fatal(m);
    return status ? status : postfix_check_warn(m);
}

/* Where Postfix looks for alias tables that its change of default type leaves behind; here any of them is found through
 * its text file, and what is left to say is which cannot be read. */
int postfix_check_alias_maps(const struct postfix_command *m) {
    check_tables(m->c, NULL, true);
    return 0;
}

/* --- name=value --- */

/* What says where an installation is and whose; anything else is postconf's business. */
static bool is_installation_parameter(struct str name) {
    static const struct str names[] = {
        STR_INIT("command_directory"), STR_INIT("daemon_directory"), STR_INIT("data_directory"),
        STR_INIT("html_directory"),    STR_INIT("mail_owner"),       STR_INIT("mailq_path"),
        STR_INIT("manpage_directory"), STR_INIT("meta_directory"),   STR_INIT("newaliases_path"),
        STR_INIT("queue_directory"),   STR_INIT("readme_directory"), STR_INIT("sample_directory"),
        STR_INIT("sendmail_path"),     STR_INIT("setgid_group"),     STR_INIT("shlib_directory"),
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq(name, names[i]))
            return true;
    return false;
}

/* The arguments go into main.cf; the configuration that comes of them. */
static struct conf *with_arguments(const struct postfix_command *m, char *const *args, struct arena *a) {
    const struct conf_override *settings;
    size_t n;
    const char *bad;
    if (!settings_read(args, a, &settings, &n, &bad))
        log_fatal("postfix %s: not name=value: \"%s\"", m->name, bad);
    for (size_t i = 0; i < n; i++)
        if (!is_installation_parameter(settings[i].name))
            log_fatal("postfix %s: %.*s is not a parameter of the installation; use postconf -e", m->name,
                      STR_ARG(settings[i].name));
    struct conf_source source = { .config_directory = conf_directory(m->c),
                                  .process_name = STR("postfix"),
                                  .overrides = settings,
                                  .override_count = n };
    struct conf *c;
    struct owner owner;
    error e = conf_load(&source, a, &c); /* before the file is changed: a value that cannot be stays out of it */
    if (!e)
        e = owner_lookup(c, a, &owner);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    settings_edit(conf_directory(m->c), settings, n);
    return c;
}

/* --- set-permissions --- */
static int set_permissions(const struct postfix_command *m, char *const *args) {
    struct arena *a = arena_new();
    struct conf *c = with_arguments(m, args, a);
    bool done = layout_mend(c, m->shared);
    conf_free(c);
    arena_free(a);
    return done ? 0 : 1;
}

int postfix_set_permissions(const struct postfix_command *m) {
    return set_permissions(m, m->args);
}

/* --- upgrade-configuration --- */

/* One entry of the stock master.cf with its continuation lines. */
struct stock_entry {
    struct str text, name, type;
};

static bool next_entry(struct str *rest, struct stock_entry *ret) {
    struct str line;
    while (rest->n) {
        struct str before = *rest;
        str_next(rest, STR("\n"), &line);
        if (line.n == 0 || line.p[0] == '#' || byte_is_space(line.p[0]))
            continue;
        while (rest->n && (rest->p[0] == ' ' || rest->p[0] == '\t'))
            str_next(rest, STR("\n"), &line);
        ret->text = str_sub(before, 0, before.n - rest->n);
        struct str words = ret->text;
        return str_word(&words, STR_SPACE, &ret->name) && str_word(&words, STR_SPACE, &ret->type);
    }
    return false;
}

static bool has_entry(const struct master_cf *services, const struct stock_entry *wanted) {
    for (size_t i = 0; i < services->count; i++)
        if (str_eq(services->entries[i].name, wanted->name) &&
            str_eq(service_type_name(services->entries[i].type), wanted->type))
            return true;
    return false;
}

struct upgrade {
    const struct master_cf *services;
    struct str path;
};

/* A file_editor: what there is, and the missing entries behind it. */
static error add_entries(void *ctx, struct str text, struct arena *a, struct buf *ret_text) {
    const struct upgrade *u = ctx;
    struct str rest = stock_master_cf;
    struct stock_entry entry;
    (void)a;
    buf_add(ret_text, text);
    edit_end_line(ret_text);
    while (next_entry(&rest, &entry)) {
        /* whether to listen on a port is the administrator's decision */
        if (str_eq(entry.type, STR("inet")) || has_entry(u->services, &entry))
            continue;
        printf("Editing %.*s, adding missing entry for %.*s service\n", STR_ARG(u->path), STR_ARG(entry.name));
        buf_add(ret_text, entry.text);
    }
    return NULL;
}

static int upgrade(const struct postfix_command *m, char *const *args) {
    struct arena *a = arena_new();
    struct conf *c = with_arguments(m, args, a);
    struct master_cf services;
    struct upgrade u = { &services, arena_printf(a, "%.*s/master.cf", STR_ARG(conf_directory(c))) };
    error e = master_cf_load(u.path, c, a, &services);
    if (!e)
        e = conf_file_edit(u.path, add_entries, &u, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    conf_free(c);
    arena_free(a);
    return 0;
}

int postfix_upgrade(const struct postfix_command *m) {
    return upgrade(m, m->args);
}

/* --- post-install: the words that packages use --- */
int postfix_post_install(const struct postfix_command *m) {
    bool permissions = false, configuration = false;
    char *const *args = m->args;
    for (; *args && !strchr(*args, '='); args++) {
        if (strcmp(*args, "create-missing") == 0 || strcmp(*args, "set-permissions") == 0)
            permissions = true;
        else if (strcmp(*args, "upgrade-configuration") == 0)
            configuration = true;
        else if (strcmp(*args, "upgrade-package") == 0)
            permissions = configuration = true;
        else
            log_fatal("postfix post-install: unknown command: '%s'. Use create-missing, set-permissions, "
                      "upgrade-configuration or upgrade-package, then name=value ...",
                      *args);
    }
    if (!permissions && !configuration)
        log_fatal("usage: postfix post-install create-missing | set-permissions | upgrade-configuration | "
                  "upgrade-package [name=value ...]");
    int status = configuration ? upgrade(m, args) : 0;
    return permissions && status == 0 ? set_permissions(m, args) : status;
}
