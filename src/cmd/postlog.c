/* postlog(1): a line for the mail log from a script. Set-gid in an installation, so that scripts of all users reach
 * postlogd: what main.cf says is then not the caller's choice. */
#include "base/log.h"
#include "cmd/setgid.h"
#include "service/logging.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 65536,
    FATAL_PAUSE = 1, /* seconds, as after any program's fatal error: who runs us in a loop must not fill the log */
};

_Noreturn static void usage(void) {
    log_fatal("usage: postlog [-c config_dir] [-i] [-p priority] [-t tag] [-v] [text]");
}

static enum log_level level_of(const char *name) {
    static const struct {
        const char *name;
        enum log_level level;
    } rows[] = {
        { "info", LOG_LEVEL_INFO },  { "warn", LOG_LEVEL_WARN },   { "warning", LOG_LEVEL_WARN },
        { "err", LOG_LEVEL_ERROR },  { "error", LOG_LEVEL_ERROR }, { "fatal", LOG_LEVEL_FATAL },
        { "crit", LOG_LEVEL_FATAL }, { "panic", LOG_LEVEL_PANIC },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcasecmp(rows[i].name, name) == 0)
            return rows[i].level;
    log_fatal("bad severity: \"%s\"", name);
}

static void log_stream(enum log_level level) {
    char *line = malloc(LINE_MAX_BYTES);
    if (!line)
        log_fatal("out of memory");
    while (fgets(line, LINE_MAX_BYTES, stdin))
        log_record(level, str_trim_right(str_c(line)));
    free(line);
}

static void log_words(enum log_level level, char *const *word) {
    struct buf text = { 0 };
    for (; *word; word++) {
        buf_add(&text, str_c(*word));
        if (word[1])
            buf_byte(&text, ' ');
    }
    log_record(level, buf_str(&text));
    buf_free(&text);
}

int main(int argc, char **argv) {
    const char *tag = NULL, *directory = NULL;
    enum log_level level = LOG_LEVEL_INFO;
    int verbose = 0;
    logging_start_early(STR("postlog"), LOGGING_SCRIPT);
    for (int c; (c = getopt(argc, argv, "+c:ip:t:v")) != -1;) {
        switch (c) {
        case 'c':
            directory = optarg;
            break;
        case 'i': /* the process id is always there */
            break;
        case 'p':
            level = level_of(optarg);
            break;
        case 't':
            tag = optarg;
            break;
        case 'v':
            verbose++;
            break;
        default:
            usage();
        }
    }
    struct arena *a = arena_new();
    struct conf_source source = { .process_name = STR("postlog") };
    if (setgid_elevated())
        log_set_fatal_status(EX_NOPERM);
    else
        log_set_verbose(verbose);
    setgid_begin(directory, a, &source);
    log_set_fatal_status(1);
    struct conf *conf;
    error e = conf_load(&source, a, &conf);
    if (!e)
        e = logging_start(conf, STR("postlog"), LOGGING_SCRIPT, a);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    if (tag)
        log_set_name(str_c(tag));
    if (argc > optind)
        log_words(level, argv + optind);
    else
        log_stream(level);
    if (level == LOG_LEVEL_FATAL || level == LOG_LEVEL_PANIC)
        sleep(FATAL_PAUSE);
    conf_free(conf);
    arena_free(a);
    return 0;
}
