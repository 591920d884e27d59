#include "base/log.h"
#include "cmd/child.h"
#include "cmd/postmulti.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- one after the other --- */
typedef int visit(const struct postmulti *m, const struct instance *i, void *ctx);

/* The status is 1 when any of them failed. An instance that cannot be read is one that failed. */
static int for_each(const struct postmulti *m, bool reverse, visit *fn, void *ctx) {
    int status = 0;
    size_t n = m->instances.list.n;
    for (size_t k = 0; k < n; k++) {
        const struct instance *i = &m->instances.list.at[reverse ? n - 1 - k : k];
        if (!instance_chosen(i, &m->choice))
            continue;
        if (i->problem) {
            log_error("instance %.*s: %.*s", STR_ARG(i->config_directory), STR_ARG(i->problem->text));
            status = 1;
        } else if (fn(m, i, ctx) != 0) {
            status = 1;
        }
    }
    return status;
}

/* --- list --- */
static struct str or_dash(struct str s) {
    return s.n ? s : STR("-");
}

static int list_one(const struct postmulti *m, const struct instance *i, void *ctx) {
    (void)ctx;
    struct str name = or_dash(i->name), group = or_dash(i->group);
    if (!m->json) {
        printf("%-15.*s %-15.*s %-9s %.*s\n", STR_ARG(name), STR_ARG(group), i->enabled ? "y" : "n",
               STR_ARG(i->config_directory));
        return 0;
    }
    json_t *o = json_pack("{s:s%,s:s%,s:b,s:s%}", "name", name.p, name.n, "group", group.p, group.n, "enabled",
                          i->enabled, "config_directory", i->config_directory.p, i->config_directory.n);
    if (!o || json_dumpf(o, stdout, 0) < 0)
        log_fatal("instance %.*s: a name is not UTF-8 text", STR_ARG(i->config_directory));
    putchar('\n');
    json_decref(o);
    return 0;
}

int postmulti_list(const struct postmulti *m) {
    int status = for_each(m, m->reverse, list_one, NULL);
    if (fflush(stdout) != 0 || ferror(stdout))
        log_fatal("write to standard output: %s", strerror(errno));
    return status;
}

/* --- commands --- */
static void export_instance(const struct postmulti *m, const struct instance *i) {
    const struct {
        const char *name;
        struct str value;
    } exported[] = {
        { "MAIL_CONFIG", i->config_directory },
        { "command_directory", conf_str(m->primary, PARAM_command_directory) },
        { "daemon_directory", conf_str(m->primary, PARAM_daemon_directory) },
        { "config_directory", i->config_directory },
        { "queue_directory", i->queue_directory },
        { "data_directory", i->data_directory },
        { "multi_instance_name", i->name },
        { "multi_instance_group", i->group },
        { "multi_instance_enable", i->enabled ? STR("yes") : STR("no") },
    };
    for (size_t k = 0; k < sizeof exported / sizeof *exported; k++)
        setenv(exported[k].name, arena_cstr(m->arena, exported[k].value), 1);
    if (m->verbose)
        setenv("MAIL_VERBOSE", "", 1);
    /* the primary one's log is not that of every instance */
    unsetenv("POSTLOG_SERVICE");
    unsetenv("POSTLOG_HOSTNAME");
}

int postmulti_run_one(const struct postmulti *m, const struct instance *i, char *const *argv) {
    fflush(stdout);
    pid_t pid = child_fork(m->primary);
    if (pid == 0) {
        export_instance(m, i);
        execvp(argv[0], argv);
        log_fatal("execvp %s: %s", argv[0], strerror(errno));
    }
    return child_wait(pid);
}

static int command_one(const struct postmulti *m, const struct instance *i, void *ctx) {
    (void)ctx;
    return postmulti_run_one(m, i, m->args);
}

static void must_match(const struct postmulti *m) {
    for (size_t k = 0; k < m->instances.list.n; k++)
        if (instance_chosen(&m->instances.list.at[k], &m->choice))
            return;
    log_fatal("no instance matches %s", m->choice.name ? m->choice.name : m->choice.group);
}

int postmulti_command(const struct postmulti *m) {
    must_match(m);
    return for_each(m, m->reverse, command_one, NULL);
}

/* --- postfix-wrapper(5) --- */
static bool listed(const struct postmulti *m, enum param p) {
    struct str rest = conf_str(m->primary, p), word;
    while (str_word(&rest, STR_COMMA_SPACE, &word))
        if (str_eq(word, str_c(m->args[0])))
            return true;
    return false;
}

struct postfix_call {
    char **argv;
    bool start, needs_enabled;
};

static int postfix_one(const struct postmulti *m, const struct instance *i, void *ctx) {
    const struct postfix_call *call = ctx;
    if (!i->enabled && call->start) { /* so that what is wrong with it is heard of all the same */
        char *check[] = { call->argv[0], arena_cstr(m->arena, STR("check")), NULL };
        return postmulti_run_one(m, i, check);
    }
    return !i->enabled && call->needs_enabled ? 0 : postmulti_run_one(m, i, call->argv);
}

int postmulti_postfix(const struct postmulti *m) {
    must_match(m);
    bool stop = listed(m, PARAM_postmulti_stop_commands);
    struct postfix_call call = { .start = listed(m, PARAM_postmulti_start_commands),
                                 .needs_enabled = stop || listed(m, PARAM_postmulti_control_commands) };
    VEC(char *) argv = { 0 };
    *vec_add(m->arena, &argv) = arena_cstr(
        m->arena, arena_printf(m->arena, "%.*s/postfix", STR_ARG(conf_str(m->primary, PARAM_command_directory))));
    for (char *const *arg = m->args; *arg; arg++)
        *vec_add(m->arena, &argv) = *arg;
    *vec_add(m->arena, &argv) = NULL;
    call.argv = argv.at;
    return for_each(m, stop, postfix_one, &call);
}
