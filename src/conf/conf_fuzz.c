/* A whole configuration: main.cf, then a line "%%", then master.cf. Everything that is expanded, converted and
 * reviewed. */
#include "conf/review.h"
#include "conf/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[] = "/tmp/angarium-conf-fuzz-XXXXXX";
static char path[sizeof directory + 16];

static void clean_up(void) {
    unlink(path);
    rmdir(directory);
}

static void set_up(void) {
    if (path[0])
        return;
    if (!mkdtemp(directory))
        abort();
    snprintf(path, sizeof path, "%s/main.cf", directory);
    atexit(clean_up);
}

static void use(struct conf *c, struct str master, struct arena *a) {
    const struct setting **list;
    size_t n = conf_settings(c, a, &list);
    for (size_t i = 0; i < n && i < 50; i++) {
        struct str value;
        conf_expand(c, list[i]->value, a, &value);
        conf_lookup(c, list[i]->name, a, &value);
    }
    struct master_cf services;
    bool has_services = !master_cf_parse(master, STR("master.cf"), false, 100, a, &services);
    const struct finding *found;
    conf_review(c, has_services ? &services : NULL, a, &found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 8192)
        return 0;
    set_up();
    struct str main_cf = { (const char *)data, size }, master = STR("");
    const void *separator = memmem(data, size, "%%\n", 3);
    if (separator) {
        size_t at = (size_t)((const char *)separator - main_cf.p);
        master = str_from(main_cf, at + 3);
        main_cf = str_sub(main_cf, 0, at);
    }
    FILE *f = fopen(path, "w");
    if (!f)
        abort();
    fwrite(main_cf.p, 1, main_cf.n, f);
    fclose(f);
    struct arena *a = arena_new();
    struct conf_source source = { .config_directory = str_c(directory), .process_name = STR("fuzz") };
    struct conf *c;
    if (!conf_open(&source, a, &c)) {
        use(c, master, a);
        conf_free(c);
    }
    if (!conf_load(&source, a, &c))
        conf_free(c);
    arena_free(a);
    return 0;
}
