#include "queue/log.h"

#include <inttypes.h>
#include <stdio.h>

enum { NUMBER_DIGITS = 16 };

void log_name(const char *prefix, uint64_t number, char ret[LOG_NAME_MAX]) {
    snprintf(ret, LOG_NAME_MAX, "log/%s%0*" PRIx64, prefix, NUMBER_DIGITS, number);
}

bool log_number(const char *name, const char *prefix, uint64_t *ret) {
    struct str s = str_c(name);
    if (!str_starts(s, str_c(prefix)))
        return false;
    s = str_from(s, strlen(prefix));
    if (s.n != NUMBER_DIGITS)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) /* one spelling a number */
            return false;
        v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (v == 0)
        return false;
    *ret = v;
    return true;
}
