#include "base/format.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

enum { DIGITS_MAX = 24 /* of a 64-bit number in base 8 */, WIDTH_MAX = 20 };

struct out {
    char *p;
    size_t room, n; /* n: also what had no room */
};

static void add(struct out *o, const char *p, size_t n) {
    if (o->n < o->room) {
        size_t left = o->room - o->n;
        memcpy(o->p + o->n, p, n < left ? n : left);
    }
    o->n += n;
}

enum size { INT, LONG, LONG_LONG, SIZE };

/* One conversion: what stands behind the '%'. */
struct conversion {
    size_t zeros_to;  /* least number of characters, filled with zeros */
    size_t precision; /* of %s */
    bool has_precision;
    enum size size;
};

static const char *read_modifiers(const char *f, struct conversion *c, va_list *ap) {
    *c = (struct conversion){ 0 };
    if (*f == '0') {
        for (f++; *f >= '0' && *f <= '9' && c->zeros_to <= WIDTH_MAX; f++)
            c->zeros_to = c->zeros_to * 10 + (size_t)(*f - '0');
        if (c->zeros_to > WIDTH_MAX)
            return NULL;
    } else if (*f == '.') {
        c->has_precision = true;
        f++;
        if (*f == '*') {
            int n = va_arg(*ap, int);
            if (n < 0)
                return NULL;
            c->precision = (size_t)n;
            f++;
        }
        for (; *f >= '0' && *f <= '9' && c->precision < INT_MAX / 10; f++)
            c->precision = c->precision * 10 + (size_t)(*f - '0');
    }
    if (*f == 'z') {
        c->size = SIZE;
        f++;
    }
    for (; *f == 'l' && c->size < LONG_LONG; f++)
        c->size++;
    return f;
}

static void add_number(struct out *o, const struct conversion *c, uint64_t value, unsigned base, bool negative) {
    char digits[DIGITS_MAX + WIDTH_MAX], *p = digits + sizeof digits;
    do {
        *--p = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    size_t sign = negative;
    while ((size_t)(digits + sizeof digits - p) + sign < c->zeros_to)
        *--p = '0';
    if (negative)
        *--p = '-';
    add(o, p, (size_t)(digits + sizeof digits - p));
}

static int64_t fetch_signed(enum size size, va_list *ap) {
    switch (size) {
    case LONG:
        return va_arg(*ap, long);
    case LONG_LONG:
        return va_arg(*ap, long long);
    case SIZE:
        return va_arg(*ap, ssize_t);
    case INT:
        break;
    }
    return va_arg(*ap, int);
}

static uint64_t fetch_unsigned(enum size size, va_list *ap) {
    switch (size) {
    case LONG:
        return va_arg(*ap, unsigned long);
    case LONG_LONG:
        return va_arg(*ap, unsigned long long);
    case SIZE:
        return va_arg(*ap, size_t);
    case INT:
        break;
    }
    return va_arg(*ap, unsigned);
}

/* False: the C library has to say what comes of it. */
static bool convert(struct out *o, char kind, const struct conversion *c, va_list *ap) {
    if (c->has_precision && kind != 's')
        return false;
    if (kind == 's') {
        const char *s = va_arg(*ap, const char *);
        if (c->zeros_to || c->size != INT || (!s && (!c->has_precision || c->precision > 0)))
            return false;
        if (s)
            add(o, s, c->has_precision ? strnlen(s, c->precision) : strlen(s));
        return true;
    }
    if (kind == 'd' || kind == 'i') {
        int64_t value = fetch_signed(c->size, ap);
        add_number(o, c, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10, value < 0);
        return true;
    }
    if (kind == 'u' || kind == 'x') {
        add_number(o, c, fetch_unsigned(c->size, ap), kind == 'x' ? 16 : 10, false);
        return true;
    }
    if (kind == 'c' && !c->zeros_to && c->size == INT) {
        char byte = (char)va_arg(*ap, int);
        add(o, &byte, 1);
        return true;
    }
    return false;
}

static bool convert_all(struct out *o, const char *format, va_list *ap) {
    for (;;) {
        const char *percent = strchr(format, '%');
        if (!percent) {
            add(o, format, strlen(format));
            return o->n <= INT_MAX;
        }
        add(o, format, (size_t)(percent - format));
        if (percent[1] == '%') {
            add(o, "%", 1);
            format = percent + 2;
            continue;
        }
        struct conversion c;
        const char *kind = read_modifiers(percent + 1, &c, ap);
        if (!kind || !convert(o, *kind, &c, ap))
            return false;
        format = kind + 1;
    }
}

int format_v(char *to, size_t room, const char *format, va_list ap) {
    struct out o = { .p = to, .room = room };
    va_list again;
    va_copy(again, ap);
    bool done = convert_all(&o, format, &again);
    va_end(again);
    if (!done)
        return vsnprintf(to, room, format, ap);
    if (room)
        to[o.n < room ? o.n : room - 1] = 0;
    return (int)o.n;
}
