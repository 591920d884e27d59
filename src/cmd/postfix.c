/* postfix(1): options, the environment, one or all instances, and the table of commands. */
#include "cmd/postfix.h"
#include "base/buf.h"
#include "base/log.h"
#include "cmd/files.h"
#include "conf/settings.h"
#include "service/logging.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*run)(const struct postfix_command *m);
    bool arguments; /* takes any */
} commands[] = {
    { "start", postfix_start, false },
    { "start-fg", postfix_start_fg, false },
    { "stop", postfix_stop, false },
    { "quick-stop", postfix_quick_stop, false },
    { "abort", postfix_abort, false },
    { "drain", postfix_drain, false },
    { "reload", postfix_reload, false },
    { "status", postfix_status, false },
    { "flush", postfix_flush, false },
    { "check", postfix_check, false },
    { "check-fatal", postfix_check_fatal, false },
    { "check-warn", postfix_check_warn, false },
    { "check-alias-maps-migration", postfix_check_alias_maps, false },
    { "set-permissions", postfix_set_permissions, true },
    { "upgrade-configuration", postfix_upgrade, true },
    { "post-install", postfix_post_install, true },
    { "logrotate", postfix_logrotate, false },
    { "non-bdb", postfix_non_bdb, true },
    { "tls", postfix_tls, true },
};

/* An ordinary user may run a mail system of her own, whose queue is hers. */
static bool may_run(const struct conf *c) {
    struct stat st;
    if (getuid() == 0)
        return true;
    if (stat(conf_str(c, PARAM_queue_directory).p, &st) < 0)
        return errno == ENOENT;
    return st.st_uid == getuid();
}

/* --- what programs that we run find in their environment --- */
static void export_settings(const struct postfix_command *m) {
    static const struct {
        const char *name;
        enum param p;
    } exported[] = {
        { "command_directory", PARAM_command_directory },
        { "daemon_directory", PARAM_daemon_directory },
        { "data_directory", PARAM_data_directory },
        { "html_directory", PARAM_html_directory },
        { "mail_owner", PARAM_mail_owner },
        { "mailq_path", PARAM_mailq_path },
        { "manpage_directory", PARAM_manpage_directory },
        { "meta_directory", PARAM_meta_directory },
        { "newaliases_path", PARAM_newaliases_path },
        { "queue_directory", PARAM_queue_directory },
        { "readme_directory", PARAM_readme_directory },
        { "sendmail_path", PARAM_sendmail_path },
        { "setgid_group", PARAM_setgid_group },
    };
    for (size_t i = 0; i < sizeof exported / sizeof *exported; i++)
        setenv(exported[i].name, conf_str(m->c, exported[i].p).p, 1);
    setenv("config_directory", conf_directory(m->c).p, 1);
    if (m->verbose)
        setenv("MAIL_VERBOSE", "", 1);
    if (m->debug)
        setenv("MAIL_DEBUG", "", 1);
    if (conf_str(m->c, PARAM_maillog_file).n) {
        struct buf socket = { 0 };
        buf_printf(&socket, "%.*s/public/%.*s", STR_ARG(conf_str(m->c, PARAM_queue_directory)),
                   STR_ARG(conf_str(m->c, PARAM_postlog_service_name)));
        setenv("POSTLOG_SERVICE", socket.p, 1);
        setenv("POSTLOG_HOSTNAME", conf_str(m->c, PARAM_myhostname).p, 1);
        buf_free(&socket);
    }
}

/* --- all instances --- */

/* multi_instance_wrapper with our arguments. It runs postfix(1) once for each instance, with -c. */
_Noreturn static void run_wrapper(const struct postfix_command *m, char *const *args, struct arena *a) {
    struct str rest = conf_str(m->c, PARAM_multi_instance_wrapper), word;
    VEC(char *) argv = { 0 };
    while (str_word(&rest, STR_SPACE, &word))
        *vec_add(a, &argv) = arena_cstr(a, word);
    if (argv.n == 0)
        log_fatal("multi-instance support is requested, but multi_instance_wrapper is empty: run postmulti -e init");
    for (; *args; args++)
        *vec_add(a, &argv) = arena_cstr(a, str_c(*args));
    *vec_add(a, &argv) = NULL;
    execvp(argv.at[0], argv.at);
    log_fatal("exec %s: %s", argv.at[0], strerror(errno));
}

static int run_command(struct postfix_command *m) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(commands[i].name, m->name) != 0)
            continue;
        if (m->args[0] && !commands[i].arguments)
            log_fatal("usage postfix %s (no arguments)", m->name);
        return commands[i].run(m);
    }
    log_fatal("unknown command: '%s'. Usage: postfix start (or start-fg, stop, reload, abort, flush, check, status, "
              "set-permissions, upgrade-configuration, logrotate, non-bdb, tls)",
              m->name);
}

/* All that is wrong with the values, so that they can be mended in one go. */
static _Noreturn void end_with_problems(const struct conf_source *source, error first, struct arena *a) {
    const struct str *problems;
    size_t n = conf_problems(source, a, &problems);
    for (size_t i = 0; i < n; i++)
        if (!str_eq(problems[i], first->text))
            log_error("%.*s", STR_ARG(problems[i]));
    log_fatal("%.*s", STR_ARG(first->text));
}

int main(int argc, char **argv) {
    struct postfix_command m = { 0 };
    bool bad = false;
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    logging_start_early(STR("postfix"), LOGGING_SCRIPT);
    if (getuid() != geteuid())
        log_fatal("the postfix command must not run as a set-uid process");
    for (int c; (c = getopt(argc, argv, "+c:Dv")) != -1;) {
        if (c == 'c')
            setenv("MAIL_CONFIG", optarg, 1);
        else if (c == 'D')
            m.debug = true;
        else if (c == 'v')
            m.verbose++;
        else
            bad = true;
    }
    if (bad || argc == optind)
        log_fatal("usage: postfix [-c config_dir] [-Dv] command");
    log_set_verbose(m.verbose);
    struct arena *a = arena_new();
    struct conf_source source = { .process_name = STR("postfix") };
    struct conf *conf;
    error e = conf_load(&source, a, &conf);
    if (!e && !may_run(conf))
        log_fatal("to submit mail, use the Postfix sendmail command");
    m.name = argv[optind];
    m.args = argv + optind + 1;
    const char *program = strcmp(m.name, "tls") == 0 ? "postfix-tls-script" : "postfix-script";
    if (!e)
        e = logging_start(conf, str_c(program), LOGGING_SCRIPT, a);
    if (e)
        end_with_problems(&source, e, a);
    m.c = conf;
    m.shared = !files_is_secondary(conf);
    export_settings(&m);
    /* -c or the environment names one instance; that also keeps the wrapper from calling itself */
    bool all = !getenv("MAIL_CONFIG") && conf_str(conf, PARAM_multi_instance_directories).n;
    if (all && strcmp(m.name, "start-fg") != 0)
        run_wrapper(&m, argv + optind, a);
    setenv("MAIL_CONFIG", conf_directory(conf).p, 1);
    int status = run_command(&m);
    conf_free(conf);
    arena_free(a);
    return status;
}
