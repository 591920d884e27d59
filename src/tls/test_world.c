#include "tls/test_world.h"

#include "base/die.h"
#include "base/log.h"

enum { SETTINGS_MAX = 32 };

static void keep(void *ctx, enum log_level level, struct str tag, struct str text) {
    struct test_world *w = ctx;
    (void)tag;
    buf_add(&w->log, log_level_prefix(level));
    buf_add(&w->log, text);
    buf_byte(&w->log, '\n');
}

void test_world_begin(struct test_world *w, const char *settings, bool mandatory) {
    *w = (struct test_world){ .arena = arena_new() };
    struct conf_override overrides[SETTINGS_MAX];
    size_t n = 0;
    struct str rest = arena_str(w->arena, str_c(settings)), line;
    while (n < SETTINGS_MAX && str_word(&rest, STR("\n"), &line)) {
        ptrdiff_t eq = str_index(line, '=');
        overrides[n++] = (struct conf_override){ str_trim(str_sub(line, 0, (size_t)eq)),
                                                 arena_str(w->arena, str_trim(str_from(line, (size_t)eq + 1))) };
    }
    struct conf_source source = { .config_directory = STR("/nonexistent"),
                                  .overrides = overrides,
                                  .override_count = n,
                                  .process_name = STR("smtpd"),
                                  .service_name = STR("smtp"),
                                  .missing_is_empty = true };
    error e = conf_load(&source, w->arena, &w->conf);
    if (e)
        die("%.*s", STR_ARG(e->text));
    log_set_sink(keep, w);
    w->server = tls_server_open(w->conf, &tls_smtpd_params, STR("smtp"), mandatory, 0);
}

void test_world_end(struct test_world *w) {
    tls_server_close(w->server);
    conf_free(w->conf);
    arena_free(w->arena);
    buf_free(&w->log);
    log_set_sink(NULL, NULL);
}

bool test_logged(const struct test_world *w, const char *text) {
    return str_contains(buf_str(&w->log), str_c(text));
}
