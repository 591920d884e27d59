/* postmulti(1): several mail systems on one machine. Options; the work is in postmulti_run.c and postmulti_edit.c. */
#include "cmd/postmulti.h"

#include "base/log.h"
#include "build_config.h"
#include "service/logging.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Which instance is the default one is decided when the programs are built. */
static void refuse_other_primary(void) {
    const char *directory = getenv("MAIL_CONFIG");
    if (directory && strcmp(directory, BUILD_CONFIG_DIRECTORY) != 0)
        log_fatal("non-default configuration directory: %s=%s", "MAIL_CONFIG", directory);
}

struct options {
    int modes; /* how many of -e -l -p -x */
    char mode;
    const char *action;
    struct postmulti m;
};

static void read_options(int argc, char **argv, struct options *o) {
    for (int c; (c = getopt(argc, argv, "+ae:g:i:jG:I:lpRvx")) != -1;) {
        switch (c) {
        case 'a':
            o->m.choice.all = true;
            break;
        case 'g':
            o->m.choice.group = optarg;
            break;
        case 'i':
            o->m.choice.name = optarg;
            break;
        case 'j':
            o->m.json = true;
            break;
        case 'G':
            o->m.new_group = optarg;
            break;
        case 'I':
            o->m.new_name = optarg;
            break;
        case 'R':
            o->m.reverse = true;
            break;
        case 'v':
            o->m.verbose++;
            break;
        case 'e':
            o->action = optarg;
            o->mode = 'e';
            o->modes++;
            break;
        case 'l':
        case 'p':
        case 'x':
            o->mode = (char)c;
            o->modes++;
            break;
        default:
            log_fatal("usage: postmulti [-aRv] [-g group] [-i name] -l [-j] | -p command | -x command; "
                      "postmulti -e action [-aGIgiv] [name=value ...]");
        }
    }
    o->m.args = argv + optind;
}

static void check_options(const struct options *o) {
    const struct postmulti *m = &o->m;
    if (o->modes != 1)
        log_fatal("specify exactly one of '-e', '-l', '-p', '-x'");
    if (m->choice.all + (m->choice.group != NULL) + (m->choice.name != NULL) > 1)
        log_fatal("specify no more than one of '-a', '-g', '-i'");
    if ((m->new_name || m->new_group) && o->mode != 'e')
        log_fatal("a name or a group is assigned only with '-e create', '-e import' or '-e assign'");
    if (m->reverse && (o->mode == 'p' || o->mode == 'e'))
        log_fatal("'-p' and '-e' have their own order: no '-R'");
    if (m->json && o->mode != 'l')
        log_fatal("'-j' is for '-l'");
    if (o->mode == 'l' && m->args[0])
        log_fatal("no command is allowed with '-l'");
    if ((o->mode == 'p' || o->mode == 'x') && !m->args[0])
        log_fatal("a command is required with '-p' or '-x'");
}

int main(int argc, char **argv) {
    struct options o = { 0 };
    struct conf *conf;
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    logging_start_early(STR("postmulti"), LOGGING_COMMAND);
    refuse_other_primary();
    read_options(argc, argv, &o);
    check_options(&o);
    log_set_verbose(o.m.verbose);
    struct arena *a = o.m.arena = arena_new();
    struct conf_source source = { .config_directory = STR(BUILD_CONFIG_DIRECTORY), .process_name = STR("postmulti") };
    error e = conf_load(&source, a, &conf);
    if (!e)
        e = logging_start(conf, STR("postmulti"), LOGGING_COMMAND, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    o.m.primary = conf;
    instances_load(conf, a, &o.m.instances);
    int status = o.mode == 'e'   ? postmulti_edit(&o.m, o.action)
                 : o.mode == 'l' ? postmulti_list(&o.m)
                 : o.mode == 'p' ? postmulti_postfix(&o.m)
                                 : postmulti_command(&o.m);
    conf_free(conf);
    arena_free(a);
    return status;
}
