/* Fuzz: rule tables. Engine and key are the first two lines; the rest is the rule file. No file is touched: the rules
 * are given in the table's name. */
#include "base/buf.h"
#include "base/log.h"
#include "table/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_MAX = 1000 };

static void no_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag, (void)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > FUZZ_MAX)
        return 0;
    log_set_sink(no_log, NULL);
    struct str in = str_n((const char *)data, size), engine, key, rule, value;
    if (!str_next(&in, STR("\n"), &engine) || !str_next(&in, STR("\n"), &key))
        return 0;
    struct arena *a = arena_new();
    const char *type = str_starts(engine, STR("p")) ? "pcre" : str_starts(engine, STR("c")) ? "cidr" : "regexp";
    struct buf spec = { 0 };
    buf_printf(&spec, "%s:{ ", type);
    if (str_starts(in, STR("{"))) { /* the inline form itself */
        buf_add(&spec, in);
    } else {
        while (str_next(&in, STR("\n"), &rule)) {
            buf_byte(&spec, '{');
            buf_add(&spec, rule);
            buf_add(&spec, STR("} "));
        }
        buf_byte(&spec, '}');
    }
    struct table *t = table_open(NULL, buf_str(&spec), 0);
    table_get(t, key, a, &value);
    table_get(t, STR("10.0.0.1"), a, &value);
    table_close(t);
    buf_free(&spec);
    arena_free(a);
    return 0;
}
