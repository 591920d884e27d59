/* format.h - vsnprintf() for what our formats are made of, without its price: a relayed message is some hundred
 * conversions.
 *
 * %s %.*s %.Ns %c %d %u %ld %lu %lld %llu %zu %x and their kind, with "0N" in front of a number's width, are done here.
 * A format with anything else in it is the C library's as a whole. The result is the same, also in its length when
 * there is no room; where the C library fails (a result over INT_MAX bytes), so does this. */
#ifndef ANGARIUM_BASE_FORMAT_H
#define ANGARIUM_BASE_FORMAT_H

#include <stdarg.h>
#include <stddef.h>

int format_v(char *to, size_t room, const char *format, va_list ap) __attribute__((format(printf, 3, 0)));
#endif
