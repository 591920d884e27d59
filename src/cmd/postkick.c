/* postkick(1): bytes for a service of the running mail system. */
#include "base/log.h"
#include "cmd/trigger.h"
#include "service/logging.h"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int verbose = 0;
    bool bad = false;
    signal(SIGPIPE, SIG_IGN);
    logging_start_early(STR("postkick"), LOGGING_COMMAND);
    for (int c; (c = getopt(argc, argv, "+c:v")) != -1;) {
        if (c == 'c')
            setenv("MAIL_CONFIG", optarg, 1);
        else if (c == 'v')
            verbose++;
        else
            bad = true;
    }
    if (bad || argc != optind + 3)
        log_fatal("usage: postkick [-c config_dir] [-v] class service request");
    log_set_verbose(verbose);
    struct arena *a = arena_new();
    struct conf_source source = { .process_name = STR("postkick") };
    struct conf *conf;
    error e = conf_load(&source, a, &conf);
    if (!e)
        e = logging_start(conf, STR("postkick"), LOGGING_COMMAND, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    const char *class = argv[optind], *service = argv[optind + 1];
    if ((e = trigger_send(conf, str_c(class), str_c(service), str_c(argv[optind + 2])))) {
        log_warn("unable to look up %s/%s: %.*s", class, service, STR_ARG(e->text));
        log_warn("Cannot contact class %s service %s - perhaps the mail system is down", class, service);
    }
    conf_free(conf);
    arena_free(a);
    return e ? 1 : 0;
}
