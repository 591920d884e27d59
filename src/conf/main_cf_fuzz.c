/* main.cf as a whole: lines, settings, the comparison of names, and the conversion of every value to every type. */
#include "base/str.h"
#include "conf/main_cf.h"
#include "conf/suggest.h"
#include "conf/values.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena *a = arena_new();
    struct main_cf got;
    if (!main_cf_parse((struct str){ (const char *)data, size }, STR("main.cf"), a, &got)) {
        static const enum param rows[] = { PARAM_message_size_limit, PARAM_biff, PARAM_delay_warning_time,
                                           PARAM_mail_name, PARAM_line_length_limit };
        for (size_t i = 0; i < got.settings.n && i < 50; i++) {
            const struct setting *s = &got.settings.at[i];
            int64_t number;
            for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++)
                value_convert(param_row(rows[j]), s->name, s->value, a, &number);
            hostname_problem(s->value);
            suggest_param(s->name, a);
        }
    }
    arena_free(a);
    return 0;
}
