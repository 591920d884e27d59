#include "qmgr/feedback.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool number(struct str s, double *ret) {
    char text[32];
    s = str_trim(s);
    if (s.n == 0 || s.n >= sizeof text || !(byte_is_digit(s.p[0]) || s.p[0] == '.'))
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    char *end;
    *ret = strtod(text, &end);
    return *end == 0 && isfinite(*ret);
}

bool feedback_parse(struct str s, struct feedback *ret) {
    struct feedback f = { .kind = FEEDBACK_CONSTANT };
    struct str over = STR("");
    ptrdiff_t slash = str_index(s, '/');
    if (slash >= 0) {
        over = str_trim(str_from(s, (size_t)slash + 1));
        s = str_sub(s, 0, (size_t)slash);
    }
    if (!number(s, &f.value))
        return false;
    double divisor;
    if (str_eq(over, STR("concurrency"))) {
        f.kind = FEEDBACK_BY_CONCURRENCY;
    } else if (str_eq(over, STR("sqrt_concurrency"))) {
        f.kind = FEEDBACK_BY_SQRT;
    } else if (slash >= 0) {
        if (!number(over, &divisor) || divisor <= 0)
            return false;
        f.value /= divisor;
    }
    if (f.value < 0 || f.value > 1)
        return false;
    *ret = f;
    return true;
}

double feedback_amount(const struct feedback *f, unsigned concurrency) {
    double c = concurrency ? concurrency : 1;
    switch (f->kind) {
    case FEEDBACK_BY_CONCURRENCY:
        return f->value / c;
    case FEEDBACK_BY_SQRT:
        return f->value / sqrt(c);
    case FEEDBACK_CONSTANT:
        break;
    }
    return f->value;
}
