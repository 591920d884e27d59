/* newaliases - make the tables of alias_database anew (newaliases(1)). */
#include "base/log.h"
#include "cmd/map_tool.h"
#include "service/logging.h"
#include <sysexits.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static const struct map_tool tool = { "newaliases", "", "", true };
    /* Where Postfix has sendmail do the first part, sendmail's status; where postalias does the rest, its status. */
    log_set_fatal_status(EX_TEMPFAIL);
    logging_start_early(STR("newaliases"), LOGGING_COMMAND);
    struct conf_source source = { .config_directory = STR(""), .process_name = STR("newaliases") };
    int opt, verbose = 0;
    while ((opt = getopt(argc, argv, "C:v")) != -1) {
        if (opt == 'C')
            source.config_directory = str_c(optarg);
        else if (opt == 'v')
            log_set_verbose(++verbose);
        else
            log_fatal("usage: newaliases [-C config_dir] [-v]");
    }
    struct arena *a = arena_new();
    struct conf *c;
    error e = conf_load(&source, a, &c);
    if (!e)
        e = logging_start(c, STR("newaliases"), LOGGING_COMMAND, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    log_set_fatal_status(1);
    struct str rest = conf_str(c, PARAM_alias_database), word;
    const struct map_options o = { .any_bytes = !conf_bool(c, PARAM_smtputf8_enable) };
    const struct map_job job = { &tool, &o, c };
    while (str_word_braced(&rest, STR_COMMA_SPACE, &word))
        map_build(&job, word);
    logging_end();
    conf_free(c);
    arena_free(a);
    return 0;
}
