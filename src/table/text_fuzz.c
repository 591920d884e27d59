/* Fuzz: table files, in both forms. The first byte chooses. */
#include "base/die.h"
#include "base/log.h"
#include "table/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void no_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag, (void)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    log_set_sink(no_log, NULL);
    struct arena *a = arena_new();
    struct text_reader r = { .file = STR("fuzz"),
                             .lines = { .rest = str_n((const char *)data + 1, size - 1) },
                             .flags = data[0] & 7u,
                             .ignoring = "" };
    struct dictionary d = { 0 };
    dictionary_read(&d, &r, a);
    for (size_t i = 0; i < d.n; i++)
        if (d.at[i].key.n == 0 || d.at[i].value.n == 0 || str_index(d.at[i].key, 0) >= 0 ||
            str_index(d.at[i].value, 0) >= 0 || map_get(&d.map, d.at[i].key) != &d.at[i])
            die("bad entry");
    dictionary_free(&d);
    arena_free(a);
    return 0;
}
