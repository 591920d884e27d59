#include "bounce/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct conf *c; /* the same for all inputs */
    struct arena *a = arena_new();
    struct bounce_templates t;
    struct conf_source source = { .config_directory = STR("/nonexistent"), .missing_is_empty = true };
    if (c || !conf_load(&source, a, &c)) {
        if (!bounce_templates_parse((struct str){ (const char *)data, size }, STR("F"), a, &t)) {
            struct str text;
            for (int kind = 0; kind < TEMPLATE_COUNT; kind++)
                bounce_template_expand(&t, (enum template_kind)kind, c, a, &text);
        }
    }
    arena_free(a);
    return 0;
}
