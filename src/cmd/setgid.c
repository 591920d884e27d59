#include "cmd/setgid.h"

#include "base/log.h"
#include "build_config.h"

#include <stdlib.h>
#include <unistd.h>

bool setgid_elevated(void) {
    return getuid() != 0 && (getuid() != geteuid() || getgid() != getegid());
}

static void clean_environment(void) {
    static const char *const keep[] = { "TZ", "LANG", "LC_ALL" };
    char *values[sizeof keep / sizeof keep[0]];
    for (size_t i = 0; i < sizeof keep / sizeof keep[0]; i++) {
        const char *value = getenv(keep[i]);
        values[i] = value ? strdup(value) : NULL;
    }
    clearenv();
    setenv("PATH", "/usr/bin:/bin", 1);
    for (size_t i = 0; i < sizeof keep / sizeof keep[0]; i++) {
        if (values[i])
            setenv(keep[i], values[i], 1);
        free(values[i]);
    }
}

static bool list_has(struct str list, struct str word) {
    struct str item;
    while (str_word(&list, STR_COMMA_SPACE, &item))
        if (str_eq(item, word))
            return true;
    return false;
}

static void must_be_authorized(struct str directory, struct arena *a) {
    const struct str built_in = STR(BUILD_CONFIG_DIRECTORY);
    if (str_eq(directory, built_in))
        return;
    struct conf_source source = { .config_directory = built_in };
    struct conf *c;
    error e = conf_load(&source, a, &c);
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
    bool listed = list_has(conf_str(c, PARAM_alternate_config_directories), directory) ||
                  list_has(conf_str(c, PARAM_multi_instance_directories), directory);
    conf_free(c);
    if (!listed)
        log_fatal("unauthorized configuration directory name: %.*s", STR_ARG(directory));
}

void setgid_begin(const char *wanted, struct arena *a, struct conf_source *ret_source) {
    const char *directory = wanted ? wanted : getenv("MAIL_CONFIG");
    struct str kept = directory && directory[0] ? arena_str(a, str_c(directory)) : STR("");
    ret_source->config_directory = kept;
    if (!setgid_elevated())
        return;
    clean_environment();
    if (kept.n > 0)
        must_be_authorized(kept, a);
    else
        ret_source->config_directory = STR(BUILD_CONFIG_DIRECTORY);
}
