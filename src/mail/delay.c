#include "mail/date.h"

/* The value is rounded to the larger of two units: its second significant digit, and the resolution limit; never to
 * more than whole seconds. Zeros at the end of the fraction are not shown. */
struct str delay_format(struct arena *a, int64_t us, int resolution_limit) {
    enum { DIGITS_MAX = 6 };
    static const int64_t powers[DIGITS_MAX + 1] = { 1, 10, 100, 1000, 10000, 100000, 1000000 };
    if (us < 0)
        us = 0;
    int limit = resolution_limit < 0 ? 0 : resolution_limit > DIGITS_MAX ? DIGITS_MAX : resolution_limit;
    int digits = 0; /* behind the point */
    while (digits < limit && us < 10 * powers[DIGITS_MAX - digits])
        digits++;
    int64_t unit = powers[DIGITS_MAX - digits];
    int64_t rounded = us / unit + (us % unit >= unit - unit / 2 ? 1 : 0);
    if (unit == 1)
        rounded = us;
    int64_t whole = rounded / powers[digits], fraction = rounded % powers[digits];
    while (digits > 0 && fraction % 10 == 0) {
        fraction /= 10;
        digits--;
    }
    if (digits == 0)
        return arena_printf(a, "%lld", (long long)whole);
    return arena_printf(a, "%lld.%0*lld", (long long)whole, digits, (long long)fraction);
}
