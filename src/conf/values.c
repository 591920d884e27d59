#include "conf/values.h"
#include "conf/lines.h"

#include <inttypes.h>
#include <limits.h>

static const struct {
    char unit;
    int64_t seconds;
} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 } };

static bool is_yes_no(struct str text, int64_t *ret) {
    if (str_eq_icase(text, STR("yes")))
        *ret = 1;
    else if (str_eq_icase(text, STR("no")))
        *ret = 0;
    else
        return false;
    return true;
}

/* An optional sign, then digits. */
static bool number_parse(struct str text, int64_t min, int64_t max, int64_t *ret) {
    struct str s = text;
    if (s.n && s.p[0] == '+') {
        s = str_from(s, 1);
        if (s.n && s.p[0] == '-')
            return false;
    }
    return str_to_i64(s, min, max, ret);
}

bool time_parse(struct str text, char default_unit, int64_t *ret) {
    struct str s = text;
    if (s.n && s.p[0] == '+')
        s = str_from(s, 1);
    size_t n = 0;
    while (n < s.n && byte_is_digit(s.p[n]))
        n++;
    uint64_t count;
    if (!str_to_u64(str_sub(s, 0, n), INT_MAX, &count))
        return false;
    char unit = n < s.n ? s.p[n] : default_unit;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (units[i].unit != unit)
            continue;
        int64_t seconds = (int64_t)count * units[i].seconds;
        if (seconds > INT_MAX)
            return false;
        *ret = seconds;
        return true;
    }
    return false;
}

const char *hostname_problem(struct str name) {
    enum { NAME_MAX_BYTES = 255, LABEL_MAX_BYTES = 63 };
    if (!name.n)
        return "empty hostname";
    if (name.n > NAME_MAX_BYTES)
        return "bad length";
    size_t label = 0;
    bool numeric = true;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (byte_is_alnum(c) || c == '_' || (unsigned char)c >= 0x80) {
            if (++label > LABEL_MAX_BYTES)
                return "bad label length";
            if (!byte_is_digit(c))
                numeric = false;
        } else if (c == '.') {
            if (label == 0 || i + 1 == name.n || name.p[i - 1] == '-')
                return "misplaced delimiter";
            label = 0;
        } else if (c == '-') {
            if (label++ == 0 || i + 1 == name.n)
                return "misplaced hyphen";
            numeric = false;
        } else {
            return "invalid character";
        }
    }
    return numeric ? "numeric hostname" : NULL;
}

static error check_number(const struct param_row *row, struct str name, int64_t n, struct arena *a) {
    if (row->min && n < row->min)
        return row->type == TYPE_TIME
                   ? err_make(a, ERR_CONFIG, "invalid %.*s: %" PRId64 " (min %" PRId64 ")", STR_ARG(name), n, row->min)
                   : err_make(a, ERR_CONFIG, "invalid %.*s parameter value %" PRId64 " < %" PRId64, STR_ARG(name), n,
                              row->min);
    if (row->max && n > row->max)
        return row->type == TYPE_TIME
                   ? err_make(a, ERR_CONFIG, "invalid %.*s: %" PRId64 " (max %" PRId64 ")", STR_ARG(name), n, row->max)
                   : err_make(a, ERR_CONFIG, "invalid %.*s parameter value %" PRId64 " > %" PRId64, STR_ARG(name), n,
                              row->max);
    return NULL;
}

static error check_length(const struct param_row *row, struct str name, struct str text, struct arena *a) {
    int64_t n = (int64_t)text.n;
    if (row->min && n < row->min)
        return err_make(a, ERR_CONFIG, "bad string length %" PRId64 " < %" PRId64 ": %.*s = %.*s", n, row->min,
                        STR_ARG(name), STR_ARG(conf_excerpt(text, a)));
    if (row->max && n > row->max)
        return err_make(a, ERR_CONFIG, "bad string length %" PRId64 " > %" PRId64 ": %.*s = %.*s", n, row->max,
                        STR_ARG(name), STR_ARG(conf_excerpt(text, a)));
    return NULL;
}

error value_convert(const struct param_row *row, struct str name, struct str text, struct arena *a, int64_t *ret) {
    *ret = 0;
    /* a conditional may leave blanks: ${stress? { 1 } : { 20 }} */
    struct str trimmed = str_trim(text);
    switch (row->type) {
    case TYPE_STRING:
    case TYPE_RAW:
        return check_length(row, name, text, a);
    case TYPE_BOOL:
        if (!is_yes_no(trimmed, ret))
            return err_make(a, ERR_CONFIG, "bad boolean configuration: %.*s = %.*s", STR_ARG(name),
                            STR_ARG(conf_excerpt(text, a)));
        return NULL;
    case TYPE_INT:
        if (!number_parse(trimmed, INT_MIN, INT_MAX, ret))
            return err_make(a, ERR_CONFIG, "bad numerical configuration: %.*s = %.*s", STR_ARG(name),
                            STR_ARG(conf_excerpt(text, a)));
        return check_number(row, name, *ret, a);
    case TYPE_LONG:
        if (!number_parse(trimmed, INT64_MIN, INT64_MAX, ret))
            return err_make(a, ERR_CONFIG, "bad numerical configuration: %.*s = %.*s", STR_ARG(name),
                            STR_ARG(conf_excerpt(text, a)));
        return check_number(row, name, *ret, a);
    case TYPE_TIME:
        if (!time_parse(trimmed, row->unit, ret))
            return err_make(a, ERR_CONFIG, "parameter %.*s: bad time value or unit: %.*s", STR_ARG(name),
                            STR_ARG(conf_excerpt(text, a)));
        return check_number(row, name, *ret, a);
    }
    return err_make(a, ERR_CONFIG, "parameter %.*s: no such type", STR_ARG(name));
}
