/* postmulti -e: the life cycle of instances. */
#include "base/buf.h"
#include "base/log.h"
#include "cmd/child.h"
#include "cmd/postmulti.h"
#include "cmd/running.h"
#include "cmd/settings_edit.h"
#include "cmd/stock.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_PREFIX "postfix-"

enum { FILE_MAX = 16 << 20 };

/* --- names --- */

/* "-" takes the name away: empty. NULL: not asked for. */
static struct str assigned(const char *option) {
    return strcmp(option, "-") == 0 ? STR("") : str_c(option);
}

static void check_new_name(struct postmulti *m, const struct instance *own) {
    struct str name = m->new_name ? assigned(m->new_name) : STR("");
    if (name.n == 0)
        return;
    if (!str_starts(name, STR(NAME_PREFIX)) || name.n == sizeof(NAME_PREFIX) - 1 ||
        str_index_any(name, STR("/ \t,")) >= 0)
        log_fatal("a new instance name must start with '" NAME_PREFIX "', and is one word without '/': \"%.*s\"",
                  STR_ARG(name));
    const struct instance *other = instance_find(&m->instances, m->new_name);
    if (other && other != own)
        log_fatal("instance name '%.*s' is already in use by %.*s", STR_ARG(name), STR_ARG(other->config_directory));
}

static void check_new_group(const struct postmulti *m) {
    if (m->new_group && str_index_any(str_c(m->new_group), STR(" \t,")) >= 0)
        log_fatal("a group name is one word: \"%s\"", m->new_group);
}

/* --- settings --- */
struct changes {
    VEC(struct conf_override) list;
};

static void change(const struct postmulti *m, struct changes *c, const char *name, struct str value) {
    *vec_add(m->arena, &c->list) = (struct conf_override){ str_c(name), value };
}

static void apply(struct str directory, const struct changes *c) {
    settings_edit(directory, c->list.at, c->list.n);
}

static void change_names(const struct postmulti *m, struct changes *c) {
    if (m->new_name)
        change(m, c, "multi_instance_name", assigned(m->new_name));
    if (m->new_group)
        change(m, c, "multi_instance_group", assigned(m->new_group));
}

/* multi_instance_directories again, from the list as it now is. */
static void store_list(const struct postmulti *m) {
    struct buf list = { 0 };
    for (size_t i = 0; i < m->instances.list.n; i++)
        if (!m->instances.list.at[i].primary)
            buf_printf(&list, "%s%.*s", list.n ? " " : "", STR_ARG(m->instances.list.at[i].config_directory));
    struct changes c = { 0 };
    change(m, &c, "multi_instance_directories", arena_str(m->arena, buf_str(&list)));
    apply(conf_directory(m->primary), &c);
    buf_free(&list);
}

/* --- one existing instance --- */
static struct instance *wanted(struct postmulti *m) {
    if (!m->choice.name)
        log_fatal("select an instance with '-i name'");
    struct instance *i = instance_find(&m->instances, m->choice.name);
    if (!i)
        log_fatal("no instance named %s", m->choice.name);
    return i;
}

static int action_init(struct postmulti *m) {
    struct changes c = { 0 };
    change(m, &c, "multi_instance_wrapper", STR("${command_directory}/postmulti -p --"));
    change(m, &c, "multi_instance_enable", STR("yes"));
    apply(conf_directory(m->primary), &c);
    return 0;
}

static int set_enable(struct postmulti *m, struct str value) {
    struct changes c = { 0 };
    change(m, &c, "multi_instance_enable", value);
    apply(wanted(m)->config_directory, &c);
    return 0;
}
static int action_enable(struct postmulti *m) {
    return set_enable(m, STR("yes"));
}
static int action_disable(struct postmulti *m) {
    return set_enable(m, STR("no"));
}

static int action_assign(struct postmulti *m) {
    struct changes c = { 0 };
    const struct instance *i = wanted(m);
    if (!m->new_name && !m->new_group)
        log_fatal("specify a new name (-I) or group (-G) with '-e assign'");
    check_new_name(m, i);
    change_names(m, &c);
    apply(i->config_directory, &c);
    return 0;
}

static const struct instance *removable(struct postmulti *m) {
    const struct instance *i = wanted(m);
    if (i->primary)
        log_fatal("cannot remove the primary instance");
    if (i->enabled)
        log_fatal("cannot remove an enabled instance: first postmulti -e disable -i %s", m->choice.name);
    return i;
}

static int action_deport(struct postmulti *m) {
    struct instance *i = m->instances.list.at + (removable(m) - m->instances.list.at);
    size_t behind = (size_t)(m->instances.list.at + m->instances.list.n - (i + 1));
    memmove(i, i + 1, behind * sizeof *i);
    m->instances.list.n--;
    store_list(m);
    return 0;
}

static int action_destroy(struct postmulti *m) {
    const struct instance *i = removable(m);
    if (i->problem)
        log_fatal("%.*s; to take it out of the list: postmulti -e deport -i %s", STR_ARG(i->problem->text),
                  m->choice.name);
    postmulti_destroy(m, i);
    return action_deport(m);
}

/* --- a new one --- */
struct new_directories {
    struct str config, queue, data;
};

static struct str sibling(const struct postmulti *m, struct str path, struct str name) {
    ptrdiff_t slash = str_rindex(path, '/');
    return arena_printf(m->arena, "%.*s%.*s", STR_ARG(str_sub(path, 0, (size_t)(slash + 1))), STR_ARG(name));
}

static void read_directories(const struct postmulti *m, const char *action, bool create, struct new_directories *ret) {
    const struct conf_override *settings;
    size_t n;
    const char *bad;
    if (!settings_read(m->args, m->arena, &settings, &n, &bad))
        log_fatal("not name=value: \"%s\"", bad);
    for (size_t i = 0; i < n; i++) {
        struct str name = settings[i].name, value = settings[i].value;
        struct str *place = str_eq(name, STR("config_directory"))            ? &ret->config
                            : create && str_eq(name, STR("queue_directory")) ? &ret->queue
                            : create && str_eq(name, STR("data_directory"))  ? &ret->data
                                                                             : NULL;
        if (!place)
            log_fatal("parameter '%.*s' is not for '-e %s'", STR_ARG(name), action);
        if (!str_starts(value, STR("/")) || str_index_any(value, STR(" \t,$")) >= 0)
            log_fatal("not an absolute path: %.*s=%.*s", STR_ARG(name), STR_ARG(value));
        *place = value;
    }
}

/* What is not given is made from the name. */
static void complete(const struct postmulti *m, struct str *path, struct str primary, const char *parameter) {
    struct str name = m->new_name ? assigned(m->new_name) : STR("");
    if (path->n)
        return;
    if (name.n == 0)
        log_fatal("missing %s: give it as %s=/path, or a name with -I", parameter, parameter);
    *path = sibling(m, primary, name);
}

static void check_free(const struct postmulti *m, const char *parameter, struct str path) {
    for (size_t i = 0; i < m->instances.list.n; i++) {
        const struct instance *other = &m->instances.list.at[i];
        if (str_eq(path, other->config_directory) || str_eq(path, other->queue_directory) ||
            str_eq(path, other->data_directory))
            log_fatal("new %s=%.*s is already in use by instance %.*s", parameter, STR_ARG(path),
                      STR_ARG(other->config_directory));
    }
}

static bool has_file(const struct postmulti *m, struct str directory, const char *name) {
    return access(arena_printf(m->arena, "%.*s/%s", STR_ARG(directory), name).p, F_OK) == 0;
}

/* -a: in front of the others; -g, -i: in front of the first that matches; else behind all. */
static void add_to_list(struct postmulti *m, const struct instance *new) {
    size_t n = m->instances.list.n, at = m->choice.all ? 1 : n;
    bool chosen = m->choice.group || m->choice.name;
    for (size_t i = 1; chosen && i < n; i++)
        if (instance_chosen(&m->instances.list.at[i], &m->choice)) {
            at = i;
            break;
        }
    if (chosen && at == n)
        log_fatal("no secondary instance matches %s", m->choice.name ? m->choice.name : m->choice.group);
    *vec_add(m->arena, &m->instances.list) = *new;
    struct instance *list = m->instances.list.at;
    memmove(list + at + 1, list + at, (n - at) * sizeof *list);
    list[at] = *new;
}

static int import(struct postmulti *m, struct str directory) {
    struct instance new;
    struct changes c = { 0 };
    instance_read(directory, m->arena, &new);
    if (new.problem)
        log_fatal("cannot import %.*s: %.*s", STR_ARG(directory), STR_ARG(new.problem->text));
    check_free(m, "config_directory", new.config_directory);
    check_free(m, "queue_directory", new.queue_directory);
    check_free(m, "data_directory", new.data_directory);
    add_to_list(m, &new); /* says no before anything is written */
    change_names(m, &c);
    apply(directory, &c);
    store_list(m);
    return 0;
}

static int action_import(struct postmulti *m) {
    struct new_directories d = { 0 };
    check_new_name(m, NULL);
    read_directories(m, "import", false, &d);
    complete(m, &d.config, conf_directory(m->primary), "config_directory");
    return import(m, d.config);
}

static void make_directory(struct str path, mode_t mode) {
    if (mkdir(path.p, mode) < 0 && errno != EEXIST)
        log_fatal("mkdir %.*s: %s", STR_ARG(path), strerror(errno));
}

/* The installation's template, or the stock file. */
static void make_file(const struct postmulti *m, struct str directory, const char *name, struct str stock) {
    struct str template =
        arena_printf(m->arena, "%.*s/%s.proto", STR_ARG(conf_str(m->primary, PARAM_meta_directory)), name);
    struct str path = arena_printf(m->arena, "%.*s/%s", STR_ARG(directory), name);
    struct buf text = { 0 };
    if (!buf_read_file(&text, template.p, FILE_MAX)) {
        if (errno != ENOENT)
            log_fatal("open %.*s: %s", STR_ARG(template), strerror(errno));
        buf_add(&text, stock);
    }
    int fd = open(path.p, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && write(fd, text.p, text.n) == (ssize_t)text.n && fsync(fd) == 0;
    if (!ok)
        log_fatal("create %.*s: %s", STR_ARG(path), strerror(errno));
    close(fd);
    buf_free(&text);
}

static void write_settings(const struct postmulti *m, const struct new_directories *d) {
    static const struct {
        const char *name;
        enum param p;
    } shared[] = {
        { "command_directory", PARAM_command_directory }, { "daemon_directory", PARAM_daemon_directory },
        { "meta_directory", PARAM_meta_directory },       { "mail_owner", PARAM_mail_owner },
        { "setgid_group", PARAM_setgid_group },
    };
    struct changes c = { 0 };
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        change(m, &c, shared[i].name, conf_str(m->primary, shared[i].p));
    change(m, &c, "queue_directory", d->queue);
    change(m, &c, "data_directory", d->data);
    change(m, &c, "multi_instance_enable", STR("no"));
    change_names(m, &c);
    /* safe to start as it is: no ports that another instance has, no mail from users */
    change(m, &c, "master_service_disable", STR("inet"));
    change(m, &c, "authorized_submit_users", STR(""));
    apply(d->config, &c);
}

static int action_create(struct postmulti *m) {
    struct new_directories d = { 0 };
    check_new_name(m, NULL);
    read_directories(m, "create", true, &d);
    complete(m, &d.config, conf_directory(m->primary), "config_directory");
    if (has_file(m, d.config, "main.cf") && has_file(m, d.config, "master.cf"))
        return import(m, d.config);
    complete(m, &d.queue, conf_str(m->primary, PARAM_queue_directory), "queue_directory");
    complete(m, &d.data, conf_str(m->primary, PARAM_data_directory), "data_directory");
    check_free(m, "config_directory", d.config);
    check_free(m, "queue_directory", d.queue);
    check_free(m, "data_directory", d.data);
    if (str_eq(d.config, d.queue) || str_eq(d.queue, d.data) || str_eq(d.config, d.data))
        log_fatal("config_directory, queue_directory and data_directory must be three directories");
    struct instance new = { .config_directory = d.config, .queue_directory = d.queue, .data_directory = d.data };
    add_to_list(m, &new);
    make_directory(d.config, 0755);
    make_file(m, d.config, "main.cf", stock_main_cf);
    make_file(m, d.config, "master.cf", stock_master_cf);
    write_settings(m, &d);
    store_list(m);
    char *make[] = { arena_cstr(m->arena, arena_printf(m->arena, "%.*s/postfix",
                                                       STR_ARG(conf_str(m->primary, PARAM_command_directory)))),
                     arena_cstr(m->arena, STR("check-fatal")), NULL };
    if (postmulti_run_one(m, &new, make) != 0)
        log_fatal("instance %.*s was created; its directories were not: see above", STR_ARG(d.config));
    return 0;
}

/* --- which action --- */
int postmulti_edit(struct postmulti *m, const char *action) {
    static const struct {
        const char *name;
        int (*run)(struct postmulti *m);
        bool settings, names; /* takes name=value arguments; takes -I and -G */
        bool position;        /* -a, -g and -i say where, not which */
    } actions[] = {
        { "init", action_init, false, false, false },       { "create", action_create, true, true, true },
        { "import", action_import, true, true, true },      { "destroy", action_destroy, false, false, false },
        { "deport", action_deport, false, false, false },   { "enable", action_enable, false, false, false },
        { "disable", action_disable, false, false, false }, { "assign", action_assign, false, true, false },
    };
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(actions[i].name, action) != 0)
            continue;
        if (m->args[0] && !actions[i].settings)
            log_fatal("'-e %s' takes no arguments: \"%s\"", action, m->args[0]);
        if ((m->new_name || m->new_group) && !actions[i].names)
            log_fatal("'-e %s' assigns no name or group", action);
        if ((m->choice.all || m->choice.group) && !actions[i].position)
            log_fatal("'-e %s' is for one instance: '-i name'", action);
        if (actions[i].run != action_init && conf_str(m->primary, PARAM_multi_instance_wrapper).n == 0)
            log_fatal("multi-instance support is not enabled: first postmulti -e init");
        check_new_group(m);
        return actions[i].run(m);
    }
    log_fatal("invalid '-e' action '%s': use init, create, import, destroy, deport, enable, disable or assign", action);
}
