#include "conf/main_cf.h"
#include "conf/lines.h"

/* assignment = *WSP name *WSP "=" *WSP [ value ] *WSP     ; a name holds neither white space nor "=" */
const char *assignment_split(struct str text, struct str *ret_name, struct str *ret_value) {
    struct str s = str_trim_left(text);
    size_t n = 0;
    while (n < s.n && s.p[n] != '=' && !byte_is_space(s.p[n]))
        n++;
    if (n == 0)
        return "missing attribute name";
    struct str name = str_sub(s, 0, n);
    s = str_trim_left(str_from(s, n));
    if (!s.n || s.p[0] != '=')
        return "missing '=' after attribute name";
    *ret_name = name;
    *ret_value = str_trim(str_from(s, 1));
    return NULL;
}

error main_cf_parse(struct str text, struct str path, struct arena *a, struct main_cf *ret) {
    *ret = (struct main_cf){ 0 };
    struct lines lines = { text, path, 0, a };
    for (;;) {
        struct logical_line line;
        error e = lines_next(&lines, &line);
        if (e)
            return e;
        if (!line.line)
            return NULL;
        if (byte_is_space(line.text.p[0])) {
            *vec_add(a, &ret->warnings) = arena_printf(a, "%.*s: logical line must not start with whitespace: \"%.*s\"",
                                                       STR_ARG(path), STR_ARG(conf_excerpt(line.text, a)));
            continue;
        }
        struct str name, value;
        const char *wrong = assignment_split(line.text, &name, &value);
        if (wrong)
            return err_make(a, ERR_CONFIG, "%.*s, line %zu: %s: \"%.*s\"", STR_ARG(path), line.line, wrong,
                            STR_ARG(conf_excerpt(line.text, a)));
        if (ret->settings.n == MAIN_CF_SETTINGS_MAX)
            return err_make(a, ERR_CONFIG, "%.*s, line %zu: more than %d settings", STR_ARG(path), line.line,
                            MAIN_CF_SETTINGS_MAX);
        *vec_add(a, &ret->settings) = (struct setting){ arena_str(a, name), arena_str(a, value), line.line };
    }
}
